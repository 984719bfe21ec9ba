"""What the client makes of stored documents: the state of a request, replies, chains. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from invoker import wire
from invoker.errors import AmbiguousIdError, RunFailedError
from invoker.lookup import the_one_fitting
from invoker.replies import Replies, Reply
from invoker.request import Content, RequestRecord
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.views import RequestState, RequestView, chain_of, request_view

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def record(request_id: str = "r", *functions: str, **given: Any) -> RequestRecord:
    fields = {"topic": "t", "received_at": NOW, "accepted_at": NOW, "sha256": "", "catalog": "", "root_request_id": "r"}
    return RequestRecord.model_validate({"request_id": request_id, "functions": functions, **fields, **given})


def result(function: str, request_id: str = "r", reason: Reason = Reason.COMPLETED) -> Result:
    state = State.SUCCEEDED if reason is Reason.COMPLETED else State.FAILED
    run_id = wire.run_id_of(request_id, function)
    return Result(
        request_id=request_id, run_id=run_id, function=function, topic="t", state=state, reason=reason, finished_at=NOW,
        root_request_id="r",
    )  # fmt: skip


def status(function: str, state: State) -> RunStatusDocument:
    run_id = wire.run_id_of("r", function)
    return RunStatusDocument(run_id=run_id, request_id="r", function=function, topic="t", state=state, at=NOW)


def view(*functions: str, finished: tuple[str, ...] = (), running: dict[str, State] | None = None) -> RequestView:
    results = {function: result(function) for function in finished}
    statuses = {wire.run_id_of("r", name): status(name, state) for name, state in (running or {}).items()}
    return request_view("r", record("r", *functions), results, statuses)


@pytest.mark.parametrize(
    ("given", "state"),
    [
        (RequestView("r", "t", None), RequestState.QUEUED),
        (view(), RequestState.NO_MATCH),
        (view("f", "g"), RequestState.QUEUED),
        (view("f", "g", running={"f": State.STARTING}), RequestState.STARTING),
        (view("f", "g", running={"f": State.STARTING, "g": State.RUNNING}), RequestState.RUNNING),
        (view("f", "g", finished=("f",)), RequestState.QUEUED),
        (view("f", "g", finished=("f", "g")), RequestState.FINISHED),
        (view("f", running={"f": State.SUCCEEDED}), RequestState.RUNNING),
    ],
)
def test_the_state_of_a_request(given: RequestView, state: RequestState) -> None:
    assert given.state is state
    assert given.complete == (state in (RequestState.FINISHED, RequestState.NO_MATCH))


def test_only_a_result_finishes_a_run() -> None:
    (run,) = view("f", running={"f": State.SUCCEEDED}).runs
    assert (run.state, run.finished, run.result) == (State.RUNNING, False, None)


def test_the_exit_code_is_that_of_the_first_failure() -> None:
    results = {"f": result("f"), "g": result("g", reason=Reason.INVALID_INPUT), "h": result("h", reason=Reason.ERROR)}
    failed = request_view("r", record("r", "f", "g", "h"), results, {})
    assert failed.exit_code == 6
    assert not failed.succeeded
    with pytest.raises(RunFailedError) as caught:
        failed.raise_for_failure()
    assert (caught.value.fields["function"], caught.value.fields["reason"]) == ("g", "invalid-input")
    assert view("f", finished=("f",)).exit_code == 0
    assert view("f").exit_code == 0
    assert view().exit_code == 6


def test_results_without_a_record_are_still_a_view() -> None:
    """The record expires a moment before its results."""
    left = request_view("r", None, {"f": result("f")}, {})
    assert (left.topic, left.state, [run.function for run in left.runs]) == ("t", RequestState.FINISHED, ["f"])


def reply(function: str, request_id: str = "r") -> Reply:
    run_id = wire.run_id_of(request_id, function)
    return Reply(request_id, run_id, function, State.SUCCEEDED, Reason.COMPLETED, Content.inline(b""))


def came(*replies: Reply, **announced: int) -> Replies:
    return Replies("r", {one.run_id: one for one in replies}, dict(announced))


@pytest.mark.parametrize(
    ("replies", "complete"),
    [
        (came(), False),
        (came(reply("f"), r=1), True),
        (came(reply("f"), r=2), False),
        (came(reply("f"), reply("g"), r=2), True),
        (came(reply("z", "next"), next=1), False),
        (came(reply("z", "next"), next=1, r=1), True),
        (came(reply("z", "next"), next=1, r=2), False),
        (came(reply("z", "next"), reply("f"), next=1, r=2), True),
        (came(reply("z", "next"), reply("f"), next=2, r=2), False),
        (came(reply("z", "next"), reply("y", "next"), reply("f"), next=2, r=2), True),
    ],
)
def test_replies_are_complete_when_every_run_was_answered_for(replies: Replies, complete: bool) -> None:
    """A run may hand its reply on to the request it causes (`next`): then all runs of that one answer for it."""
    assert replies.complete == complete


def test_a_chain_is_a_tree() -> None:
    views = {
        "r": request_view("r", record("r", "collect"), {}, {}),
        "b": request_view("b", record("b", "unpack", parent_run_id=wire.run_id_of("r", "collect"), hops=1), {}, {}),
        "c": request_view("c", record("c", "convert", parent_run_id=wire.run_id_of("b", "unpack"), hops=2), {}, {}),
        "d": request_view("d", record("d", parent_run_id=wire.run_id_of("r", "collect"), hops=1), {}, {}),
        "e": request_view("e", record("e", parent_run_id="of an unknown run"), {}, {}),
    }
    chain = chain_of("r", views, settled=False)
    assert [node.view.request_id for node in chain] == ["r", "b", "c", "d", "e"]
    (root, *_) = chain
    assert [child.view.request_id for child in root.children] == ["b", "d", "e"]
    assert [run.function for run in chain.runs] == ["collect", "unpack", "convert"]


@given(st.lists(st.integers(0, 9), min_size=1, max_size=10))
def test_no_request_of_a_chain_is_left_out(parents: list[int]) -> None:
    """Whatever parents the headers name, each request is in the tree once, and building it ends."""
    ids = ["r", *(f"q{number}" for number in range(len(parents)))]
    views = {"r": request_view("r", record("r", "f"), {}, {})}
    for request_id, parent in zip(ids[1:], parents, strict=True):
        parent_run = wire.run_id_of(ids[parent % len(ids)], "f")
        views[request_id] = request_view(request_id, record(request_id, "f", parent_run_id=parent_run), {}, {})
    found = [node.view.request_id for node in chain_of("r", views, settled=True)]
    assert sorted(found) == sorted(ids)


def test_a_shortened_id_is_a_beginning_or_an_end() -> None:
    ids = ["01abcdwxyz", "01abcd1234", "99"]
    assert the_one_fitting("wxyz", ids) == "01abcdwxyz"
    assert the_one_fitting("01abcd1", ids) == "01abcd1234"
    assert the_one_fitting("bcdw", ids) is None
    assert the_one_fitting("99", ids) is None
    with pytest.raises(AmbiguousIdError, match="fits 2 ids"):
        the_one_fitting("01ab", ids)
