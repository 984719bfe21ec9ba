"""The whole OpenAPI document against the running gateway: generated calls, of which none may end in 5xx or be answered
with what the document does not say."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from tests.conftest import eventually
from tests.gateway.stack import Stack

EXAMPLES = 15
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = ("/v1/stream", "/v1/requests/{request_id}/stream")
"""Answers without an end: tests/gateway/test_event_stream.py."""
UNBOUNDED = ("wait", "follow")
"""Parameters that hold an answer back on purpose."""
HOLDING = ("prefer", "idempotency-key")
"""Headers that do, or that make one call out of many."""


@pytest.mark.timeout(300)
async def test_no_generated_call_is_answered_outside_of_the_document(
    stack: Stack, sdk: Client, record_property: Callable[[str, object], None]
) -> None:
    real = await _real_values(stack, sdk)
    calls: Counter[tuple[str, int]] = Counter()
    failures = await asyncio.to_thread(_call_all, stack.url, real, calls)
    operations = {label for label, _ in calls}
    record_property("told", f"gateway: {calls.total()} generated calls of {len(operations)} operations")
    assert not failures, "\n\n".join(failures)
    unseen = {label for label in operations if not any(calls[label, status] for status in (200, 202))}
    assert not unseen, "every operation was seen to succeed, too"


async def _real_values(stack: Stack, sdk: Client) -> dict[str, Any]:
    """Values of path parameters that stand for something: half of all calls have them."""
    receipt = await sdk.publish("echo.real", b"hello")
    view = await sdk.result(receipt.request_id, wait=30)
    connection = await connect(ConnectionOptions(url=stack.server.url))
    try:  # a client of ours refuses to send it
        await connection.jetstream().publish("events.echo.real", b"x", headers={"Invoker-Reply-To": "$JS.API.INFO"})
    finally:
        await connection.close()

    async def letter() -> str | None:
        return next((one.id for one in await sdk.dead()), None)

    return {
        "request_id": receipt.request_id, "run_id": view.runs[0].run_id, "given": receipt.request_id,
        "dead_id": await eventually(letter, what="a dead letter"), "function": "echo", "name": "echo",
        "topic": "echo.generated",
    }  # fmt: skip


def _call_all(url: str, real: Mapping[str, Any], calls: Counter[tuple[str, int]]) -> list[str]:
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    failures = []
    for found in schema.get_all_operations():
        operation = found.ok()
        if operation.path in ENDLESS:
            continue
        try:
            _call_one(operation, url, real, calls)
        except Exception as error:  # whatever a check raises is what is to be read
            failures.append(f"{operation.label}: {error}"[:3000])
    return failures


def _call_one(operation: Any, url: str, real: Mapping[str, Any], calls: Counter[tuple[str, int]]) -> None:
    turn = itertools.cycle((True, False))

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def call(case: Any) -> None:
        for name in UNBOUNDED:
            case.query.pop(name, None)
        for name in [name for name in case.headers if name.lower() in HOLDING]:
            del case.headers[name]
        if next(turn):
            _make_real(case, real)
        response = case.call(base_url=url, timeout=20)
        calls[operation.label, response.status_code] += 1
        case.validate_response(response, checks=CHECKS)

    call()


def _make_real(case: Any, real: Mapping[str, Any]) -> None:
    for name in list(case.path_parameters or {}):
        case.path_parameters[name] = real[name]
    if isinstance(case.body, dict) and "topic" in case.body:
        case.body["topic"] = real["topic"]
