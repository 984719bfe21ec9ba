"""The client with a real controller and real functions: each promise of the client's docstrings, end to end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.errors import (
    IdempotencyMismatchError,
    NoSubscriptionError,
    RunFailedError,
    TopicError,
    UnknownIdError,
    WaitExpiredError,
)
from invoker.request import RequestRecord
from invoker.result import Reason, RunStatusDocument, State
from invoker.views import RequestState
from tests.conftest import eventually
from tests.integration.client.conftest import NAMES, SLEEP, UPPER, Started, reaches
from tests.integration.controller import write_functions

pytestmark = pytest.mark.integration
MIB = 1024 * 1024

COUNT = UPPER.replace("tr a-z A-Z <", "wc -c <")
COPY = UPPER.replace("tr a-z A-Z <", "cat <").replace("topic: words", "topic: copies")
FAIL = "subscriptions: [{topic: broken}]\ncommand: [sh, -c, 'echo it will not work >&2; exit 3']"
UNKNOWN_CUSTOMER = """
subscriptions: [{topic: orders}]
runtime: python
backoffLimit: 1
code: |
  class UnknownCustomer(Exception):
      retryable = True

  def handle(event):
      error = UnknownCustomer("no customer " + event["data"])
      error.retryable = event["data"] != "gone"
      raise error
"""

# request, call, results


async def test_a_request_is_answered_by_every_matching_function(started: Started) -> None:
    async with started(upper=UPPER, count=COUNT, other=COPY) as client:
        replies = {reply.function: reply for reply in await client.request("words", "hello")}
        assert sorted(replies) == ["count", "upper"]
        assert await replies["upper"].text() == "HELLO"
        assert (await replies["count"].text()).strip() == "5"
        view = await client.result(replies["upper"].request_id)
        assert view.succeeded
        assert [await client.output(result) for result in view.results if result.function == "upper"] == [b"HELLO"]
        assert await client.input(view.request_id) == b"hello"
        assert view.record is not None
        assert view.record.body.content_type == "text/plain; charset=utf-8"


async def test_the_result_can_be_polled_when_the_reply_arrives(started: Started) -> None:
    async with started(upper=UPPER) as client:
        for _ in range(20):
            (reply,) = await client.request("words", "x")
            assert (await client.result(reply.run_id)).succeeded


async def test_a_function_is_called_by_its_name(started: Started) -> None:
    async with started(upper=UPPER, count=COUNT) as client:
        reply = await client.call("upper", "hello")
        assert await reply.read() == b"HELLO"
        with pytest.raises(UnknownIdError, match="there is no function 'lower'"):
            await client.call("lower", b"")


async def test_failures_are_replies_with_their_reason(started: Started) -> None:
    async with started(fail=FAIL) as client:
        (reply,) = await client.request("broken")
        assert (reply.state, reply.reason, reply.succeeded) == (State.FAILED, Reason.ERROR, False)
        with pytest.raises(RunFailedError, match="exit") as caught:
            await reply.read()
        assert caught.value.exit_code == 3
        view = await client.result(reply.request_id)
        assert view.exit_code == 3
        assert view.results[0].attempts[0].exit_code == 3


async def test_an_exception_may_say_that_another_attempt_is_of_no_use(started: Started) -> None:
    async with started(order=UNKNOWN_CUSTOMER) as client:
        for data, attempts in (("gone", 1), ("away", 2)):
            (reply,) = await client.request("orders", data)
            assert (reply.state, reply.reason) == (State.FAILED, Reason.ERROR)
            with pytest.raises(RunFailedError, match=f"no customer {data}"):
                await reply.read()
            (result,) = (await client.result(reply.request_id)).results
            errors = [attempt.error.message for attempt in result.attempts if attempt.error]
            assert errors == [f"no customer {data}"] * attempts
            problem = result.problem()
            assert (problem["attempts"], problem["error"]["type"]) == (attempts, "main.UnknownCustomer")


async def test_nothing_matches(started: Started) -> None:
    async with started(upper=UPPER) as client:
        with pytest.raises(NoSubscriptionError) as caught:
            await client.request("wrods", b"")
        assert caught.value.fields["suggestions"][0] == {"pattern": "words", "function": "upper"}
        receipt = await client.publish("wrods", b"")
        assert (await client.result(receipt.request_id, wait=60)).state is RequestState.NO_MATCH


async def test_parameters_reach_the_function_and_wrong_ones_come_back(started: Started) -> None:
    spec = UPPER.replace("tr a-z A-Z <", "head -c $N <") + (
        "parameters: [{name: n, schema: {type: integer, minimum: 1}, default: 2}]\n"
        "env: [{name: N, value: '{{params.n}}'}]\n"
    )
    async with started(head=spec) as client:
        assert await (await client.call("head", "abcdef")).text() == "ab"
        assert await (await client.call("head", "abcdef", params={"n": 4})).text() == "abcd"
        refused = await client.call("head", "abcdef", params={"n": 0})
        assert refused.reason is Reason.INVALID_INPUT
        assert refused.problem is not None
        assert refused.problem["errors"][0]["pointer"] == "/params/n"


@pytest.mark.parametrize("size", [0, 1, wire.CLAIM_THRESHOLD_BYTES, wire.CLAIM_THRESHOLD_BYTES + 1, 8 * MIB])
async def test_payloads_of_every_size_go_both_ways(started: Started, size: int) -> None:
    data = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    async with started(copy=COPY) as client:
        (reply,) = await client.request("copies", data)
        assert await reply.read() == data
        (result,) = (await client.result(reply.request_id)).results
        assert await client.output(result) == data


async def test_a_wait_in_vain_leaves_the_work_going(started: Started) -> None:
    async with started(sleep=SLEEP) as client:
        with pytest.raises(WaitExpiredError) as caught:
            await client.request("sleep", timeout=0.5)
        request_id = caught.value.fields["request_id"]
        await reaches(client, request_id, RequestState.RUNNING)


async def test_results_arrive_one_by_one(started: Started, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = UPPER.replace("tr a-z A-Z <", f"until [ -e {gate} ]; do sleep 0.02; done; cat <")
    async with started(upper=UPPER, slow=slow) as client:
        receipt = await client.publish("words", "x")
        arrived: list[str] = []
        async for result in client.results(receipt.request_id, wait=60):
            arrived.append(result.function)
            gate.touch()
        assert arrived == ["upper", "slow"]


# ids that come twice


async def test_the_same_request_twice_is_one_request(started: Started) -> None:
    async with started(upper=UPPER) as client:
        first, again = await asyncio.gather(*(client.request("words", "x", request_id="r1") for _ in range(2)))
        assert first[0].run_id == again[0].run_id
        later = await client.request("words", "x", request_id="r1")
        assert await later[0].text() == "X"
        assert len(await client.runs()) == 1
        with pytest.raises(IdempotencyMismatchError, match="another body"):
            await client.request("words", "y", request_id="r1")


async def test_another_body_under_an_old_id_from_a_plain_client_is_a_dead_letter(
    started: Started, client: NatsClient
) -> None:
    async with started(upper=UPPER) as sdk:
        await sdk.request("words", "x", request_id="r1")
        inbox = client.new_inbox()
        subscription = await client.subscribe(inbox)
        # Without the duplicate window: another id for the stream, the same one for Invoker, after its hash.
        await client.jetstream().purge_stream(NAMES.events_stream)
        js = client.jetstream()
        config = (await js.stream_info(NAMES.events_stream)).config
        config.duplicate_window = 0.1
        await js.update_stream(config)

        async def stored() -> bool:
            headers = {"Nats-Msg-Id": "r1", "Invoker-Reply-To": inbox}
            return not (await js.publish("events.words", b"y", headers=headers)).duplicate

        await eventually(stored, what="the end of the stream's duplicate window")
        reply = await subscription.next_msg(timeout=60)
        assert (reply.headers or {})[wire.H_REASON] == "idempotency-mismatch"
        (letter,) = await sdk.dead()
        assert letter.reason == "idempotency-mismatch"


# chains


async def test_a_chain_of_three_stages_is_waited_for_to_its_end(started: Started) -> None:
    stages = {
        "first": UPPER.replace("topic: words", "topic: one") + "onSuccess: {publish: two}\n",
        "second": COPY.replace("topic: copies", "topic: two") + "onSuccess: {publish: three}\n",
        "third": COUNT.replace("topic: words", "topic: three"),
        "aside": COPY.replace("topic: copies", "topic: three"),
    }
    async with started(**stages) as client:
        receipt = await client.publish("one", "abc")
        chain = await client.chain(receipt.request_id, wait=60)
        assert chain.settled
        assert chain.succeeded
        assert [sorted(run.function for run in view.runs) for view in chain.views] == [
            ["first"], ["second"], ["aside", "third"],
        ]  # fmt: skip
        (last,) = [run for run in chain.runs if run.function == "aside"]
        assert last.result is not None
        assert await client.output(last.result) == b"ABC"
        assert [node.view.record.hops for node in chain if node.view.record] == [0, 1, 2]
        assert (await client.chain(last.run_id)).views == chain.views
        grown = [step async for step in client.follow_chain(receipt.request_id)]
        assert grown[-1].settled


async def test_a_chain_that_leads_nowhere_ends(started: Started) -> None:
    async with started(first=UPPER + "onSuccess: {publish: nobody.listens}\n") as client:
        receipt = await client.publish("words", "abc")
        chain = await client.chain(receipt.request_id, wait=60)
        assert [view.state for view in chain.views] == ["finished", "no-match"]


async def test_a_forwarded_reply_comes_from_the_last_stage(started: Started) -> None:
    stages = {
        "first": UPPER + "onSuccess: {publish: two, forwardReply: true}\n",
        "second": COUNT.replace("topic: words", "topic: two"),
    }
    async with started(**stages) as client:
        (reply,) = await client.request("words", "abc", request_id="r1")
        assert (reply.function, (await reply.text()).strip()) == ("second", "3")
        again = await client.request("words", "abc", request_id="r1")
        assert [one.function for one in again] == ["second"]
        assert (await (await client.call("first", "abcd")).text()).strip() == "4"


async def test_a_loop_ends_in_a_dead_letter(started: Started) -> None:
    stages = {
        "ping": COPY.replace("topic: copies", "topic: ping") + "onSuccess: {publish: pong}\n",
        "pong": COPY.replace("topic: copies", "topic: pong") + "onSuccess: {publish: ping}\n",
    }
    async with started(**stages) as client:
        receipt = await client.publish("ping", b"x")
        chain = await client.chain(receipt.request_id, wait=60)
        assert len(chain.views) == wire.MAX_HOPS + 1
        (letter,) = await client.dead()
        assert "33 hops, at most 32" in letter.message


# replay


async def test_a_replay_is_a_new_request_that_names_the_old_one(started: Started) -> None:
    async with started(upper=UPPER, count=COUNT) as client:
        first = await client.publish("words", "abc", headers={"traceparent": "00-1"}, request_id="original")
        await client.result(first.request_id, wait=60)
        again = await client.replay("original")
        view = await client.result(again.request_id, wait=60)
        assert view.request_id != "original"
        assert sorted(run.function for run in view.runs) == ["count", "upper"]
        assert view.record is not None
        assert (view.record.replay_of, view.record.topic) == ("original", "words")
        assert view.record.headers["traceparent"] == "00-1"
        assert view.record.root_request_id == view.request_id
        changed = await client.replay("original", data="xyz")
        await client.result(changed.request_id, wait=60)
        assert await client.input(changed.request_id) == b"xyz"


async def test_a_replay_of_one_run_calls_its_function_with_the_old_topic(started: Started) -> None:
    topic = UPPER.replace("tr a-z A-Z <", 'printf "%s" "$INVOKER_TOPIC"; cat <').replace(
        "topic: words", "topic: words.*"
    )
    async with started(topic=topic, other=topic) as client:
        first = await client.publish("words.x", "!")
        view = await client.result(first.request_id, wait=60)
        run = view.run("topic")
        assert run is not None
        for receipt in (
            await client.replay(run.run_id),
            await client.replay(first.request_id, function="topic"),
        ):
            again = await client.result(receipt.request_id, wait=60)
            assert [one.function for one in again.runs] == ["topic"]
            assert [await client.output(result) for result in again.results] == [b"words.x!"]


async def test_a_large_request_is_replayed_from_its_stored_bytes(started: Started) -> None:
    async with started(count=COUNT) as client:
        data = b"x" * (2 * MIB)
        first = await client.publish("words", data)
        await client.result(first.request_id, wait=60)
        receipt = await client.replay(first.request_id)
        view = await client.result(receipt.request_id, wait=60)
        assert (await client.output(view.results[0])).strip() == str(2 * MIB).encode()
        with pytest.raises(UnknownIdError):
            await client.replay("never-seen")


# the catalog


async def test_functions_are_described(started: Started, tmp_path: Path) -> None:
    async with started(upper=UPPER + "timeoutSeconds: 7\n", broken="command: 7") as client:
        catalog = await client.functions()
        assert catalog.engine == "local"
        assert catalog.catalog
        upper, broken = catalog.function("upper"), next(one for one in catalog.functions if one.status == "broken")
        assert upper is not None
        assert (upper.status, upper.timeout_seconds, [one.topic for one in upper.subscriptions]) == (
            "ready",
            7,
            ["words"],
        )
        assert broken.problem is not None
        assert broken.problem.line
        with pytest.raises(UnknownIdError):
            await client.functions("absent")
        write_functions(tmp_path / "functions", {"lower": COPY})
        reloaded = await client.reload()
        assert (reloaded.functions, reloaded.broken) == (2, 1)
        assert await (await client.call("lower", "x")).text() == "x"


async def test_an_event_is_explained_without_running_anything(started: Started) -> None:
    filtered = UPPER.replace("{topic: words}", "{topic: words, filter: {prefix: {type: com.}}}")
    async with started(upper=UPPER, filtered=filtered) as client:
        explained = await client.explain("words", {"a": 1}, headers={"ce-type": "org.x"})
        assert explained.matched == ("upper",)
        verdicts = {one.function: one for one in explained.subscriptions}
        assert verdicts["upper"].matched
        assert not verdicts["filtered"].matched
        assert verdicts["filtered"].clause
        assert [one.pattern for one in (await client.explain("word")).nearest][:1] == ["words"]
        with pytest.raises(TopicError):
            await client.explain("a b")
        assert await client.runs() == []


async def test_a_dead_letter_is_sent_again(started: Started, client: NatsClient) -> None:
    async with started(upper=UPPER) as sdk:
        await client.publish("events.words", b"x", headers={"Invoker-Reply-To": "$JS.ACK.x"})

        async def buried() -> bool:
            return bool(await sdk.dead())

        await eventually(buried, what="a dead letter")
        (letter,) = await sdk.dead()
        assert letter.reason == "invalid-reply-subject"
        request_id = await sdk.redrive(letter.id[:6])
        assert (await sdk.result(request_id, wait=60)).succeeded
        with pytest.raises(UnknownIdError):
            await sdk.redrive("absent")


async def test_news_tell_a_runs_life(started: Started, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with started(
        upper=UPPER.replace("tr a-z A-Z <", f"until [ -e {gate} ]; do sleep 0.02; done; cat <")
    ) as client:
        states: list[str] = []

        async def listen() -> None:
            async for news in client.watch_runs():
                if isinstance(news, RunStatusDocument):
                    states.append(str(news.state))
                elif isinstance(news, RequestRecord):
                    states.append(f"nothing matched {news.topic}")

        listening = asyncio.create_task(listen())

        async def unmatched() -> bool:
            await client.publish("nobody")
            return "nothing matched nobody" in states

        async def running() -> bool:
            return "running" in states

        async def succeeded() -> bool:
            return "succeeded" in states

        await eventually(unmatched, what="the news of no run")
        await client.publish("words", "x")
        await eventually(running, what="the news of a run")
        assert "succeeded" not in states
        gate.touch()
        await eventually(succeeded, what="the news of its end")
        listening.cancel()


# borders of the server


async def test_an_event_of_exactly_max_payload_from_a_plain_client_is_run(started: Started, client: NatsClient) -> None:
    async with started(count=COUNT) as sdk:
        ack = await client.jetstream().publish("events.words", b"x" * client.max_payload)
        assert ack.seq == 1

        async def finished() -> bool:
            return any(row.finished for row in await sdk.runs())

        await eventually(finished, what="the result")
        (row,) = await sdk.runs()
        (result,) = (await sdk.result(row.request_id)).results
        assert (await sdk.output(result)).strip() == str(client.max_payload).encode()
        assert len(await sdk.input(row.request_id)) == client.max_payload
