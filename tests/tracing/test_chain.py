"""Three stages on the local engine, called through the gateway: one trace, right parents, and lines of the log."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from io import StringIO
from typing import Any

import pytest
import pytest_asyncio

from invoker import spans, wire
from invoker.connection import ConnectionOptions, connect
from invoker.logs import configure_logs
from invoker.tracing_switch import traced
from tests.conftest import eventually
from tests.custody.workload import function
from tests.docs.transcript import ROOT
from tests.gateway.stack import FILE, INPUT, Stack, running_stack, session
from tests.tracing.receiver import Receiver, Seen, otlp_receiver

CALLER_SPAN = "b7ad6b7169203331"
PUBLISHER = """
import os

def handle(event, context):
    assert context.traceparent == os.environ["TRACEPARENT"]
    context.publish("three", os.environ["TRACEPARENT"] + " " + event["headers"]["traceparent"])
    return "done"
"""


pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


def new_trace() -> tuple[str, dict[str, str]]:
    """The id of a trace that only this test has, and the headers of its caller."""
    trace = os.urandom(16).hex()
    return trace, {"traceparent": f"00-{trace}-{CALLER_SPAN}-01", "tracestate": "vendor=1"}


@dataclass(frozen=True)
class Traced:
    """An installation that traces, what arrived of it, and what it wrote into its log."""

    stack: Stack
    receiver: Receiver
    log: StringIO

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.getvalue().splitlines()]

    async def call(self, topic: str, **headers: str) -> str:
        """Publish through the gateway; returns the request id once the whole chain is over and its spans are here."""
        async with (
            session(self.stack.url) as http,
            http.post(f"/v1/topics/{topic}", data=b"x", headers=headers) as answer,
        ):
            request_id: str = (await answer.json())["request_id"]
        await self.stack.client.chain(request_id, wait=60)
        await self.told(request_id)
        return request_id

    async def told(self, request_id: str) -> None:
        """When this returns the spans of every run of the chain have arrived, with their attempts, and the call's: a
        run's result is told last, and what is told first is sent first, but not all of it at once."""
        chain = await self.stack.client.chain(request_id, wait=60)
        wanted = {result.run_id for view in chain.views for result in view.results}

        async def here() -> bool:
            told = {s.attributes.get("invoker.run_id") for s in self.receiver.spans if s.name.startswith("result ")}
            return wanted <= told

        await eventually(here, what="the spans of all runs")


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    """one ─onSuccess─▶ two (publishes) ─▶ three; `once` fails in its first attempt."""
    python: dict[str, Any] = {"runtime": "python", "handler": "main.handle"}
    two = function("two", "two", "", code=PUBLISHER, **python)
    del two["spec"]["command"]
    documents = [
        function("one", "one", INPUT, onSuccess={"publish": "two"}, **FILE),
        two,
        function("three", "three", INPUT, **FILE),
        function("once", "once.*", 'if [ ! -e "$MARK" ]; then touch "$MARK"; exit 7; fi', backoffLimit=1,
                 env=[{"name": "MARK", "value": str(tmp_path_factory.mktemp("mark") / "mark")}]),
        function("bad", "bad", "exit 3"),
    ]  # fmt: skip
    log = StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with traced("invoker-test", {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}):
            configure_logs("json", "debug", log)
            async with running_stack(tmp_path_factory.mktemp("chain"), functions=documents) as stack:
                yield Traced(stack, receiver, log)


async def test_a_chain_is_one_trace_from_the_call_to_the_last_result(running: Traced) -> None:
    trace, headers = new_trace()
    request_id = await running.call("one", **headers)
    seen = running.receiver.of(trace)
    call = seen.one("POST /v1/topics/{topic}")
    assert (call.parent, call.kind) == (CALLER_SPAN, "SERVER")
    assert call.attributes["http.response.status_code"] == 202
    assert call.attributes["invoker.request_id"] == request_id
    assert {span.parent for span in seen.spans} - seen.ids() == {CALLER_SPAN}, "no span hangs in the air"
    parent = call
    for name in ("publish one", "accept one", "run one", "publish two", "accept two", "run two", "publish three",
                 "accept three", "run three"):  # fmt: skip
        span = seen.one(name)
        assert span.parent == parent.span_id, name
        assert not span.failed, name
        assert span.start >= parent.start - 1_000_000, name
        parent = span
    for name in ("one", "two", "three"):
        run = seen.one(f"run {name}")
        assert {span.name for span in seen.spans if span.parent == run.span_id} >= {"attempt 1", f"result {name}"}
        assert run.events == ("started",)
    assert len(seen.ids()) == 1 + 3 * 3 + 3 * 2


async def test_what_spans_say(running: Traced) -> None:
    seen = running.receiver
    request_id = await running.call("one", **new_trace()[1])
    (publish,) = [s for s in seen.named("publish one") if s.attributes["messaging.message.id"] == request_id]
    assert publish.kind == "PRODUCER"
    assert publish.attributes == {
        "messaging.system": "nats", "messaging.operation.name": "publish", "messaging.operation.type": "send",
        "messaging.destination.name": "events.one", "messaging.message.id": request_id,
        "messaging.message.body.size": 1, "invoker.topic": "one",
    }  # fmt: skip
    (accept,) = [s for s in seen.named("accept one") if s.attributes["invoker.request_id"] == request_id]
    assert accept.kind == "CONSUMER"
    assert accept.attributes["messaging.destination.template"] == "one"
    assert accept.attributes["messaging.consumer.group.name"] == "intake"
    assert accept.attributes["invoker.functions"] == ["one"]
    run_id = wire.run_id_of(request_id, "one")
    (run,) = [s for s in seen.named("run one") if s.attributes["invoker.run_id"] == run_id]
    said = {
        "faas.trigger": "pubsub", "faas.invocation_id": run_id, "faas.name": "one", "invoker.engine": "local",
        "invoker.state": "succeeded", "invoker.reason": "completed", "invoker.attempts": 1,
        "messaging.consumer.group.name": "run-one",
    }  # fmt: skip
    assert {name: run.attributes[name] for name in said} == said
    assert run.service == "invoker-test"


async def test_a_function_goes_on_with_the_span_of_its_run(running: Traced) -> None:
    trace, headers = new_trace()
    request_id = await running.call("one", **headers)
    chain = await running.stack.client.chain(request_id)
    (three,) = [view for view in chain.views if view.topic == "three"]
    environment, header = (await running.stack.client.output(three.results[0])).decode().split()
    assert three.record is not None
    (run,) = [
        s for s in running.receiver.named("run two") if s.attributes["invoker.run_id"] == three.record.parent_run_id
    ]
    assert environment == f"00-{trace}-{run.span_id}-01"
    assert header == f"00-{trace}-{run.parent}-01", "the event's own header names its acceptance"


async def test_an_event_without_a_trace_begins_one_that_follows_from_its_request(running: Traced) -> None:
    js = running.stack.client
    receipt = await js.publish("one", b"x", request_id="plain-1")
    assert receipt.request_id == "plain-1"
    await running.told("plain-1")
    ours = [s for s in running.receiver.spans if s.attributes.get("invoker.request_id") == "plain-1"]
    (publish,) = [s for s in running.receiver.named("publish one") if s.attributes["messaging.message.id"] == "plain-1"]
    assert publish.parent is None
    assert {span.trace_id for span in ours} == {publish.trace_id}


async def test_an_event_of_another_client_begins_its_trace_when_it_is_accepted(running: Traced) -> None:
    connection = await connect(ConnectionOptions(url=running.stack.server.url))
    try:
        await connection.jetstream().publish("events.three", b"x", headers={wire.H_MESSAGE_ID: "other-1"})
    finally:
        await connection.close()
    view = await running.stack.client.result("other-1", wait=60)
    await running.told("other-1")
    (accept,) = [s for s in running.receiver.named("accept three") if s.attributes["invoker.request_id"] == "other-1"]
    assert accept.parent is None
    assert accept.trace_id == spans.derived_trace("other-1"), "who knows the request finds its trace"
    assert view.record is not None
    assert view.record.headers["traceparent"] == f"00-{accept.trace_id}-{accept.span_id}-01"


async def test_a_dead_letter_is_a_failed_span_where_its_event_came_from(running: Traced) -> None:
    trace, headers = new_trace()
    connection = await connect(ConnectionOptions(url=running.stack.server.url))
    try:
        for given in (headers, {}):  # with a trace of its own, and without one
            more = {wire.H_MESSAGE_ID: f"dead-{len(given)}", wire.H_HOPS: "33"}
            await connection.jetstream().publish("events.three", b"x", headers=given | more)
    finally:
        await connection.close()

    async def both() -> bool:
        return len(running.receiver.named("dead hop-limit")) == 2

    await eventually(both, what="the spans of two dead letters")
    letters = {letter.request_id: letter for letter in await running.stack.client.dead()}
    by_request = {str(s.attributes["invoker.request_id"]): s for s in running.receiver.named("dead hop-limit")}
    theirs, alone = by_request[f"dead-{len(headers)}"], by_request["dead-0"]
    assert (theirs.trace_id, theirs.parent) == (trace, CALLER_SPAN)
    assert (alone.trace_id, alone.parent) == (spans.derived_trace("dead-0"), None)
    for span in (theirs, alone):
        letter = letters[str(span.attributes["invoker.request_id"])]
        assert (span.failed, span.attributes["error.type"]) == (True, "hop-limit")
        assert (span.attributes["invoker.dead_id"], span.message) == (letter.id, letter.message)
        assert span.start <= span.end


async def test_a_reply_names_its_span(running: Traced) -> None:
    trace, headers = new_trace()
    connection = await connect(ConnectionOptions(url=running.stack.server.url))
    try:
        replies = await connection.subscribe("replies.traced")
        given = {**headers, wire.H_MESSAGE_ID: "reply-1", wire.H_REPLY_TO: "replies.traced"}
        await connection.jetstream().publish("events.three", b"x", headers=given)
        reply = await replies.next_msg(timeout=60)
    finally:
        await connection.close()
    await running.told("reply-1")
    named = {s.attributes["invoker.request_id"]: s for s in running.receiver.named("reply three")}
    span = named["reply-1"]
    assert (reply.headers or {})["traceparent"] == f"00-{trace}-{span.span_id}-01"
    assert (reply.headers or {})["tracestate"] == "vendor=1"
    assert span.attributes["messaging.destination.name"] == "replies.traced"
    run = running.receiver.of(trace).one("run three")
    assert (span.parent, span.kind) == (run.span_id, "PRODUCER")


async def test_attempts_are_spans_of_their_run(running: Traced) -> None:
    request_id = await running.call("once.more")
    (run,) = [s for s in running.receiver.named("run once") if s.attributes["invoker.request_id"] == request_id]
    first, second = sorted(
        (s for s in running.receiver.spans if s.parent == run.span_id and s.name.startswith("attempt ")),
        key=lambda span: span.name,
    )
    assert (first.failed, first.attributes["process.exit.code"], first.attributes["invoker.reason"]) == (
        True,
        7,
        "error",
    )
    assert not second.failed
    assert not run.failed
    assert run.attributes["invoker.attempts"] == 2
    assert run.start <= first.start <= first.end <= second.start <= second.end


async def test_a_failed_run_is_a_failed_span(running: Traced) -> None:
    request_id = await running.call("bad")
    (run,) = [s for s in running.receiver.named("run bad") if s.attributes["invoker.request_id"] == request_id]
    assert run.failed
    assert (run.attributes["error.type"], run.attributes["invoker.state"]) == ("error", "failed")
    assert run.message


async def test_a_replay_is_a_trace_of_its_own_that_links_to_the_original(running: Traced) -> None:
    original = await running.call("three", **new_trace()[1])
    for through_gateway in (False, True):
        if through_gateway:
            async with (
                session(running.stack.url) as http,
                http.post(f"/v1/requests/{original}/replay") as answer,
            ):
                again = (await answer.json())["request_id"]
        else:
            again = (await running.stack.client.replay(original)).request_id
        await running.told(again)
        accepts = {s.attributes["invoker.request_id"]: s for s in running.receiver.named("accept three")}
        first, second = accepts[original], accepts[again]
        assert second.trace_id != first.trace_id
        assert second.links == ((first.trace_id, first.span_id),)
        assert second.attributes["invoker.replay_of"] == original


async def test_a_replay_by_a_client_that_does_not_trace_is_no_child_either(running: Traced) -> None:
    original = await running.call("three", **new_trace()[1])
    view = await running.stack.client.result(original)
    assert view.record is not None
    headers = {**view.record.headers, wire.H_REPLAY_OF: original, wire.H_MESSAGE_ID: "by-hand-1"}
    connection = await connect(ConnectionOptions(url=running.stack.server.url))
    try:
        await connection.jetstream().publish("events.three", b"x", headers=headers)
    finally:
        await connection.close()
    await running.stack.client.result("by-hand-1", wait=60)
    await running.told("by-hand-1")
    accepts = {s.attributes["invoker.request_id"]: s for s in running.receiver.named("accept three")}
    first, second = accepts[original], accepts["by-hand-1"]
    assert (second.parent, second.trace_id != first.trace_id) == (None, True)
    assert second.links == ((first.trace_id, first.span_id),)


async def test_a_request_that_is_published_again_links_to_the_first(running: Traced) -> None:
    (trace, headers), (second_trace, second) = new_trace(), new_trace()
    connection = await connect(ConnectionOptions(url=running.stack.server.url))
    try:
        js = connection.jetstream()
        await js.publish("events.three", b"x", headers={**headers, wire.H_MESSAGE_ID: "twice!"})
        request_id = wire.digest_id("message-id", "twice!")
        await running.stack.client.result(request_id, wait=60)
        await running.told(request_id)
        # As after the stream's two minutes: the same id once more, told by another id of the message.
        await js.publish("events.three", b"x", headers={**second, wire.H_MESSAGE_ID: request_id})
    finally:
        await connection.close()

    async def told() -> list[Seen]:
        return [span for span in running.receiver.spans if span.trace_id == second_trace]

    (again,) = await eventually(told, what="the span of the second publish")
    first = running.receiver.of(trace).one("accept three")
    assert again.links == ((first.trace_id, first.span_id),)
    assert again.attributes["invoker.repeated"] is True
    runs = [s for s in running.receiver.named("run three") if s.attributes["invoker.request_id"] == request_id]
    assert len(runs) == 1


async def test_what_the_caller_does_not_sample_is_told_to_nobody_but_stays_a_trace(running: Traced) -> None:
    trace = os.urandom(16).hex()
    named = {"traceparent": f"00-{trace}-{CALLER_SPAN}-00"}
    async with session(running.stack.url) as http, http.post("/v1/topics/three", data=b"x", headers=named) as answer:
        request_id = (await answer.json())["request_id"]
    view = await running.stack.client.result(request_id, wait=60)
    assert view.record is not None
    assert view.record.headers["traceparent"].startswith(f"00-{trace}-")
    assert view.record.headers["traceparent"].endswith("-00")
    await running.call("three")  # its spans come after those that must not be there
    assert not [span for span in running.receiver.spans if span.trace_id == trace]


async def test_every_line_about_a_run_carries_its_ids(running: Traced) -> None:
    trace, headers = new_trace()
    request_id = await running.call("one", **headers, **{"X-Request-Id": "logged-1"})
    chain = await running.stack.client.chain(request_id)
    runs = {result.run_id: result for view in chain.views for result in view.results}

    async def finished() -> bool:
        done = {line.get("run_id") for line in running.lines() if line["event"] == "run finished"}
        return set(runs) <= done

    await eventually(finished, what="the last line of each run")
    lines = running.lines()
    assert all({"timestamp", "level", "event", "component"} <= line.keys() for line in lines)
    by_run = {s.attributes["invoker.run_id"]: s for s in running.receiver.spans if s.name.startswith("run ")}
    about = [line for line in lines if line.get("run_id") in runs]
    assert len(about) >= 2 * len(runs)
    for line in about:
        result, span = runs[line["run_id"]], by_run[line["run_id"]]
        expected = {"request_id": result.request_id, "function": result.function, "trace_id": trace,
                    "span_id": span.span_id}  # fmt: skip
        assert {name: line.get(name) for name in expected} == expected, line
    accepted = [line for line in lines if line["event"] == "request accepted" and line["request_id"] == request_id]
    assert [(line["trace_id"], line["call_id"]) for line in accepted] == [(trace, "logged-1")]
    (audit,) = [line for line in lines if line["component"] == "audit" and line["call_id"] == "logged-1"]
    assert audit["trace_id"] == trace


async def test_lines_of_libraries_are_lines_of_the_log_too(running: Traced) -> None:
    logging.getLogger("some.library").warning("it %s", "happened")
    last = running.lines()[-1]
    assert (last["component"], last["event"], last["level"]) == ("some.library", "it happened", "warning")


def tree(found: list[Seen], parent: str, depth: int = 0) -> list[str]:
    """A trace as the page shows it: each span below its parent, in the order in which they began."""
    lines = []
    for span in sorted((one for one in found if one.parent == parent), key=lambda one: (one.start, one.name)):
        lines.append(f"{'  ' * depth}{span.name}")
        lines += tree(found, span.span_id, depth + 1)
    return lines


async def test_the_page_shows_this_trace(running: Traced) -> None:
    trace, headers = new_trace()
    await running.call("one", **headers)
    shown = re.search(r"```text\n(POST .*?)```", (ROOT / "docs" / "tracing.md").read_text(), re.DOTALL)
    assert shown is not None
    there = {span.span_id: span for span in running.receiver.of(trace).spans}
    assert tree(list(there.values()), CALLER_SPAN) == [line.rstrip() for line in shown[1].splitlines()]


async def test_the_pages_name_every_attribute_and_every_field(running: Traced) -> None:
    await running.call("one", **new_trace()[1])
    await running.call("bad")
    traces, logs = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("tracing", "logs"))
    named = {name for span in running.receiver.spans for name in span.attributes}
    assert not {name for name in named if f"`{name}`" not in traces}
    fields = {name for line in running.lines() if line["component"] != "some.library" for name in line}
    assert not {name for name in fields if f"`{name}`" not in logs}
