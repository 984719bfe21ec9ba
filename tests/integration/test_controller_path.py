"""The path of an event through a whole controller: from any client's publish to result, reply and next stage."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.publish import EventPublisher, OutgoingEvent
from invoker.request import ClaimCheck, Content
from invoker.result import Reason, State
from tests.conftest import eventually
from tests.controllers import View, problem_of
from tests.custody.workload import CALL, function, write_catalog

pytestmark = pytest.mark.integration

CAT = 'cat "$INVOKER_INPUT_FILE"'
FILE = {"input": {"as": "file"}, "output": {"from": "stdout"}}
SHOUT = function("shout", "said.*", 'tr a-z A-Z < "$INVOKER_INPUT_FILE"', **FILE)
CATALOG = [
    SHOUT,
    function("count", "said.>", 'wc -c < "$INVOKER_INPUT_FILE"', onSuccess={"publish": "counted"}, **FILE),
    function("fail", "said.badly", "echo no good >&2; exit 7", onFailure={"publish": "failed.here"}),
    function("after", "counted", 'printf "after %s" "$(cat "$INVOKER_INPUT_FILE")"', **FILE),
    function("mend", "failed.*", CAT, **FILE),
    function("front", "asked", CAT, onSuccess={"publish": "back", "forwardReply": True}, **FILE),
    function("back", "back", 'printf "from the back: "; cat "$INVOKER_INPUT_FILE"', **FILE),
    function("echo", "echo", CAT, **FILE),
    function(
        "twice", "twice", 'echo "$LEVEL"', output={"from": "stdout"},
        env=[{"name": "LEVEL", "value": "{{params.level}}"}],
        parameters=[{"name": "level", "schema": {"type": "integer", "minimum": 1}, "default": 6}],
    ),
    function("strict", "strict", "echo never", input={"schema": {"type": "object", "required": ["n"]}}),
]  # fmt: skip


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    script = f"{CALL}\nuntil [ -e {tmp_path}/gate ]; do sleep 0.02; done\ncall PUT output x"
    return write_catalog(tmp_path / "catalog", *CATALOG, function("hands-in", "handed.in", script))


async def test_a_result_tells_when_its_run_was_given_to_the_engine(view: View, tmp_path: Path) -> None:
    """Whoever seals it: the controller (stdout), or the run API, which has it from the news of the run."""
    await view.publish("echo", b"x", request_id="by-controller")
    await view.publish("handed.in", b"x", request_id="by-run-api")
    news = wire.run_id_of("by-run-api", "hands-in")
    await eventually(lambda: view.results.status(news), what="the news that it starts")
    (tmp_path / "gate").touch()
    for request_id, name in (("by-controller", "echo"), ("by-run-api", "hands-in")):
        result = await view.result(request_id, name)
        assert result.succeeded
        assert result.queued_at
        assert result.dispatched_at
        assert result.queued_at <= result.dispatched_at <= result.finished_at
    await view.publish("strict", b"{}", request_id="refused")
    assert (await view.result("refused", "strict")).dispatched_at is None


async def test_every_matching_function_runs_once_and_replies(view: View) -> None:
    await view.publish("said.badly", b"hello", request_id="r1", Content_Type="text/plain", X_Trace="abc")
    replies = {reply.headers[wire.H_FUNCTION]: reply for reply in await view.reply("r1", 3)}
    assert set(replies) == {"shout", "count", "fail"}
    assert {reply.headers[wire.H_RUNS] for reply in replies.values()} == {"3"}
    assert replies["shout"].data == b"HELLO"
    assert replies["shout"].headers[wire.H_STATE] == "succeeded"
    assert replies["shout"].headers[wire.H_REASON] == "completed"
    assert replies["shout"].headers[wire.H_REQUEST_ID] == "r1"
    assert replies["shout"].headers[wire.H_RUN_ID] == wire.run_id_of("r1", "shout")
    problem = problem_of(replies["fail"])
    assert (problem["code"], problem["status"], problem["class"]) == ("error", 502, "function")
    assert "exit code 7" in problem["detail"]
    assert replies["fail"].headers[wire.H_SERVICE_ERROR_CODE] == "502"
    answers = await view.answers("r1")
    assert answers.record is not None
    assert answers.record.functions == ("count", "fail", "shout")
    assert answers.record.headers == {"Content-Type": "text/plain", "X-Trace": "abc"}
    assert (answers.results["fail"].state, answers.results["fail"].reason) == (State.FAILED, Reason.ERROR)
    assert answers.results["fail"].log_tail == "no good\n"
    assert [attempt.exit_code for attempt in answers.results["fail"].attempts] == [7]
    await view.quiet()
    assert len(view.replies) == 3


async def test_the_result_is_readable_before_its_reply(view: View) -> None:
    seen: list[bool] = []

    async def look(message: Msg) -> None:
        found = await view.results.result(message.headers[wire.H_REQUEST_ID], message.headers[wire.H_FUNCTION])
        seen.append(found is not None)

    await view.client.subscribe("replies.look", cb=look)
    for _ in range(10):
        await view.publish("said.x", Invoker_Reply_To="replies.look")
    await view.reply("look", 20)

    async def looked() -> bool:
        return len(seen) == 20

    await eventually(looked, what="a look for every reply")
    assert all(seen)


async def test_a_plain_request_is_answered_by_the_run(view: View) -> None:
    reply = await view.call("echo", b"\x00\xffbytes")
    assert reply.data == b"\x00\xffbytes"
    stored = await view.client.jetstream().get_last_msg(
        view.names.results_stream, view.names.result(reply.headers[wire.H_REQUEST_ID], "echo"), direct=True
    )
    assert json.loads(stored.data or b"")["state"] == "succeeded"
    assert stored.headers is not None
    assert stored.headers[wire.H_REASON] == "completed"


async def test_a_function_called_by_name_runs_alone(view: View) -> None:
    reply = await view.client.request(view.names.call_function("shout"), b"only me", timeout=60)
    assert reply.data == b"ONLY ME"
    assert reply.headers[wire.H_RUNS] == "1"
    reply = await view.client.request(view.names.call_function("nobody"), b"", timeout=60)
    assert problem_of(reply)["code"] == "unknown"
    assert "there are: after, back" in problem_of(reply)["detail"]


async def test_a_topic_that_matches_nothing_is_recorded_and_answered(view: View) -> None:
    reply = await view.call("sadi.x")
    problem = problem_of(reply)
    assert (problem["code"], problem["status"]) == ("no-subscription", 404)
    assert {"pattern": "said.*", "function": "shout"} in problem["suggestions"]
    assert reply.headers[wire.H_RUNS] == "0"
    record = await view.results.record(reply.headers[wire.H_REQUEST_ID])
    assert record is not None
    assert record.functions == ()
    await view.quiet()


async def test_a_chain_carries_root_parent_hops_and_headers(view: View) -> None:
    await view.publish("said.a", b"four", request_id="root", Content_Type="text/plain", X_Trace="abc")
    parent = wire.run_id_of("root", "count")
    second = wire.chained_id(parent, "onSuccess")
    result = await view.result(second, "after")
    assert result.output.inline_bytes() == b"after 4"
    assert (result.root_request_id, result.parent_run_id, result.hops) == ("root", parent, 1)
    record = await view.results.record(second)
    assert record is not None
    assert record.headers.get("X-Trace") == "abc"
    assert record.reply_to is None, "the first caller's reply subject is handed on only where the stage says so"
    await view.quiet()
    assert {reply.headers[wire.H_FUNCTION] for reply in view.replies} == {"count", "shout"}


async def test_a_failure_becomes_an_event_with_its_problem(view: View) -> None:
    await view.publish("said.badly", request_id="root")
    mended = wire.chained_id(wire.run_id_of("root", "fail"), "onFailure")
    result = await view.result(mended, "mend")
    problem = json.loads(result.output.inline_bytes() or b"")
    assert (problem["code"], problem["function"], problem["topic"]) == ("error", "fail", "said.badly")


async def test_a_forwarded_reply_comes_from_the_last_stage_only(view: View) -> None:
    reply = await view.call("asked", b"question")
    assert reply.data == b"from the back: question"
    assert reply.headers[wire.H_FUNCTION] == "back"
    await view.publish("asked", b"q", request_id="r")
    await view.reply("r")
    await view.quiet()
    assert [message.headers[wire.H_FUNCTION] for message in view.replies_to("r")] == ["back"]


async def test_parameters_come_from_headers_and_are_checked(view: View) -> None:
    assert (await view.call("twice")).data == b"6\n"
    assert (await view.call("twice", Invoker_Param_level="9")).data == b"9\n"
    for headers in ({"Invoker_Param_level": "0"}, {"Invoker_Param_other": "1"}, {"Invoker_Param_level": "x"}):
        reply = await view.call("twice", **headers)
        assert reply.headers[wire.H_REASON] == "invalid-input"
        assert problem_of(reply)["class"] == "caller"


async def test_an_input_that_does_not_fit_never_starts(view: View) -> None:
    reply = await view.call("strict", b'{"m": 1}', Content_Type="application/json")
    problem = problem_of(reply)
    assert (problem["code"], problem["status"], problem["attempts"]) == ("invalid-input", 422, 0)
    assert problem["errors"]
    result = await view.results.result(reply.headers[wire.H_REQUEST_ID], "strict")
    assert result is not None
    assert result.started_at is None


@pytest.mark.parametrize("below", [0, 1, 700])
async def test_an_event_of_exactly_max_payload_passes(view: View, below: int) -> None:
    """Its copy with our headers would be too large for any message: the record holds a claim check."""
    data = b"x" * (view.client.max_payload - below)
    await view.client.jetstream().publish("events.echo", data)  # this adds nothing to it, and is acknowledged
    await view.quiet()
    (echoed,) = (await _results_of(view, "echo")).values()
    assert echoed["state"] == "succeeded"
    assert echoed["output"]["bytes"] == len(data)
    await view.publish("said.x", data[: -4096 - below], request_id="large")
    assert (await view.result("large", "count")).output.inline_bytes() == f"{len(data) - 4096 - below}\n".encode()
    record = await view.results.record("large")
    assert record is not None
    assert record.body.claim is not None


async def _results_of(view: View, name: str) -> dict[str, Any]:
    """The stored results of a function, by subject."""
    jetstream, stream = view.client.jetstream(), view.names.results_stream
    info = await jetstream.stream_info(stream, subjects_filter=view.names.result("*", name))
    found = {subject: await jetstream.get_msg(stream, subject=subject) for subject in info.state.subjects or {}}
    return {subject: json.loads(message.data or b"") for subject, message in found.items()}


async def test_large_bytes_travel_by_claim_check_in_both_directions(view: View) -> None:
    claims = ClaimStore(view.client.jetstream(), view.names)
    publisher = EventPublisher(view.client, view.client.jetstream(), claims, view.names)
    data = bytes(range(256)) * 12_000
    await publisher.publish(OutgoingEvent("echo", data, request_id="big", reply_to="replies.big"))
    reply = (await view.reply("big"))[0]
    claim = ClaimCheck.model_validate_json(reply.headers[wire.H_CLAIM])
    assert ClaimCheck.model_validate_json(reply.data) == claim
    assert await claims.read(claim) == data
    result = await view.result("big", "echo")
    assert result.output.claim == claim


async def test_an_output_that_fits_into_a_message_is_replied_whole(view: View) -> None:
    data = b"y" * 200_000
    reply = await view.call("echo", data)
    assert reply.data == data
    result = await view.results.result(reply.headers[wire.H_REQUEST_ID], "echo")
    assert result is not None
    assert result.output.claim is not None, "above 16 KiB the stored result holds a claim check"


async def test_the_same_event_published_twice_is_one_request(view: View) -> None:
    await view.publish("echo", b"same", request_id="r")
    first = await view.result("r", "echo")
    await view.quiet()
    # The stream itself knows the id for two minutes; without its window the request record does.
    await view.client.jetstream().publish(
        "events.echo", b"same", headers={wire.H_MESSAGE_ID: "r", wire.H_REPLY_TO: "replies.again"}
    )
    await _publish_past_the_window(view, "echo", b"same", "r")
    await view.quiet()
    assert await view.results.result("r", "echo") == first
    info = await view.client.jetstream().stream_info(view.names.results_stream)
    assert info.state.messages == 2


async def test_the_same_id_with_another_body_is_a_dead_letter(view: View) -> None:
    await view.publish("echo", b"one", request_id="r")
    first = await view.result("r", "echo")
    await _publish_past_the_window(view, "echo", b"two", "r")
    await view.dead_letters(1)
    await _publish_past_the_window(view, "said.x", b"one", "r")
    body, topic = await view.dead_letters(2)
    assert (body.reason, topic.reason) == ("idempotency-mismatch", "idempotency-mismatch")
    assert "another body" in body.message
    assert "another topic" in topic.message
    assert body.body.inline_bytes() == b"two"
    replies = await view.reply("again", 2)
    assert {problem_of(reply)["code"] for reply in replies} == {"idempotency-mismatch"}
    assert await view.results.result("r", "echo") == first
    await view.quiet()


async def _publish_past_the_window(view: View, topic: str, data: bytes, request_id: str) -> None:
    """As two minutes later: the stream's own window is made short, then the same id is published again."""
    jetstream = view.client.jetstream()
    stream = view.names.events_stream
    config = (await jetstream.stream_info(stream)).config
    window = config.duplicate_window
    config.duplicate_window = 0.1
    await jetstream.update_stream(config)

    async def stored() -> bool:
        headers = {wire.H_MESSAGE_ID: request_id, wire.H_REPLY_TO: "replies.again"}
        return not (await jetstream.publish(f"events.{topic}", data, headers=headers)).duplicate

    await eventually(stored, what="the end of the stream's duplicate window")
    config.duplicate_window = window
    await jetstream.update_stream(config)


async def test_a_claim_check_whose_bytes_are_gone_is_a_dead_letter(view: View) -> None:
    claim = ClaimCheck(object="event/gone", size_bytes=5, sha256=wire.sha256_hex(b"bytes"))
    await view.publish("echo", claim.to_json(), request_id="r", Invoker_Claim=claim.to_json().decode())
    letter = (await view.dead_letters(1))[0]
    assert letter.reason == "claim-check"
    assert letter.body == Content.claimed(claim)
    assert problem_of((await view.reply("r"))[0])["code"] == "claim-check"
    await view.quiet()
    assert datetime.now(UTC) >= letter.dead_at
