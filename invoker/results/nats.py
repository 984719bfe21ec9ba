"""The RESULTS stream: request records and results, create-only, and the questions that are asked of them.

What is missing decides only when the stream's leader says so (`record`, `result`): on three replicas a direct get right
after a write misses it now and then. What is there may be read anywhere, since it is stored once and never changes.
`answers` is for pollers and uses one direct batch read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg

from invoker import wire
from invoker.connection import RefusedSubjectError, nats_errors
from invoker.errors import InvokerError
from invoker.request import Document, RequestRecord, RunTicket
from invoker.result import Result, RunStatusDocument

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient
    from nats.js.client import JetStreamContext

WRONG_LAST_SEQUENCE = 10071
"""JetStream's code for "this subject has a message already" when it was published with expected sequence 0."""

_TOO_MANY = "413"
_DIRECT_SECONDS = 5.0
_NEAR_SECONDS = 1.0
"""A replica that hangs must not take longer than this from who can ask the leader."""
_RUNS_AT_ONCE = _REQUESTS_AT_ONCE = 500
"""Below the number of messages (1,024) that the server hands out in one batch."""

AnyDocument = TypeVar("AnyDocument", bound=Document)


@dataclass(frozen=True, slots=True)
class Answers:
    """What is stored for a request: its record (None when unknown or expired) and the results so far, by function."""

    record: RequestRecord | None
    results: Mapping[str, Result]

    @property
    def complete(self) -> bool:
        """Every run of the request has its result."""
        return self.record is not None and all(function in self.results for function in self.record.functions)


class ResultStream:
    """Reads and create-only writes of one instance's records, results and statuses."""

    def __init__(self, client: NatsClient, jetstream: JetStreamContext, names: wire.Names) -> None:
        self._client = client
        self._js = jetstream
        self._names = names
        self._direct_get = f"$JS.API.DIRECT.GET.{names.results_stream}"

    @property
    def names(self) -> wire.Names:
        return self._names

    async def put_record(self, record: RequestRecord) -> bool:
        """True when this call stored the record, False when the request has one already. Safe to repeat."""
        headers = {
            wire.H_VERSION: wire.VERSION,
            wire.H_REQUEST_ID: record.request_id,
            wire.H_TOPIC: record.topic,
            wire.H_RUNS: str(len(record.functions)),
            wire.H_ROOT_REQUEST_ID: record.root_request_id,
        }
        if record.parent_run_id:
            headers[wire.H_PARENT_RUN_ID] = record.parent_run_id
        if len(names := ",".join(record.functions)) <= wire.MAX_FUNCTIONS_HEADER_BYTES:
            headers[wire.H_FUNCTIONS] = names
        return await self._create(self._names.accepted(record.request_id), record.to_json(), headers)

    async def put_result(self, result: Result) -> bool:
        """True when this call sealed the run, False when it has a result already: the first one stands."""
        headers = {
            wire.H_VERSION: wire.VERSION,
            wire.H_REQUEST_ID: result.request_id,
            wire.H_RUN_ID: result.run_id,
            wire.H_FUNCTION: result.function,
            wire.H_TOPIC: result.topic,
            wire.H_STATE: str(result.state),
            wire.H_REASON: str(result.reason),
            wire.H_ATTEMPT: str(len(result.attempts)),
            **result.times(),
        }
        return await self._create(self._names.result(result.request_id, result.function), result.to_json(), headers)

    async def put_ticket(self, ticket: RunTicket) -> bool:
        """True when this call queued the run, False when its message was there already. Safe to repeat."""
        subject = self._names.run(ticket.function, ticket.run_id)
        return await self._create(subject, ticket.to_json(), {wire.H_REQUEST_ID: ticket.request_id})

    async def record(self, request_id: str) -> RequestRecord | None:
        """The request's record, None when the leader has none."""
        subject = self._names.accepted(request_id)
        # A record never changes: any server's copy of one is true, only a missing one may be on its way there.
        data = await self._near(subject)
        if data is None:
            data = await self._last(self._names.results_stream, subject)
        return _parsed(RequestRecord, data)

    async def result(self, request_id: str, function: str) -> Result | None:
        """The run's result as the leader has it, None while it is unfinished (or expired)."""
        data = await self._last(self._names.results_stream, self._names.result(request_id, function))
        return _parsed(Result, data)

    async def result_nearby(self, request_id: str, function: str) -> Result | None:
        """The run's result as the nearest server has it: one that is found stands, None may be some moments old. For
        who stores a result next and so is told for certain; it takes half the time of asking the leader."""
        return _parsed(Result, await self._near(self._names.result(request_id, function)))

    async def sealed(self, runs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Those of the runs, as (request id, function), that have a result. For many at once, so by direct reads: one
        that was stored a moment ago may be missing, and is there when asked again."""
        found: set[tuple[str, str]] = set()
        for start in range(0, len(runs), _RUNS_AT_ONCE):
            subjects = [self._names.result(*run) for run in runs[start : start + _RUNS_AT_ONCE]]
            for message in await self._last_of_each(subjects) or ():
                headers = message.headers or {}
                found.add((headers.get(wire.H_REQUEST_ID, ""), headers.get(wire.H_FUNCTION, "")))
        return found

    async def ticket(self, run_id: str, function: str = "*") -> RunTicket | None:
        """The message of an unfinished run, None when the run is finished or never was."""
        data = await self._last(self._names.runs_stream, self._names.run(function, run_id))
        try:
            return None if data is None else RunTicket.from_json(data)
        except ValueError as error:
            raise InvokerError(f"a stored RunTicket cannot be read: {error}") from error

    async def status(self, run_id: str) -> RunStatusDocument | None:
        """The latest news of a run, None when there is none; lossy, never decide from it."""
        return _parsed(RunStatusDocument, await self._last(self._names.status_stream, self._names.status(run_id)))

    async def put_status(self, status: RunStatusDocument) -> None:
        """Publish the latest news of a run; not waited for, since it may be lost."""
        with nats_errors("publishing a status"):
            await self._client.publish(self._names.status(status.run_id), status.to_json())

    async def answers(self, request_id: str) -> Answers:
        """The record and all results of a request in one read; asked again at the leader when the record is missing."""
        wanted = [self._names.accepted(request_id), self._names.result(request_id, "*")]
        found = await self._last_of_each(wanted)
        if found is None:
            return await self._answers_one_by_one(request_id)
        record = next((_parsed(RequestRecord, m.data) for m in found if _is(m, wanted[0])), None)
        results = [_parsed(Result, m.data) for m in found if not _is(m, wanted[0])]
        if record is None:
            record = await self.record(request_id)
        return Answers(record, {result.function: result for result in results if result is not None})

    async def accepted_of(self, request_ids: Sequence[str]) -> dict[str, Answers]:
        """What is stored for those of the requests that are accepted, in their order; many are read at once. One that
        was accepted a moment ago may be missing, and is there when asked again."""
        found: dict[str, Answers] = {}
        for start in range(0, len(request_ids), _REQUESTS_AT_ONCE):
            part = request_ids[start : start + _REQUESTS_AT_ONCE]
            records = [message.data for message in await self._last_of_each([*map(self._names.accepted, part)]) or ()]
            accepted = [record for record in (_parsed(RequestRecord, data) for data in records) if record is not None]
            results = await self._results_of(accepted)
            for record in sorted(accepted, key=lambda one: part.index(one.request_id)):
                found[record.request_id] = Answers(record, results.get(record.request_id, {}))
        return found

    async def _results_of(self, records: Sequence[RequestRecord]) -> dict[str, dict[str, Result]]:
        """The results of these requests, by request and function."""
        runs = [(record.request_id, function) for record in records for function in record.functions]
        found: dict[str, dict[str, Result]] = {}
        for start in range(0, len(runs), _RUNS_AT_ONCE):
            subjects = [self._names.result(*run) for run in runs[start : start + _RUNS_AT_ONCE]]
            for message in await self._last_of_each(subjects) or ():
                result = _parsed(Result, message.data)
                if result is not None:
                    found.setdefault(result.request_id, {})[result.function] = result
        return found

    async def _answers_one_by_one(self, request_id: str) -> Answers:
        """The same for a request with more runs than the server puts into one batch (1,024 subjects)."""
        record = await self.record(request_id)
        functions = record.functions if record is not None else ()
        found = await asyncio.gather(*(self.result(request_id, function) for function in functions))
        return Answers(record, {result.function: result for result in found if result is not None})

    async def _create(self, subject: str, payload: bytes, headers: dict[str, str]) -> bool:
        with nats_errors(f"storing {subject}"):
            try:
                await self._js.publish(subject, payload, headers=headers | {wire.H_EXPECTED_LAST_SUBJECT_SEQUENCE: "0"})
            except nats.js.errors.APIError as error:
                if error.err_code == WRONG_LAST_SEQUENCE:
                    return False
                raise
        return True

    async def _last(self, stream: str, subject: str) -> bytes | None:
        with nats_errors(f"reading {subject}"):
            try:
                return (await self._js.get_msg(stream, subject=subject)).data
            except nats.js.errors.NotFoundError:
                return None

    async def _near(self, subject: str) -> bytes | None:
        """The last message of a subject of RESULTS by a direct read, which any replica answers; None when it has none,
        and when it does not answer, or may not be asked: the leader may."""
        request = json.dumps({"last_by_subj": subject}).encode()
        with nats_errors(f"reading {subject}"):
            try:
                found = await self._client.request(self._direct_get, request, timeout=_NEAR_SECONDS)
            except (nats.errors.TimeoutError, nats.errors.NoRespondersError, RefusedSubjectError):
                return None
        return found.data if (found.headers or {}).get("Status") is None else None

    async def _last_of_each(self, subjects: list[str]) -> list[Msg] | None:
        """One batch direct get: the last message of every subject, ended by a message with status 204. None when
        there are more than the server hands out at once."""
        inbox = self._client.new_inbox()
        request = json.dumps({"multi_last": subjects}).encode()
        with nats_errors("reading results"):
            subscription = await self._client.subscribe(inbox)
            try:
                await self._client.publish(self._direct_get, request, reply=inbox)
                found: list[Msg] = []
                while True:
                    message = await subscription.next_msg(timeout=_DIRECT_SECONDS)
                    headers = message.headers or {}
                    if headers.get("Nats-Subject") is None:
                        # 204: end of batch, 404: nothing there, 413: too many
                        return None if headers.get("Status") == _TOO_MANY else found
                    found.append(message)
            finally:
                if not self._client.is_closed:
                    await asyncio.shield(subscription.unsubscribe())


def _is(message: Msg, subject: str) -> bool:
    return (message.headers or {}).get("Nats-Subject") == subject


def _parsed(kind: type[AnyDocument], data: bytes | None) -> AnyDocument | None:
    if data is None:
        return None
    try:
        return kind.model_validate_json(data)
    except ValueError as error:
        raise InvokerError(f"a stored {kind.__name__} cannot be read: {error}") from error
