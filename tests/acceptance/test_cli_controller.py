"""`invoker controller`: the production process, against a nats-server of its own."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from invoker.nats_server import nats_server
from tests.acceptance.cli_desk import Desk, end, until

pytestmark = pytest.mark.acceptance

HELLO = "def handle(event, context):\n    return 'Hello!'\n"


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with nats_server(tmp_path / "jetstream") as server:
        made = Desk(
            tmp_path,
            {
                "INVOKER_NATS_URL": server.url,
                "INVOKER_STATE_DIR": str(tmp_path / "work"),
                "INVOKER_CATALOG": str(tmp_path / "functions"),
                "INVOKER_HTTP_PORT": "0",
            },
        )
        made.function("hello", HELLO)
        yield made


def ready(desk: Desk) -> bool | None:
    return '"controller ready"' in desk.err() or None


async def test_it_works_and_ends_on_sigterm(desk: Desk) -> None:
    process = desk.start("controller")
    try:
        until(lambda: ready(desk), what="readiness")
        assert desk.run("publish", "hello", "--wait", "90").out == "Hello!"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        end(process)
    lines = [json.loads(line) for line in desk.err().splitlines()]
    assert {"event", "level", "timestamp"} <= set(lines[0])
    assert any(line.get("run_id") and line["event"] == "run finished" for line in lines)
    assert desk.out() == ""


async def test_two_of_them_share_the_work(desk: Desk) -> None:
    first = desk.start("controller")
    try:
        until(lambda: ready(desk), what="readiness")
        # In a folder of its own: both would write over each other's lines in the same file.
        beside = Desk(desk.folder / "beside", desk.environ | {"INVOKER_STATE_DIR": str(desk.folder / "work2")})
        beside.folder.mkdir()
        second = beside.start("controller")
        try:
            until(lambda: ready(beside), what="readiness")
            for number in range(4):
                assert desk.run("publish", "hello", str(number), "--wait", "90").code == 0
        finally:
            assert end(second) == 0
        assert desk.run("publish", "hello", "--wait", "90").out == "Hello!"
    finally:
        assert end(first) == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("INVOKER_RETENTION_SECONDS", "abc"),
        ("INVOKER_HTTP_PORT", "70000"),
        ("INVOKER_ENGINE", "cloud"),
        ("INVOKER_REPLY_SUBJECTS", "$JS.>"),
        ("INVOKER_CATALOG", "/nowhere/at/all"),
        ("INVOKER_NATS_URL", "http://x"),
        ("INVOKER_CONFIG", "nowhere.toml"),
    ],
)
async def test_an_unusable_setting_ends_it_with_its_name(desk: Desk, name: str, value: str) -> None:
    ran = desk.run("controller", env={name: value})
    assert ran.code == 2, ran.err
    assert name in ran.err.splitlines()[-1] or any(name in line for line in ran.err.splitlines()[-3:])
    assert "Traceback" not in ran.err
