"""Publishing over HTTP: what becomes an event, what is answered, and what is refused before anything is stored."""

from __future__ import annotations

import aiohttp

from tests.gateway.stack import Stack


async def test_a_publish_is_answered_with_its_runs(http: aiohttp.ClientSession, stack: Stack) -> None:
    async with http.post("/v1/topics/pair.x", data=b"hello") as answer:
        document = await answer.json()
    assert answer.status == 202, document
    assert answer.headers["Location"] == f"/v1/requests/{document['request_id']}"
    assert [run["function"] for run in document["runs"]] == ["pair-a", "pair-b"]
    view = await stack.client.result(document["request_id"], wait=20)
    assert [await stack.client.output(result) for result in view.results] == [b"a hello", b"b hello"]
