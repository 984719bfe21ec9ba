"""Parts of a controller with a rule of custody left out, or that stand still where a history wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nats.js.errors
from nats.js import api

from invoker import wire
from invoker.connection import nats_errors
from invoker.request import RequestRecord
from invoker.results.nats import ResultStream, _parsed
from trigger.controller import Controller
from trigger.custody import HeldRun
from trigger.engine import AdoptedRun
from trigger.local_engine.engine import LocalEngine
from trigger.moments import Moment, Moments
from trigger.plan import RunPlan

NAMES = wire.Names()


class UnfencedResults(ResultStream):
    """Knows of no result: the run API gives every input to everybody."""

    async def result(self, request_id: str, function: str) -> None:
        return None


class LosesPowerAtAck(Moments):
    """The power of a controller that fails between the ack of a run and its release."""

    def reached(self, moment: Moment) -> None:
        if moment is Moment.RUN_ACKED:
            raise asyncio.CancelledError


class Doomed(Controller):
    """Never gets from an ack to the release."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._finisher._moments = LosesPowerAtAck()


class ReleasesOwnOnly(Controller):
    """Does not look at what others left behind."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._keeper.release_ended = _nothing  # type: ignore[method-assign]  # the rule that is left out


async def _nothing() -> None:
    return


class Hesitant(LocalEngine):
    """Answers one of its questions only when it is told to, as one does whose API server is in trouble."""

    def __init__(self, state_dir: Path, question: str) -> None:
        super().__init__(state_dir)
        self._question = question
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def settle(self) -> None:
        await self._hesitate("settle")

    async def start(self, plan: RunPlan) -> None:
        await self._hesitate("start")
        await super().start(plan)

    async def adopt(self, run_id: str) -> AdoptedRun | None:
        await self._hesitate("adopt")
        return await super().adopt(run_id)

    async def _hesitate(self, question: str) -> None:
        if question == self._question:
            self.asked.set()
            await self.may_answer.wait()


class ForgetsStarts(Controller):
    """Does not know which starts are under way."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._dispatcher._ask_to_start = self._only_start  # type: ignore[method-assign]  # the rule that is left out

    async def _only_start(self, held: HeldRun, plan: RunPlan) -> None:
        held.started, held.started_at = True, datetime.now(UTC)
        await self._dispatcher._engine.start(plan)


class Deaf(Controller):
    """Hears of no result that another one stores: what it knows it has looked up."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._follower._notice = lambda *_: None  # type: ignore[method-assign]  # the stream's news, lost on their way


class LooksOnce(Deaf):
    """Believes its first look, however long ago that was."""

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self._dispatcher._is_finished = self._never  # type: ignore[method-assign]  # the rule that is left out

    async def _never(self, held: HeldRun, record: RequestRecord) -> bool:
        return False


class FollowsCatalogOnly(Controller):
    """Has consumers for the functions of its catalog, and for no others."""

    async def _follow_functions(self, *, at_start: bool = False) -> None:
        functions = set(self.catalog.functions)
        await self._dispatcher.follow_catalog(functions, self._make_pull, self._owner(), at_start=at_start)


class RecordsApart(ResultStream):
    """Keeps request records in a stream of their own."""

    STREAM = "RECORDS"

    async def record(self, request_id: str) -> RequestRecord | None:
        with nats_errors("reading a record"):
            try:
                message = await self._js.get_msg(self.STREAM, subject=self._names.accepted(request_id))
            except nats.js.errors.NotFoundError:
                return None
        return _parsed(RequestRecord, message.data)

    @classmethod
    def streams(cls, config: api.StreamConfig) -> Sequence[api.StreamConfig]:
        """RESULTS without the records, which get an age of their own."""
        if config.name != NAMES.results_stream:
            return [config]
        records = replace(config, name=cls.STREAM, subjects=[NAMES.accepted("*")], max_age=3600.0)
        return [records, replace(config, subjects=[NAMES.result("*", "*")], max_age=1.0, duplicate_window=1.0)]
