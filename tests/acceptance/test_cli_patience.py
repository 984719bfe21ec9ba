"""A production process that starts before what it needs: alive, not ready with the reason in words, well by itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from invoker.nats_server import nats_server
from tests.acceptance.cli_desk import Desk, end, until
from tests.ports import lasting_port

pytestmark = pytest.mark.acceptance

PROGRAMS = ("controller", "gateway")


def put(file: Path, text: str) -> None:
    """Write the file anew, at one stroke: who reads it meanwhile finds one of the two."""
    beside = file.with_name(f"{file.name}.new")
    beside.write_text(text)
    beside.replace(file)


def said_again(lines: Iterable[dict[str, Any]], field: str) -> list[str]:
    """What stands in that field of two lines in less than a minute: of a reason that stays, it is told but then."""
    last: dict[str, datetime] = {}
    found = []
    for line in lines:
        words, at = line[field], datetime.fromisoformat(line["timestamp"])
        if words in last and at - last[words] < timedelta(seconds=59):
            found.append(words)
        last[words] = at
    return found


class Starting:
    """A program that has been started, and its probes."""

    def __init__(self, desk: Desk, program: str, nats_url: str, **more: str) -> None:
        self.desk, self.program, self.port = desk, program, lasting_port()
        env = {
            "INVOKER_NATS_URL": nats_url, "INVOKER_CATALOG": str(desk.catalog),
            "INVOKER_STATE_DIR": str(desk.folder / "work"), "INVOKER_HTTP_PORT": str(self.port),
            "INVOKER_GATEWAY_PROBE_PORT": str(self.port), "INVOKER_GATEWAY_PORT": "0", **more,
        }  # fmt: skip
        self.process = desk.start(program, env=env)

    def asked(self) -> tuple[int, str]:
        """What a health check in a container finds."""
        done = subprocess.run(
            [sys.executable, "-I", "-m", "invoker.ready", f"http://127.0.0.1:{self.port}"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.strip()

    def is_unready(self, words: str) -> bool:
        code, said = self.asked()
        return code == 1 and said.startswith("not ready: ") and words in said

    def works(self) -> bool:
        return f'"{self.program} ready"' in self.desk.err()

    def reasons(self) -> list[dict[str, Any]]:
        """The lines about why it does not work yet."""
        lines = [json.loads(line) for line in self.desk.err().splitlines()]
        return [line for line in lines if line["event"] == "not ready, trying again"]


@contextmanager
def starting(tmp_path: Path, program: str, nats_url: str, **more: str) -> Iterator[Starting]:
    desk = Desk(tmp_path)
    desk.function("hello", "def handle(): return 'Hello!'\n")
    begun = Starting(desk, program, nats_url, **more)
    try:
        yield begun
    finally:
        end(begun.process)


@pytest.mark.parametrize("program", PROGRAMS)
async def test_it_is_up_before_its_nats(tmp_path: Path, program: str) -> None:
    port = lasting_port()
    with starting(tmp_path, program, f"nats://127.0.0.1:{port}") as begun:
        until(lambda: begun.is_unready("cannot be reached"), what="the reason")
        assert begun.process.poll() is None
        async with nats_server(tmp_path / "jetstream", port=port):
            until(begun.works, what="readiness")
        said = [line["reason"] for line in begun.reasons()]
        assert any(f"NATS at nats://127.0.0.1:{port} cannot be reached" in reason for reason in said), said


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_wrong_password_is_mended_in_its_file(tmp_path: Path, program: str) -> None:
    password = tmp_path / "password"
    password.write_text("secret-word")
    only = "authorization { user: invoker, password: right }"
    async with nats_server(tmp_path / "jetstream", extra_config=only) as server:
        files = {"INVOKER_NATS_USER": "invoker", "INVOKER_NATS_PASSWORD_FILE": str(password)}
        with starting(tmp_path, program, server.url, **files) as begun:
            until(lambda: begun.is_unready("refuses us"), what="the reason")
            put(password, "right")
            until(begun.works, what="readiness")
        assert begun.process.wait() == 0
        assert "secret-word" not in begun.desk.err(), "credentials are never shown"
        refusals = [line for line in begun.reasons() if "refuses us" in line["reason"]]
        assert refusals
        assert said_again(refusals, "reason") == [], "a reason is said once, not at every attempt"


async def test_another_servers_streams_and_a_signal_before_it_works(tmp_path: Path) -> None:
    """A stream with other settings is left as it is, and named; who waits can be ended."""
    async with nats_server(tmp_path / "jetstream") as server:
        with starting(tmp_path, "controller", server.url) as begun:
            until(begun.works, what="readiness")
        with starting(tmp_path, "controller", server.url, INVOKER_RETENTION_SECONDS="3600") as begun:
            until(lambda: begun.is_unready("INVOKER_RESULTS"), what="the reason")
        assert begun.process.wait() == 130


def test_what_no_waiting_mends_ends_it(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.function("hello", "def handle(): return 'Hello!'\n")
    env = {"INVOKER_CATALOG": str(desk.catalog), "INVOKER_STATE_DIR": str(tmp_path / "work"), "INVOKER_HTTP_PORT": "0"}
    ran = desk.run("controller", "--creds", "/nowhere/at.all", env=env)
    assert (ran.code, "Traceback" in ran.err) == (2, False), ran.err


@pytest.mark.parametrize("arguments", [(), ("https://127.0.0.1:1",), ("127.0.0.1:1",), ("http://a", "http://b")])
def test_the_health_check_says_how_it_is_used(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "invoker.ready", *arguments], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr[:6]) == (2, "usage:")


def test_the_health_check_of_nobody() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "invoker.ready", f"http://127.0.0.1:{lasting_port()}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "refused" in done.stdout) == (1, True)
