"""From an id that somebody typed to what is stored: request ids, run ids, shortened ones, `@latest`.

The id decides where to look, cheapest first: one batch read answers for a full request id, the rest is for people.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from invoker import wire
from invoker.errors import AmbiguousIdError, ExpiredError, UnknownIdError
from invoker.reading import StoredMessage, StreamReader
from invoker.result import RunStatusDocument
from invoker.results.nats import Answers, ResultStream
from invoker.results.store import ResultStore
from invoker.unaccepted import UnacceptedEvents, newest_messages
from invoker.views import DeadLetter, RequestView, RunView, request_view, run_view

LATEST = "@latest"
MIN_SHORTENED = 4
_RECENT_MESSAGES = 20_000
"""How far back a shortened id is looked for: records and results."""
_RUN_ID = re.compile(r"[a-z2-7]{26}")

Sees = Callable[[str, str | None], bool]
"""Whether somebody may see the requests of a topic, or their runs of one function."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an id stands for: a request, or with `function` one run of it."""

    request_id: str
    function: str | None = None


class Lookup:
    """Finds requests and runs of one instance."""

    def __init__(self, reader: StreamReader, results: ResultStream, names: wire.Names) -> None:
        self._reader = reader
        self._results = results
        self._names = names
        self.unaccepted = UnacceptedEvents(reader, names)
        self.store: ResultStore = results
        """What answers for requests: NATS itself, or a copy in front of it."""

    async def view(self, given: str) -> tuple[Found, RequestView]:
        """What the id stands for, and its request as it is now.

        Raises `ExpiredError` (it was there), `UnknownIdError` (nothing of that id; dead letters are named) or
        `AmbiguousIdError`.
        """
        if not given:
            raise UnknownIdError("an empty id stands for nothing", hint="invoker runs list")
        request_id = wire.canonical_id(given)
        if given != LATEST:
            answers = await self.store.answers(request_id)
            if answers.record is not None or answers.results:
                return Found(request_id), await self.view_of(request_id, answers)
        found = await self._find(given, request_id)
        if found is None:
            topic = await self.unaccepted.queued_topic(request_id)
            if topic is not None:
                return Found(request_id), RequestView(request_id, topic, None)
            # It may have been accepted between the two looks: then its record is there now.
            answers = await self.store.answers(request_id)
            if answers.record is None:
                raise await self._missing(given, request_id)
            return Found(request_id), await self.view_of(request_id, answers)
        return found, await self.view_of(found.request_id)

    async def exact(self, given: str) -> RequestView:
        """The request of exactly that id, for programs; raises as `view`, but never finds by a part of the id."""
        request_id = wire.canonical_id(given)
        answers = await self.store.answers(request_id)
        if answers.record is None and not answers.results:
            topic = await self.unaccepted.queued_topic(request_id)
            if topic is not None:
                return RequestView(request_id, topic, None)
            # It may have been accepted between the two looks: then its record is there now.
            answers = await self.store.answers(request_id)
            if answers.record is None:
                raise await self._missing(given, request_id)
        return await self.view_of(request_id, answers)

    async def meant(self, given: str, sees: Sees | None = None) -> Found:
        """What an id stands for that somebody typed: whole, shortened, or `@latest`. Raises as `view`.

        A shortened id and `@latest` are looked for among what `sees` lets through; who gives a whole one knows it.
        """
        request_id = wire.canonical_id(given)
        if given != LATEST:
            answers = await self.store.answers(request_id)
            if answers.record is not None or answers.results:
                return Found(request_id)
        found = await self._find(given, request_id, sees)
        return found if found is not None else Found((await self.exact(given)).request_id)

    async def run_of_id(self, run_id: str, *, before: int | None = None) -> Found | None:
        """Whose run that is, None when there is none. `before` is a sequence: results behind it are known not to be it,
        or None to look at all of them."""
        return await self._run(run_id, before) if _RUN_ID.fullmatch(run_id) else None

    async def is_queued(self, run_id: str) -> bool:
        """Whether the run's message is still there: it goes last, when all else about the run is done."""
        return await self._results.ticket(run_id) is not None

    async def one_run(self, found: Found) -> tuple[RunView, str] | None:
        """The run and its topic as they are now, read without the other runs of its request; None when it is gone."""
        function = found.function or ""
        run_id = wire.run_id_of(found.request_id, function)
        result = await self.store.result(found.request_id, function)
        if result is not None:
            return run_view(found.request_id, function, run_id, result, None), result.topic
        status, record = await asyncio.gather(self._results.status(run_id), self._results.record(found.request_id))
        if record is None or function not in record.functions:
            return None
        return run_view(found.request_id, function, run_id, None, status), record.topic

    async def run(self, given: str, function: str | None = None) -> RunView:
        """One run: of a run id, or of a request id and its function (which may be left out when there is only one)."""
        found, view = await self.view(given)
        return the_run(view, function or found.function)

    async def view_of(self, request_id: str, answers: Answers | None = None) -> RequestView:
        """The request's record, results and latest statuses, joined."""
        answers = answers or await self.store.answers(request_id)
        return request_view(request_id, answers.record, answers.results, await self._statuses(request_id, answers))

    async def accepted_of(self, request_ids: Sequence[str]) -> list[RequestView]:
        """Those of the requests that are accepted, in their order, read together."""
        found = await self._results.accepted_of(request_ids)
        return list(await asyncio.gather(*(self.view_of(one, answers) for one, answers in found.items())))

    async def _statuses(self, request_id: str, answers: Answers) -> dict[str, RunStatusDocument]:
        functions = answers.record.functions if answers.record is not None else ()
        unfinished = [wire.run_id_of(request_id, name) for name in functions if name not in answers.results]
        found = await asyncio.gather(*(self._results.status(run_id) for run_id in unfinished))
        return {status.run_id: status for status in found if status is not None}

    async def _find(self, given: str, request_id: str, sees: Sees | None = None) -> Found | None:
        if given == LATEST:
            return await self._latest(sees)
        if _RUN_ID.fullmatch(given):
            return await self._run(given)
        if request_id == given and wire.time_of_id(given) is None:
            return await self._shortened(given, sees)
        return None

    async def _latest(self, sees: Sees | None = None) -> Found:
        """The newest request that no run caused: what somebody published last, however far its chain has come."""
        if sees is None:
            message = await self._reader.last(self._names.results_stream, self._names.accepted("*"))
            if message is not None and _is_caused(message):
                message = await self._last_begun(None)
        else:
            message = await self._last_begun(sees)
        if message is None:
            raise UnknownIdError("no request has been accepted yet", hint="invoker publish TOPIC DATA")
        return Found(_last_token(message.subject))

    async def _last_begun(self, sees: Sees | None) -> StoredMessage | None:
        """The newest that `sees` lets through and no run caused; when all recent ones are of chains, the newest."""
        newest: StoredMessage | None = None
        subjects = [self._names.accepted("*")]
        async with aclosing(self._reader.backwards(self._names.results_stream, subjects)) as messages:
            looked_at = 0
            async for message in messages:
                looked_at += 1
                if looked_at > _RECENT_MESSAGES:
                    break
                if sees is not None and not sees(wire.header(message.headers, wire.H_TOPIC) or "", None):
                    continue
                if not _is_caused(message):
                    return message
                newest = newest or message
        return newest

    async def _run(self, run_id: str, before: int | None = None) -> Found | None:
        ticket, status = await asyncio.gather(self._results.ticket(run_id), self._results.status(run_id))
        known = ticket or status
        if known is not None:
            return Found(known.request_id, known.function)
        # Finished, and its status lost (it is kept in memory): the result's headers say whose run it was.
        subjects = [self._names.result("*", "*")]
        async for message in self._reader.backwards(self._names.results_stream, subjects, before=before):
            if wire.header(message.headers, wire.H_RUN_ID) == run_id:
                return _found_run(message)
        return None

    async def _shortened(self, given: str, sees: Sees | None = None) -> Found | None:
        by_id = await self._recent(sees)
        one = the_one_fitting(given, by_id)
        return by_id[one] if one is not None else None

    async def _recent(self, sees: Sees | None = None) -> dict[str, Found]:
        """The ids of recent requests and runs, as far as `sees` lets them through."""
        by_id: dict[str, Found] = {}
        topics: dict[str, str] = {}
        subjects = [self._names.accepted("*"), self._names.result("*", "*")]
        looked_at = 0
        async for message in self._reader.backwards(self._names.results_stream, subjects):
            looked_at += 1
            if looked_at > _RECENT_MESSAGES:
                break
            request_id = wire.header(message.headers, wire.H_REQUEST_ID) or ""
            topic = topics[request_id] = wire.header(message.headers, wire.H_TOPIC) or ""
            if sees is None or sees(topic, None):
                by_id.setdefault(request_id, Found(request_id))
            run_id, run = wire.header(message.headers, wire.H_RUN_ID), _found_run(message)
            if run_id and (sees is None or sees(topic, run.function)):
                by_id.setdefault(run_id, run)
        for message in await self._tickets():
            _, _, function, run_id = message.subject.rsplit(".", 3)
            request_id = wire.header(message.headers, wire.H_REQUEST_ID) or ""
            # A ticket does not tell its topic: what is not known from the record is not shown to who may not see all.
            if sees is None or (request_id in topics and sees(topics[request_id], function)):
                by_id.setdefault(run_id, Found(request_id, function))
        return by_id

    async def _tickets(self) -> list[StoredMessage]:
        """The newest messages of RUNS."""
        state = (await self._reader.state(self._names.runs_stream)).state
        return await newest_messages(self._reader, self._names.runs_stream, state.first_seq, state.last_seq)

    async def refuse_dead(self, given: str, request_id: str) -> None:
        """Raise `UnknownIdError`, as `view` does, when the event of that id has become a dead letter, and none of that
        id has been published or accepted since."""
        letter = await self.unaccepted.dead_letter(request_id)
        if letter is None or await self.unaccepted.queued_topic(request_id) is not None:
            return
        if (await self.store.answers(request_id)).record is None:
            raise _is_dead(given, letter)

    async def _missing(self, given: str, request_id: str) -> UnknownIdError:
        info = await self._reader.state(self._names.results_stream)
        letter = await self.unaccepted.dead_letter(request_id)
        if letter is not None:
            return _is_dead(given, letter)
        retention = info.config.max_age or 0.0
        at = wire.time_of_id(request_id)
        if at is not None and retention and at < datetime.now(UTC) - timedelta(seconds=retention):
            return ExpiredError(
                f"request {given} is from {at:%Y-%m-%d %H:%M:%S} UTC; results are kept {retention:g} s",
                at=at.isoformat(),
            )
        return UnknownIdError(f"nothing is known of the id {given!r}", hint="invoker runs list")


def _is_dead(given: str, letter: DeadLetter) -> UnknownIdError:
    return UnknownIdError(
        f"the event {given} could not become a request ({letter.reason}): {letter.message}",
        hint=f"invoker dead show {letter.id}",
        dead_id=letter.id,
        reason=letter.reason,
        topic=letter.topic,
    )


def the_run(view: RequestView, function: str | None) -> RunView:
    """The request's run of that function, which may be None when there is only one. Pure.

    Raises `AmbiguousIdError` or `UnknownIdError`.
    """
    if function is None and len(view.runs) == 1:
        return view.runs[0]
    if function is None:
        names = [run.function for run in view.runs]
        words = f"has {len(names)} runs ({', '.join(names)})" if names else "has no runs"
        raise AmbiguousIdError(
            f"request {view.request_id} {words}: say which function is meant",
            candidates=[run.run_id for run in view.runs],
        )
    run = view.run(function)
    if run is None:
        raise UnknownIdError(f"request {view.request_id} has no run of the function {function!r}")
    return run


def the_one_fitting(given: str, ids: Iterable[str]) -> str | None:
    """The one id that begins or ends with the given text (timed ids differ most at their end), None for none.

    Raises `AmbiguousIdError` naming some when there are several. Less than 4 characters fit nothing.
    """
    if len(given) < MIN_SHORTENED:
        return None
    fitting = sorted({one for one in ids if one.startswith(given) or one.endswith(given)})
    if len(fitting) > 1:
        raise AmbiguousIdError(
            f"{given!r} fits {len(fitting)} ids, such as {', '.join(fitting[:3])}",
            hint="give more of it",
            candidates=fitting[:20],
        )
    return fitting[0] if fitting else None


def _found_run(message: StoredMessage) -> Found:
    request_id = wire.header(message.headers, wire.H_REQUEST_ID) or ""
    return Found(request_id, wire.header(message.headers, wire.H_FUNCTION))


def _is_caused(message: StoredMessage) -> bool:
    return wire.header(message.headers, wire.H_PARENT_RUN_ID) is not None


def _last_token(subject: str) -> str:
    return subject.rpartition(".")[2]
