"""Streams and RESULTS on a real server: made or compared, create-only, and read back."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient
from nats.js import api

from invoker import wire
from invoker.errors import InvokerError, ServerUnreachableError, StreamMismatchError
from invoker.request import Content, RequestRecord, RunTicket
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.results.nats import ResultStream
from invoker.streams import StreamLimits, ensure_streams, stream_configs
from tests.conftest import eventually

pytestmark = pytest.mark.integration
NAMES = wire.Names()
LIMITS = StreamLimits()


@pytest.fixture
async def results(client: NatsClient) -> ResultStream:
    await ensure_streams(client.jetstream(timeout=60), NAMES, LIMITS)
    return ResultStream(client, client.jetstream(), NAMES)


def now() -> datetime:
    return datetime.now(UTC)


def record(request_id: str = "r", *functions: str, **given: Any) -> RequestRecord:
    fields: dict[str, Any] = {"topic": "t", "sha256": "", "catalog": "c", "root_request_id": request_id}
    fields |= {"received_at": now(), "accepted_at": now()}
    return RequestRecord(request_id=request_id, functions=functions, **(fields | given))


def result(function: str = "f", request_id: str = "r", **given: Any) -> Result:
    fields: dict[str, Any] = {"topic": "t", "state": State.SUCCEEDED, "reason": Reason.COMPLETED, "finished_at": now()}
    run_id = wire.run_id_of(request_id, function)
    fields |= {"request_id": request_id, "run_id": run_id, "function": function, "root_request_id": request_id}
    return Result(**(fields | given))


# streams


async def test_the_server_takes_every_stream_and_making_them_again_changes_nothing(client: NatsClient) -> None:
    js = client.jetstream()
    await asyncio.gather(*(ensure_streams(js, NAMES, LIMITS) for _ in range(5)))
    before = {info.config.name: info.created for info in await js.streams_info()}
    await ensure_streams(js, NAMES, LIMITS)
    assert {info.config.name: info.created for info in await js.streams_info()} == before
    assert len(before) == 6


async def test_two_instances_share_a_server(client: NatsClient) -> None:
    js = client.jetstream()
    await ensure_streams(js, wire.Names("blue", "blue-events"), LIMITS)
    await ensure_streams(js, wire.Names("green", "green-events"), LIMITS)
    assert len(await js.streams_info()) == 12


@pytest.mark.parametrize("limits", [StreamLimits(retention_seconds=1.0), StreamLimits(retention_seconds=30 * 86_400.0)])
async def test_short_and_long_retentions_are_taken(client: NatsClient, limits: StreamLimits) -> None:
    await ensure_streams(client.jetstream(timeout=60), NAMES, limits)


@pytest.mark.parametrize(
    ("stream", "changed", "words"),
    [
        ("INVOKER_EVENTS", {"max_age": 600}, "max_age is 600.0, must be 0"),
        ("INVOKER_EVENTS", {"retention": api.RetentionPolicy.LIMITS}, "retention is limits, must be workqueue"),
        ("INVOKER_RUNS", {"discard_new_per_subject": False}, "discard_new_per_subject is False, must be True"),
        ("INVOKER_RESULTS", {"max_age": 600.0}, "max_age is 600.0, must be 172800.0"),
        ("INVOKER_RESULTS", {"deny_delete": False}, "deny_delete is False, must be True"),
        ("INVOKER_STATUS", {"storage": api.StorageType.FILE}, "storage is file, must be memory"),
    ],
)
async def test_a_stream_with_other_settings_is_refused_and_left_as_it_is(
    client: NatsClient, stream: str, changed: dict[str, Any], words: str
) -> None:
    js = client.jetstream()
    (wanted,) = [config for config in stream_configs(NAMES, LIMITS) if config.name == stream]
    await js.add_stream(dataclasses.replace(wanted, **changed))
    before = (await js.stream_info(stream)).config
    with pytest.raises(StreamMismatchError) as caught:
        await ensure_streams(js, NAMES, LIMITS)
    assert stream in caught.value.message
    assert words in caught.value.message
    assert (await js.stream_info(stream)).config == before


async def test_a_stream_of_somebody_else_on_our_subjects_is_told(client: NatsClient) -> None:
    js = client.jetstream()
    await js.add_stream(api.StreamConfig(name="ORDERS", subjects=["events.orders.>"]))
    with pytest.raises(InvokerError) as caught:
        await ensure_streams(js, NAMES, LIMITS)
    assert "INVOKER_EVENTS" in caught.value.message
    assert "overlap" in caught.value.message


# create-only documents


async def test_the_first_record_stands(results: ResultStream) -> None:
    first = record("r", "f", sha256="one")
    assert await results.put_record(first)
    assert not await results.put_record(record("r", "g", sha256="two"))
    assert await results.record("r") == first
    assert await results.record("other") is None


async def test_the_first_result_stands_among_many_at_once(results: ResultStream) -> None:
    stored = await asyncio.gather(*(results.put_result(result(message=f"number {n}")) for n in range(50)))
    assert stored.count(True) == 1
    found = await results.result("r", "f")
    assert found is not None
    assert found.message == f"number {stored.index(True)}"


async def test_a_result_is_read_nearby_as_at_the_leader(results: ResultStream) -> None:
    assert await results.result_nearby("r", "f") is None
    assert await results.put_result(result(message="the first"))
    assert await results.result_nearby("r", "f") == await results.result("r", "f")
    assert await results.result_nearby("r", "g") is None


async def test_what_no_copy_answers_the_leader_is_asked(client: NatsClient, results: ResultStream) -> None:
    """Somebody edited the stream: nobody answers direct reads any more, as when every other replica is gone."""
    config = (await client.jetstream().stream_info(NAMES.results_stream)).config
    await client.jetstream().update_stream(dataclasses.replace(config, allow_direct=False))
    first = record("r", "f")
    assert await results.put_record(first)
    assert await results.record("r") == first
    assert await results.put_result(result())
    assert await results.result_nearby("r", "f") is None
    assert await results.result("r", "f") is not None


async def test_a_ticket_is_there_once_and_can_be_found_without_its_function(results: ResultStream) -> None:
    ticket = RunTicket(run_id="x", request_id="r", function="f")
    assert await results.put_ticket(ticket)
    assert not await results.put_ticket(ticket)
    assert await results.ticket("x") == await results.ticket("x", "f") == ticket
    assert await results.ticket("y") is None


async def test_which_of_very_many_runs_have_a_result(results: ResultStream) -> None:
    await asyncio.gather(*(results.put_result(result(request_id=f"r{n}")) for n in range(0, 1500, 3)))
    await results.put_record(record("r1", "f"))
    asked = [(f"r{n}", function) for n in range(1500) for function in ("f", "g")]
    assert await results.sealed(asked) == {(f"r{n}", "f") for n in range(0, 1500, 3)}
    assert await results.sealed([]) == set()


async def test_results_cannot_be_removed_by_anyone(client: NatsClient, results: ResultStream) -> None:
    await results.put_result(result())
    js = client.jetstream()
    with pytest.raises(Exception, match=r"deny|delete|not permitted|not allowed"):
        await js.delete_msg(NAMES.results_stream, 1)
    with pytest.raises(Exception, match=r"deny|purge|not permitted|not allowed"):
        await js.purge_stream(NAMES.results_stream)
    assert await results.result("r", "f") is not None


async def test_headers_repeat_what_lists_need(client: NatsClient, results: ResultStream) -> None:
    await results.put_record(record("r", "f", "g", root_request_id="root", parent_run_id="p"))
    await results.put_result(result(state=State.FAILED, reason=Reason.ERROR, started_at=now()))
    js = client.jetstream()
    headers = (await js.get_msg(NAMES.results_stream, subject=NAMES.accepted("r"))).headers or {}
    assert (headers[wire.H_RUNS], headers[wire.H_ROOT_REQUEST_ID], headers[wire.H_PARENT_RUN_ID]) == ("2", "root", "p")
    headers = (await js.get_msg(NAMES.results_stream, subject=NAMES.result("r", "f"))).headers or {}
    assert (headers[wire.H_STATE], headers[wire.H_REASON], headers[wire.H_VERSION]) == ("failed", "error", "1")
    assert headers[wire.H_STARTED_AT]


async def test_answers_are_the_record_and_all_results(results: ResultStream) -> None:
    assert (await results.answers("r")).record is None
    await results.put_record(record("r", "f", "g"))
    await results.put_record(record("other", "f"))
    await results.put_result(result("f", "other"))
    assert not (await results.answers("r")).complete
    for function in ("f", "g"):
        await results.put_result(result(function))
    answers = await results.answers("r")
    assert answers.complete
    assert sorted(answers.results) == ["f", "g"]


@pytest.mark.parametrize("runs", [300, 1200])
async def test_answers_of_a_request_with_very_many_runs(results: ResultStream, runs: int) -> None:
    """The server hands out 1,024 subjects at once."""
    functions = [f"f{number}" for number in range(runs)]
    await results.put_record(record("r", *functions))
    for first in range(0, runs, 50):  # more at once than the server answers in time would be another test
        await asyncio.gather(*(results.put_result(result(function)) for function in functions[first : first + 50]))
    answers = await results.answers("r")
    assert len(answers.results) == runs
    assert answers.complete


async def test_the_latest_status_is_kept(results: ResultStream) -> None:
    for percent in (10.0, 20.0):
        status = RunStatusDocument(
            run_id="x", request_id="r", function="f", topic="t", state=State.RUNNING, at=now(), percent=percent
        )
        await results.put_status(status)

    async def latest() -> bool:
        found = await results.status("x")
        return found is not None and found.percent == 20.0

    await eventually(latest, what="the second status")
    assert await results.status("y") is None


async def test_a_document_that_cannot_be_read_is_told(client: NatsClient, results: ResultStream) -> None:
    await client.jetstream().publish(NAMES.accepted("r"), b"{}")
    with pytest.raises(InvokerError, match="a stored RequestRecord cannot be read"):
        await results.record("r")


async def test_without_streams_storing_says_that_no_controller_was_here(client: NatsClient) -> None:
    results = ResultStream(client, client.jetstream(), NAMES)
    with pytest.raises(ServerUnreachableError, match="no stream"):
        await results.put_record(record("r", body=Content.inline(b"x")))
