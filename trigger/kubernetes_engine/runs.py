"""The runs of one instance as its engine knows them: what the mirrors tell becomes levels, and levels become deeds.

Every change of a run leads to one look at it (`assess`), and the look to at most one thing that is under way for it.
What is known here can be thrown away at any moment: it is all in the Jobs, and another controller comes to the same
conclusions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from invoker.result import Reason
from trigger.engine import Phase, RunStatus
from trigger.kubernetes_engine import actions, names
from trigger.kubernetes_engine.api import Api
from trigger.kubernetes_engine.assess import Assessment, Rules, Todo, assess
from trigger.kubernetes_engine.attempts import attempts_of
from trigger.kubernetes_engine.background import Background, Step, until_done
from trigger.kubernetes_engine.conclusion import Evidence, reads_log, reads_output, run_end
from trigger.kubernetes_engine.evidence import read_evidence
from trigger.kubernetes_engine.hearing import Hearing, Streams
from trigger.kubernetes_engine.run import KnownRun
from trigger.kubernetes_engine.status import JobEnd, PodView, Stop, pod_view, run_job, still
from trigger.levels import Watcher

SOONEST_LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Care:
    """How runs are looked after. `unclaimed_seconds`: for so long another controller's run is left to that one."""

    instance: str
    rules: Rules = field(default_factory=Rules)
    unclaimed_seconds: float = 15.0


class Runs:
    """The table of known runs; changed from the event loop only, by whole steps without an await in between."""

    def __init__(
        self,
        api: Api,
        care: Care,
        background: Background,
        now: Callable[[], datetime],
        doubt_code: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._api = api
        self._care = care
        self._background = background
        self._now = now
        self._doubt_code = doubt_code
        self._runs: dict[str, KnownRun] = {}
        self._pods: dict[str, dict[str, PodView]] = {}
        self._released: set[str] = set()
        self._has_pods = False
        self._watchers: set[Watcher] = set()
        self._streams = Streams()

    def get(self, run_id: str) -> KnownRun | None:
        return self._runs.get(run_id)

    def open_watcher(self) -> Watcher:
        """A reader of levels: the present ones first."""
        watcher = Watcher([run.told for run in self._runs.values() if run.told is not None])
        self._watchers.add(watcher)
        return watcher

    def close_watcher(self, watcher: Watcher) -> None:
        self._watchers.discard(watcher)

    def close(self) -> None:
        for run in self._runs.values():
            run.forget_plans()

    # what is asked of a run

    def claim(self, run: KnownRun) -> None:
        """The run is this controller's to look after; its end is told again if there is one."""
        run.is_ours = True
        if run.end is not None and run.told is not None:
            self._tell_watchers(run.told)
        self.look(run)

    def tell_unknown(self, run_id: str) -> None:
        """Nothing of the run is there, or it was released: whoever asks for it finds its result."""
        self._tell_watchers(RunStatus(run_id, Phase.ENDED))

    def stop(self, run: KnownRun, stop: Stop) -> None:
        """End the run with this word, unless it has ended or was given one before."""
        if run.end is None and run.job.stop is None and run.job.end is None and not run.is_gone:
            run.is_ours, run.wish = True, stop
            self.look(run)
        else:
            self.claim(run)

    async def stop_unknown(self, run_id: str, stop: Stop) -> None:
        """End a run whose Job was not seen here: perhaps another controller made it a moment ago. Looked at first: a
        run that was refused because a stranger's Job has its name is stopped too, and that Job is not to be."""
        if run_id in self._released:
            self.tell_unknown(run_id)
            return
        name = names.job_name(self._care.instance, run_id)
        job = await self._api.get_job(name)
        if job is not None and run_job(job, self._care.instance, run_id) is not None:
            job = await actions.stop_job(self._api, name, stop)
            if job is not None:
                self.job_seen(job)
        run = self._runs.get(run_id)
        if run is None:
            self.tell_unknown(run_id)
        else:
            self.claim(run)

    def release(self, run_id: str) -> None:
        """Forget the run, and let go of its Job and pods."""
        run = self._runs.pop(run_id, None)
        if run is None:
            return
        run.forget_plans()
        if not run.pods:
            self._pods.pop(run_id, None)
        for watcher in self._watchers:
            watcher.forget(run_id)
        run.tell_readers()
        if not run.is_gone:
            self._released.add(run_id)  # until the mirror has seen it, or its Job would look like a new one's
            job, pods = run.job, run.all_pods()
            self._background.insist(lambda: actions.release_job(self._api, job, pods), job.ids())

    # what the mirrors tell

    def job_seen(self, item: dict[str, Any], *, is_gone: bool = False) -> None:
        view = run_job(item, self._care.instance)
        if view is None:
            return
        if view.run_id in self._released:
            if is_gone or not view.is_held:
                self._released.discard(view.run_id)
            return
        run = self._runs.get(view.run_id)
        if run is None:
            if is_gone or not view.is_held:
                return  # released: another one's, or forgotten here
            since = asyncio.get_running_loop().time()
            run = self._runs[view.run_id] = KnownRun(view, self._pods.setdefault(view.run_id, {}), since)
        elif view.version < run.job.version and not is_gone:
            return  # an answer that was overtaken by the watch
        run.job, run.is_gone = view, is_gone
        if not view.is_held and not is_gone and not self._is_still_ours(run):
            self._forget(run)
        else:
            self.look(run)

    def pod_seen(self, item: dict[str, Any], *, is_gone: bool = False) -> None:
        view = pod_view(item)
        if view is None:
            return
        known = self._pods.get(view.run_id, {}).get(view.name)
        if known is not None and view.version < known.version and not is_gone:
            return
        if is_gone:
            self._pod_gone(still(view, known))
            return
        self._pods.setdefault(view.run_id, {})[view.name] = still(view, known)
        if (run := self._runs.get(view.run_id)) is not None:
            self.look(run)

    def jobs_listed(self, there: set[str]) -> None:
        """Jobs that a list did not have may be newer than it: only the API server knows whether they are there."""
        self._released = {one for one in self._released if names.job_name(self._care.instance, one) in there}
        for run in list(self._runs.values()):
            if run.job.name not in there and not run.is_gone:
                self._background.insist(partial(self._confirm_gone, run), run.job.ids())

    def pods_listed(self, there: set[str]) -> None:
        if not self._has_pods:
            self._has_pods = True
            for run in list(self._runs.values()):
                self.look(run)
        for pod in [pod for pods in self._pods.values() for pod in pods.values() if pod.name not in there]:
            self._background.insist(partial(self._confirm_pod_gone, pod), {"run_id": pod.run_id})

    async def _confirm_gone(self, run: KnownRun) -> None:
        job = await self._api.get_job(run.job.name)
        if job is not None and run_job(job, self._care.instance, run.run_id) is not None:
            self.job_seen(job)
        elif self._runs.get(run.run_id) is run:
            run.is_gone = True
            self.look(run)

    async def _confirm_pod_gone(self, pod: PodView) -> None:
        item = await self._api.get_pod(pod.name)
        if item is not None:
            self.pod_seen(item)
        else:
            self._pod_gone(pod)

    def _pod_gone(self, pod: PodView) -> None:
        pods = self._pods.get(pod.run_id, {})
        pods.pop(pod.name, None)
        run = self._runs.get(pod.run_id)
        if run is not None:
            run.lose_pod(pod)
            self.look(run)
        elif not pods:
            self._pods.pop(pod.run_id, None)

    def _is_still_ours(self, run: KnownRun) -> bool:
        """Whether a Job without our finalizer is still to be ended: somebody took it off by hand while it ran."""
        return run.is_ours and run.end is None and run.job.end is None

    def _forget(self, run: KnownRun) -> None:
        run.forget_plans()
        self._runs.pop(run.run_id, None)
        if not run.pods:
            self._pods.pop(run.run_id, None)
        run.tell_readers()

    # one look

    def look(self, run: KnownRun) -> None:
        """Come to a conclusion about the run and act on it. Safe to call at any moment, as often as one likes."""
        if run.end is not None or self._runs.get(run.run_id) is not run:
            return
        if run.timer is not None:
            run.timer.cancel()
            run.timer = None
        patience = 0.0 if run.is_ours else self._care.unclaimed_seconds
        found = self._assess(run, patience)
        self._tell(run, run.status(found.phase, found.attempts, self._api.namespace))
        if found.look_again_at is not None:
            self._look_later(run, (found.look_again_at - self._now()).total_seconds() + patience)
        self._attend(run)
        self._act(run, found)

    def _attend(self, run: KnownRun) -> None:
        """Listen to what is read of it later: a log loses its beginning while it grows."""
        live = _speaker(run) if run.is_ours else None
        seconds = None if live is None else self._hearing(run).attend(run.job, live, self._now())
        if seconds is not None:
            self._look_later(run, seconds)

    def _hearing(self, run: KnownRun) -> Hearing:
        if run.hearing is None:
            ids, insist = run.job.ids(), self._background.insist
            remember = partial(actions.remember_printed, self._api, run.job.name)
            run.hearing = Hearing(self._api, self._streams, lambda text: insist(lambda: remember(text), ids))
        return run.hearing

    def _assess(self, run: KnownRun, patience: float = 0.0) -> Assessment:
        now = self._now() - timedelta(seconds=patience)
        return assess(
            run.job, run.all_pods(), is_gone=run.is_gone, now=now, rules=self._care.rules, asked_at=run.asked_at
        )

    def _act(self, run: KnownRun, found: Assessment) -> None:
        wish = run.wish
        if wish is not None and run.job.stop is None and found.todo in (Todo.NOTHING, Todo.STOP, Todo.EXPLAIN):
            self._begin(run, lambda: self._stop(run, wish))
            return
        match found.todo:
            case Todo.NOTHING:
                return
            case Todo.STOP:
                stop = found.stop or Stop("")
                self._begin(run, lambda: self._stop(run, stop))
            case Todo.DELETE_PODS | Todo.FORCE_PODS:
                by_force = found.todo is Todo.FORCE_PODS
                self._begin(run, lambda: actions.delete_pods(self._api, found.pods, by_force=by_force))
            case Todo.EXPLAIN if self._has_pods:
                self._begin(run, lambda: self._explain(run))
            case Todo.EXPLAIN:
                return
            case Todo.CONCLUDE:
                waited = asyncio.get_running_loop().time() - run.since
                if not run.is_ours and waited < self._care.unclaimed_seconds:
                    self._look_later(run, self._care.unclaimed_seconds - waited)
                elif not self._has_pods or run.work is not None:
                    return  # the list of pods leads to another look, as does the end of what is under way
                elif _tells_all(run):
                    self._conclude(run, Evidence())
                else:
                    self._begin(run, lambda: self._collect(run))

    async def _explain(self, run: KnownRun) -> None:
        refused = await actions.read_refusal(self._api, run.job)
        run.asked_at = self._now()
        if refused is not None and not run.all_pods():
            run.wish = refused

    async def _collect(self, run: KnownRun) -> None:
        """Read what the end is made of from the API server, and not from the mirror, which may be behind."""
        chosen = names.selector(self._care.instance, run.run_id)
        read = await actions.read_pods(self._api, chosen)
        there = {pod.name: still(pod, run.pods.get(pod.name)) for pod in read}
        for pod in [pod for pod in run.pods.values() if pod.name not in there]:
            run.lose_pod(pod)
        run.pods.clear()
        run.pods.update(there)
        if self._assess(run).todo is not Todo.CONCLUDE:
            return  # something of it lives after all; the look that follows sees to that
        loop = asyncio.get_running_loop()
        run.reading_since = run.reading_since or loop.time()
        is_patient = loop.time() < run.reading_since + self._care.rules.node_lost_seconds
        evidence = await read_evidence(self._api, run.job, run.all_pods(), self._hearing(run), is_patient=is_patient)
        self._conclude(run, evidence)

    def _conclude(self, run: KnownRun, evidence: Evidence) -> None:
        pods = run.all_pods()
        attempts = attempts_of(pods, run.job.terms, run.job.stop)
        run.end = run_end(run.job, pods, attempts, evidence, is_gone=run.is_gone)
        if run.end.reason is Reason.CONFIG and run.job.terms.code is not None:
            self._doubt_code(run.job.terms.code)  # somebody may have deleted it
        if run.hearing is not None:
            run.hearing.close()
        self._tell(run, run.status(Phase.ENDED, attempts, self._api.namespace))

    async def _stop(self, run: KnownRun, stop: Stop) -> None:
        live = _speaker(run)
        if live is not None:
            # Before it is told to end: it says its last words then, and is removed with them.
            await self._hearing(run).listen_now(run.job, live, self._now())
        job = await actions.stop_job(self._api, run.job.name, stop)
        if job is None:
            run.is_gone = True
        else:
            self.job_seen(job)

    def _begin(self, run: KnownRun, step: Step) -> None:
        """Do one thing for the run, if nothing is under way for it; afterwards it is looked at again."""
        if run.work is not None:
            return

        async def work() -> None:
            try:
                await until_done(step, run.job.ids())
            finally:
                run.work = None
            self.look(run)

        run.work = self._background.spawn(work())

    def _look_later(self, run: KnownRun, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        seconds = max(SOONEST_LOOK_SECONDS, seconds)
        if run.timer is not None:
            if run.timer.when() <= loop.time() + seconds:
                return
            run.timer.cancel()
        run.timer = loop.call_later(seconds, self.look, run)

    def _tell(self, run: KnownRun, status: RunStatus) -> None:
        if status != run.told:
            run.told = status
            self._tell_watchers(status)
            run.tell_readers()

    def _tell_watchers(self, status: RunStatus) -> None:
        for watcher in self._watchers:
            watcher.put(status)


def _speaker(run: KnownRun) -> PodView | None:
    """The pod whose function runs. Pure."""
    return next((pod for pod in run.pods.values() if pod.main.started_at is not None and not pod.is_over), None)


def _tells_all(run: KnownRun) -> bool:
    """Whether the mirror alone says how the run ended, and nothing of it has to be read. Pure."""
    pods = run.all_pods()
    if reads_log(run.job, pods) or reads_output(run.job, pods) or run.is_gone or run.job.is_deleting:
        return False
    return run.job.end in (None, JobEnd.COMPLETE) and any(pod.phase == "Succeeded" for pod in pods)
