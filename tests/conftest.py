"""What every test may use: a real nats-server of its own, a connection to it, and waiting for moments."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from nats.aio.client import Client as NatsClient

from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import NatsServer, nats_server
from tests.skips import pytest_make_collect_report, pytest_runtest_makereport
from tests.soak import soaking

__all__ = ["client", "eventually", "nats_url", "pytest_make_collect_report", "pytest_runtest_makereport", "server"]

pytest_plugins = ["tests.cluster.fixtures", "tests.timeouts"]

T = TypeVar("T")

# How long an example takes says how busy the machine is, and nothing about the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

# Whoever starts the tests in the background of a script starts them deaf to Ctrl-C, and all that they start likewise.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server with JetStream, its own port and store, for one test."""
    async with nats_server(tmp_path / "jetstream") as running:
        yield running


@pytest.fixture
def nats_url(server: NatsServer) -> str:
    return server.url


@pytest.fixture
async def client(server: NatsServer) -> AsyncIterator[NatsClient]:
    """A connection to the test's server."""
    connection = await connect(ConnectionOptions(url=server.url), timeout=20)
    yield connection
    await connection.close()


async def eventually(ask: Callable[[], Awaitable[T | None]], *, within: float = 90.0, what: str = "the moment") -> T:
    """The first truthy answer of `ask`, asked again and again; fails the test when none came in time."""
    deadline = asyncio.get_running_loop().time() + within
    while True:
        answer = await ask()
        if answer:
            return answer
        if asyncio.get_running_loop().time() > deadline:
            pytest.fail(f"{what} did not come within {within:g} s; last answer: {answer!r}")
        await asyncio.sleep(0.01)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was really done: histories of a killed controller, tests on the cluster and each verdict of theirs, and what
    tests themselves have to tell."""
    _tell_of_the_cluster(terminalreporter)
    _tell_of_the_chart(terminalreporter)
    _tell_of_custody(terminalreporter)
    if not terminalreporter.isatty:
        # What follows is the list of the failed tests, whose messages are cut at the width of a terminal: here is none.
        terminalreporter.config.get_terminal_writer().fullwidth = 240


def _tell_of_custody(terminalreporter: pytest.TerminalReporter) -> None:
    counted: Counter[str] = Counter()
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "told":
                terminalreporter.write_line(str(text))
        counted[report.nodeid] += sum(int(str(n)) for name, n in report.user_properties if name == "histories")
    if not counted.total():
        return
    total = counted.total()
    terminalreporter.write_line(f"custody: {total} histories with a controller killed by SIGKILL, all survived")
    for test, number in sorted(counted.items()):
        if number and soaking():
            terminalreporter.write_line(f"  {number:3} {test}")


def _tell_of_the_cluster(terminalreporter: pytest.TerminalReporter) -> None:
    passed = [one.nodeid for one in terminalreporter.getreports("passed") if one.when == "call"]
    on_cluster = [nodeid for nodeid in passed if nodeid.startswith("tests/cluster/")]
    if not on_cluster:
        return
    skipped = [one for one in terminalreporter.getreports("skipped") if one.nodeid.startswith("tests/cluster/")]
    terminalreporter.write_line(f"cluster: {len(on_cluster)} tests passed, {len(skipped)} skipped; verdicts:")
    for nodeid in sorted(on_cluster):
        file, _, test = nodeid.partition("::")
        if file.endswith("test_verdicts.py"):
            terminalreporter.write_line(f"  {test.removeprefix('test_').replace('_', ' ')}")


def _tell_of_the_chart(terminalreporter: pytest.TerminalReporter) -> None:
    found = {
        word: [one for one in terminalreporter.getreports(word) if one.nodeid.startswith("tests/chart/")]
        for word in ("passed", "skipped")
    }
    passed = [one for one in found["passed"] if one.when == "call"]
    if not passed:
        return
    installed = [one for one in passed if "cluster" in one.keywords]
    files = Counter(one.nodeid.partition("::")[0].rpartition("/")[2] for one in installed)
    listed = ", ".join(
        f"{number} {file.removeprefix('test_').removesuffix('.py')}" for file, number in sorted(files.items())
    )
    terminalreporter.write_line(
        f"chart: {len(passed)} tests passed, {len(found['skipped'])} skipped; "
        f"{len(installed)} of them on a cluster{f' ({listed})' if listed else ''}"
    )
