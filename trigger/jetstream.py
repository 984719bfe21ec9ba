"""The controller's edge to JetStream consumers: pulling, and the four answers to a message.

Raw pull requests, since nats-py's `fetch` shows a deleted consumer (409), a missing one (503) and a quiet one (408)
all as the same timeout.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from invoker.connection import nats_errors
from invoker.errors import ServerUnreachableError

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient

HEARTBEAT_SECONDS = 2.0
"""The server's sign of life on a waiting pull; three missed ones and the pull is made anew."""
_EXPIRES_SECONDS = 30.0


class ConsumerGoneError(Exception):
    """The consumer behind a pull does not exist (any more): somebody has to make it again."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message's place in its stream and how often it was handed out, read from its ack subject."""

    ack_subject: str
    sequence: int
    deliveries: int
    stored_at: datetime


def delivery_of(message: Msg) -> Delivery:
    """The delivery of a JetStream message (`$JS.ACK.[domain.account.]stream.consumer.n.seq.cseq.time.pending`)."""
    tokens = message.reply.split(".")
    if len(tokens) >= 11:
        tokens = [*tokens[:2], *tokens[4:]]
    return Delivery(
        ack_subject=message.reply,
        sequence=int(tokens[5]),
        deliveries=int(tokens[4]),
        stored_at=datetime.fromtimestamp(int(tokens[7]) / 1e9, UTC),
    )


class Pull:
    """Messages of one consumer, as many at a time as were asked for, until cancelled."""

    def __init__(self, client: NatsClient, stream: str, consumer: str, *, batch: int = 1) -> None:
        self._client = client
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._batch = batch
        self._wanted = 0

    async def messages(self, room: Callable[[], int] | None = None) -> AsyncIterator[Msg]:
        """Every message handed out; new ones are asked for only when the caller comes back and has had the last ones.

        `room` says how many the caller could take at that moment: so many are asked for, at least one and at most the
        batch. What it was handed out and did not get to is given back at the end. Raises `ConsumerGoneError` when the
        consumer is missing. A lost connection is waited out.
        """
        inbox = self._client.new_inbox()
        subscription = await self._client.subscribe(inbox)
        try:
            while True:
                if self._wanted <= 0:
                    await self._ask(inbox, self._batch if room is None else max(1, min(self._batch, room())))
                try:
                    # Not next_msg's own limit: its `wait_for` may swallow our cancellation before Python 3.12.
                    async with asyncio.timeout(3 * HEARTBEAT_SECONDS):
                        message = await subscription.next_msg(timeout=None)
                except TimeoutError:
                    self._wanted = 0  # the request is lost with its connection or server
                    continue
                except nats.errors.Error as error:
                    raise ServerUnreachableError(f"the connection ended: {error}") from error
                status = (message.headers or {}).get("Status") if not message.reply else None
                if status is None and message.reply:
                    self._wanted -= 1
                    yield message
                elif status is not None and status != "100":
                    await self._ended(message, status)
        finally:
            if not self._client.is_closed:
                await asyncio.shield(self._leave(subscription))

    async def _leave(self, subscription: Subscription) -> None:
        with suppress(nats.errors.Error):  # without a connection they come back after their ack wait
            while subscription.pending_msgs:
                message = await subscription.next_msg(timeout=None)
                if message.reply and not (message.headers or {}).get("Status"):
                    await self._client.publish(message.reply, b"-NAK")
        await subscription.unsubscribe()

    async def _ask(self, inbox: str, batch: int) -> None:
        request = {
            "batch": batch,
            "expires": int(_EXPIRES_SECONDS * 1e9),
            "idle_heartbeat": int(HEARTBEAT_SECONDS * 1e9),
        }
        with nats_errors("asking for messages"):
            await self._client.publish(self._subject, json.dumps(request).encode(), reply=inbox)
        self._wanted = batch

    async def _ended(self, message: Msg, status: str) -> None:
        description = (message.headers or {}).get("Description", "").lower()
        self._wanted = 0
        if status == "503" or "deleted" in description or "not found" in description:
            raise ConsumerGoneError(description or status)
        if status == "409":
            await asyncio.sleep(0.05)  # leadership change, server shutdown: ask again, but not in a tight loop


class Acks:
    """The four answers to a delivered message. Each may be repeated; answers to an old delivery are obeyed too."""

    def __init__(self, client: NatsClient) -> None:
        self._client = client

    async def done(self, ack_subject: str) -> bool:
        """Ack and wait for the server's confirmation: True when it came. False is no loss: the message comes back,
        its result is found, and it is finished again."""
        try:
            await self._client.request(ack_subject, b"+ACK", timeout=2.0)
        except (nats.errors.Error, TimeoutError, OSError):
            return False
        return True

    async def working(self, ack_subject: str) -> None:
        """The message is still being worked on: its ack wait begins anew."""
        with nats_errors("sending a heartbeat"):
            await self._client.publish(ack_subject, b"+WPI")

    async def later(self, ack_subject: str, *, delay_seconds: float = 0.0) -> None:
        """Hand the message out again, after a delay; with a delay it keeps its place in `max_ack_pending` so long."""
        body = f'-NAK {{"delay": {int(delay_seconds * 1e9)}}}' if delay_seconds else "-NAK"
        with nats_errors("giving a message back"):
            await self._client.publish(ack_subject, body.encode())
