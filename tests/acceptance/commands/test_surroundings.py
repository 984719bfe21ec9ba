"""What all commands share: no server, global options, colour, a reader that goes away, usage errors, signals."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.acceptance.cli_desk import PATIENCE, WAIT, Desk, error_lines, until

pytestmark = pytest.mark.acceptance


def test_a_full_disk_below_standard_output_is_no_internal_matter(desk: Desk) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    words = "error: standard output cannot be written: No space left on device  [internal]"
    for command in ("functions list -o json", "call hello Ada -q", "runs list -o json"):
        ran = desk.shell(f"invoker {command} > /dev/full")
        assert (ran.code, ran.err.splitlines()) == (1, [words]), command


def test_no_server(tmp_path: Path) -> None:
    nobody = Desk(tmp_path)
    for command in (["publish", "hello", "x"], ["result", "@latest"], ["runs", "list"], ["functions", "list"]):
        ran = nobody.run("--server", "nats://127.0.0.1:1", *command)
        assert ran.code == 7, command
        assert error_lines(ran)[-1] == "  try: invoker dev"


def test_global_options_may_stand_anywhere(desk: Desk) -> None:
    facts = desk.facts()
    assert facts is not None
    for arguments in (["-v", "runs", "list"], ["runs", "-v", "list"], ["runs", "list", "-v"]):
        assert f"server {facts['nats_url']}" in desk.run(*arguments).err
    assert desk.run("runs", "list", "--server", "nats://127.0.0.1:1").code == 7
    assert desk.run("runs", "list", "--server=nats://127.0.0.1:1").code == 7
    assert desk.run("--context", "nowhere", "runs", "list").code == 2
    assert desk.run("runs", "list", "--creds", "nowhere.creds").code == 2


def test_colour_only_where_it_is_wanted(desk: Desk) -> None:
    desk.does("publish", "hello", "x", "--wait", WAIT)
    escape = "\x1b["
    assert escape not in desk.run("runs", "list").out
    assert escape in desk.run("runs", "list", env={"FORCE_COLOR": "1"}).out
    with desk.terminal("runs", "list", columns=60) as screen:
        screen.ends()
    assert "\x1b[32m" in screen.drawn.decode()
    assert max(map(len, screen.text.splitlines())) <= 60
    for quiet in ({"NO_COLOR": "1"}, {}):
        colourless = Desk(desk.folder, quiet)
        with colourless.terminal("runs", "list", *([] if quiet else ["--no-color"])) as screen:
            screen.ends()
        assert "\x1b[32m" not in screen.drawn.decode()


def test_a_reader_that_goes_away_is_no_error(desk: Desk) -> None:
    ran = desk.shell('set -o pipefail; invoker publish big x --wait 100 -q | head -c 10; echo " ${PIPESTATUS[0]}"')
    assert ran.out == "xxxxxxxxxx 0\n"
    assert ran.err == ""
    assert desk.shell("invoker runs list -o json | true; echo ${PIPESTATUS[0]}").err == ""


def test_output_ends_its_line_on_a_terminal_only(desk: Desk) -> None:
    with desk.terminal("publish", "hello", "Ada", "--wait", WAIT, "-q") as screen:
        assert screen.ends() == 0
    assert screen.text == "Hello, Ada!\n"


def test_usage_errors_end_with_2(desk: Desk) -> None:
    for line in ("publish", "nonsense", "runs lst", "publish x --wat", "runs list -o xml", "publish x --wait soon"):
        ran = desk.run(*line.split())
        assert (ran.code, ran.out) == (2, ""), line
        assert error_lines(ran)[0].endswith("[usage]")
        assert error_lines(ran)[-1].startswith("  try: invoker")


def test_sigterm_while_waiting_leaves_the_run_alone(desk: Desk) -> None:
    waiting = desk.start("publish", "slow", "--request-id", "term-1", "--wait", "60")
    until(lambda: desk.run("result", "term-1").code == 5 or None, what="the request")
    waiting.send_signal(signal.SIGTERM)
    assert waiting.wait(PATIENCE) != 0
    assert desk.run("result", "term-1").code == 5
    desk.does("runs", "cancel", "term-1")
