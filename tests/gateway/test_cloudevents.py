"""CloudEvents at the gateway: the three forms end as the same event, and a batch is answered event by event."""

from __future__ import annotations

import base64
import json
from typing import Any

import aiohttp
import pytest

from tests.gateway.stack import Stack

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def event(number: str, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": number, "source": "/test", "type": "mirror.order"} | more


async def send(http: aiohttp.ClientSession, path: str, document: Any, kind: str = STRUCTURED) -> tuple[int, Any]:
    data = document if isinstance(document, bytes) else json.dumps(document)
    async with http.post(path, data=data, headers={"Content-Type": kind}) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_structured_and_binary_are_the_same_event(http: aiohttp.ClientSession) -> None:
    status, first = await send(
        http, "/v1/events?wait=60", event("s1", subject="ü x", data="<a/>", datacontenttype="text/xml")
    )
    assert status == 200
    headers = {
        "ce-specversion": "1.0", "ce-id": "b1", "ce-source": "/test", "ce-type": "mirror.order",
        "ce-subject": "%C3%BC%20x", "Content-Type": "text/xml",
    }  # fmt: skip
    async with http.post("/v1/events?wait=60", data=b"<a/>", headers=headers) as answer:
        second = await answer.json()
    for seen in (first, second):
        assert (seen["topic"], seen["headers"]["ce-type"]) == ("mirror.order", "mirror.order")
        assert base64.b64decode(seen["data_base64"]) == b"<a/>"
        del seen["headers"]["ce-id"], seen["headers"]["X-Request-Id"]
    assert first == second
    assert first["headers"]["ce-subject"] == "ü x"


async def test_the_path_names_the_topic_where_there_is_one(http: aiohttp.ClientSession) -> None:
    _, seen = await send(http, "/v1/topics/mirror.here?wait=60", event("p1", type="com.example.Some/Type"))
    assert (seen["topic"], seen["headers"]["ce-type"]) == ("mirror.here", "com.example.Some/Type")


async def test_source_and_id_are_the_request(http: aiohttp.ClientSession) -> None:
    _, first = await send(http, "/v1/events", event("same", data=1))
    _, again = await send(http, "/v1/events", event("same", data=1))
    _, other = await send(http, "/v1/events", event("same", data=1, source="/elsewhere"))
    assert (again["request_id"], again["duplicate"]) == (first["request_id"], True)
    assert (other["request_id"] != first["request_id"], other["duplicate"]) == (True, False)
    status, problem = await send(http, "/v1/events", event("same", data=2))
    assert (status, problem["code"]) == (422, "idempotency-mismatch")


@pytest.mark.parametrize(
    ("document", "attribute"),
    [
        (event("1", type="a b"), "type"),
        (event("1", type="a.*"), "type"),
        (event("1", type="invoker.call.echo"), "type"),
        ({"id": "1"}, "specversion"),
        (event(""), "id"),
    ],
)
async def test_a_bad_event_is_refused_by_its_attribute(
    http: aiohttp.ClientSession, document: dict[str, Any], attribute: str
) -> None:
    status, problem = await send(http, "/v1/events", document)
    assert (status, problem["code"], problem["attribute"]) == (400, "invalid-request", attribute)
    assert problem["errors"][0]["pointer"] == f"/{attribute}"


async def test_what_is_no_cloud_event_has_no_business_there(http: aiohttp.ClientSession) -> None:
    status, problem = await send(http, "/v1/events", b"x", "text/plain")
    assert (status, problem["code"]) == (415, "unsupported-content")
    status, problem = await send(http, "/v1/events", b"[" * 200_000)
    assert status == 400


async def test_a_structured_event_has_a_limit_of_its_own(http: aiohttp.ClientSession) -> None:
    async def body() -> Any:
        for _ in range(9):
            yield b" " * 1024 * 1024

    async with http.post("/v1/events", data=body(), headers={"Content-Type": STRUCTURED}) as answer:
        problem = await answer.json(content_type=None)
    assert (answer.status, problem["limit_bytes"]) == (413, 8 * 1024 * 1024)


async def test_a_batch_is_answered_event_by_event(http: aiohttp.ClientSession, stack: Stack) -> None:
    events = [
        event("x1", type="echo.x", data=1), {"id": "x2"}, event("x3", type="no topic"), event("x4", type="nobody"),
        event("x1", type="echo.x", data=2),
    ]  # fmt: skip
    status, document = await send(http, "/v1/events", events, BATCH)
    assert status == 207
    items = document["items"]
    assert [item["status"] for item in items[1:4]] == [400, 400, 202]
    # Twice the same id with other data: one of the two stands, whichever came first.
    assert sorted((items[0]["status"], items[4]["status"])) == [202, 422]
    assert [item["id"] for item in items] == ["x1", None, "x3", "x4", "x1"]
    assert items[3]["accepted"]["state"] == "no-match"
    assert items[2]["problem"]["errors"][0]["pointer"] == "/type"
    stands = next(item for item in (items[0], items[4]) if item["status"] == 202)
    view = await stack.client.result(stands["accepted"]["request_id"], wait=60)
    assert view.succeeded
    status, document = await send(http, "/v1/topics/echo.y", [event("y1"), event("y2")], BATCH)
    assert (status, [item["accepted"]["topic"] for item in document["items"]]) == (202, ["echo.y", "echo.y"])


async def test_a_batch_is_not_waited_for_and_has_no_key(http: aiohttp.ClientSession) -> None:
    assert (await send(http, "/v1/events?wait=1", [event("z")], BATCH))[0] == 400
    async with http.post("/v1/events", data="[]", headers={"Content-Type": BATCH, "Idempotency-Key": "k"}) as answer:
        assert answer.status == 400
