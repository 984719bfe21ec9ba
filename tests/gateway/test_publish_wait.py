"""Who waits for what an event gives is given what he may read: decided before anything is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from invoker.client import Client
from tests.custody.workload import function
from tests.gateway.access_world import add_key, bearer
from tests.gateway.reading import finished, get, post, publish
from tests.gateway.stack import FILE, INPUT, Stack, running_gateway, running_stack, session

SCOPES = {
    "sender": ("publish",),
    "half": ("publish", "read pair.* pair-a", "read pair.* first"),
    "none": ("publish", "read pair.* first"),
    "whole": ("publish,read",),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(
    stack: Stack, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, aiohttp.ClientSession]]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {name: add_key(file, name, *scopes) for name, scopes in SCOPES.items()}
    async with AsyncExitStack() as opened:
        up = await opened.enter_async_context(
            running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=())
        )
        await up.gateway.client.feed.live()
        await up.gateway.catalog.refresh()
        yield {
            name: await opened.enter_async_context(session(up.url, headers=bearer(key))) for name, key in keys.items()
        }


@pytest.mark.parametrize("path", ["/v1/topics/pair.x", "/v1/functions/echo/calls"])
async def test_who_may_not_read_is_refused_before_anything_is_stored(
    callers: dict[str, aiohttp.ClientSession], sdk: Client, path: str
) -> None:
    before = len(await sdk.runs(limit=500))
    refused = await post(callers["sender"], f"{path}?wait=60", 403, data=b"x")
    assert refused["code"] == "forbidden"
    assert "read" in refused["detail"]
    done = await finished(callers["whole"], await publish(callers["whole"], "pair.after"))
    assert len(await sdk.runs(limit=500)) == before + len(done["runs"]), "only those of the event behind it"


async def test_a_preference_that_cannot_be_honoured_is_left_aside(callers: dict[str, aiohttp.ClientSession]) -> None:
    async with callers["sender"].post("/v1/topics/pair.x", data=b"x", headers={"Prefer": "wait=60"}) as answer:
        document = await answer.json()
    assert (answer.status, "Preference-Applied" in answer.headers) == (202, False)
    assert [run["function"] for run in document["runs"]] == ["pair-a", "pair-b"]


async def test_of_several_runs_those_that_may_be_read(callers: dict[str, aiohttp.ClientSession]) -> None:
    async with callers["half"].post("/v1/topics/pair.x?wait=60", data=b"x") as answer:
        assert (answer.status, await answer.read()) == (200, b"a x")
        assert answer.headers["Invoker-Function"] == "pair-a"
        request_id = answer.headers["Location"].rpartition("/")[2]
    assert [run["function"] for run in (await get(callers["half"], f"/v1/requests/{request_id}"))["runs"]] == ["pair-a"]
    whole = await post(callers["whole"], "/v1/topics/pair.x?wait=60", 200, data=b"x")
    assert [run["function"] for run in whole["runs"]] == ["pair-a", "pair-b"]


async def test_of_runs_that_may_not_be_read_only_that_they_are(callers: dict[str, aiohttp.ClientSession]) -> None:
    told = await post(callers["none"], "/v1/topics/pair.x?wait=60", 202, data=b"x")
    assert [run["function"] for run in told["runs"]] == ["pair-a", "pair-b"]
    assert b"a x" not in repr(told).encode()


async def test_a_reply_that_was_handed_on_is_of_the_topic_that_it_was_handed_to(tmp_path: Path) -> None:
    hand_on: dict[str, Any] = {"onSuccess": {"publish": "there.end", "forwardReply": True}}
    functions = [
        function("begin", "here.begin", INPUT, **hand_on, **FILE),
        function("end", "there.end", f"printf 'secret '; {INPUT}", **FILE),
    ]
    file = tmp_path / "keys.json"
    keys = [add_key(file, "here", "publish,read here.>"), add_key(file, "both", "publish,read here.>", "read there.>")]
    async with running_stack(tmp_path, functions=functions, gateway_keys=file, gateway_anonymous=()) as stack:
        async with session(stack.url, headers=bearer(keys[0])) as http:
            assert "secret" not in repr(await post(http, "/v1/topics/here.begin?wait=60", 202, data=b"x"))
        async with (
            session(stack.url, headers=bearer(keys[1])) as http,
            http.post("/v1/topics/here.begin?wait=60", data=b"x") as answer,
        ):
            assert (answer.status, await answer.read()) == (200, b"secret x")
