"""A real `invoker dev`, a process of its own, on which the day of `world.py` has been lived through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from invoker.client import Client
from invoker.connection import ConnectionOptions
from tests.acceptance.cli_desk import Desk
from tests.custody.workload import write_catalog
from tests.dashboard.world import Day, catalog, live_through


@dataclass(frozen=True)
class Shop:
    """Where its gateway is, a client of its NATS, and what happened there."""

    url: str
    client: Client
    day: Day
    gates: Path

    def open_gate(self, request_id: str) -> None:
        """Let the run of `report` for that request end."""
        (self.gates / request_id).touch()


@asynccontextmanager
async def open_shop(folder: Path, *, calm: bool = False) -> AsyncIterator[Shop]:
    """The dev and its day, until this is left."""
    desk, gates = Desk(folder), folder / "gates"
    gates.mkdir()
    write_catalog(desk.catalog, *catalog(gates))
    with desk.dev() as facts:
        async with Client.connect(ConnectionOptions(url=facts["nats_url"])) as client:
            yield Shop(facts["http_url"], client, await live_through(client, calm=calm), gates)
