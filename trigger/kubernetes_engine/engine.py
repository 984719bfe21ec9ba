"""KubernetesEngine: one Job per run, behind the seam of `trigger.engine`.

What it knows of runs is in `runs`; here is how they begin, how they are watched, and what goes on beside them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import structlog

from invoker.errors import EngineUnavailableError, StartRefusedError
from invoker.result import Reason
from trigger.engine import AdoptedRun, LogLine, RunStatus
from trigger.kubernetes_engine import names
from trigger.kubernetes_engine.admission import Admission
from trigger.kubernetes_engine.api import Api, Kind
from trigger.kubernetes_engine.assess import Rules
from trigger.kubernetes_engine.attempts import is_attempt, ordered
from trigger.kubernetes_engine.background import Background
from trigger.kubernetes_engine.code_store import CodeStore
from trigger.kubernetes_engine.failures import ApiFailure, is_quota, is_transient, sentence
from trigger.kubernetes_engine.log import read_lines
from trigger.kubernetes_engine.manifest import ManifestOptions, job_body, job_manifest
from trigger.kubernetes_engine.policy import Policy
from trigger.kubernetes_engine.runs import Care, Runs
from trigger.kubernetes_engine.status import Stop, job_view, run_job
from trigger.kubernetes_engine.watch import Mirror
from trigger.plan import Code, RunPlan

log = structlog.get_logger(component="kubernetes")

CLOSING_SECONDS = 3.0
LIST_SECONDS = 10.0
SETTLE_SECONDS = 60.0
"""Ten thousand Jobs and pods take a busy API server some twenty seconds."""
QUOTA_RETRY_SECONDS = 10.0
"""A run that waits for quota is tried again after so long: thousands may wait, and each try is a call."""


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What an operator chose; `policy` gives what a Job in a namespace may contain.

    `unclaimed_seconds`: for so long a run of another controller is left to that one.
    """

    manifest: ManifestOptions = field(default_factory=ManifestOptions)
    policy: Callable[[str], Policy] = Policy
    rules: Rules = field(default_factory=Rules)
    unclaimed_seconds: float = 15.0
    sweep_seconds: float = 600.0


@dataclass(slots=True)
class _Start:
    """A start under way. `stop` is the word that came meanwhile: no Job is made any more, and one that was is ended."""

    stop: str | None = None


class KubernetesEngine:
    """Runs plans as Jobs in one namespace; an async context manager.

    `functions` gives the catalog's present functions as (name, spec hash, code): their code is kept in the cluster.
    Any number of engines may share a namespace, those of one instance also their Jobs. `api` is opened and closed with
    the engine.
    """

    name = "kubernetes"

    def __init__(
        self,
        api: Api,
        options: EngineOptions | None = None,
        *,
        functions: Callable[[], Iterable[tuple[str, str, Code]]] = tuple,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._api = api
        self._options = options or EngineOptions()
        self._instance = self._options.manifest.instance
        self._functions = functions
        self._now = now
        self._background = Background()
        care = Care(self._instance, self._options.rules, self._options.unclaimed_seconds)
        self._code = CodeStore(api, self._instance)
        self._runs = Runs(api, care, self._background, now, self._code.doubt)
        self._admission = Admission()
        self._starts: dict[str, _Start] = {}
        selector = names.selector(self._instance)
        self._jobs = Mirror(api, Kind.JOB, selector, self._runs.job_seen, self._runs.jobs_listed)
        self._pods = Mirror(api, Kind.POD, selector, self._runs.pod_seen, self._runs.pods_listed)
        self._following: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Begin to follow the cluster. Does not wait for it: without an API server there is an engine with a
        `problem`, that goes on trying."""
        await self._api.__aenter__()
        for step in (self._jobs.follow, self._pods.follow, self._sweep):
            self._following.append(asyncio.create_task(step()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following. Jobs live on: they are what another controller goes on with."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        self._runs.close()
        await self._background.close(patience_seconds=CLOSING_SECONDS)
        await self._api.__aexit__(kind, error, trace)

    @property
    def problem(self) -> str | None:
        """Why the engine does not see the cluster at the moment, in words; None when it does."""
        return self._jobs.problem or self._pods.problem

    async def settle(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._jobs.has_tried.wait()
                await self._pods.has_tried.wait()

    async def start(self, plan: RunPlan) -> None:
        start = self._starts[plan.run_id] = _Start()
        try:
            await self._start(plan, start)
        finally:
            if self._starts.get(plan.run_id) is start:
                del self._starts[plan.run_id]
            if start.stop is not None:
                # Only now: said while the Job may still be made, "nothing of it is there" would be no promise.
                await self.stop(plan.run_id, start.stop)

    async def _start(self, plan: RunPlan, start: _Start) -> None:
        await self._wait_for_list()
        run = self._runs.get(plan.run_id)
        if run is None:
            job = await self._make(plan, start)
            self._runs.job_seen(job)
            run = self._runs.get(plan.run_id)
        if run is None:
            self._runs.tell_unknown(plan.run_id)  # released already
        else:
            self._runs.claim(run)

    async def adopt(self, run_id: str) -> AdoptedRun | None:
        await self._wait_for_list()
        run = self._runs.get(run_id)
        if run is None:
            return None
        self._runs.claim(run)
        job = run.job
        return AdoptedRun(job.spec_hash, job.catalog, job.terms.output, job.terms.runtime, job.created_at)

    def place_of(self, run_id: str) -> str | None:
        return f"{self._api.namespace}/{names.job_name(self._instance, run_id)}"

    async def watch(self) -> AsyncIterator[RunStatus]:
        watcher = self._runs.open_watcher()
        try:
            # Only then the present levels are there. Opened before: what is told meanwhile is told once, and not lost.
            await self._jobs.has_listed.wait()
            while True:
                for status in await watcher.take():
                    yield status
        finally:
            self._runs.close_watcher(watcher)

    async def stop(self, run_id: str, reason: str) -> None:
        run, start = self._runs.get(run_id), self._starts.get(run_id)
        if start is not None:
            start.stop = reason
        elif run is None:
            self._background.insist(lambda: self._runs.stop_unknown(run_id, Stop(reason)), {"run_id": run_id})
        else:
            self._runs.stop(run, Stop(reason))

    async def release(self, run_id: str) -> None:
        self._runs.release(run_id)

    async def logs(self, run_id: str, follow: bool) -> AsyncIterator[LogLine]:
        read: set[str] = set()
        while (run := self._runs.get(run_id)) is not None:
            tries = [pod for pod in ordered(run.all_pods()) if is_attempt(pod)]
            number, pod = next(((n, pod) for n, pod in enumerate(tries, 1) if pod.name not in read), (0, None))
            if pod is not None:
                read.add(pod.name)
                container = names.FUNCTION_CONTAINER if pod.failed_init is None else pod.failed_init[0]
                with suppress(ApiFailure):  # a log that is gone has no lines
                    async for line in read_lines(self._api, pod.name, container, number, follow=follow):
                        yield line
            elif not follow or run.end is not None:
                return
            else:
                await run.change()

    async def sweep_code(self) -> list[str]:
        """Remove the ConfigMaps of code that neither a Job nor the catalog needs, and that nothing needed at the last
        sweep either; returns their names."""
        try:
            jobs = [job_view(item) async for item in self._api.list(Kind.JOB, names.selector(self._instance))]
            used = [view.terms.code for view in jobs if view is not None and view.terms.code is not None]
            removed = await self._code.sweep(used, self._functions())
        except ApiFailure as failure:
            log.warning("code was not swept", error_message=sentence(failure, "sweeping code"))
            return []
        if removed:
            log.info("code removed", config_maps=removed)
        return removed

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(self._options.sweep_seconds)
            await self.sweep_code()

    async def _wait_for_list(self) -> None:
        """After a restart most runs have their Job: whoever waits for the list asks for none of them one by one."""
        if self._jobs.has_listed.is_set():
            return
        try:
            async with asyncio.timeout(LIST_SECONDS):
                await self._jobs.has_listed.wait()
        except TimeoutError:
            raise EngineUnavailableError(self.problem or "the Jobs have not been listed yet") from None

    async def _make(self, plan: RunPlan, start: _Start) -> dict[str, Any]:
        """The run's Job, made now or found. Its code is there before it is: no pod waits for what may never come."""
        code = await self._code.code_of(plan)
        manifest = job_manifest(plan, self._options.manifest, code, self._now())
        self._admission.check(plan, manifest, self._options.policy(self._api.namespace))
        body = job_body(plan, manifest)
        try:
            if code is not None:
                await self._code.ensure(code)
            if start.stop is not None:
                raise EngineUnavailableError("the run was stopped before its Job was made")
            return await self._api.create_job(body, lambda: start.stop is None)
        except ApiFailure as failure:
            if failure.reason != "AlreadyExists":
                raise _refusal(failure, plan) from failure
        return await self._existing(plan, manifest["metadata"]["name"])

    async def _existing(self, plan: RunPlan, name: str) -> dict[str, Any]:
        """The Job of that name, if it is this run's. Never another one's: what it does is not what was asked for."""
        try:
            job = await self._api.get_job(name)
        except ApiFailure as failure:
            raise _refusal(failure, plan) from failure
        if job is None:
            raise EngineUnavailableError(f"the Job {name} was there a moment ago and is not any more")
        if run_job(job, self._instance, plan.run_id) is None:
            raise StartRefusedError(
                f"a Job {self._api.namespace}/{name} is there that Invoker did not make for this run",
                hint=f"look at it with: kubectl -n {self._api.namespace} get job {name} -o yaml",
                reason=str(Reason.REFUSED),
            )
        return job


def _refusal(failure: ApiFailure, plan: RunPlan) -> StartRefusedError | EngineUnavailableError:
    """What a refused or failed start means for the run: it waits, or it ends. Pure."""
    words = sentence(failure, f"the Job of {plan.function}")
    if is_quota(failure):
        return EngineUnavailableError(words, retry_seconds=QUOTA_RETRY_SECONDS)
    if is_transient(failure) or failure.status == 401:
        return EngineUnavailableError(words, retry_seconds=failure.retry_after_seconds or 0.0)
    return StartRefusedError(words, reason=str(Reason.REFUSED))
