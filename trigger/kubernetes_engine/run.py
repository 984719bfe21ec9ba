"""One run that the engine knows: its Job and pods as they were last seen, its level, and what is under way for it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime

from trigger.engine import AttemptStatus, Phase, RunEnd, RunStatus
from trigger.kubernetes_engine.hearing import Hearing
from trigger.kubernetes_engine.status import JobView, PodView, Stop


class KnownRun:
    """A run whose Job Invoker holds. Changed by the engine only.

    `is_ours`: this controller started it, stopped it or was asked about it; others' runs are only looked after when
    nobody has done so for a while. `work` is the one thing under way for it, `timer` the next look, `wish` what it is
    to be stopped with as soon as nothing else is under way, `asked_at` when it was asked why it has no pod. `hearing`
    listens to it while it runs; `reading_since`: its end has been read for so long.
    """

    __slots__ = (
        "asked_at",
        "end",
        "hearing",
        "is_gone",
        "is_ours",
        "job",
        "news",
        "past",
        "pods",
        "reading_since",
        "run_id",
        "since",
        "timer",
        "told",
        "wish",
        "work",
    )

    def __init__(self, job: JobView, pods: dict[str, PodView], since: float) -> None:
        self.run_id = job.run_id
        self.job = job
        self.pods = pods
        self.past: dict[str, PodView] | None = None
        self.since = since
        self.is_ours = False
        self.is_gone = False
        self.end: RunEnd | None = None
        self.told: RunStatus | None = None
        self.wish: Stop | None = None
        self.asked_at: datetime | None = None
        self.work: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.news: asyncio.Event | None = None
        self.hearing: Hearing | None = None
        self.reading_since = 0.0

    def all_pods(self) -> list[PodView]:
        """The pods there are and those that were."""
        return [*(self.past or {}).values(), *self.pods.values()]

    def lose_pod(self, pod: PodView) -> None:
        """The pod is no longer there. What it was is kept: it was an attempt, and nobody else remembers it."""
        if self.past is None:
            self.past = {}
        self.past[pod.name] = replace(pod, gone=True)

    def status(self, phase: Phase, attempts: tuple[AttemptStatus, ...], namespace: str) -> RunStatus:
        shown = Phase.ENDED if self.end is not None else phase
        return RunStatus(self.run_id, shown, attempts, self.end, f"{namespace}/{self.job.name}")

    def forget_plans(self) -> None:
        """Nothing that is under way for it shall go on."""
        for handle in (self.timer, self.work):
            if handle is not None:
                handle.cancel()
        self.timer = self.work = None
        if self.hearing is not None:
            self.hearing.close()

    def tell_readers(self) -> None:
        """Wake whoever waits for the run to change."""
        if self.news is not None:
            self.news.set()
            self.news = None

    async def change(self) -> None:
        """Wait until the run has changed."""
        if self.news is None:
            self.news = asyncio.Event()
        await self.news.wait()
