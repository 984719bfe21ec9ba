"""`HttpClient`: the methods, values and errors of `invoker.client.Client`, asked of a gateway over HTTP.

A call whose connection breaks is repeated when that can do no harm: everything that reads, and publishing, which always
has an id. Control and cancelling are sent once, and so are replaying, and redriving with other data, without an id.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any

from invoker import settings, wire
from invoker.cancelling import cancelled_chain
from invoker.client import DEFAULT_REQUEST_SECONDS
from invoker.errors import NoSubscriptionError, ServerUnreachableError, SettingsError, UnknownIdError
from invoker.feed import FeedItem
from invoker.http.asking import Asker
from invoker.http.calls import Calls
from invoker.http.content import content_of
from invoker.http.documents import item_of, model_of, news_of, row_of
from invoker.http.finding import Finder, quoted
from invoker.http.logs import lines_of
from invoker.http.sending import Outgoing, Replacement, Sender, check_reply_to
from invoker.http.settings import URL, GatewayOptions, checked_url, gateway_options
from invoker.http.waiting import Waiter
from invoker.listing import checked_reason, checked_state
from invoker.lookup import the_run
from invoker.payload import Payload, encoded, whole
from invoker.replies import Reply
from invoker.request import RequestRecord
from invoker.requesting import new_request_id
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.views import (
    Cancelled,
    CatalogInfo,
    Chain,
    DeadLetter,
    Explanation,
    LogLine,
    PauseInfo,
    Receipt,
    ReloadInfo,
    RequestView,
    RunRow,
    RunView,
)

_PAGE = 500


class HttpClient:
    """One instance of Invoker behind a gateway. Every method may raise `ServerUnreachableError`, and what the gateway
    refuses its caller: `UnauthorizedError`, `ForbiddenError`, `RateLimitedError`."""

    def __init__(self, options: GatewayOptions, names: wire.Names | None = None) -> None:
        self.options = options
        self.names = names or settings.instance_names()
        self._calls = Calls(options)
        self._finder = Finder(self._calls)
        self._waiter = Waiter(self._calls, self._finder)
        self._sender = Sender(self._calls, self.names)
        self._asker = Asker(self._calls, self._sender, self._waiter)

    @classmethod
    def connect(cls, options: GatewayOptions | str | None = None, *, names: wire.Names | None = None) -> HttpClient:
        """A client, with `async with HttpClient.connect() as client`. Nothing is contacted before the first call.

        `options` is an address, or what `invoker.http.settings.gateway_options` gives, which is also used when it is
        left out (`INVOKER_GATEWAY_URL`, the key of `INVOKER_GATEWAY_KEY` or its file). Raises `SettingsError`.
        """
        if isinstance(options, str):
            options = GatewayOptions(checked_url(options, "the gateway's address"))
        chosen = options or gateway_options()
        if chosen is None:
            raise SettingsError(f"{URL} is not set, and no gateway is given")
        return cls(chosen, names)

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def is_connected(self) -> bool:
        """Whether calls can be made; connections come and go by themselves."""
        return not self._calls.is_closed

    async def close(self) -> None:
        """End the connections. Safe to repeat."""
        await self._calls.close()

    # sending

    def new_request_id(self) -> str:
        """An id that no request has."""
        return new_request_id()

    async def publish(
        self,
        topic: str,
        data: Payload | Any = b"",
        *,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        reply_to: str | None = None,
        is_new: bool = False,
    ) -> Receipt:
        """As `Client.publish`. The receipt has no `stream` and no `sequence`: those are NATS's own.

        Names of headers arrive in lower case, since HTTP knows no other. A `reply_to` raises `ReplySubjectError`.
        """
        check_reply_to(reply_to)
        return await self._sender.publish(_outgoing(topic, data, content_type, headers, params, request_id, is_new))

    async def request(
        self,
        topic: str,
        data: Payload | Any = b"",
        *,
        timeout: float = DEFAULT_REQUEST_SECONDS,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        is_new: bool = False,
    ) -> list[Reply]:
        """As `Client.request`, the replies in the order of the functions' names. Of data that is a stream, which can
        be sent only once, a run that hands its reply on is answered for by its own result."""
        event = _outgoing(topic, data, content_type, headers, params, request_id, is_new)
        return await self._asker.request(event, timeout)

    async def call(
        self,
        function: str,
        data: Payload | Any = b"",
        *,
        timeout: float = DEFAULT_REQUEST_SECONDS,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> Reply:
        """As `Client.call`."""
        topic = self.names.direct_topic(wire.check_function_name(function))
        try:
            event = _outgoing(topic, data, content_type, headers, params, request_id)
            return (await self._asker.request(event, timeout))[0]
        except NoSubscriptionError as error:
            raise UnknownIdError(f"there is no function {function!r}", hint="invoker functions list") from error

    async def replay(
        self,
        id: str,
        *,
        function: str | None = None,
        data: Payload | Any = None,
        content_type: str | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Receipt:
        """As `Client.replay`; of the headers those of the call and its trace (`X-Request-Id`, `traceparent`,
        `tracestate`) can be replaced, others are refused with `InputRefusedError`."""
        found, view = await self._finder.view(id)
        if view.record is None:
            raise UnknownIdError(f"request {view.request_id} has no record to replay from (yet)")
        chosen = function or found.function
        query = {"function": chosen} if chosen is not None else {}
        path = f"/v1/requests/{quoted(view.request_id)}/replay"
        return await self._sender.replacing(
            path, Replacement(data, content_type, params or {}, headers or {}, request_id), query
        )

    # asking

    async def result(self, id: str, *, wait: float = 0.0) -> RequestView:
        """As `Client.result`. The record's `body` says what the event's bytes are, and does not hold them."""
        return await self._waiter.view(id, wait)

    async def results(self, id: str, *, wait: float | None = None) -> AsyncGenerator[Result, None]:
        """As `Client.results`."""
        async with aclosing(self._waiter.results(id, wait)) as results:
            async for result in results:
                yield result

    async def chain(self, id: str, *, wait: float = 0.0) -> Chain:
        """As `Client.chain`: what the caller may see of it."""
        return await self._waiter.chain(id, wait)

    async def follow_chain(self, id: str) -> AsyncGenerator[Chain, None]:
        """As `Client.follow_chain`."""
        async with aclosing(self._waiter.follow_chain(id)) as changes:
            async for chain in changes:
                yield chain

    async def run(self, id: str, *, function: str | None = None) -> RunView:
        """As `Client.run`."""
        found, view = await self._finder.view(id)
        return the_run(view, function or found.function)

    async def runs(
        self,
        *,
        function: str | None = None,
        state: State | str | None = None,
        reason: Reason | str | None = None,
        request: str | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        topic: str | None = None,
        text: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[RunRow]:
        """As `Client.runs`."""
        now = datetime.now(UTC)
        from_at = now - since if isinstance(since, timedelta) else since
        until_at = now - until if isinstance(until, timedelta) else until
        wanted = {
            "function": function,
            "state": checked_state(state),
            "reason": checked_reason(reason),
            "request": (await self._finder.view(request))[0].request_id if request is not None else None,
            "since": from_at.isoformat() if from_at is not None else None,
            "until": until_at.isoformat() if until_at is not None else None,
            "topic": wire.check_pattern(topic) if topic is not None else None,
            "text": text or None,
            "cursor": before,
        }
        query: dict[str, str | int | float] = {name: str(value) for name, value in wanted.items() if value is not None}
        rows: list[RunRow] = []
        while len(rows) < limit:
            query["limit"] = min(_PAGE, limit - len(rows))
            page = (await self._calls.get("/v1/runs", query)).document
            rows += [row_of(one) for one in page["items"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        return rows

    # bytes

    async def output(self, result: Result) -> bytes:
        """As `Client.output`."""
        return b"".join([chunk async for chunk in self.open_output(result)])

    async def open_output(self, result: Result) -> AsyncGenerator[bytes, None]:
        """As `Client.open_output`."""
        inline, claim = result.output.inline_bytes(), result.output.claim
        if inline is not None or claim is None:
            yield inline or b""
            return
        path = f"/v1/runs/{quoted(result.run_id)}/output"
        async with aclosing(content_of(self._calls, path, claim.size_bytes, claim.sha256)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def input(self, request_id: str) -> bytes:
        """As `Client.input`."""
        return b"".join([chunk async for chunk in self.open_input(request_id)])

    async def open_input(self, request_id: str) -> AsyncGenerator[bytes, None]:
        """As `Client.open_input`."""
        _, view = await self._finder.view(request_id)
        if view.record is None:
            raise UnknownIdError(f"request {view.request_id} is not accepted yet, or its record has expired")
        path = f"/v1/requests/{quoted(view.request_id)}/input"
        size, sha256 = view.record.body.size_bytes, view.record.sha256
        async with aclosing(content_of(self._calls, path, size, sha256)) as chunks:
            async for chunk in chunks:
                yield chunk

    # control

    async def cancel(self, id: str, *, function: str | None = None, message: str | None = None) -> Cancelled:
        """As `Client.cancel`."""
        found, view = await self._finder.view(id)
        order = {"function": function or found.function, "message": message}
        answer = await self._calls.post(f"/v1/requests/{quoted(view.request_id)}/cancel", order)
        return model_of(Cancelled, answer.document)

    async def cancel_chain(self, id: str, *, message: str | None = None) -> Cancelled:
        """As `Client.cancel_chain`: what the caller may see of it, and with the right to operate all of that."""
        return await cancelled_chain(self, id, message)

    async def functions(self, name: str | None = None) -> CatalogInfo:
        """As `Client.functions`. A gateway that hears no controller knows an older list, which is not given here."""
        document = (await self._calls.get("/v1/functions")).document
        if document.get("problem"):
            raise ServerUnreachableError(str(document["problem"]))
        items = [one for one in document["items"] if name in (None, one["name"])]
        if name is not None and not items:
            raise UnknownIdError(f"there is no function {name!r}", hint="invoker functions list")
        return model_of(CatalogInfo, {**document, "functions": items})

    async def explain(
        self,
        topic: str,
        data: Payload | Any = None,
        *,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Explanation:
        """As `Client.explain`."""
        question: dict[str, Any] = {"topic": wire.check_topic(topic), "headers": dict(headers or {})}
        if data is not None:
            body, content_type = encoded(data, content_type)
            question["data_base64"] = base64.b64encode(await whole(body)).decode()
        answer = await self._calls.post("/v1/explain", question | {"content_type": content_type})
        return model_of(Explanation, answer.document)

    async def reload(self) -> ReloadInfo:
        """As `Client.reload`."""
        return model_of(ReloadInfo, (await self._calls.post("/v1/reload")).document)

    async def pause(self, function: str) -> bool:
        """As `Client.pause`."""
        return await self._set_paused(function, "pause")

    async def resume(self, function: str) -> bool:
        """As `Client.resume`."""
        return await self._set_paused(function, "resume")

    async def dead(self, limit: int = 50) -> list[DeadLetter]:
        """As `Client.dead`; the bytes, which lists do not have, are asked for letter by letter."""
        letters = await self._finder.dead_letters(limit)
        return [await self._whole(letter) for letter in letters]

    async def dead_letter(self, id: str) -> DeadLetter:
        """As `Client.dead_letter`."""
        return await self._finder.dead_letter(id)

    async def redrive(
        self,
        id: str,
        *,
        data: Payload | Any = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> str:
        """As `Client.redrive`; of the headers the same can be replaced as by `replay`."""
        letter = await self._finder.dead_letter(id)
        path = f"/v1/dead-letters/{quoted(letter.id)}/redrive"
        change = Replacement(data, content_type, {}, headers or {}, request_id)
        return (await self._sender.replacing(path, change, {}, is_same=data is None)).request_id

    async def logs(
        self, id: str, *, function: str | None = None, follow: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        """As `Client.logs`."""
        run = await self.run(id, function=function)
        async with aclosing(lines_of(self._calls, run.run_id, follow=follow)) as lines:
            async for line in lines:
                yield line

    async def follow_all(self) -> AsyncGenerator[FeedItem | RunStatusDocument, None]:
        """As `Client.follow_all`, of what the key may see."""
        async with aclosing(self._calls.events("/v1/stream")) as events:
            async for event in events:
                if (item := item_of(event.name, event.document, event.id)) is not None:
                    yield item

    async def watch_runs(self) -> AsyncGenerator[RunStatusDocument | RequestRecord, None]:
        """As `Client.watch_runs`; results, unlike statuses, are told again after a lost connection."""
        async with aclosing(self._calls.events("/v1/stream")) as events:
            async for event in events:
                if event.name == "accepted" and event.document["runs"] == 0:
                    record = (await self._finder.request(event.document["request_id"])).record
                    if record is not None:
                        yield record
                elif (news := news_of(event.name, event.document)) is not None:
                    yield news

    async def _set_paused(self, function: str, order: str) -> bool:
        path = f"/v1/functions/{quoted(wire.check_function_name(function))}/{order}"
        return model_of(PauseInfo, (await self._calls.post(path)).document).paused

    async def _whole(self, letter: DeadLetter) -> DeadLetter:
        missing = letter.body.size_bytes and letter.body.claim is None and letter.body.inline_base64 is None
        return await self._finder.dead_letter(letter.id) if missing else letter


def _outgoing(
    topic: str,
    data: Payload | Any,
    content_type: str | None,
    headers: Mapping[str, str] | None,
    params: Mapping[str, Any] | None,
    request_id: str | None,
    is_new: bool = False,
) -> Outgoing:
    own = request_id is not None and not is_new
    return Outgoing(topic, data, content_type, headers or {}, params or {}, request_id or new_request_id(), not own)
