"""SIGKILL of `invoker dev` itself, with its nats-server inside: at each named place, and at random instants."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from invoker.connection import ConnectionOptions, connect
from tests.conftest import eventually
from tests.custody.processes import DevProcess, processes_with
from tests.custody.workload import Workload, kill_catalog
from tests.ports import lasting_port
from trigger.moments import Moment

pytestmark = pytest.mark.integration

EVENTS = 4
MOMENTS = list(Moment)


class Desk:
    """One state of `invoker dev`, and a client that comes back with every new one."""

    def __init__(self, folder: Path) -> None:
        catalog = kill_catalog(folder / "catalog", folder / "notes")
        self._plan = DevProcess(folder, "", catalog, state=folder / "state", port=lasting_port())
        self._folder = folder
        self._count = 0
        self.workload: Workload

    async def open(self) -> DevProcess:
        """The first one; all later ones have its address."""
        first = await self.start()
        client = await connect(ConnectionOptions(url=first.nats_url))
        self.workload = await Workload(client, self._folder / "notes").listen()
        return first

    async def start(self, crash_at: Moment | None = None, nth: int = 1) -> DevProcess:
        self._count += 1
        folder = self._folder / f"dev-{self._count}"
        return await replace(self._plan, folder=folder, crash_at=crash_at, nth=nth, process=None).start()

    async def publish(self, tag: str, dev: DevProcess) -> list[str]:
        """Events until that dev is gone; returns those of which nobody knows whether they are stored."""
        for number in range(EVENTS):
            if not await self._stored(f"{tag}-{number}", dev):
                return [f"{tag}-{number}"]
        return []

    async def _stored(self, request_id: str, dev: DevProcess) -> bool:
        """Whether it was acknowledged before that dev was gone; one that only takes its time is asked again."""
        assert dev.process is not None
        while dev.process.returncode is None:
            with suppress(Exception):  # whatever the client says while its server dies
                await asyncio.wait_for(self.workload.publish(request_id), 1)
                return True
            await asyncio.sleep(0.02)
        return False

    async def survive(self, doubtful: list[str]) -> DevProcess:
        """A new dev on the same state, and the proof; what was doubtful is published again under the same id."""
        heir = await self.start()
        client = self.workload.client

        async def connected() -> bool:
            return client.is_connected and client.connected_url.port == self._plan.port

        await eventually(connected, what="the client's return")
        for one in doubtful:

            async def stored(request_id: str = one) -> bool:
                try:
                    await asyncio.wait_for(self.workload.publish(request_id), 1)
                except Exception:  # the first moments after the return
                    return False
                return True

            await eventually(stored, what=f"the acknowledgement of {one}")
        await self.workload.finished()
        await self.workload.prove(replies=False)
        assert not heir.tracebacks()
        return heir

    async def none_survives(self, work: Path) -> None:
        async def gone() -> bool:
            return not processes_with(str(work))

        await eventually(gone, within=60, what="the end of every process of the killed dev")


@pytest.mark.parametrize("moments", [MOMENTS[:4], MOMENTS[4:8], MOMENTS[8:]], ids=["accept", "run", "finish"])
async def test_kill_dev_at(moments: list[Moment], tmp_path: Path, record_property: Callable[..., None]) -> None:
    desk = Desk(tmp_path)
    heir = await desk.open()
    for number, moment in enumerate(moments):
        heir.terminate()
        assert await heir.ended() == 0
        doomed = await desk.start(moment, nth=1 + number % 3)
        doubtful = await desk.publish(f"m{number}", doomed)
        assert await doomed.ended() == -signal.SIGKILL
        assert doomed.proof.read_text() == f"{moment} {1 + number % 3} {doomed.pid}\n"
        await desk.none_survives(tmp_path / "state" / "engine" / "work")
        heir = await desk.survive(doubtful)
        record_property("histories", 1)
    heir.terminate()
    assert await heir.ended() == 0
    await desk.workload.client.close()


async def test_kill_dev_at_random_instants(tmp_path: Path, record_property: Callable[..., None]) -> None:
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")  # shown when the test fails
    chance = random.Random(seed)
    desk = Desk(tmp_path)
    dev = await desk.open()
    for number in range(4):
        publishing = asyncio.create_task(desk.publish(f"r{number}", dev))
        await asyncio.sleep(chance.uniform(0.0, 0.5))  # the random instant is what this test is about
        dev.kill()
        assert await dev.ended() == -signal.SIGKILL
        await desk.none_survives(tmp_path / "state" / "engine" / "work")
        dev = await desk.survive(await publishing)
        record_property("histories", 1)
    dev.terminate()
    assert await dev.ended() == 0
    await desk.workload.client.close()
