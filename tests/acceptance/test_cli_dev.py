"""`invoker dev` as a user meets it: ready, found, live, stopped, killed, refused."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from invoker.cli.dev_state import started_at
from tests.acceptance.cli_desk import INVOKER, Desk, end, error_lines, until

pytestmark = pytest.mark.acceptance

HELLO = "def handle(event, context):\n    return 'Hello!'\n"
WAITS = """\
import pathlib, time


def handle(event, context):
    while not pathlib.Path({go!r}).exists():
        time.sleep(0.05)
"""
STUBBORN = """\
import signal, time


def handle(event, context):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("begun", flush=True)
    time.sleep(120)
"""
BROKEN = "def handle(event, context):\n    raise ValueError('no such \\x1b[31mluck')\n"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    made = Desk(tmp_path)
    made.function("hello", HELLO)
    made.function("broken", BROKEN)
    return made


@pytest.fixture
def listener() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def test_ready_found_by_other_commands_and_stopped_by_sigterm(desk: Desk) -> None:
    process = desk.start("dev", "--port", "0", "--http-port", "0")
    try:
        facts = until(desk.facts, what="dev.json")
        assert facts["pid"] == process.pid
        assert set(facts) >= {"nats_url", "http_url", "pid"}
        assert desk.run("publish", "hello", "--wait", "90").out == "Hello!"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        end(process)
    assert desk.facts() is None
    assert not (desk.state / "nats-server.json").exists()
    assert "ready in" in desk.err()
    assert f"  ✓ dashboard       {facts['http_url']}/ui\n" in desk.err()
    assert "stopped; state kept" in desk.err()


def test_addresses_and_changes_as_json_lines(desk: Desk) -> None:
    desk.function("waits", WAITS.format(go=str(desk.folder / "go")))
    with desk.dev("-o", "json") as facts:
        desk.does("publish", "waits")
        until(lambda: '"running"' in desk.out(), what="the line of its start")  # told of one that runs: else left out
        (desk.folder / "go").touch()
        until(lambda: '"succeeded"' in desk.out(), what="the line of its end")
        desk.does("publish", "nothing.here")
        until(lambda: '"no-match"' in desk.out(), what="the line of an event that nothing matches")
    first, *rest = map(json.loads, desk.out().splitlines())
    assert first["nats_url"] == facts["nats_url"]
    assert [one["state"] for one in rest] == ["running", "succeeded", "no-match"]
    assert rest[0]["function"] == "waits"


def test_a_second_start_finds_the_first(desk: Desk) -> None:
    with desk.dev() as facts:
        second = desk.run("dev")
        assert second.code == 0
        assert second.lines == [facts["nats_url"], facts["http_url"]]
        assert f"pid {facts['pid']}" in second.err
        assert desk.run("dev", "-o", "json").json == facts
        fresh = desk.run("dev", "--fresh")
        assert fresh.code == 2
        assert "--fresh: an `invoker dev`" in fresh.err
        assert desk.facts() == facts


def test_a_second_start_waits_for_a_first_that_is_starting(desk: Desk) -> None:
    first = desk.start("dev", "--port", "0", "--http-port", "0")
    try:
        until(lambda: (desk.state / "controller.log").exists(), what="a first that has the lock")
        second = desk.run("dev", "--port", "0", "--http-port", "0", "-o", "json")
        assert second.code == 0
        assert second.json["pid"] == first.pid
    finally:
        end(first)


def test_state_is_kept_and_fresh_drops_it(desk: Desk) -> None:
    with desk.dev():
        request_id = desk.run("publish", "hello", "--wait", "90", "-o", "name").out
        request_id = desk.run("publish", "hello", "--request-id", "kept-1", "--wait", "90", "-o", "name").out
    with desk.dev():
        assert desk.run("result", "kept-1").out == "Hello!"
        assert len(desk.run("runs", "list", "-o", "name").lines) == 2
    with desk.dev("--fresh"):
        assert desk.run("result", "kept-1").code == 4
        assert desk.run("runs", "list", "-o", "name").lines == []
    assert request_id


def test_a_killed_dev_takes_its_server_along_and_the_next_one_goes_on(desk: Desk) -> None:
    process = desk.start("dev", "--port", "0", "--http-port", "0")
    try:
        killed = until(desk.facts, what="dev.json")
        desk.run("publish", "hello", "--request-id", "survives", "--wait", "90")
        server = json.loads((desk.state / "nats-server.json").read_text())
        process.kill()
        process.wait()
        until(lambda: started_at(server["pid"]) != server["started"] or None, within=60, what="the server's end")
    finally:
        end(process)
    assert desk.facts() is not None, "a killed dev cannot tidy up"
    assert desk.run("result", "survives", "--server", killed["nats_url"]).code == 7
    with desk.dev() as facts:
        assert facts["pid"] != process.pid
        assert desk.run("result", "survives").out == "Hello!"


def test_a_stale_server_on_the_same_store_is_ended_first(desk: Desk) -> None:
    """A server that outlived its dev (no parent-death signal, or slow to stop) must not share the store."""
    desk.state.mkdir()
    stale = subprocess.Popen(["sleep", "600"])
    other = subprocess.Popen(["sleep", "600"])
    try:
        (desk.state / "nats-server.json").write_text(json.dumps({"pid": stale.pid, "started": started_at(stale.pid)}))
        with desk.dev():
            assert stale.wait(60) == -signal.SIGTERM
        (desk.state / "nats-server.json").write_text(json.dumps({"pid": other.pid, "started": "long ago"}))
        with desk.dev():
            assert other.poll() is None, "another process with the same pid is none of ours"
    finally:
        stale.kill(), other.kill()
        stale.wait(), other.wait()


def test_live_lines_in_a_terminal(desk: Desk) -> None:
    with desk.terminal("dev", "--port", "0", "--http-port", "0") as screen:
        screen.sees("Stop: Ctrl-C")
        assert "catalog         functions   2 functions, 2 subscriptions" in screen.text
        desk.run("publish", "hello", "--wait", "90")
        screen.sees("✓ hello")
        desk.run("publish", "helo")
        assert "∅ unmatched" in screen.sees("did you mean hello?  invoker explain helo")
        desk.run("publish", "broken", "--wait", "90")
        screen.sees("✗ broken")
        assert "error: " in screen.sees("no such \\x1b[31mluck")
        (desk.catalog / "hello" / "main.py").write_text("def handle(event, context):\n    return 'Hi!'\n")
        screen.sees("↻ catalog read again")
        assert desk.run("publish", "hello", "--wait", "90").out == "Hi!"
        (desk.catalog / "hello" / "function.yaml").write_text("kind: [")
        screen.sees("✗ hello/function.yaml")
        screen.type("\x03")
        assert screen.ends() == 0
        screen.sees("stopped; state kept")
    assert "\x1b[32m✓ hello" in screen.drawn.decode()


def test_interrupted_while_starting(desk: Desk) -> None:
    desk.state.mkdir()
    os.mkfifo(desk.state / "nats-server.log")  # its server waits for a reader, and so it starts for long
    process = desk.start("dev", "--port", "0", "--http-port", "0")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: bool(children.read_text()), what="the server's start")
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert desk.facts() is None
    assert "Traceback" not in desk.err()


def test_a_taken_port_is_an_error_when_it_was_asked_for(desk: Desk, listener: int) -> None:
    for option in ("--port", "--http-port"):
        refused = desk.run("dev", option, str(listener))
        assert refused.code == 2
        assert (
            refused.err.splitlines()[-3:]
            == [
                f"error: {option}: port {listener} on 127.0.0.1 is taken  [invalid-setting]",
                f"  leave {option} out to take the next free port",
            ]
            or f"error: {option}: port {listener} on 127.0.0.1 is taken" in refused.err
        )
    assert desk.facts() is None


def test_usual_ports_give_way_to_the_next_free_ones(desk: Desk) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _hold(taken, 7222)
        process = desk.start("dev", "--port", "0")
        try:
            facts = until(desk.facts, what="dev.json")
            assert not facts["http_url"].endswith(":7222")
        finally:
            end(process)


def _hold(taken: socket.socket, port: int) -> None:
    """Listen there. While somebody else does, as tests that run beside this one may, wait; who stays is as good."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        with suppress(OSError):
            taken.bind(("127.0.0.1", port))
            taken.listen()
            return
        time.sleep(0.1)


def test_folders_that_cannot_be_used(desk: Desk) -> None:
    (desk.folder / "file").write_text("")
    refused = desk.run("dev", "--state", str(desk.folder / "file" / "state"))
    assert refused.code == 2
    assert "error: --state: the folder" in refused.err
    assert "cannot be written: Not a directory" in refused.err
    (desk.folder / "list.yaml").write_text("functions: []\n")
    of_a_file = desk.run("dev", "--catalog", "list.yaml", "--state", "functions/../elsewhere")
    assert of_a_file.code == 2
    assert error_lines(of_a_file) == [
        "error: --catalog: list.yaml is a file, not a folder  [invalid-setting]",
        "  name the folder with your functions (--catalog DIR)",
    ]
    (desk.folder / "elsewhere" / "lock").unlink()
    (desk.folder / "elsewhere" / "lock").mkdir()
    told = error_lines(desk.run("dev", "--state", "functions/../elsewhere"))[0]
    assert f"the folder {desk.folder.resolve() / 'elsewhere'} cannot be written" in told
    missing = desk.run("dev", "--catalog", "nowhere")
    assert missing.code == 2
    assert missing.err.splitlines()[-3:] == [
        "error: --catalog: the folder nowhere does not exist  [invalid-setting]",
        "  name the folder with your functions (--catalog DIR), or begin one",
        "  try: invoker functions new hello",
    ]


def test_without_functions_it_says_how_to_begin(tmp_path: Path) -> None:
    empty = Desk(tmp_path)
    refused = empty.run("dev")
    assert refused.code == 2
    assert refused.err.splitlines()[-1] == "  try: invoker functions new hello"
    assert not (empty.state / "jetstream").exists()


def test_a_setting_of_the_controller_is_named(desk: Desk) -> None:
    refused = desk.run("dev", env={"INVOKER_RETENTION_SECONDS": "abc"})
    assert refused.code == 2
    assert "INVOKER_RETENTION_SECONDS" in refused.err
    assert "Traceback" not in refused.err


def test_a_run_that_ignores_everything_does_not_delay_the_stop(desk: Desk) -> None:
    desk.function("stubborn", STUBBORN)
    process = desk.start("dev", "--port", "0", "--http-port", "0")
    try:
        until(desk.facts, what="dev.json")
        desk.run("publish", "stubborn", "--request-id", "stubborn-1")
        until(lambda: desk.run("runs", "logs", "stubborn-1").lines == ["begun"] or None, what="the run's start")
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        end(process)
    with desk.dev():
        # It comes back by itself, as the same first attempt.
        until(lambda: desk.run("runs", "logs", "stubborn-1").lines == ["begun"] or None, what="the run's return")
        row = until(lambda: _running(desk, "stubborn-1"), what="the news that it runs")
        assert row["attempts"] == 1
        desk.run("runs", "cancel", "stubborn-1")


def _running(desk: Desk, request_id: str) -> dict[str, Any] | None:
    """The request's run, once the list knows that it runs: news of that are told a moment after it does."""
    row: dict[str, Any] = desk.run("runs", "list", "--request", request_id, "-o", "json").json[0]
    return row if row["state"] == "running" else None


def test_its_own_server_gone_ends_it_with_a_sentence(desk: Desk) -> None:
    process = desk.start("dev", "--port", "0", "--http-port", "0")
    try:
        until(desk.facts, what="dev.json")
        os.kill(json.loads((desk.state / "nats-server.json").read_text())["pid"], signal.SIGKILL)
        assert process.wait(60) == 7
        assert "the nats-server of this dev has ended" in desk.err()
        assert "Traceback" not in desk.err()
    finally:
        end(process)


def test_a_reader_that_goes_away_does_not_stop_it(desk: Desk) -> None:
    command = [INVOKER, "dev", "--port", "0", "--http-port", "0"]
    process = subprocess.Popen(
        command, cwd=desk.folder, env=desk.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        until(desk.facts, what="dev.json")
        assert process.stdout is not None
        process.stdout.close()
        for _ in range(2):
            assert desk.run("publish", "hello", "--wait", "90").code == 0
        assert process.poll() is None
    finally:
        assert end(process) == 0
