"""Calling one function by its name: checked at the door, field by field, before there is any run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.custody.workload import function, put_function
from tests.gateway.stack import FILE, INPUT, Stack, running_stack, session

ORDER = {"number": 1, "items": [{"sku": "a"}]}


async def call(http: aiohttp.ClientSession, path: str, data: Any = b"", **headers: str) -> tuple[int, Any]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with http.post(path, data=data, headers=given) as answer:
        return answer.status, await answer.json(content_type=None)


async def runs_of(stack: Stack, name: str) -> int:
    return len(await stack.client.runs(function=name))


async def test_a_call_runs_that_function_alone(http: aiohttp.ClientSession, stack: Stack) -> None:
    status, document = await call(http, "/v1/functions/pair-a/calls", b"me")
    assert (status, [run["function"] for run in document["runs"]]) == (202, ["pair-a"])
    view = await stack.client.result(document["request_id"], wait=60)
    assert await stack.client.output(view.results[0]) == b"a me"
    status, document = await call(http, "/v1/functions/order/calls?wait=60&level=3", json.dumps(ORDER))
    assert (status, document) == (200, ORDER)


@pytest.mark.parametrize("name", ["nobody", "No-Name", "a%2Fb", "x" * 64, "%0D%0A", ".."])
async def test_an_unknown_function_is_not_found(http: aiohttp.ClientSession, name: str) -> None:
    assert (await call(http, f"/v1/functions/{name}/calls", b"x"))[0] == 404


async def test_an_unknown_function_is_answered_with_the_nearest_names(http: aiohttp.ClientSession) -> None:
    status, problem = await call(http, "/v1/functions/ordr/calls", b"x")
    assert (status, problem["hint"]) == (404, "did you mean order? GET /v1/functions lists them")
    for method, path in (("GET", "/v1/functions/ordr"), ("POST", "/v1/functions/ordr/pause")):
        async with http.request(method, path) as answer:
            problem = await answer.json()
        assert (answer.status, problem["hint"]) == (404, "did you mean order? GET /v1/functions lists what there is")
    status, problem = await call(http, "/v1/functions/zzzz/calls", b"x")
    assert (status, problem["hint"]) == (404, "GET /v1/functions lists them")


@pytest.mark.parametrize(
    ("query", "body", "pointers"),
    [
        ("", b"", [""]),
        ("", b"{", [""]),
        ("", b"\xff", [""]),
        ("", json.dumps({"number": 0, "items": [{}, {"sku": 3}]}), ["/number", "/items/0", "/items/1/sku"]),
        ("?level=10", json.dumps(ORDER), ["/params/level"]),
        ("?level=three&colour=red", json.dumps(ORDER), ["/params/colour", "/params/level"]),
        ("", b'{"number":' + b"[" * 10_000, [""]),
        ("", b'{"number": NaN, "items": []}', [""]),
    ],
)
async def test_what_does_not_fit_is_refused_field_by_field_before_any_run(
    http: aiohttp.ClientSession, stack: Stack, query: str, body: Any, pointers: list[str]
) -> None:
    before = await runs_of(stack, "order")
    status, problem = await call(http, f"/v1/functions/order/calls{query}", body)
    assert (status, problem["code"]) == (422, "invalid-input")
    assert sorted(error["pointer"] for error in problem["errors"]) == sorted(pointers)
    assert await runs_of(stack, "order") == before


async def test_an_input_that_has_a_schema_has_a_limit(http: aiohttp.ClientSession) -> None:
    async def body() -> Any:
        for _ in range(17):
            yield b" " * 1024 * 1024

    status, problem = await call(http, "/v1/functions/order/calls", body())
    assert (status, problem["limit_bytes"]) == (422, 16 * 1024 * 1024)


async def test_the_same_key_is_the_same_call(http: aiohttp.ClientSession) -> None:
    first = await call(http, "/v1/functions/echo/calls?wait=60", b"1", Idempotency_Key="call-1")
    again = await call(http, "/v1/functions/echo/calls?wait=60", b"1", Idempotency_Key="call-1")
    assert first == again == (200, 1)
    status, problem = await call(http, "/v1/functions/echo/calls", b"2", Idempotency_Key="call-1")
    assert (status, problem["code"]) == (422, "idempotency-mismatch")


async def test_a_chain_that_forwards_its_reply_answers_with_its_end(tmp_path: Path) -> None:
    functions = [
        function("front", None, INPUT, onSuccess={"publish": "back", "forwardReply": True}, **FILE),
        function("back", "back", f"printf 'from the back: '; {INPUT}", **FILE),
    ]
    async with running_stack(tmp_path, functions=functions) as stack, session(stack.url) as http:
        async with http.post("/v1/functions/front/calls?wait=60", data=b"x") as answer:
            assert (answer.status, await answer.read()) == (200, b"from the back: x")
        assert answer.headers["Invoker-Function"] == "back"


async def test_a_change_of_the_catalog_is_seen_before_a_call_is_refused(tmp_path: Path) -> None:
    strict = function("strict", None, INPUT, input={"as": "file", "schema": {"type": "integer"}},
                      output={"from": "stdout"})  # fmt: skip
    async with running_stack(tmp_path, functions=[strict]) as stack, session(stack.url) as http:
        assert (await call(http, "/v1/functions/strict/calls", b'"text"'))[0] == 422
        loose = json.loads(json.dumps(strict))
        loose["spec"]["input"]["schema"] = {"type": ["integer", "string"]}
        put_function(stack.catalog, loose)
        put_function(stack.catalog, function("young", None, INPUT, **FILE))
        old = stack.gateway.catalog.present
        await stack.client.reload()
        await stack.knows("young")
        # The copy as it was before anybody asked again: it must not refuse by itself what has become right.
        stack.gateway.catalog.take(old)
        stack.gateway.catalog._asked_at = 0.0
        assert await call(http, "/v1/functions/strict/calls?wait=60", b'"text"') == (200, "text")
        stack.gateway.catalog.take(old)
        stack.gateway.catalog._asked_at = 0.0
        assert await call(http, "/v1/functions/young/calls?wait=60", b"1") == (200, 1)


async def test_a_function_whose_file_is_mended_is_called_at_once(tmp_path: Path) -> None:
    async with running_stack(tmp_path, functions=[function("other", None, INPUT)]) as stack, session(stack.url) as http:
        put_function(stack.catalog, function("torn", None, INPUT, **FILE, backofLimit=1))
        await stack.client.reload()
        await stack.knows("torn")
        status, problem = await call(http, "/v1/functions/torn/calls", b"1")
        assert (status, problem["detail"]) == (404, "the function 'torn' cannot run: its file is refused")
        broken = stack.gateway.catalog.present
        put_function(stack.catalog, function("torn", None, INPUT, **FILE))
        await stack.client.reload()
        stack.gateway.catalog.take(broken)  # the copy as it was before anybody asked again
        stack.gateway.catalog._asked_at = 0.0
        assert await call(http, "/v1/functions/torn/calls?wait=60", b"1") == (200, 1)


async def test_a_call_needs_the_right_to_that_function(tmp_path: Path) -> None:
    async with running_stack(tmp_path, gateway_anonymous=("read",)) as stack, session(stack.url) as http:
        status, problem = await call(http, "/v1/functions/echo/calls", b"x")
        assert (status, problem["code"]) == (403, "forbidden")
        for path in ("/v1/topics/echo.x", "/v1/events"):
            assert (await call(http, path, b"x"))[0] == 403
