"""`invoker watch` and `invoker top` as a person and a script have them: over NATS and a gateway, piped and drawn."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cli_desk import INVOKER, Desk, until

pytestmark = pytest.mark.acceptance

GOOD = "def handle(event, context):\n    return b'fine'\n"
BAD = "def handle(event, context):\n    raise ValueError('no such order')\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, str]]:
    """A desk with a running dev, and the address of its gateway."""
    desk = Desk(tmp_path_factory.mktemp("desk"))
    desk.function("good", GOOD, "orders.good")
    desk.function("bad", BAD, "orders.bad")
    with desk.dev("--catalog", str(desk.catalog)) as facts:
        yield desk, facts["http_url"]


def publish(url: str, *topics: str) -> list[str]:
    """Events by HTTP: a process each would take most of the time of these tests."""
    request_ids = []
    for topic in topics:
        request = urllib.request.Request(f"{url}/v1/topics/{topic}", data=b"1", method="POST")
        with urllib.request.urlopen(request) as answer:
            request_ids.append(str(json.load(answer)["request_id"]))
    return request_ids


def finished(url: str, *topics: str) -> None:
    """Publish, and when this returns the runs of all have ended."""
    for request_id in publish(url, *topics):
        until(lambda one=request_id: _state(url, one) == "finished", what=f"the end of {request_id}")


def _state(url: str, request_id: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/requests/{request_id}?wait=30") as answer:
        return str(json.load(answer)["state"])


@contextmanager
def watching(desk: Desk, url: str, file: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """`invoker watch`, writing into a file, once it hears: an event nobody listens to is sent until it is told."""
    with file.open("wb") as out:
        process = subprocess.Popen(
            [INVOKER, "watch", *arguments], cwd=desk.folder, env=desk.env, stdout=out, stderr=subprocess.PIPE
        )
    try:
        until(lambda: _heard(url, file), what="a watch that hears")
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def _heard(url: str, file: Path) -> bool:
    publish(url, "orders.nobody")
    return "orders.nobody" in file.read_text()


@pytest.mark.parametrize("door", ["nats", "gateway"])
def test_watch_tells_every_change_on_a_line(desk: tuple[Desk, str], tmp_path: Path, door: str) -> None:
    where, url = desk
    through = ("--gateway", url) if door == "gateway" else ()
    lines, words = tmp_path / "lines", tmp_path / "words"
    with (
        watching(where, url, lines, "-o", "jsonl", "--topic", "orders.>", *through),
        watching(where, url, words, *through) as process,
    ):
        good, bad = publish(url, "orders.good", "orders.bad")
        until(lambda: _results(lines) == {good, bad}, what="both results")
        until(lambda: "✓ good" in words.read_text() and "no such order" in words.read_text(), what="both, in words")
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    for request_id in (good, bad):
        events = [one["event"] for one in told if one["request_id"] == request_id]
        assert [event for event in events if event != "status"] == ["accepted", "result"]
        assert events[-1] == "result", "no news of a run after its end"
    assert all(len(line) < 250 for line in words.read_text().splitlines())
    text = words.read_text()
    for wanted in ("✓ good", "✗ bad", "orders.good", "succeeded", "∅ unmatched", "invoker explain orders.nobody"):
        assert wanted in text, text


def _results(file: Path) -> set[str]:
    told = [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    return {one["request_id"] for one in told if one["event"] == "result"}


def test_watch_leaves_out_what_was_not_asked_for(desk: tuple[Desk, str], tmp_path: Path) -> None:
    where, url = desk
    lines = tmp_path / "lines"
    with lines.open("wb") as out:
        process = subprocess.Popen(
            [INVOKER, "watch", "--function", "good", "-o", "jsonl"], cwd=where.folder, env=where.env, stdout=out
        )
        try:
            until(lambda: _told_of(url, lines), what="a run of the wanted function")
        finally:
            process.kill()
            process.wait()
    told: list[dict[str, Any]] = [json.loads(line) for line in lines.read_text().splitlines()]
    assert {one["topic"] for one in told} == {"orders.good"}
    assert where.run("watch", "--topic", "a..b").code == 6


def _told_of(url: str, file: Path) -> bool:
    """Both again: a watch that has only just begun may miss the first."""
    finished(url, "orders.bad", "orders.good")
    return '"result"' in file.read_text()


@pytest.mark.parametrize("door", ["nats", "gateway"])
def test_top_counts_the_last_minute(desk: tuple[Desk, str], door: str) -> None:
    where, url = desk
    through = ("--gateway", url) if door == "gateway" else ()
    finished(url, "orders.good", "orders.bad")
    looked = where.run("top", "--count", "1", "-o", "json", *through)
    assert looked.code == 0, looked.err
    loads = {one["function"]: one for one in looked.json["functions"]}
    assert loads["good"]["succeeded"] >= 1
    assert loads["bad"]["failed"] >= 1
    assert loads["good"]["median_seconds"] > 0
    twice = where.run("top", "--count", "2", "--interval", "100ms", *through)
    assert twice.code == 0, twice.err
    assert [line.split()[1] for line in twice.lines if " ready " in line].count("good") == 2
    assert all("succeeded" in line for line in twice.lines)


def test_top_is_drawn_in_place_on_a_terminal(desk: tuple[Desk, str]) -> None:
    where, url = desk
    finished(url, "orders.good")
    with where.terminal("top", "--interval", "200ms") as terminal:
        terminal.sees("FUNCTION")
        terminal.sees("2 functions on local")
        terminal.sees("good")
        terminal.type("\x03")
        assert terminal.ends() == 130


def test_without_a_server_both_say_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for command in (("watch",), ("top", "--count", "1")):
        ran = desk.run(*command, "--server", "nats://127.0.0.1:1")
        assert (ran.code, "server-unreachable" in ran.err, ran.out) == (7, True, "")
