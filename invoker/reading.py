"""Reading a stream: a stretch of it, backwards in windows, or onwards for ever.

Nothing here changes a stream. Consumers are ephemeral, without acks and in memory; headers only where bodies may be
large.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.js import api

from invoker.connection import nats_errors
from invoker.errors import InvokerError, ServerUnreachableError

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient
    from nats.js.client import JetStreamContext

_FIRST_WINDOW, _WIDEST_WINDOW = 125, 20_000
_BATCH = 500
_HEARTBEAT_SECONDS = 2.0
_QUIET_SECONDS = 5.0
"""Without a heartbeat for this long the consumer is taken for lost (its server was killed) and made anew."""
_RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream; `data` is empty where only headers were asked for."""

    subject: str
    sequence: int
    stored_at: datetime
    headers: Mapping[str, str]
    data: bytes


class StreamReader:
    """Reads streams of one connection."""

    def __init__(self, client: NatsClient, jetstream: JetStreamContext) -> None:
        self._client = client
        self._js = jetstream
        self._tails: set[Tail] = set()

    async def state(self, stream: str) -> api.StreamInfo:
        """The stream's settings and state. Raises `ServerUnreachableError` when nobody made the streams yet."""
        with nats_errors(f"stream {stream}"):
            try:
                return await self._js.stream_info(stream)
            except nats.js.errors.NotFoundError as error:
                raise no_streams(stream) from error

    async def between(
        self, stream: str, subjects: Sequence[str], first: int, last: int, *, headers_only: bool = True
    ) -> list[StoredMessage]:
        """The messages of those subjects from sequence `first` to `last`, in order."""
        config = _config(subjects, first, headers_only)
        with nats_errors(f"reading {stream}"):
            try:
                info = await self._js.add_consumer(stream, config)
            except nats.js.errors.NotFoundError as error:
                raise no_streams(stream) from error
            left = info.num_pending or 0
            found: list[StoredMessage] = []
            subscription = await self._js.pull_subscribe_bind(consumer=info.name, stream=stream)
            try:
                while left > 0 and (not found or found[-1].sequence < last):
                    messages = await subscription.fetch(min(left, _BATCH), timeout=10)
                    left -= len(messages)
                    found += [stored(message) for message in messages]
            finally:
                await self._drop(subscription, stream, info.name)
        return [message for message in found if message.sequence <= last]

    async def backwards(
        self,
        stream: str,
        subjects: Sequence[str],
        *,
        before: int | None = None,
        headers_only: bool = True,
        widest: int = _WIDEST_WINDOW,
    ) -> AsyncGenerator[StoredMessage, None]:
        """The messages of those subjects, newest first; `before` is a sequence to stay below. Windows grow, so a few
        new ones are found at once and rare ones in few reads; no more than the `widest` is in memory."""
        state = (await self.state(stream)).state
        high = state.last_seq if before is None else min(state.last_seq, before - 1)
        width = _FIRST_WINDOW
        while high >= max(1, state.first_seq):
            low = max(1, state.first_seq, high - width + 1)
            for message in reversed(await self.between(stream, subjects, low, high, headers_only=headers_only)):
                yield message
            high, width = low - 1, min(width * 4, widest)

    async def last(self, stream: str, subject: str) -> StoredMessage | None:
        """The newest message of a subject (wildcards allowed), None when there is none."""
        with nats_errors(f"reading {subject}"):
            try:
                return _raw(await self._js.get_msg(stream, subject=subject))
            except nats.js.errors.NotFoundError:
                return None

    async def at(self, stream: str, sequence: int) -> StoredMessage | None:
        """The message of that sequence, None when it is gone."""
        with nats_errors(f"reading {stream}"):
            try:
                return _raw(await self._js.get_msg(stream, seq=sequence))
            except nats.js.errors.NotFoundError:
                return None

    async def following(self, stream: str, subject: str, sequence: int) -> StoredMessage | None:
        """The first message of that subject (wildcards allowed) at that sequence or behind it, None when there is
        none: what lies between costs nothing."""
        with nats_errors(f"reading {stream}"):
            try:
                return _raw(await self._js.get_msg(stream, seq=max(1, sequence), subject=subject, next=True))
            except nats.js.errors.NotFoundError:
                return None

    def tail(self, stream: str, subjects: Sequence[str], *, first: int = 1, headers_only: bool = False) -> Tail:
        """The messages of those subjects from sequence `first` on, for ever: an async context manager to iterate."""
        return Tail(self._client, self._js, stream, subjects, first, headers_only, self._tails)

    def interrupted(self) -> None:
        """The connection was made anew: what is being followed is asked for again at once."""
        for tail in tuple(self._tails):
            tail.reopen()

    async def _drop(self, subscription: JetStreamContext.PullSubscription, stream: str, consumer: str) -> None:
        try:
            await subscription.unsubscribe()
            await self._js.delete_consumer(stream, consumer)
        except (nats.errors.Error, nats.js.errors.Error, OSError):
            return  # an ephemeral consumer ends by itself after its inactivity threshold


class Tail:
    """A stream from a sequence on: in order, without gaps and without repeats, across lost connections and servers.

    Iterating waits for the next message; how long is the caller's business (`asyncio.timeout`).
    """

    def __init__(
        self,
        client: NatsClient,
        jetstream: JetStreamContext,
        stream: str,
        subjects: Sequence[str],
        first: int,
        headers_only: bool,
        registry: set[Tail],
    ) -> None:
        self._client = client
        self._js = jetstream
        self._stream = stream
        self._subjects = tuple(subjects)
        self._next = max(1, first)
        self._headers_only = headers_only
        self._registry = registry
        self._queue: asyncio.Queue[tuple[int, Msg | None]] = asyncio.Queue()
        self._subscription: Subscription | None = None
        self._consumer: str | None = None
        self._generation = 0
        self._delivered = 0
        self.pending = 0
        """How many messages were there when the tail was opened: the past, before what is live."""

    @property
    def position(self) -> int:
        """The sequence from which on nothing has been handed out yet."""
        return self._next

    async def __aenter__(self) -> Tail:
        self._registry.add(self)
        try:
            await self._open()
        except BaseException:  # cancelled too: nobody leaves what was never entered
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    def __aiter__(self) -> Tail:
        return self

    async def __anext__(self) -> StoredMessage:
        while True:
            try:
                # Not `wait_for`: before Python 3.12 it may swallow the end of a caller's own time limit.
                async with asyncio.timeout(_QUIET_SECONDS):
                    generation, message = await self._queue.get()
            except TimeoutError:
                await self._open_again()
                continue
            if generation != self._generation:
                continue  # of a consumer that was given up
            if message is None:
                await self._open_again()
                continue
            if message.reply.startswith("$JS.ACK"):
                found = self._in_order(message)
                if found is not None:
                    return found
                await self._open_again()
            else:
                await self._control(message)

    def reopen(self) -> None:
        """Ask again from where it stands, at the next step of the iteration."""
        self._queue.put_nowait((self._generation, None))

    def _in_order(self, message: Msg) -> StoredMessage | None:
        """The message when it is the next one of its consumer, None when one is missing before it."""
        if message.metadata.sequence.consumer != self._delivered + 1:
            return None
        self._delivered += 1
        found = stored(message)
        self._next = found.sequence + 1
        return found

    async def _control(self, message: Msg) -> None:
        """Heartbeats and flow control: the server waits for an answer to the latter, and to a stalled heartbeat."""
        headers = message.headers or {}
        asked = message.reply or headers.get("Nats-Consumer-Stalled")
        if asked:
            await self._client.publish(asked)
        if headers.get("Status") not in (None, "100"):
            await self._open_again()
        elif int(headers.get("Nats-Last-Consumer") or self._delivered) > self._delivered and self._queue.empty():
            await self._open_again()  # the heartbeat knows of messages that never came

    async def _open_again(self) -> None:
        while True:
            await self._close_consumer()
            try:
                return await self._open()
            except ServerUnreachableError:
                # The caller's own limit ends this; until then an outage is only a pause.
                if self._client.is_closed:
                    raise
                await asyncio.sleep(_RETRY_SECONDS)

    async def _open(self) -> None:
        self._generation += 1
        self._delivered = 0
        generation, queue = self._generation, self._queue

        async def arrived(message: Msg) -> None:
            queue.put_nowait((generation, message))

        with nats_errors(f"following {self._stream}"):
            inbox = self._client.new_inbox()
            self._subscription = await self._client.subscribe(inbox, cb=arrived)
            config = _config(self._subjects, self._next, self._headers_only)
            config.deliver_subject = inbox
            config.idle_heartbeat = _HEARTBEAT_SECONDS
            config.flow_control = True
            try:
                info = await self._js.add_consumer(self._stream, config)
            except nats.js.errors.NotFoundError as error:
                raise no_streams(self._stream) from error
        self._consumer = info.name
        self.pending = info.num_pending or 0

    async def _close(self) -> None:
        self._registry.discard(self)
        await self._close_consumer()

    async def _close_consumer(self) -> None:
        subscription, self._subscription = self._subscription, None
        consumer, self._consumer = self._consumer, None
        try:
            if subscription is not None:
                await subscription.unsubscribe()
            if consumer is not None and self._client.is_connected:
                await self._js.delete_consumer(self._stream, consumer)
        except (nats.errors.Error, nats.js.errors.Error, OSError, InvokerError):
            return  # an ephemeral consumer ends by itself after its inactivity threshold


def no_streams(stream: str) -> ServerUnreachableError:
    return ServerUnreachableError(
        f"the stream {stream} does not exist: no controller has been on this NATS",
        hint="start `invoker dev` or `invoker controller`, or look at another server or instance",
    )


def stored(message: Msg) -> StoredMessage:
    """A delivered message with its place in the stream."""
    metadata = message.metadata
    return StoredMessage(
        subject=message.subject,
        sequence=metadata.sequence.stream,
        stored_at=metadata.timestamp,
        headers=message.headers or {},
        data=message.data,
    )


def _raw(message: api.RawStreamMsg) -> StoredMessage:
    return StoredMessage(
        subject=message.subject or "",
        sequence=message.seq or 0,
        stored_at=message.time or datetime.fromtimestamp(0).astimezone(),
        headers=message.headers or {},
        data=message.data or b"",
    )


def _config(subjects: Sequence[str], first: int, headers_only: bool) -> api.ConsumerConfig:
    return api.ConsumerConfig(
        filter_subjects=list(subjects),
        deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=max(1, first),
        ack_policy=api.AckPolicy.NONE,
        headers_only=headers_only or None,
        mem_storage=True,
        num_replicas=1,
        inactive_threshold=30.0,
    )
