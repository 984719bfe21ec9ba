"""Calls that are made up from an OpenAPI document, and what their answers must be like; for the contract tests."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from invoker.client import Client
from invoker.connection import ConnectionOptions, connect
from invoker.errors import InvokerError
from invoker.result import Reason, reason_info
from tests.conftest import eventually
from tests.gateway.stack import Stack

EXAMPLES = 15
UNBOUNDED = ("wait", "follow")
"""Parameters that hold an answer back on purpose."""
HOLDING = ("prefer", "idempotency-key")
"""Headers that do, or that make one call out of many."""


def _codes() -> dict[int, set[str]]:
    """By status, the codes that a problem may have: those of the errors, and the reasons of failed runs."""
    found: dict[int, set[str]] = {}
    for kind in _subclasses(InvokerError):
        found.setdefault(kind.http_status, set()).add(kind.code)
    for reason in Reason:
        found.setdefault(reason_info(reason).http_status, set()).add(str(reason))
    return found


def _subclasses(kind: type[InvokerError]) -> list[type[InvokerError]]:
    return [kind, *(one for child in kind.__subclasses__() for one in _subclasses(child))]


CODES = _codes()


def a_refusal_is_a_problem_of_its_status(_context: Any, response: Any, _case: Any) -> None:
    """The document says 4XX once for all; here each must be one that exists, with a code of that very status."""
    if response.status_code >= 400:
        document = response.json()
        assert document["status"] == response.status_code, document
        assert document["code"] in CODES.get(response.status_code, ()), document
        assert document["detail"], document


DOCUMENTED = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
CHECKS = [*DOCUMENTED, a_refusal_is_a_problem_of_its_status]


def never_succeeded(calls: Counter[tuple[str, int]], record_property: Callable[[str, object], None]) -> set[str]:
    """The operations that no call succeeded with; how many calls there were is told at the end of the test run."""
    operations = {label for label, _ in calls}
    record_property("told", f"gateway: {calls.total()} generated calls of {len(operations)} operations")
    return {label for label in operations if not any(calls[label, status] for status in (200, 201, 202, 204))}


async def real_values(stack: Stack, sdk: Client) -> dict[str, Any]:
    """Values of path parameters that stand for something: half of all calls have them."""
    receipt = await sdk.publish("echo.real", b"hello")
    view = await sdk.result(receipt.request_id, wait=60)
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


def call_all(
    schema: Any, url: str, real: Mapping[str, Any], calls: Counter[tuple[str, int]], checks: list[Any]
) -> list[str]:
    failures = []
    for found in schema.get_all_operations():
        operation = found.ok()
        try:
            _call_one(operation, url, real, calls, checks)
        except Exception as error:  # whatever a check raises is what is to be read
            failures.append(f"{operation.label}: {error}"[:3000])
    return failures


def _call_one(
    operation: Any, url: str, real: Mapping[str, Any], calls: Counter[tuple[str, int]], checks: list[Any]
) -> None:
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
        response = case.call(base_url=url, timeout=180)
        calls[operation.label, response.status_code] += 1
        case.validate_response(response, checks=checks)

    call()


def _make_real(case: Any, real: Mapping[str, Any]) -> None:
    for name in list(case.path_parameters or {}):
        case.path_parameters[name] = real[name]
    if isinstance(case.body, dict) and "topic" in case.body:
        case.body["topic"] = real["topic"]
    if "/v1/run/" in case.path:
        case.headers["Authorization"] = real["authorization"]
        if case.path.endswith("/events"):
            case.headers["Invoker-Topic"], case.headers["Invoker-Position"] = "nobody.listens", "0"
