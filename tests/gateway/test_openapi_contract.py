"""The whole OpenAPI document against the running gateway: generated calls, of which none may end in 5xx or be answered
with what the document does not say."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

import pytest
import schemathesis

from invoker.client import Client
from tests.gateway.generated_calls import CHECKS, call_all, never_succeeded, real_values
from tests.gateway.stack import Stack, running_gateway

STREAM_SECONDS = 0.1
"""What an event stream has at the gateway of this test, so that it is an answer like others."""


@pytest.mark.timeout(900)  # 25 s by itself; controller, gateway and 600 generated calls share one process
async def test_no_generated_call_is_answered_outside_of_the_document(
    stack: Stack, sdk: Client, record_property: Callable[[str, object], None]
) -> None:
    real = await real_values(stack, sdk)
    calls: Counter[tuple[str, int]] = Counter()
    given = {"gateway_stream_seconds": STREAM_SECONDS, "gateway_accept_seconds": 1.0}
    async with running_gateway(stack.server.url, **given) as up:
        await up.gateway.catalog.refresh()
        schema = await asyncio.to_thread(schemathesis.openapi.from_url, f"{up.url}/openapi.json")
        failures = await asyncio.to_thread(call_all, schema, up.url, real, calls, CHECKS)
    silent = never_succeeded(calls, record_property)
    assert not failures, "\n\n".join(failures)
    assert not silent, "every operation was seen to succeed, too"
    assert {"GET /v1/stream", "GET /v1/requests/{request_id}/stream"} <= {label for label, _ in calls}
