"""Every command against one running dev: data on standard output, words on standard error, documented exit codes."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest

from tests.acceptance.cli_desk import INVOKER, PATIENCE, Desk, Ran, until

pytestmark = pytest.mark.acceptance

WAIT = f"{PATIENCE:g}"
HELLO = """\
def handle(event, context):
    data = event["data"]
    return f"Hello, {data['name'] if isinstance(data, dict) else data}!"
"""
ECHO = "def handle(event, context):\n    return event['data'] if event['data'] else b''\n"
BINARY = "def handle(event, context):\n    return bytes(range(256))\n"
FAIL = """\
def handle(event, context):
    print("about to fail")
    raise ValueError("no such order")
"""
SLOW = """\
import time


def handle(event, context):
    print("begun", flush=True)
    context.progress(40, "unpacking")
    time.sleep(60)
"""
FACTS = """\
def handle(event, context):
    return {"topic": event["topic"], "params": event["params"], "headers": event["headers"]}
"""
BIG = "def handle(event, context):\n    return b'x' * 2_000_000\n"
BAD = "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: bad}\nspec:\n  runtim: python\n"
SCHEMA = "input: {schema: {type: object, required: [name], properties: {name: {type: string}}}}"


def _functions(desk: Desk) -> None:
    desk.function("hello", HELLO)
    desk.function("echo", ECHO)
    desk.function("binary", BINARY)
    desk.function("fail", FAIL)
    desk.function("slow", SLOW)
    desk.function("slower", SLOW, "later.slower", ["concurrency: 1"])
    desk.function("facts", FACTS, more=["parameters: [{name: level, schema: {type: integer}, default: 6}]"])
    desk.function("big", BIG)
    desk.function("strict", HELLO, more=[SCHEMA])
    desk.function("pair-a", HELLO, "pair")
    desk.function("pair-b", FAIL, "pair")
    desk.function("both-a", ECHO, "both")
    desk.function("both-b", ECHO, "both")
    desk.function("first", ECHO, "chain.first", ["onSuccess: {publish: chain.second}"])
    desk.function("second", HELLO, "chain.second")
    desk.function("filtered", ECHO, "filtered.>", ["resources: {limits: {memory: 512Mi}}"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("desk"))
    _functions(made)
    with made.dev():
        yield made


def error_lines(ran: Ran) -> list[str]:
    """The error, which is the last thing said: three lines at most."""
    lines = ran.err.splitlines()
    start = max(number for number, line in enumerate(lines) if line.startswith("error: "))
    found = lines[start:]
    assert len(found) <= 3, ran.err
    assert "Traceback" not in ran.err
    return found


# publish


def test_publish_gives_the_request_id_and_says_what_runs(desk: Desk) -> None:
    ran = desk.run("publish", "hello", '{"name": "Ada"}')
    assert ran.code == 0
    request_id = ran.out.strip()
    assert len(request_id) == 26
    assert ran.err.strip() == f"→ hello    invoker result {request_id} --wait 60"
    assert desk.run("publish", "hello", "x", "-q").err == ""


def test_publish_waits_and_gives_the_bytes_and_nothing_else(desk: Desk) -> None:
    ran = desk.run("publish", "hello", '{"name": "Ada"}', "--wait", WAIT)
    assert (ran.code, ran.out) == (0, "Hello, Ada!")
    assert ran.err.startswith("✓ hello  succeeded  ")
    assert desk.raw("publish", "binary", "--wait", WAIT, "-q") == bytes(range(256))
    assert len(desk.raw("publish", "big", "--wait", WAIT, "-q")) == 2_000_000


def test_publish_takes_files_and_standard_input(desk: Desk) -> None:
    (desk.folder / "event.json").write_text('{"name": "file"}')
    assert desk.run("publish", "hello", "@event.json", "--wait", WAIT).out == "Hello, file!"
    assert desk.run("publish", "hello", "-", "--wait", WAIT, stdin=b'{"name": "pipe"}').out == "Hello, pipe!"
    large = b"y" * 3_000_000
    done = subprocess.run(
        [INVOKER, "publish", "echo", "-", "--wait", WAIT, "-q"],
        cwd=desk.folder, env=desk.env, input=large, capture_output=True, check=True,
    )  # fmt: skip
    assert done.stdout == large
    (desk.folder / "large").write_bytes(large * 3)
    assert len(desk.raw("publish", "echo", "@large", "--wait", WAIT, "-q")) == 9_000_000
    with (desk.folder / "sparse").open("wb") as sparse:
        sparse.truncate(1024**3 + 1)
    refused = desk.run("publish", "echo", "@sparse")
    assert refused.code == 6
    assert error_lines(refused) == [
        "error: the event has 1073741825 bytes, at most 1073741824 are allowed  [payload-too-large]"
    ]
    missing = desk.run("publish", "hello", "@nowhere.json")
    assert missing.code == 6
    assert error_lines(missing) == ["error: cannot read nowhere.json: No such file or directory  [invalid-request]"]


def test_headers_parameters_and_content_type_reach_the_function(desk: Desk) -> None:
    ran = desk.run(
        "publish", "facts", "plain", "--header", "ce-type=greeting", "--param", "level=9", "--content-type", "text/x",
        "--wait", WAIT,
    )  # fmt: skip
    seen = ran.json
    assert seen["topic"] == "facts"
    assert seen["params"] == {"level": 9}
    assert {key.lower(): value for key, value in seen["headers"].items()}["ce-type"] == "greeting"
    refused = desk.run("publish", "facts", "--param", "level=high", "--wait", WAIT)
    assert refused.code == 6
    assert "invalid-input" in refused.err
    assert desk.run("publish", "facts", "--header", "nonsense").code == 2


def test_publish_as_json(desk: Desk) -> None:
    document = desk.run("publish", "hello", "x", "-o", "json").json
    assert set(document) == {"request_id", "topic", "stream", "sequence", "duplicate"}
    assert document["topic"] == "hello"
    waited = desk.run("publish", "hello", '{"name": "Ada"}', "--wait", WAIT, "-o", "json").json
    assert waited["state"] == "finished"
    assert waited["runs"][0]["state"] == "succeeded"
    assert base64.b64decode(waited["runs"][0]["output"]["inline_base64"]) == b"Hello, Ada!"


def test_the_same_id_makes_no_second_request(desk: Desk) -> None:
    first = desk.run("publish", "hello", "x", "--request-id", "order-17", "--wait", WAIT)
    assert first.out == "Hello, x!"
    again = desk.run("publish", "hello", "x", "--request-id", "order-17")
    assert (again.code, again.out) == (0, "order-17\n")
    assert "was there already" in again.err
    other = desk.run("publish", "hello", "y", "--request-id", "order-17")
    assert other.code == 6
    assert "[idempotency-mismatch]" in error_lines(other)[0]


def test_a_failed_run_ends_with_3(desk: Desk) -> None:
    ran = desk.run("publish", "fail", "--wait", WAIT)
    assert (ran.code, ran.out) == (3, "")
    first, *rest = error_lines(ran)
    assert "fail failed (error): " in first
    assert "no such order" in first
    assert first.endswith("[run-failed]")
    assert rest[-1].startswith("  try: invoker runs describe ")


def test_one_of_two_runs_failed(desk: Desk) -> None:
    ran = desk.run("publish", "pair", "Ada", "--wait", WAIT)
    assert (ran.code, ran.out) == (3, "Hello, Ada!")
    assert "✓ pair-a" in ran.err
    assert "✗ pair-b" in ran.err


def test_outputs_of_several_runs_are_kept_apart(desk: Desk) -> None:
    ran = desk.run("publish", "both", "twice", "--wait", WAIT)
    assert (ran.code, ran.out) == (0, "twice\ntwice\n")


def test_nothing_matches(desk: Desk) -> None:
    ran = desk.run("publish", "helo", "x")
    assert ran.code == 0
    assert "→ nothing matches 'helo'; closest: hello (hello)    why: invoker explain helo" in ran.err
    waited = desk.run("publish", "helo", "x", "--wait", WAIT)
    assert (waited.code, waited.out) == (6, "")
    assert error_lines(waited) == [
        "error: no subscription matches the topic 'helo'  [no-subscription]",
        "  did you mean hello (hello)?",
        "  try: invoker explain helo",
    ]


def test_input_against_the_schema_is_refused(desk: Desk) -> None:
    ran = desk.run("publish", "strict", '{"nme": "Ada"}', "--wait", WAIT)
    assert (ran.code, ran.out) == (6, "")
    assert "[invalid-input]" in error_lines(ran)[0]


def test_waited_in_vain_and_come_back(desk: Desk) -> None:
    ran = desk.run("publish", "slow", "--request-id", "slow-1", "--wait", "0.7")
    assert (ran.code, ran.out) == (5, "")
    lines = error_lines(ran)
    assert lines[0].endswith("[wait-expired]")
    assert lines[-1] == "  try: invoker result slow-1 --wait 60"
    now = desk.run("result", "slow-1")
    assert now.code == 5
    assert "slow is " in error_lines(now)[0]
    assert desk.run("result", "slow-1", "-o", "json").json["state"] in ("queued", "starting", "running")
    cancelled = desk.run("runs", "cancel", "slow-1", "--message", "not needed", "-o", "json")
    assert cancelled.code == 0
    assert len(cancelled.json["cancelled"]) == 1
    after = desk.run("result", "slow-1", "--wait", WAIT)
    assert after.code == 3
    assert "slow cancelled (cancelled): not needed" in error_lines(after)[0]
    again = desk.run("runs", "cancel", "slow-1")
    assert (again.code, again.out) == (0, "")
    assert "already finished" in again.err


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        ("a b", "white space"),
        ("a.*", "wildcard"),
        ("a..b", "empty token"),
        ("a\r\nPUB x 1", "white space"),
        (".".join(["t"] * 300), "longer than 255 bytes"),
        ("$SYS.x", "begins with '$'"),
        ("", "is empty"),
    ],
)
def test_illegal_topics_are_refused_with_the_rule(desk: Desk, topic: str, words: str) -> None:
    ran = desk.run("publish", "--", topic, "x")
    assert ran.code == 6
    assert words in error_lines(ran)[0]
    assert "[invalid-topic]" in error_lines(ran)[0]


def test_a_reply_subject_outside_the_allowed_ones(desk: Desk) -> None:
    for subject in ("$JS.ACK.x", "events.hello", "replies.*", "$SYS.x"):
        ran = desk.run("publish", "hello", "x", "--reply-to", subject)
        assert ran.code == 6, subject
        assert "[invalid-reply-subject]" in error_lines(ran)[0]


def test_a_topic_that_is_a_subject_is_asked_about(desk: Desk) -> None:
    refused = desk.run("publish", "events.hello", "x")
    assert (refused.code, refused.out) == (6, "")
    assert error_lines(refused)[1:] == [
        "  did you mean 'hello'? --as-is takes it as it stands",
        "  try: invoker publish hello",
    ]
    assert desk.run("publish", "events.hello", "x", "--as-is").code == 0
    assert desk.run("explain", "events.hello").code == 6
    with desk.terminal("publish", "events.hello", "Ada", "--wait", WAIT) as screen:
        screen.sees("Did you mean the topic 'hello'? [Y/n]")
        screen.type("y\n")
        screen.sees("✓ hello")
        screen.sees("Hello, Ada!")
        assert screen.ends() == 0
    with desk.terminal("publish", "events.hello", "Ada") as screen:
        screen.sees("[Y/n]")
        screen.type("n\n")
        screen.sees("nothing matches 'events.hello'")


# result


def test_result_by_every_kind_of_id(desk: Desk) -> None:
    published = desk.run("publish", "hello", "ids", "--wait", WAIT, "-o", "json").json
    request_id, run_id = published["request_id"], published["runs"][0]["run_id"]
    for given in (request_id, run_id, run_id[:8], request_id[-8:], f"…{request_id[-8:]}", "@latest"):
        assert desk.run("result", given).out == "Hello, ids!", given


def test_unknown_and_ambiguous_ids(desk: Desk) -> None:
    unknown = desk.run("result", "nothing-of-that-name")
    assert (unknown.code, unknown.out) == (4, "")
    assert error_lines(unknown) == [
        "error: nothing is known of the id 'nothing-of-that-name'  [unknown]",
        "  try: invoker runs list",
    ]
    for number in range(2):
        desk.does("publish", "hello", "x", "--request-id", f"twin-{number}", "--wait", WAIT)
    ambiguous = desk.run("result", "twin")
    assert ambiguous.code == 4
    assert "[ambiguous-id]" in error_lines(ambiguous)[0]


def test_an_expired_request_is_told_from_an_unknown_one(desk: Desk) -> None:
    old = desk.run("result", "01hqz9c2vt4e9n0m8x5d6w7r1s")  # of March 2024
    assert old.code == 4
    assert "[expired]" in error_lines(old)[0]


def test_result_of_one_function(desk: Desk) -> None:
    desk.run("publish", "pair", "one", "--request-id", "pair-1", "--wait", WAIT)
    assert desk.run("result", "pair-1", "--function", "pair-a").out == "Hello, one!"
    assert desk.run("result", "pair-1", "--function", "pair-b").code == 3
    unknown = desk.run("result", "pair-1", "--function", "nobody")
    assert unknown.code == 4
    assert "it has: pair-a, pair-b" in error_lines(unknown)[0]


def test_result_forms(desk: Desk) -> None:
    desk.does("publish", "both", "forms", "--request-id", "forms-1", "--wait", WAIT)
    document = desk.run("result", "forms-1", "-o", "json").json
    assert [one["function"] for one in document["runs"]] == ["both-a", "both-b"]
    assert set(document) == {
        "request_id", "topic", "state", "received_at", "root_request_id", "parent_run_id", "replay_of", "hops", "runs",
    }  # fmt: skip
    lines = [json.loads(line) for line in desk.run("result", "forms-1", "-o", "jsonl").lines]
    assert lines == document["runs"]
    assert desk.run("result", "forms-1", "-o", "name").lines == [one["run_id"] for one in lines]
    assert "function: both-a" in desk.run("result", "forms-1", "-o", "yaml").out


def test_the_chain_of_a_request(desk: Desk) -> None:
    desk.does("publish", "chain.first", "Ada", "--request-id", "chain-1")
    ran = desk.run("result", "chain-1", "--chain", "--wait", WAIT)
    assert ran.code == 0
    head, first, second = ran.lines
    assert head == "request chain-1  chain.first"
    assert first.startswith("└── ✓ first  chain.first  succeeded")
    assert second.startswith("    └── ✓ second  chain.second  succeeded")
    document = desk.run("result", "chain-1", "--chain", "-o", "json").json
    assert document["settled"] is True
    assert document["children"][0]["parent_run_id"] == document["runs"][0]["run_id"]
    assert len(desk.run("result", "chain-1", "--chain", "-o", "name").lines) == 2


# runs


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
    assert table.lines[0].split() == ["RUN", "FUNCTION", "TOPIC", "STATE", "REASON", "ATTEMPTS", "QUEUED", "RAN", "AGE"]
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
    assert desk.run("runs", "logs", "log-1").lines[0] == "begun"
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


# explain, functions, dead


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
        ran = desk.run("publish", "for.bad.perhaps", "x", "--wait", WAIT)
        assert ran.code == 6
        assert error_lines(ran)[-1].startswith("  try: invoker dead show ")
    finally:
        shutil.rmtree(desk.catalog / "bad")
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
    letters = until(lambda: desk.run("dead", "list", "-o", "json").json or None, what="the dead letter")
    letter = letters[0]
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


async def _publish_raw(desk: Desk) -> None:
    """An event that no client of ours would send: more headers than may be copied."""
    facts = desk.facts()
    assert facts is not None
    client = await nats.connect(facts["nats_url"])
    await client.jetstream().publish("events.hello", b"lost words", headers={"Too-Long": "x" * 20_000})
    await client.close()


# the surroundings


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
