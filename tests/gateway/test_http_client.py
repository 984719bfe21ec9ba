"""What is sent again from Python: the client over HTTP takes what the one over NATS takes, and does the same."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from invoker import wire
from invoker.client import Client
from invoker.errors import IdempotencyMismatchError, InputRefusedError, ServerUnreachableError, TopicError
from invoker.http.client import HttpClient
from tests.conftest import eventually
from tests.gateway.cli_program import proxy
from tests.gateway.reading import world_of
from tests.gateway.stack import Stack


@pytest.mark.parametrize(
    "name", ["publish", "request", "call", "replay", "redrive", "cancel", "cancel_chain", "explain", "runs"]
)
def test_both_clients_take_the_same(name: str) -> None:
    over_nats = inspect.signature(getattr(Client, name)).parameters
    over_http = inspect.signature(getattr(HttpClient, name)).parameters
    assert list(over_nats) == list(over_http)
    assert [one.default for one in over_nats.values()] == [one.default for one in over_http.values()]


TRACE = {"X-Request-Id": "call-7", "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}


@pytest.mark.parametrize("kind", ["nats", "http"])
async def test_a_replay_replaces_what_it_is_told_to_and_is_done_once_under_its_id(
    stack: Stack, sdk: Client, kind: str
) -> None:
    async with HttpClient.connect(stack.url) as over_http:
        client: Any = sdk if kind == "nats" else over_http
        original = await sdk.publish("bytes.x", b"first", content_type="text/plain", params={"size": "3"})
        assert (await sdk.result(original.request_id, wait=60)).complete
        given = {
            "function": "bytes", "data": b"second", "content_type": "text/x-other", "params": {"size": "5"},
            "headers": TRACE, "request_id": f"replayed-{kind}",
        }  # fmt: skip
        receipt = await client.replay(original.request_id, **given)
        again = await client.replay(original.request_id, **given)
        assert (receipt.request_id, receipt.duplicate, again.duplicate) == (f"replayed-{kind}", False, True)
        with pytest.raises(IdempotencyMismatchError):
            await client.replay(original.request_id, **(given | {"data": b"third"}))
        view = await sdk.result(receipt.request_id, wait=60)
        assert view.record is not None
        assert (view.record.replay_of, view.record.topic) == (original.request_id, "bytes.x")
        assert await sdk.output(view.results[0]) == bytes(5), "the parameter is the other one"
        assert (await sdk.input(receipt.request_id), view.record.body.content_type) == (b"second", "text/x-other")
        headers = {name.lower(): value for name, value in view.record.headers.items()}
        assert headers["x-request-id"] == "call-7"
        assert headers["traceparent"].split("-")[1] == "a" * 32
        empty = await client.replay(original.request_id, data=b"")
        view = await sdk.result(empty.request_id, wait=60)
        assert view.record is not None
        assert view.record.body.size_bytes == 0, "nothing, and not what it was"


@pytest.mark.parametrize("kind", ["nats", "http"])
async def test_a_redrive_is_done_once_under_its_id_with_other_data_or_with_its_own(
    stack: Stack, sdk: Client, kind: str
) -> None:
    letter = await _dead_letter(sdk, f"of-{kind}")
    async with HttpClient.connect(stack.url) as over_http:
        client: Any = sdk if kind == "nats" else over_http
        plain = {await client.redrive(letter) for _ in range(2)}
        own = {await client.redrive(letter, request_id=f"own-{kind}", headers=TRACE) for _ in range(2)}
        other = {await client.redrive(letter, data=b"other", request_id=f"other-{kind}") for _ in range(2)}
        assert (len(plain), own, other) == (1, {f"own-{kind}"}, {f"other-{kind}"})
        for request_id, data in ((plain.pop(), b"dead"), (f"own-{kind}", b"dead"), (f"other-{kind}", b"other")):
            view = await sdk.result(request_id, wait=60)
            assert await sdk.output(view.results[0]) == data
            assert view.record is not None
            assert view.record.replay_of == f"of-{kind}"
        with pytest.raises(IdempotencyMismatchError):
            await client.redrive(letter, data=b"third", request_id=f"own-{kind}")


async def test_a_replay_whose_answer_is_lost_is_repeated_only_where_that_makes_one_request(
    stack: Stack, sdk: Client
) -> None:
    original = await sdk.publish("echo.lost", b"x")
    assert (await sdk.result(original.request_id, wait=60)).complete
    async with proxy(stack.url) as way, HttpClient.connect(way.url) as client:
        lost: list[str] = []

        def once(line: str) -> int | None:
            if line.startswith("POST") and not lost:
                lost.append(line)
                return 0
            return None

        way.cut_answer = once
        receipt = await client.replay(original.request_id, request_id="lost-and-found")
        assert (way.count("POST"), receipt.duplicate) == (2, True), "whoever asks again is told that it is there"
        lost.clear()
        with pytest.raises(ServerUnreachableError):
            await client.replay(original.request_id)
        assert way.count("POST") == 3, "without an id it would be another one"
    assert (await sdk.result("lost-and-found", wait=60)).complete
    with_id = [row for row in await sdk.runs(request="lost-and-found")]
    assert len(with_id) == 1


async def test_runs_of_a_topic_or_a_pattern_are_the_same_through_both_doors(stack: Stack, sdk: Client) -> None:
    for topic in ("echo.listed.one", "echo.listed.two"):
        assert (await sdk.result((await sdk.publish(topic, b"x")).request_id, wait=60)).complete
    async with HttpClient.connect(stack.url) as client:
        for given, expected in (
            ("echo.listed.one", {"echo.listed.one"}),
            ("echo.listed.*", {"echo.listed.one", "echo.listed.two"}),
            ("echo.listed", set()),
        ):
            assert {row.topic for row in await sdk.runs(topic=given)} == expected
            assert {row.topic for row in await client.runs(topic=given)} == expected
        with pytest.raises(TopicError, match="last token"):
            await client.runs(topic="a.>.b")


async def test_only_headers_of_the_call_can_be_replaced_over_http(stack: Stack, sdk: Client) -> None:
    original = await sdk.publish("echo.x", b"x")
    assert (await sdk.result(original.request_id, wait=60)).complete
    async with HttpClient.connect(stack.url) as client:
        with pytest.raises(InputRefusedError, match="Colour"):
            await client.replay(original.request_id, headers={"Colour": "red"})


async def _dead_letter(sdk: Client, request_id: str) -> str:
    """The id of an event's letter that has gone too far."""
    headers = {wire.H_MESSAGE_ID: request_id, wire.H_HOPS: "33", wire.H_ROOT_REQUEST_ID: "root"}
    await world_of(sdk).client.jetstream().publish("events.echo.dead", b"dead", headers=headers)

    async def there() -> str | None:
        return next((letter.id for letter in await sdk.dead() if letter.request_id == request_id), None)

    return await eventually(there, what="the dead letter")


@pytest.mark.parametrize("kind", ["nats", "http"])
async def test_a_content_type_among_the_headers_is_the_events(stack: Stack, sdk: Client, kind: str) -> None:
    async with HttpClient.connect(stack.url) as over_http:
        client: Any = sdk if kind == "nats" else over_http
        for given, told in ((None, "text/csv"), ("text/plain", "text/plain")):
            receipt = await client.publish("echo.x", "a;b", headers={"content-type": "text/csv"}, content_type=given)
            view = await sdk.result(receipt.request_id, wait=60)
            assert view.record is not None
            assert view.record.body.content_type == told
