"""`invoker result`: by every kind of id, of one function, of a chain, in every form."""

from __future__ import annotations

import json

import pytest

from tests.acceptance.cli_desk import WAIT, Desk, error_lines

pytestmark = pytest.mark.acceptance


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
