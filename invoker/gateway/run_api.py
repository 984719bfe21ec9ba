"""The run API: the door between a running function and its custody. HTTP in, JetStream behind.

Under a run's URL: `GET input`, `PUT output` (or `POST`), `POST events`, `POST progress`, `POST error`, all with the
run's token.
The fence is here: input is given, and output taken, only while the run is unfinished, so a pod that comes too late
(cancelled, timed out, left over by a controller that stood still) is refused before its handler starts. An output
becomes the run's result by the same create-only write as every other verdict; the first one stored wins.

Answers are problem documents (RFC 9457) when they are no success; 503 and 5xx mean "the same again, later", every
other refusal is final. No answer carries a traceback or an address of ours.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.errors import (
    BackPressureError,
    ExpiredError,
    InputRefusedError,
    InvokerError,
    OutputRefusedError,
    RunApiRefusedError,
    RunFinishedError,
    TokenMissingError,
    TokenRefusedError,
    UnknownIdError,
)
from invoker.gateway import run_body
from invoker.gateway.bodies import may_hold
from invoker.gateway.run_address import PATH_PREFIX, RunAddress, check_token, parse
from invoker.gateway.run_answers import StreamedBody, problem, refusal, too_large
from invoker.gateway.run_attempts import AttemptBook, completed_attempts, first_status, running_attempts
from invoker.gateway.run_headers import input_headers, number_in, outgoing_event
from invoker.gateway.told_once import once
from invoker.publish import EventPublisher
from invoker.request import Content, RequestRecord, RunTicket
from invoker.result import Reason, Result, RunStatusDocument, State, reason_info
from invoker.results.nats import ResultStream

CHECKED_OUTPUT_BYTES = 16 * 1024 * 1024
"""An output that is checked against a schema must be held in memory: larger ones are refused."""
MAX_NOTE_BYTES = 64 * 1024
MAX_PROGRESS_TEXT_BYTES = 1024
MAX_ATTEMPT = 100_000
MAX_CONTENT_TYPE_CHARACTERS = 255
_THREAD_ABOVE_BYTES = 256 * 1024

CheckOutput = Callable[[str, str, bytes, str | None], list[dict[str, Any]]]
"""(function, spec hash, output, content type) -> the places that do not fit, as `{pointer, detail}`; none: it fits."""
HasOutputSchema = Callable[[str, str], bool]
"""(function, spec hash) -> whether its output is checked at all; outputs that are not are never held in memory."""
LearnFunction = Callable[[str, str], Awaitable[None]]
"""(function, spec hash) -> asked before the two above, by who has to fetch what they need."""
LookUp = Callable[[str, str], Awaitable[Result | None]]
"""(request id, function) -> the run's result, as far as it is seen there."""
OnSealed = Callable[[Result, RequestRecord], None]
"""Told of every result that was stored here, for a controller in the same process: a short cut, never the only way."""

_log = structlog.get_logger(component="run-api")


@dataclass(frozen=True, slots=True)
class RunCall:
    """One request from a running function, admitted: its token is the run's."""

    request: Request
    address: RunAddress
    run_id: str
    attempt: int

    def ids(self) -> dict[str, str | int]:
        """For log lines: which attempt of which run this is."""
        address = self.address
        return {
            "request_id": address.request_id, "run_id": self.run_id, "function": address.function,
            "attempt": self.attempt,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a run at the moment of a call."""

    ticket: RunTicket | None
    result: Result | None
    record: RequestRecord | None

    def unfinished(self, run_id: str) -> RequestRecord:
        """The record of an unfinished run. Raises `RunFinishedError`, `ExpiredError` or `UnknownIdError`."""
        if self.result is not None:
            raise RunFinishedError(f"run {run_id} has its result ({self.result.state}): nothing is given or taken")
        if self.record is None and self.ticket is None:
            raise UnknownIdError(f"no run {run_id} is known")
        if self.record is None:
            raise ExpiredError(f"the request of run {run_id} is past its retention")
        if self.ticket is None:
            raise RunFinishedError(f"run {run_id} is not in the queue any more: nothing is given or taken")
        return self.record


class RunApi:
    """The run API of one instance. `routes()` go into the controller's application.

    `max_output_bytes` bounds every output, `max_event_bytes` every event (None: the publisher does). `check_output` is
    asked for outputs up to 16 MiB (of all functions, or of those that `has_output_schema` names, whose larger outputs
    are refused).
    """

    def __init__(
        self,
        results: ResultStream,
        claims: ClaimStore,
        publisher: EventPublisher,
        *,
        key: bytes,
        max_output_bytes: int,
        max_event_bytes: int | None = None,
        check_output: CheckOutput | None = None,
        has_output_schema: HasOutputSchema | None = None,
        learn: LearnFunction | None = None,
        on_sealed: OnSealed = lambda result, record: None,
        names: wire.Names | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._results = results
        self._claims = claims
        self._publisher = publisher
        self._key = key
        self._max_output_bytes = max_output_bytes
        self._max_event_bytes = max_event_bytes
        self._check_output = check_output
        self._has_output_schema = has_output_schema
        self._learn = learn
        self._on_sealed = on_sealed
        self._names = names or wire.Names()
        self._now = now
        self._book = AttemptBook()

    def routes(self) -> list[Route]:
        """The routes below `/v1/run/{address}/`, for a Starlette application."""
        acts: list[tuple[list[str], str, Callable[[RunCall], Awaitable[Response]]]] = [
            (["GET"], "input", self._input),
            (["PUT", "POST"], "output", self._output),  # the wget of small images knows no PUT
            (["POST"], "events", self._events),
            (["POST"], "progress", self._progress),
            (["POST"], "error", self._error),
        ]
        return [
            Route(f"{PATH_PREFIX}{{address}}/{name}", self._endpoint(act), methods=methods)
            for methods, name, act in acts
        ]

    def _endpoint(self, act: Callable[[RunCall], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            call: RunCall | None = None
            try:
                call = self._admit(request)
                response = await act(call)
            except InvokerError as error:
                response = refusal(error, call.ids() if call else {})
            except ClientDisconnect:
                response = Response(status_code=499)  # nobody is there to read it
            except Exception:  # whatever it is, a function must not see our traceback
                _log.exception("run API call failed", **(call.ids() if call else {}))
                response = problem(InvokerError("the run API failed; the same call may succeed later"))
            if call is not None:
                response.headers[wire.H_ATTEMPT] = str(call.attempt)
            return response

        return endpoint

    async def take_output(self, request: Request, address: RunAddress, token: str) -> str:
        """Take the request's body as the run's output, as `PUT output` does; returns the run id.

        For doors that carry the token in another way. Raises `TokenRefusedError`, and what `PUT output` answers with.
        """
        call = self._admitted(request, address, token)
        await self._output(call)
        return call.run_id

    def _admit(self, request: Request) -> RunCall:
        address = parse(request.path_params["address"])
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise TokenMissingError("the run's token is missing", hint="Authorization: Bearer $INVOKER_RUN_TOKEN")
        return self._admitted(request, address, token.strip())

    def _admitted(self, request: Request, address: RunAddress, token: str) -> RunCall:
        run_id = address.run_id
        if not check_token(self._key, address, token):
            raise TokenRefusedError("the token is not the one of this run")
        pod_uid = request.headers.get(wire.H_POD_UID, "")[:128]
        told = _attempt_told(request.headers.get(wire.H_ATTEMPT))
        return RunCall(request, address, run_id, self._book.number(run_id, pod_uid, told))

    async def _standing(self, call: RunCall, look: LookUp | None = None) -> Standing:
        """`look` finds the result: the leader's word, unless the caller is told for certain later."""
        address = call.address
        ticket, result, record = await asyncio.gather(
            self._results.ticket(call.run_id, address.function),
            (look or self._results.result)(address.request_id, address.function),
            self._results.record(address.request_id),
        )
        return Standing(ticket, result, record)

    async def _input(self, call: RunCall) -> Response:
        record = (await self._standing(call)).unfinished(call.run_id)
        self._book.start(call.run_id, call.attempt, self._now())
        headers = input_headers(record, self._names)
        if call.request.method == "HEAD":
            return Response(headers=headers)
        inline = record.body.inline_bytes()
        if inline is not None or record.body.claim is None:
            return Response(inline, headers=headers)
        chunks = run_body.held_back(self._claims.open(record.body.claim))
        # The first chunk before the answer begins: afterwards a claim check that is gone cannot be told any more.
        body = await run_body.read_head(chunks, 0)
        return StreamedBody(body.chunks(), headers=headers)

    async def _output(self, call: RunCall) -> Response:
        run_body.refuse_larger(call.request, self._max_output_bytes, self._output_too_large)
        # A result that a replica has not got yet is met again when this one is stored, which the leader does once.
        look = self._results.result_nearby
        standing, status = await asyncio.gather(self._standing(call, look), self._status(call))
        if standing.result is None and standing.ticket is None:
            standing = await self._standing(call)  # finished or unknown: nothing is stored next, so the leader is asked
        if standing.result is not None:
            return await self._repeated(call, standing.result)
        record = standing.unfinished(call.run_id)
        content = await self._stored(call)
        result = self._result(call, record, status, content)
        if await self._sealed_here(result):
            self._on_sealed(result, record)
        else:
            stands = await self._results.result(call.address.request_id, call.address.function)
            if stands is not None:  # nothing points at what was stored for a result that is none
                await self._claims.withdraw(content.claim, kept=stands.output.claim)
            if stands is None or not _same_output(stands, content.size_bytes, _sha256(content)):
                raise RunFinishedError(f"run {call.run_id} got its result meanwhile: this output is not taken")
        return _sealed(call)

    async def _sealed_here(self, result: Result) -> bool:
        """Whether this call sealed the run. Refused for want of room it surely did not: the bytes make room, too."""
        try:
            return await self._results.put_result(result)
        except BackPressureError:
            await self._claims.withdraw(result.output.claim, kept=None)
            raise

    async def _repeated(self, call: RunCall, result: Result) -> Response:
        """An output for a sealed run: the same bytes again are an answer that got lost, anything else is too late."""
        finished = RunFinishedError(f"run {call.run_id} has its result ({result.state}): this output is not taken")
        declared = run_body.declared_bytes(call.request)
        if not result.succeeded or declared not in (None, result.output.size_bytes):
            raise finished
        chunks = run_body.bounded(call.request, result.output.size_bytes, lambda size: finished)
        if not _same_output(result, *await run_body.digest(chunks)):
            raise finished
        return _sealed(call)

    async def _stored(self, call: RunCall) -> Content:
        """The output, inline when small, else behind a claim check: the object is complete before any result is."""
        content_type = _content_type(call.request)
        chunks = run_body.bounded(call.request, self._max_output_bytes, self._output_too_large)
        if self._learn is not None:
            await self._learn(call.address.function, call.address.spec_hash)
        checked = self._is_checked(call)
        hold = CHECKED_OUTPUT_BYTES if checked else wire.INLINE_OUTPUT_BYTES
        may_hold(call.request, hold)
        body = await run_body.read_head(chunks, hold)
        if checked:
            await self._check(call, body, content_type)
        if body.rest is None and len(body.head) <= wire.INLINE_OUTPUT_BYTES:
            return Content.inline(body.head, content_type)
        claim = await self._claims.put(body.data(), owner=f"output/{call.run_id}", limit_bytes=self._max_output_bytes)
        return Content.claimed(claim, content_type)

    def _is_checked(self, call: RunCall) -> bool:
        if self._check_output is None:
            return False
        return self._has_output_schema is None or self._has_output_schema(call.address.function, call.address.spec_hash)

    async def _check(self, call: RunCall, body: run_body.Body, content_type: str | None) -> None:
        if body.rest is not None:
            if self._has_output_schema is None:
                return  # nobody says that it has a schema, and it is too large to be held
            raise too_large(len(body.head), CHECKED_OUTPUT_BYTES, "an output with a schema", more=True)
        assert self._check_output is not None
        arguments = (call.address.function, call.address.spec_hash, body.head, content_type)
        if len(body.head) > _THREAD_ABOVE_BYTES:
            errors = await asyncio.to_thread(self._check_output, *arguments)
        else:
            errors = self._check_output(*arguments)
        if errors:
            raise OutputRefusedError(
                f"the output of {call.address.function} does not fit its schema: {_first(errors)}", errors=errors
            )

    def _result(
        self, call: RunCall, record: RequestRecord, status: RunStatusDocument | None, content: Content
    ) -> Result:
        now, address = self._now(), call.address
        attempts = completed_attempts(status, call.attempt, self._book.started_at(call.run_id, call.attempt), now)
        info = reason_info(Reason.COMPLETED)
        return Result(
            request_id=address.request_id,
            run_id=call.run_id,
            function=address.function,
            topic=record.topic,
            state=State.SUCCEEDED,
            reason=Reason.COMPLETED,
            message=info.meaning,
            class_=info.result_class,
            output=content,
            attempts=attempts,
            queued_at=record.received_at,
            dispatched_at=status.dispatched_at if status else None,
            started_at=min((one.started_at for one in attempts if one.started_at), default=None),
            finished_at=now,
            spec_hash=address.spec_hash or None,
            catalog=address.catalog or None,
            engine=address.engine or None,
            job=address.job or (status.job if status else None),
            root_request_id=record.root_request_id,
            parent_run_id=record.parent_run_id,
            hops=record.hops,
        )

    async def _events(self, call: RunCall) -> Response:
        record = (await self._standing(call)).unfinished(call.run_id)
        event = outgoing_event(call.run_id, record, call.request.headers, self._names)
        chunks: AsyncIterator[bytes] = call.request.stream()
        if (limit := self._max_event_bytes) is not None:
            run_body.refuse_larger(call.request, limit, self._event_too_large)
            chunks = run_body.bounded(call.request, limit, self._event_too_large)
        # What fits a message is held, since a stream of bytes becomes a claim check.
        body = await run_body.read_head(chunks, self._publisher.claim_threshold())
        published = await self._publisher.publish(replace(event, data=body.data()))
        answer = {"request_id": event.request_id, "topic": event.topic, "duplicate": published.duplicate}
        return JSONResponse(answer, status_code=201)

    async def _progress(self, call: RunCall) -> Response:
        document = await _json_object(call.request)
        percent, text = _percent(document.get("percent")), document.get("text")
        if text is not None and not isinstance(text, str):
            raise RunApiRefusedError("progress: 'text' must be a text")
        await self._tell(call, percent=percent, text=text)
        return Response(status_code=204)

    async def _error(self, call: RunCall) -> Response:
        """News only: an attempt's error is no verdict, since another attempt may follow."""
        note = await _json_object(call.request)
        words = ": ".join(str(note[key]) for key in ("type", "message") if note.get(key))
        await self._tell(call, text=f"attempt {call.attempt} failed: {words or 'no reason was given'}")
        return Response(status_code=204)

    async def _tell(self, call: RunCall, *, percent: float | None = None, text: str | None) -> None:
        _check_unicode(text or "")
        result, status = await asyncio.gather(
            self._results.result(call.address.request_id, call.address.function), self._status(call)
        )
        if result is not None:
            raise RunFinishedError(f"run {call.run_id} has its result ({result.state}): there are no more news of it")
        started_at = self._book.started_at(call.run_id, call.attempt)
        if status is None:
            record = (await self._standing(call)).unfinished(call.run_id)
            status = first_status(call.address, record, started_at, self._now())
        news = {
            "state": State.RUNNING,
            "attempts": running_attempts(status, call.attempt, started_at),
            "percent": percent if percent is not None else status.percent,
            "text": _shortened(text) if text is not None else status.text,
            "at": self._now(),
        }
        await self._results.put_status(status.model_copy(update=news))

    async def _status(self, call: RunCall) -> RunStatusDocument | None:
        """The last news of the run; it may be lost, and then the result says less about earlier attempts."""
        try:
            return await self._results.status(call.run_id)
        except InvokerError:
            return None

    def _event_too_large(self, size: int) -> InvokerError:
        return too_large(size, self._max_event_bytes or 0, "the event")

    def _output_too_large(self, size: int) -> InvokerError:
        return too_large(size, self._max_output_bytes, "the output", more=False)


def _attempt_told(text: str | None) -> int | None:
    return number_in(text, MAX_ATTEMPT) or None


async def _json_object(request: Request) -> dict[str, Any]:
    data = await run_body.read_small(request, MAX_NOTE_BYTES, lambda size: too_large(size, MAX_NOTE_BYTES, "the note"))
    try:
        document = json.loads(data or b"{}", object_pairs_hook=once)
    except InputRefusedError as error:
        raise RunApiRefusedError(error.message) from error
    except (ValueError, RecursionError) as error:
        raise RunApiRefusedError("the body is not JSON") from error
    if not isinstance(document, dict):
        raise RunApiRefusedError("the body is not a JSON object")
    return document


def _percent(value: object) -> float | None:
    """The progress from 0 to 100 that this stands for. Raises `RunApiRefusedError` for what is no finite number."""
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:  # an integer may have any number of digits
        number = math.inf
    if not math.isfinite(number):
        raise RunApiRefusedError("progress: 'percent' must be a number from 0 to 100")
    return min(100.0, max(0.0, number))


def _check_unicode(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON's escapes can name half of a pair, which no UTF-8 can hold
        raise RunApiRefusedError("a text in the body has a lone surrogate: it is no Unicode text") from error


def _content_type(request: Request) -> str | None:
    text = request.headers.get("content-type") or None
    if text and len(text) > MAX_CONTENT_TYPE_CHARACTERS:
        raise RunApiRefusedError(f"the content type has more than {MAX_CONTENT_TYPE_CHARACTERS} characters")
    return text


def _same_output(result: Result, size: int, sha256: str) -> bool:
    return result.succeeded and result.output.size_bytes == size and _sha256(result.output) == sha256


def _sha256(content: Content) -> str:
    return content.claim.sha256 if content.claim else wire.sha256_hex(content.inline_bytes() or b"")


def _sealed(call: RunCall) -> Response:
    return JSONResponse({"run_id": call.run_id, "request_id": call.address.request_id}, status_code=201)


def _first(errors: list[dict[str, Any]]) -> str:
    first = errors[0]
    return f"{first.get('pointer') or '(the whole)'} {first.get('detail', '')}".strip()


def _shortened(text: str | None) -> str | None:
    if text is None or len(text.encode("utf-8", "replace")) <= MAX_PROGRESS_TEXT_BYTES:
        return text
    return text.encode("utf-8", "replace")[: MAX_PROGRESS_TEXT_BYTES - 3].decode("utf-8", "ignore") + "…"
