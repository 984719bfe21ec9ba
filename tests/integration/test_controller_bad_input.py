"""Whatever comes in: a clear reason, nothing lost, nobody else disturbed. Events end as dead letters or as runs."""

from __future__ import annotations

from pathlib import Path

import nats.errors
import nats.js.errors
import pytest

from invoker import wire
from invoker.request import RunTicket
from tests.controllers import View, problem_of
from tests.custody.workload import function, write_catalog

pytestmark = pytest.mark.integration

FILE = {"input": {"as": "file"}, "output": {"from": "stdout"}}


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    return write_catalog(
        tmp_path / "catalog",
        function("echo", "echo.>", 'cat "$INVOKER_INPUT_FILE"', **FILE),
        function("also", "echo.>", "true"),
        function("a", "to-a", "true", onSuccess={"publish": "to-b"}),
        function("b", "to-b", "true", onSuccess={"publish": "to-a"}),
    )


async def still_works(view: View) -> None:
    """Nobody else was disturbed."""
    reply = await view.client.request(view.names.call_function("echo"), b"still here", timeout=60)
    assert reply.data == b"still here"
    await view.quiet()


@pytest.mark.parametrize(
    ("headers", "reason", "words"),
    [
        ({wire.H_HOPS: "33"}, "hop-limit", "33 hops, at most 32"),
        ({wire.H_HOPS: "many"}, "invalid-request-id", "Invoker-Hops is not a number"),
        ({wire.H_HOPS: "-1"}, "invalid-request-id", "Invoker-Hops is not a number"),
        ({wire.H_ROOT_REQUEST_ID: "a b"}, "invalid-request-id", "Invoker-Root-Request-Id is not an id"),
        ({wire.H_PARENT_RUN_ID: "x.y"}, "invalid-request-id", "Invoker-Parent-Run-Id is not an id"),
        ({wire.H_CLAIM: "not json"}, "claim-check", "is not a claim check"),
        ({wire.H_CLAIM: '{"object":"x","bytes":1,"sha256":"short"}'}, "claim-check", "is not a claim check"),
        ({"X-Much": "y" * 17_000}, "payload-too-large", "at most 16384"),
    ],
)
async def test_headers_that_cannot_be_used(view: View, headers: dict[str, str], reason: str, words: str) -> None:
    await view.client.jetstream().publish("events.echo.x", b"data", headers=headers | {wire.H_REPLY_TO: "replies.r"})
    letter = (await view.dead_letters(1))[0]
    assert letter.reason == reason
    assert words in letter.message
    assert (letter.topic, letter.subject) == ("echo.x", "events.echo.x")
    assert problem_of((await view.reply("r"))[0])["code"] == reason
    await still_works(view)


@pytest.mark.parametrize(
    "subject",
    [
        "$JS.ACK.INVOKER_RUNS.run-echo.1.1.1.1.0",
        "$JS.API.STREAM.DELETE.INVOKER_RUNS",
        "$SYS.REQ.SERVER.PING",
        "invoker.run.echo.forged",
        "invoker.result.r.echo",
        "events.echo.again",
        "_INBOX.*",
        "replies.>",
        "elsewhere.x",
        "_INBOX." + "x" * 300,
        "replies..x",
    ],
)
async def test_a_reply_subject_is_no_weapon(view: View, subject: str) -> None:
    """An empty output sent to an ack subject would ack somebody's run, one sent to the API would delete a stream."""
    weapons = await view.client.subscribe(">")
    await view.client.jetstream().publish("events.echo.x", b"", headers={wire.H_REPLY_TO: subject})
    letter = (await view.dead_letters(1))[0]
    assert letter.reason == "invalid-reply-subject"
    await still_works(view)
    await view.client.flush()
    heard = [(await weapons.next_msg()).subject for _ in range(weapons.pending_msgs)]
    assert subject not in heard
    assert await view.results.record(letter.request_id or "") is None, "nothing ran"


async def test_somebody_elses_inbox_is_allowed(view: View) -> None:
    heard = await view.client.subscribe("_INBOX.of.another")
    await view.client.jetstream().publish("events.echo.x", b"yes", headers={wire.H_REPLY_TO: "_INBOX.of.another"})
    assert {(await heard.next_msg(60)).headers[wire.H_FUNCTION] for _ in range(2)} == {"echo", "also"}


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("events.$JS.x", "invalid-topic"),
        ("events.invoker.x", "invalid-topic"),
        ("events.invoker.call.Not_A_Name", "invalid-topic"),
        ("events." + ".".join("t" * 33), "invalid-topic"),
        ("events." + "t" * 256, "invalid-topic"),
        ("events.tab\u00a0here", "invalid-topic"),
        ("events." + ".".join("t" for _ in range(300)), "invalid-topic"),
    ],
)
async def test_topics_that_are_none(view: View, subject: str, reason: str) -> None:
    await view.client.jetstream().publish(subject, b"data")
    letter = (await view.dead_letters(1))[0]
    assert letter.reason == reason
    await still_works(view)


async def test_a_copied_message_id_loses_no_run(view: View) -> None:
    """The event's own `Nats-Msg-Id` on its run messages would make all but the first a duplicate."""
    for number in range(5):
        await view.publish("echo.x", b"x", request_id=f"r{number}", Nats_Expected_Stream="INVOKER_EVENTS")
        assert set((await view.answers(f"r{number}")).results) == {"echo", "also"}


@pytest.mark.parametrize("message_id", ["a.b.c", "with space", "*", ">", "x" * 5000, "ünïcode", "$JS.API"])
async def test_message_ids_never_become_subjects(view: View, message_id: str) -> None:
    await view.client.jetstream().publish("events.echo.x", b"x", headers={wire.H_MESSAGE_ID: message_id})
    hashed = wire.digest_id("message-id", message_id)
    answers = await view.answers(hashed)
    assert answers.record is not None
    assert answers.record.message_id == message_id
    await view.quiet()


async def test_a_loop_ends_as_a_dead_letter(view: View) -> None:
    await view.publish("to-a", b"", request_id="round")
    letter = (await view.dead_letters(1, within=200))[0]  # after 33 runs, one after the other
    assert letter.reason == "hop-limit"
    assert "33 hops, at most 32" in letter.message
    await view.quiet()
    state = (await view.client.jetstream().stream_info(view.names.results_stream)).state
    assert state.messages == 2 * 33, "the first stage and 32 hops, each with record and result"


async def test_an_event_above_the_streams_limit_is_refused_to_its_publisher(view: View) -> None:
    with pytest.raises(nats.errors.MaxPayloadError):
        await view.client.jetstream().publish("events.echo.x", b"x" * (view.client.max_payload + 1))
    await still_works(view)


@pytest.mark.parametrize("topic", ["with space", "wild.*", "tail.>", "a..b", "", ".a", "cr\rlf\n"])
async def test_calls_of_illegal_topics_are_refused(view: View, topic: str) -> None:
    """nats-py sends only some of them; what reaches the service is answered, the rest never leaves the client."""
    try:
        reply = await view.client.request(f"invoker.call.topic.{topic}", b"", timeout=2)
    except (nats.errors.Error, ValueError):
        pass
    else:
        assert problem_of(reply)["code"] == "invalid-topic"
    await still_works(view)


async def test_a_dead_letter_can_be_sent_again_once(view: View) -> None:
    await view.client.jetstream().publish("events.echo.x", b"again", headers={wire.H_HOPS: "77", "X-Own": "kept"})
    letter = (await view.dead_letters(1))[0]
    first = await view.control("dead.redrive", dead_id=letter.id)
    second = await view.control("dead.redrive", dead_id=letter.id)
    assert first == second
    answers = await view.answers(first["request_id"])
    assert answers.record is not None
    assert answers.record.replay_of == letter.request_id
    assert answers.record.headers.get("X-Own") == "kept"
    assert answers.results["echo"].output.inline_bytes() == b"again"
    assert (await view.control("dead.redrive", dead_id="nobody"))["code"] == "unknown"


async def test_a_message_by_hand_in_the_run_queue_is_dropped(view: View) -> None:
    """Words, and a ticket whose run id is not the one of its request and function."""
    await view.client.jetstream().publish("invoker.run.echo.byhand", b"not a ticket")
    forged = RunTicket(run_id="forged", request_id="nobody", function="echo")
    await view.client.jetstream().publish("invoker.run.echo.forged", forged.to_json())
    await still_works(view)


async def test_a_forged_run_without_a_record_ends_as_lost(view: View) -> None:
    forged = RunTicket(run_id=wire.run_id_of("nobody", "echo"), request_id="nobody", function="echo")
    await view.client.jetstream().publish(view.names.run("echo", forged.run_id), forged.to_json())
    result = await view.result("nobody", "echo")
    assert (result.state, result.reason) == ("lost", "expired-in-queue")
    await still_works(view)


async def test_nobody_writes_a_result_by_hand_twice(view: View) -> None:
    """RESULTS is create-only for everybody: a second message on a subject is refused by the server."""
    await view.publish("echo.x", request_id="r")
    await view.result("r", "echo")
    with pytest.raises(nats.js.errors.APIError):
        await view.client.jetstream().publish(view.names.result("r", "echo"), b"{}")
