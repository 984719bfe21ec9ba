"""Controllers and gateways as the programs run them, with a start that waits, inside the test's own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from invoker.connection import ConnectionOptions
from invoker.gateway import app as gateway_app
from invoker.gateway.patience import ProbePlace, started_patiently
from invoker.gateway.settings import load_gateway_settings
from tests.conftest import eventually
from tests.controllers import fast_settings
from tests.ports import lasting_port
from trigger import app as controller_app

PROGRAMS = ("controller", "gateway")


@dataclass
class Begun:
    """A program that was started, whether it works yet or not."""

    probe_url: str
    works: asyncio.Event = field(default_factory=asyncio.Event)
    url: str = ""

    async def unready(self) -> tuple[int, str]:
        """Status of the readiness probe, and what it says is missing."""
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.probe_url}/readyz") as answer:
                return answer.status, "; ".join((await answer.json()).get("missing", []))
        except OSError:
            return 0, "no probe"

    async def says(self, words: str) -> None:
        """When this returns it is alive, and not ready for that reason."""

        async def said() -> bool:
            status, missing = await self.unready()
            return status == 503 and words in missing

        await eventually(said, what=f"{words!r} at {self.probe_url}/readyz")

    async def is_well(self, *, but_for: str = "") -> None:
        """When this returns it works and misses nothing (a gateway without controllers: nothing but those)."""

        async def well() -> bool:
            status, missing = await self.unready()
            return self.works.is_set() and (status == 200 or (bool(but_for) and missing == but_for))

        await eventually(well, what=f"readiness at {self.probe_url}")


@asynccontextmanager
async def begun(program: str, options: ConnectionOptions, folder: Path, **settings: Any) -> AsyncIterator[Begun]:
    """That program, started with those settings; it is ended when this is left."""
    port, stopping = lasting_port(), asyncio.Event()
    one = Begun(f"http://127.0.0.1:{port}")
    (folder / "functions").mkdir(exist_ok=True)
    start, attempt, place = (_controller if program == "controller" else _gateway)(
        one, options, folder, stopping, port, settings
    )
    task = asyncio.create_task(started_patiently(start, attempt, place))
    try:
        yield one
    finally:
        stopping.set()
        if not one.works.is_set():
            task.cancel()  # as a signal does
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(task, 60)


Start = Callable[[Callable[[], None]], Awaitable[None]]
Parts = tuple[Start, Callable[[], Awaitable[None]], ProbePlace]


def _controller(
    one: Begun, options: ConnectionOptions, folder: Path, stopping: asyncio.Event, port: int, settings: dict[str, Any]
) -> Parts:
    chosen = fast_settings(folder / "functions", folder / "state", probe_port=port, **settings)

    def start(working: Callable[[], None]) -> Awaitable[None]:
        def ready(_: object) -> None:
            working()
            one.works.set()

        return controller_app.run_controller(chosen, options, ready=ready, stopping=stopping)

    return start, lambda: controller_app.before_start(chosen, options), controller_app.probe_place(chosen)


def _gateway(
    one: Begun, options: ConnectionOptions, folder: Path, stopping: asyncio.Event, port: int, settings: dict[str, Any]
) -> Parts:
    given = {"gateway_port": 0, "gateway_probe_port": port, "gateway_anonymous": ("admin",)} | settings
    chosen = load_gateway_settings({}, **given)

    def start(working: Callable[[], None]) -> Awaitable[None]:
        def ready(up: gateway_app.RunningGateway) -> None:
            working()
            one.url = up.url
            one.works.set()

        return gateway_app.run_gateway(chosen, options, ready=ready, stopping=stopping)

    return start, lambda: gateway_app.before_start(options), gateway_app.probe_place(chosen)
