"""The client: what a program, the command line and the gateway use to publish events and to get answers.

Everything is asynchronous and typed; nothing of the NATS library comes out of it. A method that is called again with
the same arguments does no harm unless its docstring says so. Every method may raise `ServerUnreachableError`.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from invoker import wire
from invoker.cancelling import cancelled_chain
from invoker.chains import ChainFollower
from invoker.claimcheck import ClaimStore
from invoker.connecting import Connecting
from invoker.connection import ConnectionListener, ConnectionOptions, connection_problems
from invoker.control import ControlServices
from invoker.dead_letters import DeadLetterReader
from invoker.errors import NoSubscriptionError, UnknownIdError
from invoker.feed import Feed, FeedItem
from invoker.listing import RunFilter, RunListing, checked_reason, checked_state
from invoker.lookup import Lookup
from invoker.news import RunNews
from invoker.payload import Payload, encoded, whole
from invoker.publish import EventPublisher
from invoker.reading import StreamReader
from invoker.replies import Reply, open_content
from invoker.request import Content, RequestRecord
from invoker.requesting import Outgoing, Requester, new_request_id, redriven, renewed, replayed
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.results.nats import ResultStream
from invoker.results.store import ResultStore
from invoker.run_log import RunLogs
from invoker.stored import Stored
from invoker.views import (
    Cancelled,
    CatalogInfo,
    Chain,
    DeadLetter,
    Explanation,
    FunctionSource,
    LogLine,
    PauseInfo,
    Receipt,
    Redriven,
    ReloadInfo,
    RequestView,
    RunRow,
    RunView,
)
from invoker.waiting import Waiter

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient

DEFAULT_REQUEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Custody:
    """What a client stands on, for a process that serves the run API beside it, or fills a copy of the results."""

    results: ResultStream
    claims: ClaimStore
    publisher: EventPublisher
    reader: StreamReader


class Client:
    """A connection to one instance of Invoker. Make one with `Client.connect`; it reconnects by itself."""

    def __init__(self, client: NatsClient, names: wire.Names, options: ConnectionOptions) -> None:
        self.names = names
        self.options = options
        self._client = client
        jetstream = client.jetstream(timeout=5.0)
        self._results = ResultStream(client, jetstream, names)
        self._claims = ClaimStore(jetstream, names, may_purge=False)
        self._reader = StreamReader(client, jetstream)
        self._lookup = Lookup(self._reader, self._results, names)
        self._control = ControlServices(client, names)
        publisher = EventPublisher(client, jetstream, self._claims, names)
        self._waiter = Waiter(self._reader, self._lookup, names)
        self._chains = ChainFollower(self._reader, self._lookup, self._results, names)
        self._requester = Requester(
            client, publisher, self._claims, self._results, self._reader, self._chains, self._lookup.unaccepted, names
        )
        self._listing = RunListing(self._reader, self._results, names)
        self._dead = DeadLetterReader(self._reader, names)
        self._logs = RunLogs(self._control, self._lookup, self._claims)
        self._news = RunNews(client, names)
        self.custody = Custody(self._results, self._claims, publisher, self._reader)
        self.feed = Feed(self._reader, names, self._news)
        """What is stored as it is stored, for processes in which many wait; somebody has to run `feed.run()`."""
        self.stored = Stored(self._lookup, self._listing, self._claims, self._logs, self._dead, self._chains)
        """Reading by exact ids, in parts and by pages, for processes that serve many."""

    # connecting

    @classmethod
    def connect(
        cls,
        options: ConnectionOptions | str | None = None,
        *,
        names: wire.Names | None = None,
        timeout: float = 2.0,
        listener: ConnectionListener | None = None,
    ) -> Connecting:
        """A connected client, with `async with Client.connect() as client` or `client = await Client.connect()`.

        `options` is an address, or what `invoker.settings.connection_options` gives, which is also used when it is left
        out: the environment, a running `invoker dev`, the selected context of the `nats` command. `names` is the
        instance, else what `INVOKER_INSTANCE` and `INVOKER_TOPIC_PREFIX` say. `listener` hears what becomes of the
        connection, in the words of `invoker.connection.connect`. Raises `SettingsError`, or `ServerUnreachableError`
        after `timeout` seconds.
        """
        return Connecting(options, names, timeout, cls, listener)

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands now; when it does not, it is being made again."""
        return bool(self._client.is_connected)

    @property
    def problems(self) -> list[str]:
        """What keeps the connection from its work now, in words: that it is lost and why, rights that are missing."""
        return connection_problems(self._client, self.names.instance)

    async def close(self) -> None:
        """End the connection; what is waited for ends with an error. Safe to repeat."""
        if not self._client.is_closed:
            await self._client.close()

    def read_results_from(self, store: ResultStore) -> None:
        """Ask that store for what requests and their runs came to, from here on."""
        self._lookup.store = store

    def allow_events_of(self, max_bytes: int) -> None:
        """Publish events of up to so many bytes from here on, instead of 1 GiB."""
        self.custody.publisher.max_event_bytes = max_bytes

    # sending

    def new_request_id(self) -> str:
        """An id that no request has: for who wants to know it, and to watch, before publishing."""
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
        """When this returns the event is stored and will not be lost.

        `data`: bytes, text, a `Path`, an asynchronous iterable of bytes, or anything with a JSON form. Large bytes
        travel by claim check. Safe to repeat with the same `request_id`: the same event gives the same receipt, with
        `duplicate`, another one `IdempotencyMismatchError`. Raises `TopicError`, `RequestIdError`, `ReplySubjectError`,
        `PayloadTooLargeError` before anything is sent, `BackPressureError` when the stream is full. When nobody knows
        whether it is stored, `ServerUnreachableError` has the id to send it again with: `fields["request_id"]`.
        `is_new` says that the id comes from `new_request_id` and was used for nothing else, which saves a question.
        """
        event = Outgoing(topic, data, content_type, headers, params, request_id, reply_to, is_new=is_new)
        return await self._requester.publish(event)

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
        """Publish, then the replies of all runs, in the order they came; failed runs are replies too.

        Raises `NoSubscriptionError` when nothing matches, and `WaitExpiredError` after `timeout` seconds, or when the
        waiting cannot go on: its `fields["request_id"]` is what to ask with later, its `partial` the replies so far.
        Safe to repeat with the same `request_id`: then the stored results answer. `is_new` as in `publish`.
        """
        event = Outgoing(topic, data, content_type, headers, params, request_id, is_new=is_new)
        return await self._requester.request(event, timeout)

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
        """The reply of one function, whatever its subscriptions say.

        Raises `UnknownIdError` when there is no function of that name, else what `request` raises. A function that
        forwards its reply gives the first one of the last stage.
        """
        topic = self.names.direct_topic(wire.check_function_name(function))
        event = Outgoing(topic, data, content_type, headers, params, request_id)
        try:
            return (await self._requester.request(event, timeout))[0]
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
        """A new request from a stored one, linked to it; other `data`, `params` or `headers` replace the stored ones.

        A run id, or a `function`, replays just that function, which sees the original's topic. Every call makes another
        request, save with a `request_id`, with which it is safe to repeat as `publish` is. Raises `UnknownIdError`,
        `ExpiredError`, and `ClaimCheckError` when the stored bytes are gone.
        """
        found, view = await self._lookup.view(id)
        if view.record is None:
            raise UnknownIdError(f"request {view.request_id} has no record to replay from (yet)")
        chosen = function or found.function
        own, lineage = replayed(view.record, view.request_id)
        own = renewed(own, headers)
        topic = view.record.topic
        if chosen is not None and self.names.function_of_direct_topic(topic) is None:
            own[wire.H_TOPIC], topic = topic, self.names.direct_topic(wire.check_function_name(chosen))
        body: Payload | Content = view.record.body if data is None else data
        if isinstance(body, Content) and body.claim is not None:
            await self._claims.touch(body.claim)  # its retention begins anew with the new request
        merged = {**view.record.params, **(params or {})}
        return await self._requester.publish(
            Outgoing(topic, body, content_type, own, merged, request_id, lineage=lineage)
        )

    # asking

    async def result(self, id: str, *, wait: float = 0.0) -> RequestView:
        """A request and its runs as they are, or, with `wait` seconds, once all have finished.

        `id`: a request id, a run id (the view then has that run only), either one shortened (at least 4 characters of
        its beginning or end, among recent ones), or `@latest`. Raises `WaitExpiredError` (its `partial` is the view),
        `UnknownIdError`, `ExpiredError`, `AmbiguousIdError`.
        """
        return await self._waiter.view(id, wait)

    async def results(self, id: str, *, wait: float | None = None) -> AsyncGenerator[Result, None]:
        """The results of a request as its runs finish; ends after the last one.

        `wait` bounds the whole in seconds, None waits for ever; then as `result`.
        """
        async with aclosing(self._waiter.results(id, wait)) as results:
            async for result in results:
                yield result

    async def chain(self, id: str, *, wait: float = 0.0) -> Chain:
        """All requests of the chain that the id belongs to, as a tree; with `wait` seconds, once nothing more can come.

        Raises `WaitExpiredError` with the chain so far as `partial`; ids as in `result`.
        """
        root = await self._waiter.root_of(id, wait)
        return await (self._chains.settled(root, wait) if wait > 0 else self._chains.now(root))

    async def follow_chain(self, id: str) -> AsyncGenerator[Chain, None]:
        """The chain as it is, then after every change; ends with the one that is `settled`."""
        root = await self._waiter.root_of(id, 0.0)
        async with aclosing(self._chains.follow(root)) as changes:
            async for chain in changes:
                yield chain

    async def run(self, id: str, *, function: str | None = None) -> RunView:
        """One run: of a run id, or of a request id and the function (which a request of one run does not need)."""
        return await self._lookup.run(id, function)

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
        """At most `limit` runs, unfinished ones first, each part newest first; `before=rows[-1].cursor` is next.

        `since` and `until`: queued or finished at or after the one and before the other, instants or how long ago;
        `topic` is a topic or a topic pattern; `text` stands in the run's or the request's id. Raises `TopicError`.
        """
        chosen, now = checked_state(state), datetime.now(UTC)
        wanted = RunFilter(
            function=function,
            states=frozenset({chosen} if chosen else ()),
            reason=checked_reason(reason),
            request_id=(await self._lookup.view(request))[0].request_id if request is not None else None,
            since=now - since if isinstance(since, timedelta) else since,
            until=now - until if isinstance(until, timedelta) else until,
            topic=wire.check_pattern(topic) if topic is not None else None,
            text=text or None,
        )
        rows: list[RunRow] = []
        if limit > 0:
            async with aclosing(self._listing.rows(wanted, before=before)) as found:
                async for row in found:
                    rows.append(row)
                    if len(rows) >= limit:
                        break
        return rows

    # bytes

    async def output(self, result: Result) -> bytes:
        """The output's bytes, verified against their sha256. Raises `ClaimCheckError` when gone or damaged."""
        return b"".join([chunk async for chunk in self.open_output(result)])

    async def open_output(self, result: Result) -> AsyncGenerator[bytes, None]:
        """The same in chunks, for outputs of any size; act on them only after the iteration has ended."""
        async for chunk in open_content(result.output, self._claims):
            yield chunk

    async def input(self, request_id: str) -> bytes:
        """The bytes of a request's event, verified. Raises `UnknownIdError`, `ExpiredError`, `ClaimCheckError`."""
        return b"".join([chunk async for chunk in self.open_input(request_id)])

    async def open_input(self, request_id: str) -> AsyncGenerator[bytes, None]:
        """The same in chunks; act on them only after the iteration has ended."""
        _, view = await self._lookup.view(request_id)
        if view.record is None:
            raise UnknownIdError(f"request {view.request_id} is not accepted yet, or its record has expired")
        async for chunk in open_content(view.record.body, self._claims):
            yield chunk

    # control

    async def cancel(self, id: str, *, function: str | None = None, message: str | None = None) -> Cancelled:
        """End the unfinished runs of a request (or one run) as `cancelled`; finished ones stay as they are.

        Ids as in `result`. When this returns the results are stored; the processes end soon after.
        """
        found, view = await self._lookup.view(id)
        chosen = function or found.function
        if found.function is not None:
            run_id = wire.run_id_of(found.request_id, found.function)
            return await self._control.ask("cancel", Cancelled, run_id=run_id, message=message)
        question = {"request_id": view.request_id, "function": chosen, "message": message}
        return await self._control.ask("cancel", Cancelled, **question)

    async def cancel_chain(self, id: str, *, message: str | None = None) -> Cancelled:
        """End every unfinished run of the chain that the id belongs to, and of what it goes on to meanwhile.

        Returns once nothing more can come of the chain, at the latest 15 seconds after its last run was cancelled; safe
        to repeat. Raises `WaitExpiredError` when its first event is not accepted for as long. Ids as in `result`.
        """
        return await cancelled_chain(self, id, message)

    async def functions(self, name: str | None = None) -> CatalogInfo:
        """The catalog as the controllers have it, broken functions included; with `name` that function alone.

        Raises `UnknownIdError` when there is no function of that name.
        """
        catalog = await self._control.ask("functions", CatalogInfo, name=name)
        if name is not None and catalog.function(name) is None:
            raise UnknownIdError(f"there is no function {name!r}", hint="invoker functions list")
        return catalog

    async def source(self, function: str, *, masked: bool = True) -> FunctionSource:
        """The function as it is written, as the controllers last loaded it, and what holds for its runs.

        With `masked` without comments, values of environment variables and secret fields. Raises `UnknownIdError`.
        """
        wire.check_function_name(function)
        return await self._control.ask("source", FunctionSource, function=function, masked=masked)

    async def explain(
        self,
        topic: str,
        data: Payload | Any = None,
        *,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Explanation:
        """Which functions an event would run, and the clause that decided for every subscription. Runs nothing."""
        question: dict[str, Any] = {"topic": wire.check_topic(topic), "headers": dict(headers or {})}
        if data is not None:
            body, content_type = encoded(data, content_type)
            question["data_base64"] = base64.b64encode(await whole(body)).decode()
        return await self._control.ask("explain", Explanation, content_type=content_type, **question)

    async def reload(self) -> ReloadInfo:
        """Let the controller that answers read its catalog now."""
        return await self._control.ask("reload", ReloadInfo)

    async def pause(self, function: str) -> bool:
        """Keep the function's runs queued until `resume`; True when it is paused now."""
        return (await self._control.ask("pause", PauseInfo, function=wire.check_function_name(function))).paused

    async def resume(self, function: str) -> bool:
        """Let the function's runs start again; True when it is paused still."""
        return (await self._control.ask("resume", PauseInfo, function=wire.check_function_name(function))).paused

    async def dead(self, limit: int = 50) -> list[DeadLetter]:
        """The newest dead letters: events that could not become runs, each with its reason."""
        return await self._dead.newest(limit)

    async def dead_letter(self, id: str) -> DeadLetter:
        """One dead letter; the id may be shortened. Raises `UnknownIdError` or `AmbiguousIdError`."""
        return await self._dead.one(id)

    async def redrive(
        self,
        id: str,
        *,
        data: Payload | Any = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> str:
        """Publish a dead letter's event again, as a new request that names the old one; returns its request id.

        Safe to repeat, save with other `data`: then every call makes another request, unless it has a `request_id`,
        with which it is safe to repeat as `publish` is. With one or the other, `headers` replace the stored ones.
        """
        letter = await self._dead.one(id)
        if data is None and request_id is None:
            return (await self._control.ask("dead.redrive", Redriven, dead_id=letter.id)).request_id
        body: Payload | Content | Any = letter.body if data is None else data
        if isinstance(body, Content) and body.claim is not None:
            await self._claims.touch(body.claim)  # its retention begins anew with the new request
        return (await self._requester.publish(redriven(letter, body, content_type, headers, request_id))).request_id

    async def logs(
        self, id: str, *, function: str | None = None, follow: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        """The lines a run wrote, oldest first; with `follow` also the coming ones until it ends.

        Of a finished run that no controller holds any more, the stored tail.
        """
        run = await self._lookup.run(id, function)
        async with aclosing(self._logs.lines(run, follow=follow)) as lines:
            async for line in lines:
                yield line

    async def follow_all(self) -> AsyncGenerator[FeedItem | RunStatusDocument, None]:
        """What is stored about requests and runs from now on, in order and without a gap over lost connections; news of
        unfinished runs in between, which are lossy."""
        async with aclosing(self.feed.told()) as items:
            async for item in items:
                yield item

    async def watch_runs(self) -> AsyncGenerator[RunStatusDocument | RequestRecord, None]:
        """News of all runs from now on, for screens: statuses, and the records of requests that nothing matched.

        Lossy: nothing is repeated after a lost connection.
        """
        async with aclosing(self._news.watch()) as news:
            async for item in news:
                yield item

    async def _connection_event(self, event: str) -> None:
        """Hear of the connection: after an interruption, what is followed is asked for again at once."""
        if event == "reconnected":
            self._reader.interrupted()
            self._requester.interrupted()
