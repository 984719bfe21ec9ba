"""The durable consumers: one for intake, one per function. Made or compared, never changed silently.

`max_ack_pending` of a function's consumer *is* its concurrency limit: the server enforces it across all controllers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import nats.js.errors
from nats.js import api

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import StreamMismatchError

if TYPE_CHECKING:
    from nats.js.client import JetStreamContext

DEFAULT_CONCURRENCY = 1000
"""The server's own default for max_ack_pending; never unlimited."""
PAUSED_UNTIL = "2999-12-31T23:59:59Z"


@dataclass(frozen=True, slots=True)
class Backlog:
    """Of one function's consumer: messages waiting, messages handed out, whether it is paused, and how many requests
    for messages stand open (0: at this moment nobody asks)."""

    waiting: int
    handed_out: int
    paused: bool
    asked: int = 0


class Consumers:
    """Makes, compares, pauses and counts the consumers of one instance."""

    def __init__(self, jetstream: JetStreamContext, names: wire.Names, *, ack_wait_seconds: float) -> None:
        self._js = jetstream
        self._names = names
        self._ack_wait = ack_wait_seconds

    async def ensure_intake(self, max_ack_pending: int) -> None:
        """When this returns the shared intake consumer exists."""
        config = api.ConsumerConfig(
            durable_name=self._names.intake_consumer,
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_ack_pending=max_ack_pending,
            max_deliver=-1,
        )
        await self._ensure(self._names.events_stream, config)

    async def ensure_run(self, function: str, concurrency: int | None) -> None:
        """When this returns the function's consumer exists with that limit. A lowered limit recalls nothing that is
        handed out; a raised one is felt at once."""
        config = api.ConsumerConfig(
            durable_name=self._names.run_consumer(function),
            filter_subject=self._names.run(function, "*"),
            ack_policy=api.AckPolicy.EXPLICIT,
            ack_wait=self._ack_wait,
            max_ack_pending=concurrency or DEFAULT_CONCURRENCY,
            max_deliver=-1,
        )
        await self._ensure(self._names.runs_stream, config)

    async def remove_run(self, function: str) -> None:
        """Remove the consumer of a function that is gone and has nothing queued. Safe to repeat."""
        with nats_errors(f"removing the consumer of {function}"):
            try:
                await self._js.delete_consumer(self._names.runs_stream, self._names.run_consumer(function))
            except nats.js.errors.NotFoundError:
                return

    async def backlogs(self) -> dict[str, Backlog]:
        """The backlog of every function that has a consumer."""
        prefix = self._names.run_consumer("")
        found = {}
        for info in await self._infos(self._names.runs_stream):
            if info.name.startswith(prefix):
                found[info.name.removeprefix(prefix)] = Backlog(
                    info.num_pending or 0, info.num_ack_pending or 0, bool(info.paused), info.num_waiting or 0
                )
        return found

    async def pause(self, function: str) -> None:
        """Hand out no more runs of the function, on any controller, until resumed. Events stay queued."""
        with nats_errors(f"pausing {function}"):
            await self._js.pause_consumer(
                self._names.runs_stream, self._names.run_consumer(function), pause_until=PAUSED_UNTIL
            )

    async def resume(self, function: str) -> None:
        with nats_errors(f"resuming {function}"):
            await self._js.resume_consumer(self._names.runs_stream, self._names.run_consumer(function))

    async def reclaim(self) -> None:
        """Make every consumer anew, so that all unfinished work is handed out at once instead of after its ack wait.

        Only for a controller that is known to be the only one (`invoker dev`, which holds its state's lock): what
        another one holds would be handed out twice. On work queues a new consumer repeats nothing that was acked.
        """
        for stream in (self._names.events_stream, self._names.runs_stream):
            for info in await self._infos(stream):
                with nats_errors(f"making consumer {info.name} anew"):
                    await self._js.delete_consumer(stream, info.name)
                    config = replace(info.config, pause_until=PAUSED_UNTIL if info.paused else None)
                    await self._js.add_consumer(stream, config)

    async def _infos(self, stream: str) -> list[api.ConsumerInfo]:
        with nats_errors(f"listing the consumers of {stream}"):
            found: list[api.ConsumerInfo] = []
            while True:
                page = await self._js.consumers_info(stream, offset=len(found))
                found += page
                if len(page) < 256:
                    return found

    async def _ensure(self, stream: str, config: api.ConsumerConfig) -> None:
        name = config.durable_name or ""
        with nats_errors(f"consumer {name} of {stream}"):
            try:
                existing = (await self._js.consumer_info(stream, name)).config
            except nats.js.errors.NotFoundError:
                await self._js.add_consumer(stream, config)
                return
            found = differences(config, existing)
            if found:
                raise StreamMismatchError(
                    f"consumer {name} of {stream} exists with other settings: {'; '.join(found)}",
                    hint=f"remove it by hand (`nats consumer rm {stream} {name}`); nothing unfinished is lost",
                )
            if existing.max_ack_pending != config.max_ack_pending:
                await self._js.add_consumer(stream, replace(existing, max_ack_pending=config.max_ack_pending))


def differences(wanted: api.ConsumerConfig, existing: api.ConsumerConfig) -> list[str]:
    """The settings that differ, but for the concurrency limit, which follows the catalog. Pure."""
    found = []
    for field in ("filter_subject", "ack_policy", "ack_wait", "max_deliver"):
        want, have = getattr(wanted, field), getattr(existing, field)
        if (want or None) != (have or None):
            found.append(f"{field} is {have}, must be {want}")
    return found
