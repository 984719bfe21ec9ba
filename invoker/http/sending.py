"""Sending events to a gateway. An event always has an id, made here when the caller has none, so that sending it again
after a broken connection makes no second request."""

from __future__ import annotations

from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from invoker import wire
from invoker.errors import InputRefusedError, ReplySubjectError, ServerUnreachableError
from invoker.http.calls import Answer, Call, Calls
from invoker.http.finding import quoted
from invoker.payload import Payload, check_headers, encoded
from invoker.problem import parsed_problem
from invoker.requesting import check_request_id, header_params, new_request_id
from invoker.views import Receipt

_OWN = ("x-request-id", "traceparent", "tracestate")
"""Headers of an event that are headers of the call too."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a gateway answered whom it let wait. `run_ids` are the runs whose outcome is the answer, None while they are
    not finished; `request_id` is theirs, None where the answer is that of one run."""

    request_id: str | None
    run_ids: list[str] | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """An event as the caller gave it."""

    topic: str
    data: Payload | Any = b""
    content_type: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = field(default_factory=new_request_id)
    is_new: bool = True
    """The id was made for this event: who finds it there already has sent it himself."""


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is replaced in a stored event that is sent again, as the caller gave it; None is left as it was."""

    data: Payload | Any = None
    content_type: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    request_id: str | None = None


class Sender:
    """Sends events to one gateway."""

    def __init__(self, calls: Calls, names: wire.Names) -> None:
        self._calls = calls
        self._names = names

    async def publish(self, event: Outgoing) -> Receipt:
        """When this returns the event is stored; see `Client.publish`."""
        path, headers = self._call(event)

        async def once() -> Answer:
            at_once = {**headers, "Prefer": "respond-async"}
            return await self._calls.once(Call("POST", path, headers=at_once, body=_bytes(event)))

        try:
            answer = await (self._calls.repeated(once) if can_repeat(event.data) else once())
        except ServerUnreachableError as error:
            error.fields["request_id"] = event.request_id  # sent again with it, the event is there once
            raise
        document = answer.document or {}
        duplicate = bool(document.get("duplicate")) and not event.is_new
        return Receipt(document.get("request_id") or wire.canonical_id(event.request_id), event.topic, "", 0, duplicate)

    async def ask(self, event: Outgoing, wait: float) -> Asked:
        """Send the event and wait. Safe to repeat while the bytes are. Raises what the event is refused with."""
        path, headers = self._call(event)
        call = Call("POST", path, {"wait": f"{wait:.3f}"}, headers, _bytes(event), wait)
        async with self._calls.opened(call) as (answer, chunks):
            run_id = answer.headers.get(wire.H_RUN_ID)
            if run_id is not None:
                return Asked(None, [run_id])  # its output is read from its result, which is verified
            document = parsed_problem(b"".join([chunk async for chunk in chunks])) or {}
        runs = [run["run_id"] for run in document.get("runs") or ()]
        return Asked(document.get("request_id"), None if answer.status == 202 else runs)

    def _call(self, event: Outgoing) -> tuple[str, dict[str, str]]:
        """The path and the headers of the event's call."""
        path = self._path(event)
        check_request_id(event.request_id)
        check_headers(event.headers)
        headers = _headers(event)
        kind = encoded(event.data, event.content_type or headers.get("Content-Type"))[1]
        return path, headers | _described(event.data, kind)

    def _path(self, event: Outgoing) -> str:
        function = self._names.function_of_direct_topic(event.topic)
        if function is not None:
            return f"/v1/functions/{quoted(wire.check_function_name(function))}/calls"
        return f"/v1/topics/{quoted(wire.check_topic(event.topic))}"

    async def replacing(
        self, path: str, change: Replacement, query: Mapping[str, str], *, is_same: bool = False
    ) -> Receipt:
        """A new request from a stored event, with what is replaced in it. Repeated where that makes the same request:
        with an id of the caller's, or when the gateway makes it of what is stored (`is_same`)."""
        headers, body, asked = _replacing(change), None, dict(query)
        if change.data is not None:
            body, kind = encoded(change.data, change.content_type)
            headers |= {"Content-Type": wire.CONTENT_TYPE_BYTES} | _described(change.data, kind)
        if body == b"":
            asked["empty"] = "true"  # a body that is not there replaces nothing

        async def once() -> Answer:
            data = None if change.data is None else encoded(change.data, change.content_type)[0]
            return await self._calls.once(Call("POST", path, asked or None, headers, data))

        repeats = (change.request_id is not None or is_same) and can_repeat(change.data)
        document = (await (self._calls.repeated(once) if repeats else once())).document
        return Receipt(document["request_id"], document["topic"], "", 0, bool(document.get("duplicate")))


def check_reply_to(reply_to: str | None) -> None:
    """Raise `ReplySubjectError` when there is one: a gateway answers its callers, and nobody else."""
    if reply_to is not None:
        raise ReplySubjectError(
            "replies to a subject need NATS itself; over HTTP the caller waits for the answer",
            hint="leave the gateway out, or wait for the result",
        )


def _bytes(event: Outgoing) -> bytes | AsyncIterable[bytes]:
    """The event's bytes; those of a file are read anew each time."""
    return encoded(event.data, event.content_type)[0]


def can_repeat(data: Any) -> bool:
    """Whether the bytes can be sent once more: a stream is gone after the first time. Pure."""
    return not isinstance(data, AsyncIterable)


def _headers(event: Outgoing) -> dict[str, str]:
    """The headers of the call: the event's own, its parameters, its id. Pure."""
    found = {"Idempotency-Key": _key(event.request_id)}
    for name, value in event.headers.items():
        if name.lower() == "content-type":
            found["Content-Type"] = value
        else:
            found[name if name.lower() in _OWN else f"Invoker-Header-{name}"] = value
    return found | _param_headers(event.params)


def _replacing(change: Replacement) -> dict[str, str]:
    """The headers of a call that replaces. Raises `InputRefusedError` for what no such call can replace. Pure."""
    others = [name for name in change.headers if name.lower() not in _OWN]
    if others:
        raise InputRefusedError(
            f"over HTTP the header {others[0][:80]!a} of a stored event cannot be replaced: only {', '.join(_OWN)}"
        )
    check_headers(change.headers)
    found = dict(change.headers) | _param_headers(change.params)
    if change.request_id is not None:
        check_request_id(change.request_id)
        found["Idempotency-Key"] = _key(change.request_id)
    return found


def _key(request_id: str) -> str:
    """The id as its header holds it: one that itself stands in quotes gets another pair. Pure."""
    if not request_id.isascii():
        raise InputRefusedError(f"request id {request_id[:80]!a} must be ASCII to be sent over HTTP")
    return f'"{request_id}"' if request_id[:1] == request_id[-1:] == '"' and len(request_id) > 1 else request_id


def _param_headers(params: Mapping[str, Any]) -> dict[str, str]:
    found = {f"{wire.H_PARAM_PREFIX}{name}": value for name, value in header_params(params).items()}
    check_headers(found)
    return found


def _described(data: Any, content_type: str | None) -> dict[str, str]:
    """What is told of the bytes: their type, and the size of a file, so that one too large is refused unread."""
    found = {"Content-Type": content_type} if content_type is not None else {}
    check_headers(found)
    if isinstance(data, Path):
        found["Content-Length"] = str(_size(data))
    return found


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputRefusedError(f"the file {path} cannot be read: {error.strerror or error}") from error
