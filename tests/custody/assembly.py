"""A controller put together by a test, so that one rule of custody can be left out of it.

The same parts as in `trigger.app`, with three things a test may choose: the controller's class, the streams, and who
reads and writes RESULTS. It can also vanish: its tasks and its connection end, and nothing is handed back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.js import api

from invoker.claimcheck import ClaimStore
from invoker.connection import ConnectionOptions, connect
from invoker.gateway.run_api import RunApi
from invoker.publish import EventPublisher
from invoker.results.nats import ResultStream
from invoker.streams import stream_configs
from tests.controllers import fast_settings
from tests.integration.run_world import served
from trigger.catalog_source.directory import DirectorySource
from trigger.controller import Controller
from trigger.engine import Engine
from trigger.input_file import InputReader
from trigger.local_engine.engine import LocalEngine
from trigger.metrics import Metrics
from trigger.settings import ControllerSettings
from trigger.task_owner import TaskOwner

KEY = b"the key of this test"
Streams = Callable[[api.StreamConfig], Sequence[api.StreamConfig]]
"""What becomes of one of our streams: itself, one with another rule, or several."""


@dataclass(frozen=True)
class Rules:
    """What may be wrong. As it stands: nothing."""

    controller: type[Controller] = Controller
    results: type[ResultStream] = ResultStream
    fence: type[ResultStream] = ResultStream
    """Who tells the run API whether a run is unfinished."""
    streams: Streams = lambda config: [config]


RIGHT = Rules()


class Assembled:
    """A controller that a test can end in both ways."""

    def __init__(self, controller: Controller, client: NatsClient, engine: Engine) -> None:
        self.controller = controller
        self.engine = engine
        self._client = client
        self._over = asyncio.Event()
        self._running = asyncio.create_task(self._run())
        self._started: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def started(self) -> Assembled:
        either: list[asyncio.Future[Any]] = [self._running, self._started]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            self._running.result()
        return self

    async def vanish(self) -> None:
        """As if its power had failed: nothing is handed back, nobody is told. Safe to repeat."""
        self._over.set()
        await self._running
        with suppress(nats.errors.Error, OSError):
            await self._client.close()

    async def stop(self) -> None:
        """In an orderly way."""
        self._over.set()
        await self._running
        await self.controller.hand_back()
        await self._client.close()

    async def _run(self) -> None:
        async with TaskOwner() as tasks:
            try:
                await self.controller.start(tasks)
                self._started.set_result(None)
                await self._over.wait()
            finally:
                await tasks.end()


async def make_streams(client: NatsClient, settings: ControllerSettings, rules: Rules) -> None:
    """Every stream as the rules want it; one that exists is left alone."""
    jetstream = client.jetstream()
    present = {info.config.name for info in await jetstream.streams_info()}
    for config in stream_configs(settings.names, settings.stream_limits):
        for wanted in rules.streams(config):
            if wanted.name not in present:
                await jetstream.add_stream(wanted)


@asynccontextmanager
async def assembled(
    url: str, catalog: Path, state_dir: Path, rules: Rules = RIGHT, *, engine: Engine | None = None, **given: Any
) -> AsyncIterator[Assembled]:
    """A controller by these rules, started. An `engine` that is given outlives it."""
    settings = fast_settings(catalog, state_dir, run_token_key=KEY.decode(), **given)
    async with AsyncExitStack() as stack:
        client = await connect(ConnectionOptions(url=url))
        stack.push_async_callback(client.close)
        await make_streams(client, settings, rules)
        jetstream, names = client.jetstream(), settings.names
        claims, results = ClaimStore(jetstream, names), rules.results(client, jetstream, names)
        publisher = EventPublisher(client, jetstream, claims, names)
        if engine is None:
            reader = InputReader(results, claims)
            engine = await stack.enter_async_context(LocalEngine(state_dir, fetch_input=reader.read))
        fence = rules.fence(client, jetstream, names)
        run_api = RunApi(fence, claims, publisher, key=KEY, max_output_bytes=1024**2, names=names)
        http_url = await stack.enter_async_context(served(run_api))
        source = DirectorySource(catalog, settings.catalog_interval_seconds)
        functions = await asyncio.to_thread(source.load)
        controller = rules.controller(
            settings, client, source, functions, engine, Metrics(), results, claims, publisher, http_url, http_url, KEY
        )
        running = await Assembled(controller, client, engine).started()
        stack.push_async_callback(running.vanish)
        yield running
