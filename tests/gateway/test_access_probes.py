"""Health, readiness and metrics: on a port of their own, and what they say while NATS is away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import aiohttp
import pytest

from invoker.nats_server import nats_server
from tests.conftest import eventually
from tests.gateway.stack import Stack, running_stack, session
from tests.ports import lasting_port


async def stop(pid: int) -> None:
    """Kill that server, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)

    async def gone() -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        except (FileNotFoundError, ProcessLookupError):
            return True  # before it was opened, or before it was read

    await eventually(gone, what="the end of the server")


async def asked(base: str, path: str) -> tuple[int, str]:
    async with session(base) as http, http.get(path) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_are_not_on_the_public_port_nor_the_public_side_on_theirs(stack: Stack, path: str) -> None:
    assert (await asked(stack.url, path))[0] == 404
    assert (await asked(stack.probe_url, path))[0] == 200
    for public in ("/v1/functions", "/v1/runs", "/openapi.json"):
        assert (await asked(stack.probe_url, public))[0] == 404


async def test_metrics_count_calls_by_template_and_never_by_path(stack: Stack, http: aiohttp.ClientSession) -> None:
    for number in range(20):
        async with http.post(f"/v1/topics/echo.n{number}", data=b"x") as answer:
            assert answer.status == 202
        async with http.get(f"/no/such/path/{number}") as answer:
            assert answer.status == 404
        async with http.request(f"VERB{number}", "/v1/runs") as answer:
            assert answer.status == 405
    text = (await asked(stack.probe_url, "/metrics"))[1]
    assert 'invoker_http_requests_total{code="202",method="POST",route="/v1/topics/{topic}"} 20.0' in text
    assert "echo.n" not in text
    assert "/no/such" not in text
    assert "VERB" not in text


async def test_while_nats_is_away_the_gateway_lives_is_not_ready_and_says_so(tmp_path: Path) -> None:
    port = lasting_port()
    async with nats_server(tmp_path / "jetstream", port=port) as first:
        gone = nats_server(tmp_path / "jetstream", port=port)
        async with running_stack(tmp_path / "world", server=first) as stack:
            assert (await asked(stack.probe_url, "/readyz"))[0] == 200
            await stop(first.pid)

            async def unready() -> bool:
                return (await asked(stack.probe_url, "/readyz"))[0] == 503

            await eventually(unready, what="a gateway that is not ready")
            assert (await asked(stack.probe_url, "/livez"))[0] == 200
            text = (await asked(stack.probe_url, "/readyz"))[1]
            assert "nats: not connected" in text
            assert "invoker_nats_connected 0.0" in (await asked(stack.probe_url, "/metrics"))[1]
            async with session(stack.url) as http, http.post("/v1/topics/echo.away", data=b"x") as answer:
                assert answer.status == 503
                assert answer.headers["Retry-After"] == "1"
                document = await answer.json()
            assert document["code"] == "server-unreachable"
            assert str(port) not in str(document), "no inner address"

            async def works() -> bool:
                async with session(stack.url) as http, http.post("/v1/topics/echo.back", data=b"x") as answer:
                    return answer.status == 202 and (await asked(stack.probe_url, "/readyz"))[0] == 200

            async with gone:
                await eventually(works, within=60, what="a gateway that works again")
