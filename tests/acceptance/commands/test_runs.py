"""`invoker runs` and what is seen of a run while it goes on: lists, words, logs, progress, replays, Ctrl-C."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest

from tests.acceptance.cli_desk import INVOKER, PATIENCE, WAIT, Desk, until

pytestmark = pytest.mark.acceptance


def test_runs_list_filters_and_forms(desk: Desk) -> None:
    desk.run("publish", "pair", "list", "--request-id", "list-1", "--wait", WAIT)
    rows = desk.run("runs", "list", "--request", "list-1", "-o", "json").json
    assert {row["function"]: row["state"] for row in rows} == {"pair-a": "succeeded", "pair-b": "failed"}
    assert set(rows[0]) == {
        "run_id", "request_id", "function", "topic", "state", "reason", "attempts", "queued_at", "started_at",
        "finished_at", "cursor",
    }  # fmt: skip
    failed = desk.run("runs", "list", "--state", "failed", "--function", "pair-b", "--since", "10m", "-o", "jsonl")
    assert {json.loads(line)["function"] for line in failed.lines} == {"pair-b"}
    assert desk.run("runs", "list", "--reason", "error", "--limit", "1", "-o", "name").lines
    table = desk.run("runs", "list", "--request", "list-1")
    assert table.lines[0].split() == ["RUN", "FUNCTION", "TOPIC", "STATE", "REASON", "ATTEMPTS", "WAITED", "RAN", "AGE"]
    assert "✗ failed" in table.out
    assert "invoker runs describe" in table.err
    wide = desk.run("runs", "list", "--request", "list-1", "-o", "wide")
    assert all(row["run_id"] in wide.out for row in rows)
    assert desk.run("runs", "list", "--state", "strange").code == 2
    assert desk.run("runs", "list", "--since", "soon").code == 2


def test_describe_says_in_words_what_went_wrong(desk: Desk) -> None:
    desk.run("publish", "fail", "--request-id", "words-1", "--wait", WAIT)
    ran = desk.run("runs", "describe", "words-1")
    assert ran.code == 0
    assert "✗ fail  failed" in ran.out
    assert "attempt    1  error" in ran.out
    assert "ValueError: no such order" in ran.out
    assert "last lines about to fail" in ran.out
    assert "invoker runs replay" in ran.err
    document = desk.run("runs", "describe", "words-1", "--function", "fail", "-o", "json").json
    assert document["reason"] == "error"


def test_replay_makes_a_new_request_that_names_the_original(desk: Desk) -> None:
    desk.does("publish", "hello", '{"name": "Ada"}', "--request-id", "replay-1", "--wait", WAIT)
    assert desk.run("runs", "replay", "replay-1", "--wait", WAIT).out == "Hello, Ada!"
    changed = desk.run("runs", "replay", "replay-1", '{"name": "Grace"}', "--wait", WAIT, "-o", "json").json
    assert changed["replay_of"] == "replay-1"
    assert base64.b64decode(changed["runs"][0]["output"]["inline_base64"]) == b"Hello, Grace!"
    desk.run("publish", "pair", "one", "--request-id", "replay-2", "--wait", WAIT)
    only = desk.run("runs", "replay", "replay-2", "--function", "pair-a", "--wait", WAIT)
    assert (only.code, only.out) == (0, "Hello, one!")
    assert len(desk.run("runs", "replay", "replay-1").out.strip()) == 26


def test_logs_live_and_afterwards(desk: Desk) -> None:
    desk.does("publish", "slow", "--request-id", "log-1")
    until(lambda: desk.run("runs", "logs", "log-1").out == "begun\n" or None, what="the first line")
    with subprocess.Popen(
        [INVOKER, "runs", "logs", "log-1", "-f"], cwd=desk.folder, env=desk.env, stdout=subprocess.PIPE, text=True
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "begun\n"
        desk.does("runs", "cancel", "log-1")
        assert following.wait(PATIENCE) == 0
    until(lambda: desk.run("runs", "logs", "log-1").lines[:1] == ["begun"], what="the log, kept")
    line = json.loads(desk.run("runs", "logs", "log-1", "-o", "json").lines[0])
    assert set(line) == {"run_id", "attempt", "stream", "at", "text"}
    silent = desk.run("publish", "hello", "x", "--request-id", "log-2", "--wait", WAIT)
    assert silent.code == 0
    nothing = desk.run("runs", "logs", "log-2")
    assert (nothing.code, nothing.out) == (0, "")
    assert "wrote nothing" in nothing.err


def test_progress_is_shown_while_it_runs(desk: Desk) -> None:
    desk.does("publish", "slow", "--request-id", "progress-1")
    until(lambda: "40 %" in desk.run("runs", "describe", "progress-1").out or None, what="the progress")
    assert "unpacking" in desk.run("runs", "describe", "progress-1").out
    desk.does("runs", "cancel", "progress-1")


def test_ctrl_c_detaches_and_says_how_to_come_back(desk: Desk) -> None:
    with desk.terminal("publish", "slow", "--request-id", "detach-1", "--wait", "60", "-v") as screen:
        screen.sees("request detach-1")
        until(lambda: desk.run("result", "detach-1").code == 5 or None, what="the request")
        screen.type("\x03")
        assert screen.ends() == 130
        assert "detached, nothing was cancelled; come back with: invoker result detach-1 --wait 60" in screen.text
        assert "Traceback" not in screen.text
    assert desk.run("result", "detach-1").code == 5
    desk.does("runs", "cancel", "detach-1")
