"""The local engine for the suite and for its own tests: a folder of its own, and everything that it reports."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.reports import Reports
from trigger.engine import Phase, RunStatus
from trigger.local_engine import LocalEngine
from trigger.plan import Code, RunPlan

SECRET = "planted-in-the-controller-8f31"


def processes_with(entry: str) -> list[int]:
    """The processes that were started with `entry` in their environment."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                environ = Path("/proc", name, "environ").read_bytes().split(b"\0")
                state = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if entry.encode() in environ and state != "Z":
                found.append(int(name))
    return found


class LocalWorld:
    """A local engine on a folder of its own, with everything it reports."""

    second = 0.4
    pause = 0.05
    secret = SECRET

    def __init__(self, folder: Path, engine: LocalEngine | None = None) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.inputs: dict[str, list[bytes | Exception]] = {}
        self.problems: list[tuple[str, str | None]] = []
        self.engine = engine or LocalEngine(
            self.state,
            fetch_input=self._fetch,
            first_pause_seconds=self.pause,
            on_environment_problem=lambda function, problem: self.problems.append((function, problem)),
        )
        self._reports = Reports(patience_seconds=150)
        self._number = 0
        self._token = secrets.token_hex(4)  # other tests may run at the same time, and processes are found by run id

    async def follow(self) -> None:
        await self._reports.follow(self.engine)

    def plan(self, script: str, **fields: Any) -> RunPlan:
        return self.command("sh", "-c", script, **fields)

    def python(self, code: str, **fields: Any) -> RunPlan:
        return self.command(sys.executable, "-c", code, **fields)

    def command(self, *command: str, **fields: Any) -> RunPlan:
        return self.code(Code(command=command), **fields)

    def code(self, code: Code, **fields: Any) -> RunPlan:
        self._number += 1
        run_id = fields.pop("run_id", f"run{self._number}-{self._token}")
        deadline_in: timedelta | None = fields.pop("deadline_in", None)
        env = {"INVOKER_RUN_ID": run_id} | fields.pop("env", {})
        return RunPlan(
            run_id=run_id,
            request_id="request",
            function=fields.pop("function", "work"),
            topic="topic",
            spec_hash=fields.pop("spec_hash", "0123456789abcdef"),
            catalog="catalog",
            code=code,
            env=env,
            deadline_at=None if deadline_in is None else datetime.now(UTC) + deadline_in,
            **fields,
        )

    def missing_program(self) -> RunPlan:
        return self.command("no-such-program")

    def failing(self, times: int) -> str:
        self._number += 1
        marks = self.folder / f"attempts-{self._number}"
        return f'echo x >> {marks}; test "$(wc -l < {marks})" -gt {times} || exit 1'

    def give_input(self, run_id: str, data: bytes) -> None:
        self.inputs[run_id] = [data[at : at + 100_000] for at in range(0, len(data), 100_000)]

    async def _fetch(self, plan: RunPlan) -> AsyncIterator[bytes]:
        pieces = self.inputs[plan.run_id]
        if pieces and isinstance(pieces[0], Exception):
            raise pieces.pop(0)  # type: ignore[misc]  # checked in the line above
        return self._pieces(pieces)

    async def _pieces(self, pieces: list[bytes | Exception]) -> AsyncIterator[bytes]:
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    async def status(self, run_id: str, fits: Callable[[RunStatus], bool]) -> RunStatus:
        return await self._reports.status(run_id, fits)

    def count(self, run_id: str, phase: Phase) -> int:
        return self._reports.count(run_id, phase)

    async def alive(self, run_id: str) -> bool:
        return bool(processes_with(f"INVOKER_RUN_ID={run_id}"))


@pytest.fixture
async def engine_world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LocalWorld]:
    monkeypatch.setenv("PLANTED_SECRET", SECRET)
    world = LocalWorld(tmp_path)
    async with world.engine:
        following = asyncio.create_task(world.follow())
        yield world
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


@pytest.fixture
def world(engine_world: LocalWorld) -> LocalWorld:
    """The same world under a shorter name, with its own type."""
    return engine_world
