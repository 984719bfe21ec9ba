"""`invoker controller` and `invoker gateway` with tracing on: the spans of both, and every line that they write."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker.client import Client
from invoker.version import __version__
from tests.conftest import eventually
from tests.controllers import View
from tests.custody.workload import function, write_catalog
from tests.docs.transcript import ROOT
from tests.gateway.stack import FILE, INPUT, session
from tests.tracing.receiver import otlp_receiver

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
KEY = "the key of both programs"

pytestmark = pytest.mark.integration


@asynccontextmanager
async def program(name: str, folder: Path, **environ: str) -> AsyncIterator[Path]:
    """A program of ours while this is entered, from the line that says that it is ready; gives its log."""
    log = folder / f"{name}.log"
    given = {"PATH": os.environ["PATH"], "HOME": str(folder), "INVOKER_RUN_TOKEN_KEY": KEY, **environ}
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "invoker", name, cwd=ROOT, env=given, stdin=asyncio.subprocess.DEVNULL, stdout=out,
            stderr=out,
        )  # fmt: skip
    try:

        async def ready() -> bool:
            assert process.returncode is None, log.read_text()
            return f'"{name} ready"' in log.read_text()

        await eventually(ready, within=60, what=f"a {name} that is ready")
        yield log
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 60) == 0


def lines_of(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_every_line_of_every_program_is_json_and_names_what_it_is_about(
    client: NatsClient, nats_url: str, tmp_path: Path
) -> None:
    catalog = write_catalog(
        tmp_path / "functions",
        function("one", "one", INPUT, onSuccess={"publish": "two"}, **FILE),
        function("two", "two", "exit 3", backoffLimit=1),
    )
    view = View(client)
    with otlp_receiver() as receiver:
        both = {
            "INVOKER_NATS_URL": nats_url, "INVOKER_LOG_LEVEL": "debug", "OTEL_BSP_SCHEDULE_DELAY": "20",
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url,
        }  # fmt: skip
        ours = {"INVOKER_CATALOG": str(catalog), "INVOKER_STATE_DIR": str(tmp_path / "state"), "INVOKER_HTTP_PORT": "0"}
        theirs = {"INVOKER_GATEWAY_PORT": "0", "INVOKER_GATEWAY_PROBE_PORT": "0", "INVOKER_GATEWAY_ANONYMOUS": "admin"}
        async with (
            program("controller", tmp_path, **both, **ours) as controller,
            program("gateway", tmp_path, **both, **theirs) as gateway,
        ):
            (url,) = [line["url"] for line in lines_of(gateway) if line["event"] == "gateway ready"]
            named = {"traceparent": f"00-{TRACE}-{CALLER}-01", "X-Request-Id": "call-1"}
            async with session(url) as http, http.post("/v1/topics/one", data=b"x", headers=named) as answer:
                request_id = (await answer.json())["request_id"]
            async with Client.connect(nats_url) as asking:
                chain = await asking.chain(request_id, wait=60)
            results = [result for one in chain.views for result in one.results]
            assert await view.results.result(request_id, "one") is not None

            async def whole() -> bool:
                """The spans of both runs are here, and each one's parent: they are sent a moment later."""
                told = {s.attributes.get("invoker.run_id") for s in receiver.spans if s.name.startswith("result ")}
                hanging = {span.parent for span in receiver.spans} - receiver.ids()
                return {result.run_id for result in results} <= told and hanging == {CALLER}

            await eventually(whole, what="the whole trace")
        runs = {span.attributes["invoker.run_id"]: span for span in receiver.spans if span.name.startswith("run ")}
        assert {span.service for span in receiver.spans} == {"invoker-controller", "invoker-gateway"}
        assert {span.parent for span in receiver.spans} - receiver.ids() == {CALLER}
    assert len(results) == 2
    for log, name in ((controller, "controller"), (gateway, "gateway")):
        (ready,) = [line for line in lines_of(log) if line["event"] == f"{name} ready"]
        assert ready["version"] == __version__
        for line in lines_of(log):
            assert {"timestamp", "level", "event", "component"} <= line.keys(), line
    said = lines_of(controller)
    for result in results:
        about = [line for line in said if line.get("run_id") == result.run_id]
        assert {line["event"] for line in about} >= {"run started", "run finished"}
        whose = {"request_id": result.request_id, "function": result.function, "trace_id": TRACE,
                 "span_id": runs[result.run_id].span_id}  # fmt: skip
        for line in about:
            assert {name: line.get(name) for name in whose} == whose, line
    (audit,) = [line for line in lines_of(gateway) if line["component"] == "audit"]
    assert (audit["call_id"], audit["trace_id"], audit["ids"]["request_id"]) == ("call-1", TRACE, request_id)
