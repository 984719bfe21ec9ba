"""What somebody meets on the first day: a call by name, a paused function, a wrong word, a wrong folder."""

from __future__ import annotations

import shutil

import pytest

from tests.acceptance.cli_desk import WAIT, Desk, error_lines, until
from tests.acceptance.commands.desk_functions import BAD

pytestmark = pytest.mark.acceptance

WROTE = """\
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: wrote}
spec:
  command: [echo, some lines]
"""


def test_call_runs_one_function_whatever_it_subscribes_to(desk: Desk) -> None:
    ran = desk.run("call", "second", '{"name": "Ada"}', "--wait", WAIT)
    assert (ran.code, ran.out) == (0, "Hello, Ada!")
    asked = desk.run("call", "facts", "--param", "level=9", "--request-id", "call-1", "--wait", WAIT, "-o", "json").json
    assert asked["request_id"] == "call-1"
    assert [run["function"] for run in asked["runs"]] == ["facts"]
    assert desk.run("call", "fail", "--wait", WAIT).code == 3


def test_call_goes_through_a_gateway_too(desk: Desk) -> None:
    facts = desk.facts()
    assert facts is not None
    through = ["--gateway", facts["http_url"]]
    ran = desk.run("call", "second", '{"name": "Ada"}', "--wait", WAIT, *through)
    assert (ran.code, ran.out) == (0, "Hello, Ada!")
    missed = desk.run("call", "helo", "x", "--wait", WAIT, *through)
    assert (missed.code, error_lines(missed)[0]) == (4, "error: there is no function 'helo'  [unknown]")


def test_call_of_a_function_that_is_not_there_names_the_nearest(desk: Desk) -> None:
    missed = desk.run("call", "helo", "x", "--wait", WAIT)
    assert missed.code == 4
    assert error_lines(missed) == [
        "error: there is no function 'helo'  [unknown]", "  did you mean hello?", "  try: invoker functions list",
    ]  # fmt: skip


@pytest.mark.parametrize("command", [["call", "bad"], ["runs", "replay", "for-bad", "--function", "bad"]])
def test_a_function_whose_file_is_refused_gets_no_event(desk: Desk, command: list[str]) -> None:
    desk.does("publish", "hello", "x", "--request-id", "for-bad", "--wait", WAIT)
    (desk.catalog / "bad").mkdir()
    (desk.catalog / "bad" / "function.yaml").write_text(BAD)
    try:
        assert desk.run("functions", "reload").code == 6
        dead = desk.run("dead", "list", "-o", "name").lines
        refused = desk.run(*command, "x", "--wait", WAIT)
        first, *_, last = error_lines(refused)
        assert refused.code == 6
        assert first.startswith("error: bad cannot run, its file is refused: bad/function.yaml:5: spec.runtim: unknown")
        assert last == "  try: invoker functions describe bad"
        assert desk.run("dead", "list", "-o", "name").lines == dead
    finally:
        shutil.rmtree(desk.catalog / "bad")
        desk.does("functions", "reload")


def test_explain_knows_direct_calls(desk: Desk) -> None:
    assert desk.run("explain", "invoker.call.hello", "-o", "json").json["matched"] == ["hello"]
    assert desk.run("explain", "invoker.call.hello").lines[1].split() == [
        "✓", "match", "hello", "invoker.call.hello", "called", "by", "its", "name",
    ]  # fmt: skip
    missed = desk.run("explain", "invoker.call.helo", "-o", "json").json
    assert missed["matched"] == []
    assert missed["nearest"][0] == {"pattern": "invoker.call.hello", "function": "hello"}
    assert "→ hello " in desk.run("publish", "invoker.call.hello", "x").err


def test_a_paused_function_is_named_where_somebody_waits_for_it(desk: Desk) -> None:
    desk.does("functions", "pause", "echo")
    try:
        desk.does("publish", "echo", "x", "--request-id", "waits-for-echo")
        until(lambda: desk.run("result", "waits-for-echo", "-o", "json").json["runs"] or None, what="the run")
        ran = desk.run("result", "waits-for-echo", "--wait", "100ms")
        assert ran.code == 5
        assert error_lines(ran)[1:] == ["  echo is paused; its events queue", "  try: invoker functions resume echo"]
        assert "echo is paused: invoker functions resume echo" in desk.run("runs", "describe", "waits-for-echo").err
    finally:
        desk.does("functions", "resume", "echo")
    ran = desk.run("result", "waits-for-echo", "--wait", WAIT)
    assert (ran.code, ran.out) == (0, "x")
    assert "paused" not in desk.run("runs", "describe", "waits-for-echo").err


def test_the_latest_request_is_the_one_that_somebody_published(desk: Desk) -> None:
    desk.does("publish", "chain.first", "x", "--request-id", "begins-a-chain")
    chain = desk.run("result", "begins-a-chain", "--chain", "--wait", WAIT)
    assert "second" in chain.out
    assert desk.run("result", "@latest", "-o", "json").json["request_id"] == "begins-a-chain"


def test_reload_says_what_is_wrong(desk: Desk) -> None:
    (desk.catalog / "bad").mkdir()
    (desk.catalog / "bad" / "function.yaml").write_text(BAD)
    try:
        ran = desk.run("functions", "reload")
        said = ran.err.splitlines()
        assert said[0].endswith(", 1 broken")
        assert said[1].startswith("bad is broken: bad/function.yaml:5: spec.runtim: unknown key")
        as_json = desk.run("functions", "reload", "-o", "json")
        assert (ran.code, as_json.code, as_json.json["broken"]) == (6, 6, 1)
    finally:
        shutil.rmtree(desk.catalog / "bad")
        desk.does("functions", "reload")


def test_replay_with_a_function_that_is_not_there_publishes_nothing(desk: Desk) -> None:
    desk.does("publish", "hello", "x", "--request-id", "not-again", "--wait", WAIT)
    ran = desk.run("runs", "replay", "not-again", "--function", "helo", "--wait", WAIT)
    assert ran.code == 4
    assert error_lines(ran)[:2] == ["error: there is no function 'helo'  [unknown]", "  did you mean hello?"]


def test_an_empty_list_of_a_function_that_is_not_there_says_so(desk: Desk) -> None:
    assert desk.run("runs", "list", "--function", "helo").err.splitlines() == [
        "there is no function 'helo' now; did you mean hello?", "no runs",
    ]  # fmt: skip
    assert desk.run("runs", "list", "--function", "filtered").err.splitlines() == ["no runs"]


def test_watching_a_function_that_is_not_there_says_so(desk: Desk) -> None:
    with desk.terminal("watch", "--function", "helo") as terminal:
        assert "there is no function 'helo' now; did you mean hello?" in terminal.sees("did you mean hello?")


def test_a_second_dev_for_another_catalog_is_refused(desk: Desk) -> None:
    other = desk.folder / "other"
    (other / "functions").mkdir(parents=True)
    ran = desk.run("dev", "--catalog", str(other))
    assert ran.code == 2
    assert "runs with another catalog: " in error_lines(ran)[0]
    there = desk.shell(f"cd {other} && invoker dev")
    assert there.code == 2
    assert str(desk.catalog) in error_lines(there)[0]
    assert desk.run("dev", "--catalog", "functions").code == 0
    assert desk.shell(f"cd {other}/functions && invoker dev").code == 0
    by_setting = desk.shell(f"cd {other} && INVOKER_CATALOG={desk.catalog} invoker dev")
    assert by_setting.code == 0, by_setting.err
    assert desk.shell(f"INVOKER_CATALOG={other}/functions invoker dev").code == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["publish", "hello", "x", "--wait"], ["Option '--wait' requires an argument", "invoker publish --help"]),
        (["runs", "list", "--since"], ["Option '--since' requires an argument", "invoker runs list --help"]),
        (["publish", "hello", "x", "--wait", "soon"], ["'--wait': 'soon' is no duration", "invoker publish --help"]),
        (["runs", "list", "-o", "xml"], ["'--output': 'xml' is not one of", "invoker runs list --help"]),
    ],
)
def test_a_usage_error_names_the_command_and_no_library(desk: Desk, arguments: list[str], said: list[str]) -> None:
    ran = desk.run(*arguments)
    assert ran.code == 2
    first, hint = error_lines(ran)
    assert said[0] in first
    assert "Value error" not in first
    assert hint == f"  try: {said[1]}"


def test_a_program_that_only_wrote_is_told_so(desk: Desk) -> None:
    """Its `output.from` is missing, most likely: what it printed is in the log, and nothing came out."""
    (desk.catalog / "wrote").mkdir()
    (desk.catalog / "wrote" / "function.yaml").write_text(WROTE)
    try:
        desk.does("functions", "reload")
        ran = desk.run("call", "wrote", "x", "--wait", WAIT)
        assert (ran.code, ran.out) == (0, "")
        _, told = ran.err.splitlines()
        before, _, command = told.partition("what it wrote: invoker ")
        assert before == "wrote gave no output; "
        assert desk.run(*command.split()).out == "some lines\n"
        assert desk.run("call", "wrote", "x", "--wait", WAIT, "-q").err == ""
    finally:
        shutil.rmtree(desk.catalog / "wrote")
        desk.does("functions", "reload")


def test_a_name_that_no_function_may_have_is_answered_with_one_that_it_may(desk: Desk) -> None:
    ran = desk.run("functions", "new", "Sales_Report")
    assert ran.code == 6
    assert error_lines(ran)[-1] == "  try: invoker functions new sales-report"
    assert error_lines(desk.run("functions", "new", "__"))[-1].startswith("error: ")
