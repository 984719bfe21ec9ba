"""The names of a call and its trace: kept through event, run, chain, published event, reply, and in the log lines."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from nats.aio.client import Client as NatsClient
from structlog.testing import capture_logs

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from tests.conftest import eventually
from tests.custody.workload import function
from tests.gateway.stack import FILE, INPUT, MIRROR, Stack, running_stack, session

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE_ID}-b7ad6b7169203331-01"
NAMED = {"X-Request-Id": "my-call:1", "traceparent": TRACEPARENT, "tracestate": "vendor=1,other=2"}
PUBLISHER = """
def handle(event, context):
    context.publish("three", event["data"])
    own = "00-11111111111111111111111111111111-2222222222222222-01"
    context.publish("own", event["data"], headers={"traceparent": own})
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """one ─onSuccess─▶ two ─publishes─▶ three (mirror) and own (mirror)."""
    python = {"command": None, "runtime": "python", "handler": "main.handle"}
    documents = [
        function("one", "one", INPUT, onSuccess={"publish": "two"}, **FILE),
        function("two", "two", "", code=PUBLISHER, **python),
        function("three", "three", "", code=MIRROR, **python),
        function("own", "own", "", code=MIRROR, **python),
    ]
    for document in documents:
        if document["spec"]["command"] is None:
            del document["spec"]["command"]
    async with running_stack(tmp_path_factory.mktemp("chain"), functions=documents) as running:
        yield running


async def test_a_call_keeps_its_names_to_the_end_of_the_chain_and_in_the_log(chain: Stack) -> None:
    with capture_logs() as lines:
        async with session(chain.url) as http, http.post("/v1/topics/one", data=b"x", headers=NAMED) as answer:
            assert answer.headers["X-Request-Id"] == "my-call:1"
            request_id = (await answer.json())["request_id"]
        whole = await chain.client.chain(request_id, wait=60)
        by_topic = {view.topic: view for view in whole.views}

        async def all_told() -> bool:
            return len([line for line in lines if line["event"] == "run finished"]) >= 4

        await eventually(all_told, what="the log of four runs")
    assert set(by_topic) == {"one", "two", "three", "own"}
    for topic in ("one", "two", "three"):
        record = by_topic[topic].record
        assert record is not None
        assert {name: record.headers[name] for name in NAMED} == NAMED, topic
    own = by_topic["own"].record
    assert own is not None
    assert own.headers["X-Request-Id"] == "my-call:1"
    assert own.headers["traceparent"].startswith("00-1111"), "a function may begin a span of its own"
    seen = json.loads(await chain.client.output(by_topic["three"].results[0]))["headers"]
    assert seen["traceparent"] == TRACEPARENT, "and the handler is given them"
    requests = {by_topic[name].request_id for name in ("one", "two", "three")}
    ours = [line for line in lines if line.get("request_id") in requests]
    assert {line["event"] for line in ours} >= {"request accepted", "run started", "run finished"}
    for line in ours:
        if line["event"] in ("request accepted", "run started", "run finished"):
            assert (line["call_id"], line["trace_id"]) == ("my-call:1", TRACE_ID), line
    (audit,) = [line for line in lines if line.get("component") == "audit"]
    assert audit["call_id"] == "my-call:1"


async def test_a_reply_over_nats_names_the_call(chain: Stack) -> None:
    client: NatsClient = await connect(ConnectionOptions(url=chain.server.url))
    try:
        replies = await client.subscribe("replies.trace")
        await client.jetstream().publish("events.three", b"x", headers={**NAMED, wire.H_REPLY_TO: "replies.trace"})
        reply = await replies.next_msg(timeout=60)
        assert {name: (reply.headers or {})[name] for name in NAMED} == NAMED
    finally:
        await client.close()


@pytest.mark.parametrize(
    "given",
    [{}, {"X-Request-Id": "a b"}, {"X-Request-Id": "x" * 129}, {"X-Request-Id": "<script>"}, {"X-Request-Id": "é"},
     {"traceparent": "00-0-0-00"}, {"traceparent": f"00-{'0' * 32}-b7ad6b7169203331-01"},
     {"traceparent": TRACEPARENT + "-x"}, {"traceparent": TRACEPARENT.upper()}, {"tracestate": "a=1"}],
)  # fmt: skip
async def test_names_that_do_not_hold_are_replaced_or_left_out(chain: Stack, given: dict[str, str]) -> None:
    async with session(chain.url) as http, http.post("/v1/topics/three", data=b"x", headers=given) as answer:
        call_id = answer.headers["X-Request-Id"]
        request_id = (await answer.json())["request_id"]
    assert re.fullmatch("[0-9a-f]{26}", call_id)
    record = (await chain.client.result(request_id, wait=60)).record
    assert record is not None
    assert record.headers["X-Request-Id"] == call_id
    assert "traceparent" not in record.headers
    assert "tracestate" not in record.headers


async def test_every_answer_names_its_call(chain: Stack) -> None:
    async with session(chain.url) as http:
        for method, path in (("GET", "/v1/functions"), ("GET", "/nothing"), ("POST", "/v1/topics/a..b"),
                             ("PUT", "/v1/runs"), ("GET", "/v1/runs/unknown"), ("OPTIONS", "/v1/runs")):  # fmt: skip
            async with http.request(method, path, headers={"X-Request-Id": "named"}) as answer:
                assert answer.headers["X-Request-Id"] == "named", path
                assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_what_stands_in_headers_of_any_publisher_is_checked_before_it_stands_in_a_log() -> None:
    assert wire.trace_facts({"x-request-id": "a", "Traceparent": TRACEPARENT}) == {"call_id": "a", "trace_id": TRACE_ID}
    assert wire.trace_facts({"x-request-id": "a\nb", "traceparent": "x" * 10_000}) == {}
    assert wire.trace_facts(None) == {}
    assert wire.trace_headers({"tracestate": "a=1"}) == {}, "of no trace"
