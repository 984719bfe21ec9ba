"""The state folder of a dev: locked by one, facts whole or not there, stale servers told from strangers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from invoker.cli import ports
from invoker.cli.dev_state import DevFacts, StateFolder, parent_bound, started_at
from invoker.cli.ports import choose_port
from invoker.errors import SettingsError
from tests.ports import lasting_port


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    first, second = StateFolder(tmp_path / "new" / "state"), StateFolder(tmp_path / "new" / "state")
    assert first.lock()
    assert not second.lock()
    first.unlock()
    first.unlock()
    assert second.lock()
    second.unlock()


def test_facts_are_whole_or_not_there(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    facts = DevFacts("nats://127.0.0.1:1", "http://127.0.0.1:2", os.getpid(), "functions")
    assert state.facts() is None
    state.tell(facts)
    assert state.facts() == facts
    assert json.loads((tmp_path / "dev.json").read_text()) == facts.document()
    for damaged in ("", "{", "[]", '{"nats_url": "x"}', '{"nats_url": 1, "http_url": 2, "pid": "x"}'):
        (tmp_path / "dev.json").write_text(damaged)
        assert state.facts() is None
    state.forget()
    state.forget()
    assert state.facts() is None


def test_what_a_killed_dev_left_does_not_count(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    state = StateFolder(tmp_path)
    state.tell(DevFacts("nats://127.0.0.1:1", "http://127.0.0.1:2", dead.pid))
    assert state.facts() is None


def test_clear_keeps_the_lock_only(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert state.lock()
    (tmp_path / "jetstream" / "deep").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("/etc")
    state.clear()
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]
    assert Path("/etc").is_dir()
    assert not StateFolder(tmp_path).lock()
    state.unlock()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"--state: the folder .*file/state cannot be written: Not a directory"):
        StateFolder(tmp_path / "file" / "state").lock()


def test_start_times_tell_processes_apart() -> None:
    one = subprocess.Popen(["sleep", "60"])
    try:
        assert started_at(one.pid)
        assert started_at(one.pid) == started_at(one.pid)
    finally:
        one.kill()
    os.waitid(os.P_PID, one.pid, os.WEXITED | os.WNOWAIT)
    assert started_at(one.pid) == "", "a zombie is none any more"
    one.wait()
    assert started_at(one.pid) == ""


def test_a_stale_server_is_ended_and_a_stranger_is_not(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    assert state.end_stale_server() is None
    process = subprocess.Popen(["sleep", "60"])
    try:
        (tmp_path / "nats-server.json").write_text(json.dumps({"pid": process.pid, "started": "other"}))
        assert state.end_stale_server() is None
        assert process.poll() is None
        state.remember_server(process.pid)
        assert state.end_stale_server() == process.pid
        assert process.wait(60) == -signal.SIGTERM
        assert not (tmp_path / "nats-server.json").exists()
    finally:
        process.kill()
        process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_parent_bound_child_ends_with_its_parent() -> None:
    program = (
        "import subprocess, sys\nfrom invoker.cli.dev_state import parent_bound\n"
        "child = subprocess.Popen([*parent_bound(), '/bin/sleep', '600'])\n"
        "print(child.pid, flush=True)\nsys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    child = int(parent.stdout.readline())
    began = started_at(child)
    while (Path("/proc") / str(child) / "comm").read_text() != "sleep\n":
        os.sched_yield()  # until it has become the program
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    descriptor = None
    try:
        descriptor = os.pidfd_open(child)
        import select

        assert select.select([descriptor], [], [], 60)[0], "the child goes on without its parent"
    except ProcessLookupError:
        pass  # gone already
    finally:
        if descriptor is not None:
            os.close(descriptor)
    assert began
    assert parent_bound()[0] == sys.executable


def test_ports() -> None:
    with socket.socket() as taken:
        port = lasting_port()  # somebody else may get any other, once nobody listens there
        taken.bind(("127.0.0.1", port))
        taken.listen()
        with pytest.raises(SettingsError, match=f"--port: port {port} on 127.0.0.1 is taken"):
            choose_port(port, 4222, "--port")
        other = choose_port(None, port, "--port")
        assert other > port
        ports._reserved.pop(other).close()  # this process does not end as a dev does
    assert choose_port(port, 4222, "--port") == port
    assert choose_port(0, 4222, "--port") == 0, "the server finds one itself"


def test_who_chooses_at_the_same_moment_chooses_another_port() -> None:
    """Between choosing a port and listening on it there is time: nobody listens here, and nobody gets the same."""
    program = (
        "import sys; from invoker.cli.ports import choose_port; "
        "print(choose_port(None, 7650, '--port'), flush=True); sys.stdin.read()"
    )
    chosen = [
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    try:
        ports = [one.stdout.readline() for one in chosen if one.stdout is not None]
        assert len(set(ports)) == 4
    finally:
        for one in chosen:
            one.communicate()
