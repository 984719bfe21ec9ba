"""The metrics of a real controller and a real gateway: each is moved by what it counts, and by nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from invoker import wire
from invoker.errors import LOGIN_FAULTS
from tests.conftest import eventually
from tests.custody.workload import function, put_function
from tests.gateway.access_world import add_key, bearer, guarded_gateway
from tests.gateway.exposition import Exposition
from tests.gateway.stack import INPUT, Stack, running_stack, session
from tests.redis_server import redis_server
from trigger.metrics import Metrics

NAMES = wire.Names()


async def test_right_after_the_start_every_series_is_there(stack: Stack) -> None:
    told = await Exposition.of(stack.controller.http_url)
    for family in Metrics().registry.collect():
        assert f"# TYPE {family.name}" in told.text
    for name in ("gate", "half-bad"):  # no test of this module runs them
        assert told.value("invoker_runs_accepted_total", function=name) == 0.0
        assert told.value("invoker_runs_started_total", function=name, engine="local") == 0.0
        assert told.value("invoker_runs_finished_total", function=name, state="lost", reason="engine") == 0.0
        assert told.value("invoker_run_queue_seconds_count", function=name) == 0.0
        assert told.value("invoker_attempts_total", function=name, reason="timeout") == 0.0
    assert told.value("invoker_nats_connected") == told.value("invoker_catalog_readable") == 1.0
    assert told.value("invoker_catalog_functions") == 12.0
    assert told.value("invoker_catalog_loads_total") == 1.0
    gateway = await Exposition.of(stack.probe_url)
    for route in ("/v1/topics/{topic}", "/v1/functions/{name}/calls"):
        assert gateway.value("invoker_http_requests_total", route=route, method="POST", code="500") == 0.0
    assert gateway.value("invoker_nats_connected") == gateway.value("invoker_controllers_answer") == 1.0
    assert gateway.value("invoker_results_store_up", source="nats") == 1.0
    for each in (told, gateway):
        assert (each.value("process_resident_memory_bytes") or 0) > 1e6
        assert "_created" not in each.text


async def test_every_step_of_a_run_is_counted(stack: Stack) -> None:
    before = await Exposition.of(stack.controller.http_url)
    replies = await stack.client.request("echo.counted", b"hello", timeout=60)
    assert len(replies) == 1
    failed = await stack.client.request("fail.counted", b"", timeout=60)
    assert not failed[0].succeeded

    wanted: list[tuple[float, str, dict[str, str]]] = [
        (2, "invoker_events_received_total", {"stream": NAMES.events_stream}),
        (2, "invoker_engine_requests_total", {"engine": "local", "reason": "start ok"}),
        (0, "invoker_events_dead_total", {}),
        (0, "invoker_events_unmatched_total", {}),
    ]
    for name, state, reason in (("echo", "succeeded", "completed"), ("fail", "failed", "error")):
        wanted += [
            (1, "invoker_runs_accepted_total", {"function": name}),
            (1, "invoker_runs_started_total", {"function": name, "engine": "local"}),
            (1, "invoker_runs_finished_total", {"function": name}),
            (1, "invoker_runs_finished_total", {"function": name, "state": state, "reason": reason}),
            (1, "invoker_attempts_total", {"function": name, "reason": reason}),
        ]
        histograms = ("run_queue_seconds", "run_start_seconds", "run_duration_seconds", "reply_delay_seconds")
        wanted += [(1, f"invoker_{histogram}_count", {"function": name}) for histogram in histograms]
    missing: list[object] = []

    async def counted() -> bool:
        after = await Exposition.of(stack.controller.http_url)
        missing[:] = [
            (name, labels)
            for grown, name, labels in wanted
            if (after.value(name, **labels) or 0) - (before.value(name, **labels) or 0) != grown
        ]
        return not missing

    try:
        await eventually(counted, what="every step's count")
    finally:
        assert not missing


async def test_events_that_become_no_runs_are_counted_and_streams_measured(stack: Stack) -> None:
    before = await Exposition.of(stack.controller.http_url)
    await stack.client.publish("nobody.listens", b"x")
    js = stack.client.custody.publisher._js  # a plain publisher, who may write any header
    await js.publish(NAMES.event("echo.dead"), b"x", headers={wire.H_HOPS: "not a number"})

    unmatched = (before.value("invoker_events_unmatched_total") or 0) + 1

    async def counted() -> bool:
        told = await Exposition.of(stack.controller.http_url)
        return (
            told.value("invoker_events_dead_total", reason="invalid-request-id") == 1
            and told.value("invoker_events_unmatched_total") == unmatched
        )

    await eventually(counted, what="a dead letter and a request without runs")

    async def measured() -> bool:
        told = await Exposition.of(stack.controller.http_url)
        return (
            told.value("invoker_stream_pending", stream=NAMES.dead_stream) == 1
            and told.value("invoker_stream_pending", stream=NAMES.events_stream) == 0
            and told.value("invoker_stream_oldest_seconds", stream=NAMES.events_stream) == 0
            and (told.value("invoker_stream_bytes", stream=NAMES.results_stream) or 0) > 0
            and told.value("invoker_stream_limit_bytes", stream=NAMES.results_stream) == float("inf")
        )

    await eventually(measured, what="the streams' levels")


async def test_a_request_that_matches_nothing_is_counted_once_however_often_its_event_comes(stack: Stack) -> None:
    before = await Exposition.of(stack.controller.http_url)
    js = stack.client.custody.publisher._js
    named = "not usable as it is: 1"
    for message_id in (named, wire.digest_id("message-id", named)):  # two messages to the stream, one request to us
        await js.publish(NAMES.event("nobody.listens"), b"x", headers={"Nats-Msg-Id": message_id})
    last = await js.publish(NAMES.event("nobody.listens"), b"y")

    async def settled() -> bool:
        """An event is acked after all that is counted of it, so this is the one moment when the counts are whole."""
        floor = (await js.consumer_info(NAMES.events_stream, NAMES.intake_consumer)).ack_floor
        return floor is not None and floor.stream_seq >= last.seq

    await eventually(settled, what="the end of three events")
    told = await Exposition.of(stack.controller.http_url)
    counts = [one.value("invoker_events_unmatched_total") or 0 for one in (before, told)]
    assert counts[1] - counts[0] == 2


async def test_the_catalog_is_followed_and_says_when_it_cannot_be_read(tmp_path: Path) -> None:
    async with running_stack(tmp_path, functions=[function("one", "one", INPUT)]) as stack:
        put_function(stack.catalog, function("two", "two", INPUT, concurrency=7))

        async def followed() -> Exposition | None:
            told = await Exposition.of(stack.controller.http_url)
            return told if told.value("invoker_function_concurrency", function="two") == 7 else None

        told = await eventually(followed, what="the second function")
        assert told.value("invoker_catalog_functions") == 2
        assert told.value("invoker_runs_finished_total", function="two", reason="error") == 0
        put_function(stack.catalog, function("two", "two", INPUT), text="kind: Function\nspec: [")

        async def broken() -> bool:
            told = await Exposition.of(stack.controller.http_url)
            return told.value("invoker_catalog_broken_functions") == 1 and told.value("invoker_catalog_readable") == 1

        await eventually(broken, what="a broken function")
        stack.catalog.rename(tmp_path / "elsewhere")

        async def unreadable() -> bool:
            told = await Exposition.of(stack.controller.http_url)
            return told.value("invoker_catalog_readable") == 0

        await eventually(unreadable, what="a catalog that cannot be read")


async def test_a_stream_with_a_bound_tells_it_and_its_waiting_messages_age(tmp_path: Path) -> None:
    one = [function("gate", "gate.>", 'while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do sleep 0.02; done',
                    env=[{"name": "GATES", "value": str(tmp_path / "gates")}])]  # fmt: skip
    async with running_stack(tmp_path, functions=one, controller={"events_bytes": 1_000_000}) as stack:
        request = await stack.client.publish("gate.x", b"")

        async def waiting() -> bool:
            told = await Exposition.of(stack.controller.http_url)
            held = told.value("invoker_runs_active", function="gate") == 1
            return held and (told.value("invoker_stream_oldest_seconds", stream=NAMES.runs_stream) or 0) > 0.3

        await eventually(waiting, what="a run in hand that has an age")
        told = await Exposition.of(stack.controller.http_url)
        assert told.value("invoker_stream_pending", stream=NAMES.runs_stream) == 1
        assert told.value("invoker_stream_limit_bytes", stream=NAMES.events_stream) == 1_000_000
        stack.open_gate(request.request_id)
        await stack.client.result(request.request_id, wait=60)


async def test_what_a_gateway_publishes_and_refuses_is_counted(stack: Stack, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    key = add_key(keys, "shop", "publish echo.>")
    async with (
        guarded_gateway(stack.server.url, gateway_keys=keys, gateway_key_calls_per_second=0.5) as up,
        session(up.url) as http,
    ):
        for headers in ({}, bearer("inv_no"), bearer(f"{key[:-3]}xyz"), {"Authorization": "Basic eDp5"}):
            async with http.post("/v1/topics/echo.a", data=b"x", headers=headers) as answer:
                assert answer.status == 401
        for _ in range(2):
            again = bearer(key) | {"Idempotency-Key": "the-same-one"}
            async with http.post("/v1/topics/echo.a", data=b"x", headers=again) as answer:
                assert answer.status == 202
        async with http.post("/v1/topics/other.a", data=b"x", headers=bearer(key)) as answer:
            assert answer.status == 403
        # At once: one after the other they may be so slow that there always is one again.
        statuses = await asyncio.gather(*(status_of(http, key) for _ in range(40)))
        told = await Exposition.of(up.probe_url)
    refused = {fault: told.value("invoker_http_logins_refused_total", reason=fault) for fault in LOGIN_FAULTS}
    assert refused == {"missing": 1, "malformed": 2, "unknown": 1, "expired": 0, "invalid": 0}
    assert told.value("invoker_http_calls_limited_total", reason="key") == statuses.count(429) > 0
    assert told.value("invoker_http_calls_limited_total", reason="address") == 0
    assert told.value("invoker_events_published_total", reason="stored") == 1
    assert told.value("invoker_events_published_total", reason="duplicate") == 1
    assert told.value("invoker_http_requests_total", code="401", route="/v1/topics/{topic}") is None


async def status_of(http: aiohttp.ClientSession, key: str) -> int:
    async with http.get("/v1/functions", headers=bearer(key)) as answer:
        return answer.status


async def test_the_copy_of_the_results_tells_whether_it_answers_and_what_it_lacks(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path) as database,
        running_stack(tmp_path / "world", results=database.url, functions=[function("one", "one", INPUT)]) as stack,
    ):
        await stack.client.request("one", b"", timeout=60)

        async def level(up: float, behind: float) -> bool:
            told = await Exposition.of(stack.probe_url)
            found = (told.value("invoker_results_store_up", source="redis"), told.value("invoker_results_behind"))
            return found == (up, behind)

        await eventually(lambda: level(1, 0), what="a copy that has everything")
        await database.kill()
        await stack.client.request("one", b"", timeout=60)
        await eventually(lambda: level(0, 2), what="a copy that lacks a record and a result")
        await database.start()
        await eventually(lambda: level(1, 0), what="a copy that has caught up")
