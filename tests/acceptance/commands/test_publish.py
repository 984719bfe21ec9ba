"""`invoker publish`: data on standard output, words on standard error, what is refused, documented exit codes."""

from __future__ import annotations

import base64
import subprocess

import pytest

from tests.acceptance.cli_desk import INVOKER, WAIT, Desk, Ran, error_lines, until

pytestmark = pytest.mark.acceptance


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
    told = desk.run("publish", "echo", '{"a": 1}', "--header", "content-type=text/x-own", "--wait", WAIT, "-o", "json")
    assert told.json["runs"][0]["output"]["content_type"] == "text/plain; charset=utf-8", "text in, text out"
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
    now = until(lambda: _unless_waiting(desk.run("result", "slow-1")), what="its acceptance")
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


def _unless_waiting(ran: Ran) -> Ran | None:
    """Nothing while the event has not been accepted yet."""
    return None if "waits to be accepted" in ran.err else ran


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
