"""Controllers inside the test's own process, and what can be seen of their work through NATS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from invoker import wire
from invoker.connection import ConnectionOptions
from invoker.result import Result
from invoker.results.nats import Answers, ResultStream
from tests.conftest import eventually
from trigger.app import Running, run_controller
from trigger.deadletter import DeadLetter
from trigger.settings import ControllerSettings, load_settings

FAST = {
    "http_port": 0,
    "catalog_interval_seconds": 0.05,
    "ack_wait_seconds": 2.0,
    "heartbeat_seconds": 0.5,
    "audit_seconds": 0.5,
    "sole_controller": True,
}
"""A test that waits for a period of ten seconds only waits."""


def fast_settings(catalog: Path, state_dir: Path, **settings: Any) -> ControllerSettings:
    return load_settings({}, **({"catalog": catalog, "state_dir": state_dir} | FAST | settings))


@asynccontextmanager
async def running_controller(url: str, catalog: Path, state_dir: Path, **settings: Any) -> AsyncIterator[Running]:
    """A controller that takes events while this is entered, and has stopped in an orderly way when it is left."""
    stopping = asyncio.Event()
    ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    running = asyncio.create_task(
        run_controller(
            fast_settings(catalog, state_dir, **settings),
            ConnectionOptions(url=url),
            ready=ready.set_result,
            stopping=stopping,
        )
    )
    either: list[asyncio.Future[Any]] = [running, ready]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    try:
        yield ready.result()
    finally:
        stopping.set()
        await asyncio.wait_for(running, 60)


@dataclass
class View:
    """One instance as its callers see it: publishing, replies, results, what is queued."""

    client: NatsClient
    names: wire.Names = field(default_factory=wire.Names)
    replies: list[Msg] = field(default_factory=list)

    @property
    def results(self) -> ResultStream:
        return ResultStream(self.client, self.client.jetstream(), self.names)

    async def listen(self) -> View:
        """Hear every reply sent to `replies.>` from here on."""

        async def reply(message: Msg) -> None:
            self.replies.append(message)

        await self.client.subscribe("replies.>", cb=reply)
        await self.client.flush()
        return self

    async def publish(self, topic: str, data: bytes = b"", request_id: str | None = None, **headers: str) -> None:
        """An event by any client's `js.publish`; `request_id` also names its reply subject."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if request_id is not None:
            given = {wire.H_MESSAGE_ID: request_id, wire.H_REPLY_TO: f"replies.{request_id}"} | given
        await self.client.jetstream().publish(f"events.{topic}", data, headers=given or None)

    async def call(self, topic: str, data: bytes = b"", *, timeout: float = 60, **headers: str) -> Msg:
        """A plain request to the call service of a topic."""
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.client.request(self.names.call_topic(topic), data, timeout=timeout, headers=given or None)

    async def control(self, verb: str, **question: Any) -> dict[str, Any]:
        """A control service's answer; problem documents come back as they are."""
        message = await self.client.request(self.names.control(verb), json.dumps(question).encode(), timeout=60)
        answer: dict[str, Any] = json.loads(message.data)
        return answer

    async def result(self, request_id: str, function: str, within: float = 60) -> Result:
        """The run's result, once it is there."""
        return await eventually(
            lambda: self.results.result(request_id, function), within=within, what=f"the result of {function}"
        )

    async def answers(self, request_id: str, within: float = 60) -> Answers:
        """Record and results of a request, once all of its runs have ended."""

        async def complete() -> Answers | None:
            answers = await self.results.answers(request_id)
            return answers if answers.complete else None

        return await eventually(complete, within=within, what=f"the end of request {request_id}")

    def replies_to(self, request_id: str) -> list[Msg]:
        return [message for message in self.replies if message.subject == f"replies.{request_id}"]

    async def reply(self, request_id: str, count: int = 1, within: float = 60) -> Sequence[Msg]:
        """The replies of a request, once there are so many."""

        async def there() -> list[Msg] | None:
            found = self.replies_to(request_id)
            return found if len(found) >= count else None

        return await eventually(there, within=within, what=f"{count} replies of {request_id}")

    async def queued(self) -> tuple[int, int]:
        """Messages in EVENTS and RUNS, as of one moment."""
        return await queued(self.client, self.names)

    async def quiet(self, within: float = 60) -> None:
        """Wait until nothing is queued and nothing runs."""

        async def empty() -> bool:
            return await self.queued() == (0, 0)

        await eventually(empty, within=within, what="empty queues")

    async def running(self, function: str, count: int, within: float = 60) -> None:
        """Wait until so many runs of a function are handed out."""

        async def reached() -> bool:
            info = await self.client.jetstream().consumer_info(
                self.names.runs_stream, self.names.run_consumer(function)
            )
            return (info.num_ack_pending or 0) == count

        await eventually(reached, within=within, what=f"{count} runs of {function} in hand")

    async def dead_letters(self, count: int, within: float = 60) -> list[DeadLetter]:
        """Every dead letter, once there are so many, oldest first."""
        jetstream = self.client.jetstream()

        async def there() -> bool:
            return (await jetstream.stream_info(self.names.dead_stream)).state.messages >= count

        await eventually(there, within=within, what=f"{count} dead letters")
        state = (await jetstream.stream_info(self.names.dead_stream)).state
        letters = []
        for sequence in range(state.first_seq, state.last_seq + 1):
            message = await jetstream.get_msg(self.names.dead_stream, sequence)
            letters.append(DeadLetter.model_validate_json(message.data or b"{}"))
        return letters


async def queued(client: NatsClient, names: wire.Names) -> tuple[int, int]:
    """Messages in EVENTS and RUNS, as of one moment: a run that ends between two looks publishes its next event after
    the first one and is gone before the second, and then nothing would seem to be left."""
    jetstream = client.jetstream()
    events = (await jetstream.stream_info(names.events_stream)).state
    while True:
        runs = (await jetstream.stream_info(names.runs_stream)).state
        before, events = events, (await jetstream.stream_info(names.events_stream)).state
        if (before.messages, before.last_seq) == (events.messages, events.last_seq):
            return events.messages, runs.messages


def problem_of(message: Msg) -> Mapping[str, Any]:
    """The problem document of a reply."""
    assert wire.header(message.headers, wire.H_CONTENT_TYPE) == wire.CONTENT_TYPE_PROBLEM, message.data
    document: dict[str, Any] = json.loads(message.data)
    return document
