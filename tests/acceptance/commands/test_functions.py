"""`invoker functions`, `explain` and `dead`: what there is, why it matches, what is broken, paused or kept."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.acceptance.cli_desk import WAIT, Desk, error_lines, until
from tests.acceptance.commands.desk_functions import BAD, HELLO

pytestmark = pytest.mark.acceptance


def test_explain_names_the_clause_that_decided(desk: Desk) -> None:
    ran = desk.run("explain", "hello")
    assert ran.code == 0
    assert ran.lines[0].split() == ["MATCH", "FUNCTION", "PATTERN", "WHY"]
    assert ran.lines[1].split()[:4] == ["✓", "match", "hello", "hello"]
    missed = desk.run("explain", "helo", "-o", "json").json
    assert missed["matched"] == []
    assert missed["nearest"][0] == {"pattern": "hello", "function": "hello"}
    clause = next(one["clause"] for one in missed["subscriptions"] if one["function"] == "hello")
    assert clause == "token 1 is 'helo', wanted 'hello'"
    assert desk.run("explain", "hello", "-o", "name").lines == ["hello"]
    assert desk.run("explain", "a b").code == 6


def test_functions_list_and_describe(desk: Desk) -> None:
    names = desk.run("functions", "list", "-o", "name").lines
    assert {"hello", "filtered"} <= set(names)
    table = desk.run("functions", "list")
    assert table.lines[0].split()[0:3] == ["NAME", "STATUS", "TOPICS"]
    one = desk.run("functions", "describe", "facts")
    assert "parameters level=6" in one.out
    assert desk.run("functions", "describe", "facts", "-o", "json").json["status"] == "ready"
    unknown = desk.run("functions", "describe", "helo")
    assert unknown.code == 4
    assert error_lines(unknown)[1:] == ["  did you mean hello?", "  try: invoker functions list"]


def test_a_broken_function_is_told_and_keeps_what_may_be_its_own(desk: Desk) -> None:
    """While a file is refused, an event that matches nothing may be for its function: it is kept, and said so."""
    (desk.catalog / "bad").mkdir()
    (desk.catalog / "bad" / "function.yaml").write_text(BAD)
    try:
        assert desk.run("functions", "reload", "-o", "json").json["broken"] == 1
        assert "bad is broken: bad/function.yaml:5: spec.runtim: unknown key" in desk.run("functions", "list").err
        broken = desk.run("functions", "describe", "bad")
        assert broken.code == 0
        assert "did you mean 'runtime'?" in broken.out
        ran = desk.run("publish", "for.bad.perhaps", "x", "--wait", "10m")  # nobody waits that out: it is known at once
        assert ran.code == 6
        assert error_lines(ran)[-1].startswith("  try: invoker dead show ")
    finally:
        shutil.rmtree(desk.catalog / "bad")
        desk.does("functions", "reload")


def test_who_publishes_hears_that_an_older_version_runs(desk: Desk) -> None:
    desk.function("edited", HELLO)
    nameless = desk.catalog / "nameless"
    nameless.mkdir()
    try:
        desk.does("functions", "reload")
        file = desk.catalog / "edited" / "function.yaml"
        file.write_text(file.read_text().replace("runtime:", "runtim:"))
        (nameless / "function.yaml").write_text("hello\n")
        note = "edited runs its last good version: edited/function.yaml:"
        assert note in desk.run("functions", "reload").err
        for command in (("publish", "edited"), ("publish", "edited", "--wait", WAIT), ("call", "edited")):
            name, *rest = command
            ran = desk.run(name, rest[0], "Ada", *rest[1:])
            assert (ran.code, ran.err.count(note)) == (0, 1), (command, ran.err)
            assert "last good" not in desk.run("-q", name, rest[0], "Ada", *rest[1:]).err
        assert "last good" not in desk.run("publish", "hello", "Ada", "--wait", WAIT).err
        unknown = desk.run("call", "nameless", "x")
        assert (unknown.code, error_lines(unknown)[1].split(":")[:2]) == (
            4, ["  a file in its folder is refused", " nameless/function.yaml"],
        )  # fmt: skip
    finally:
        shutil.rmtree(nameless)
        shutil.rmtree(desk.catalog / "edited")
        desk.does("functions", "reload")


def test_pause_and_resume(desk: Desk) -> None:
    assert desk.run("functions", "pause", "slower", "-o", "json").json == {"function": "slower", "paused": True}
    desk.does("publish", "later.slower", "x", "--request-id", "paused-1")
    until(lambda: desk.run("result", "paused-1", "-o", "json").json["runs"] or None, what="the run")
    row = next(one for one in desk.run("functions", "list", "-o", "json").json if one["name"] == "slower")
    assert row["paused"] is True
    assert desk.run("runs", "list", "--request", "paused-1", "-o", "json").json[0]["state"] == "queued"
    assert desk.run("functions", "resume", "slower").code == 0
    until(lambda: desk.run("runs", "logs", "paused-1").out or None, what="the run's start")
    desk.does("runs", "cancel", "paused-1")
    assert desk.run("functions", "pause", "nobody").code == 4


def test_reload(desk: Desk) -> None:
    desk.function("added", HELLO)
    ran = desk.run("functions", "reload", "-o", "json")
    assert ran.code == 0
    assert set(ran.json) == {"catalog", "functions", "broken"}
    assert desk.run("publish", "added", "Ada", "--wait", WAIT).out == "Hello, Ada!"


def test_new_writes_a_function_that_runs_at_once(desk: Desk) -> None:
    ran = desk.run("functions", "new", "fresh")
    assert ran.code == 0
    assert ran.lines == [f"functions/fresh/{name}" for name in ("function.yaml", "main.py", "event.json")]
    assert desk.run("functions", "check", "functions/fresh").code == 0
    desk.does("functions", "reload")
    assert desk.run("publish", "fresh", "@functions/fresh/event.json", "--wait", WAIT).out == "Hello, Ada!"
    assert desk.run("functions", "new", "words", "--command").lines[1] == "functions/words/run.sh"
    desk.does("functions", "reload")
    ran = desk.run("publish", "words", "@functions/words/event.json", "--wait", WAIT)
    assert (ran.code, ran.out) == (0, "Hello, Ada!\n")
    again = desk.run("functions", "new", "fresh")
    assert again.code == 6
    assert "exists already; nothing was written" in error_lines(again)[0]
    assert desk.run("functions", "new", "Not-Legal").code == 6
    assert desk.run("functions", "new", "../out").code == 6


def test_check_needs_no_server_and_names_the_place(tmp_path: Path) -> None:
    alone = Desk(tmp_path)
    alone.run("functions", "new", "good")
    folder = alone.catalog / "bad"
    folder.mkdir()
    (folder / "function.yaml").write_text(BAD)
    ran = alone.run("functions", "check", "functions")
    assert ran.code == 6
    (line,) = ran.lines
    assert line.startswith("functions/bad/function.yaml:5: spec.runtim: unknown key 'runtim'; did you mean 'runtime'?")
    assert ran.err == "✗ 1 problem, 1 function usable\n"
    document = alone.run("functions", "check", "functions", "-o", "json").json
    assert document["functions"] == ["good"]
    assert document["problems"][0] == {
        "file": "functions/bad/function.yaml", "line": 5, "field": "spec.runtim", "message": line,
    }  # fmt: skip
    assert alone.run("functions", "check", "functions/good").code == 0
    missing = alone.run("functions", "check", "nowhere")
    assert missing.code == 6
    assert error_lines(missing)[0] == "error: nowhere does not exist  [invalid-function]"


def test_dead_letters(desk: Desk) -> None:
    assert desk.run("dead", "show", "no-such-letter").code == 4
    asyncio.run(_publish_raw(desk))
    letter = until(lambda: _newest_letter(desk, "events.hello"), what="the dead letter")
    assert {"id", "reason", "message", "subject", "dead_at"} <= set(letter)
    table = desk.run("dead", "list")
    assert letter["reason"] in table.out
    shown = desk.run("dead", "show", "@latest")
    assert letter["message"] in shown.out
    assert "lost words" in shown.out
    assert desk.run("dead", "show", letter["id"][:8], "-o", "json").json["id"] == letter["id"]
    redriven = desk.run("dead", "redrive", "@latest", "-o", "json")
    assert redriven.json["dead_id"] == letter["id"]
    assert "lost words" in desk.run("result", redriven.json["request_id"], "--wait", WAIT).out


def _newest_letter(desk: Desk, subject: str) -> dict[str, Any] | None:
    """The newest dead letter when it is one of that subject: others may have been there before."""
    letters: list[dict[str, Any]] = desk.run("dead", "list", "-o", "json").json
    return letters[0] if letters and letters[0]["subject"] == subject else None


async def _publish_raw(desk: Desk) -> None:
    """An event that no client of ours would send: more headers than may be copied."""
    facts = desk.facts()
    assert facts is not None
    client = await nats.connect(facts["nats_url"])
    await client.jetstream().publish("events.hello", b"lost words", headers={"Too-Long": "x" * 20_000})
    await client.close()
