"""The run API at the gateway's door: real functions are sent there, and every odd call has its documented answer."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from invoker.connection import ConnectionOptions, connect
from invoker.gateway.run_address import RunAddress, run_token, run_url
from invoker.nats_server import nats_server
from invoker.request import RunTicket
from invoker.result import Reason, Result, State
from tests.cluster.controllers import Service
from tests.conftest import eventually
from tests.controllers import View, running_controller
from tests.custody.workload import function, write_catalog
from tests.gateway.documented import WIRE_PAGE, examples
from tests.gateway.stack import RUN_TOKEN_KEY, Stack, running_gateway, running_stack, session
from tests.ports import lasting_port

SCHEMA = {"type": "object", "required": ["ok"], "properties": {"ok": {"type": "boolean"}}}
MAX_OUTPUT = 20 * 1024 * 1024
SLEEP = "sleep 1000"
"""What a function does while the test answers in its place."""
PAUSE_SECONDS = 3.0
"""How long a body may pause here: long enough for real functions on a machine that is busy with other tests."""
PYTHON: dict[str, Any] = {"runtime": "python", "handler": "main.handle"}


def python(name: str, topic: str, code: str, **spec: Any) -> dict[str, Any]:
    document = function(name, topic, "", code=code, **PYTHON, **spec)
    del document["spec"]["command"]
    return document


def catalog() -> list[dict[str, Any]]:
    wget, curl = (text for text in examples(WIRE_PAGE, "sh") if "INVOKER_RUN_URL" in text)
    return [
        function("wget", "sort.wget", f'cd "$INVOKER_WORKDIR"\nwget() {{ busybox wget "$@"; }}\n{wget}'),
        function("curl", "sort.curl", curl),
        python("typed", "typed", "def handle(event, context):\n    return event['data']", output={"schema": SCHEMA}),
        function("held", "held.*", SLEEP, timeoutSeconds=1000),
        function("checked", "checked", SLEEP, timeoutSeconds=1000, output={"schema": SCHEMA}),
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """An installation whose functions are sent to the gateway, as `INVOKER_RUN_API_URL` says."""
    port = lasting_port()
    controller = {"run_api_url": f"http://127.0.0.1:{port}", "max_running": 50}
    async with running_stack(
        tmp_path_factory.mktemp("runs"), functions=catalog(), controller=controller, gateway_port=port,
        max_output_bytes=MAX_OUTPUT, max_event_bytes=1_000_000, gateway_body_seconds=PAUSE_SECONDS,
        gateway_anonymous=(),
    ) as running:  # fmt: skip
        yield running


class Odd:
    """One run as its function sees it, played by the test: what is asked, and what is answered."""

    def __init__(self, stack: Stack, address: RunAddress, http: aiohttp.ClientSession) -> None:
        self.stack, self.address, self.http = stack, address, http
        self.token = run_token(RUN_TOKEN_KEY.encode(), address)

    async def call(
        self, method: str, what: str, data: Any = None, *, token: str | None = None, **headers: str
    ) -> tuple[int, str]:
        """Status and code of the answer; the code is empty where it is no problem."""
        sent = {"Authorization": f"Bearer {self.token if token is None else token}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"{run_url(self.stack.url, self.address)}/{what}"
        async with self.http.request(method, url, data=data, headers=sent) as answer:
            if answer.content_type != "application/problem+json":
                return answer.status, ""
            document = await answer.json()
            assert document["status"] == answer.status
            assert "127.0.0.1" not in str(document)
            return answer.status, document["code"]

    async def result(self) -> Result | None:
        return await self.stack.client.custody.results.result(self.address.request_id, self.address.function)


@pytest_asyncio.fixture(loop_scope="module")
async def odd(stack: Stack) -> AsyncIterator[Odd]:
    """An unfinished run that nobody else works on: no controller has a function of that name."""
    async with session(stack.url) as http:
        yield Odd(stack, await accepted(stack, "held.x", "held"), http)


async def accepted(stack: Stack, topic: str, name: str) -> RunAddress:
    """A run of that function, which sleeps meanwhile, by its address."""
    receipt = await stack.client.publish(topic, b"input")

    async def started() -> RunAddress | None:
        view = await stack.client.result(receipt.request_id)
        run = view.run(name)
        if run is None or run.state is not State.RUNNING:
            return None
        info = (await stack.client.functions(name)).functions[0]
        return RunAddress(receipt.request_id, name, info.spec_hash or "")

    return await eventually(started, what=f"a started run of {name}")


def documented() -> set[tuple[int, str]]:
    """Every (status, code) of the page's table."""
    rows = re.findall(r"^\| .*? \| (\d{3}) \| (.*?) \|$", WIRE_PAGE.read_text(), re.MULTILINE)
    return {(int(status), code) for status, codes in rows for code in re.findall(r"`([a-z-]+)`", codes) or [""]}


# real functions


@pytest.mark.parametrize("program", ["wget", "curl"])
async def test_a_program_that_knows_nothing_but_http(stack: Stack, program: str) -> None:
    receipt = await stack.client.publish(f"sort.{program}", b"pear\napple\nfig\n")
    view = await stack.client.result(receipt.request_id, wait=60)
    (result,) = view.results
    assert result.succeeded, result
    assert await stack.client.output(result) == b"apple\nfig\npear\n"
    calls = stack.gateway.metrics.http_requests.labels("/v1/run/{address}/input", "GET", "200")
    assert calls._value.get() >= 1, "the gateway answered, not the controller"


async def test_a_typed_function_is_held_to_its_schema(stack: Stack) -> None:
    good = await stack.client.publish("typed", {"ok": True})
    bad = await stack.client.publish("typed", {"ok": "yes"})
    assert (await stack.client.result(good.request_id, wait=60)).succeeded
    (result,) = (await stack.client.result(bad.request_id, wait=60)).results
    assert (result.state, result.reason) == (State.FAILED, Reason.INVALID_OUTPUT), result
    assert [error["pointer"] for error in result.errors] == ["/ok"]


async def changed(stack: Stack, output: dict[str, Any] | None) -> None:
    """When this returns the controller has `checked` with that output schema; the gateway need not know yet."""
    before = (await stack.client.functions("checked")).functions[0].spec_hash
    spec = {"output": {"schema": output}} if output else {}
    write_catalog(stack.catalog, function("checked", "checked", SLEEP, timeoutSeconds=1000, **spec))

    async def other() -> bool:
        return (await stack.client.functions("checked")).functions[0].spec_hash != before

    await eventually(other, what="the new version")


async def test_the_schema_is_that_of_the_version_that_the_run_began_with(stack: Stack) -> None:
    json = {"Content_Type": "application/json"}
    async with session(stack.url) as http:
        strict = Odd(stack, await accepted(stack, "checked", "checked"), http)
        await changed(stack, None)
        loose = Odd(stack, await accepted(stack, "checked", "checked"), http)
        assert await strict.call("PUT", "output", b'{"ok": 1}', **json) == (422, "invalid-output")
        assert await strict.call("PUT", "output", b"\xff", **json) == (422, "invalid-output")
        assert await strict.call("PUT", "output", BytesIO(bytes(17 * 2**20))) == (413, "output-too-large")
        assert await strict.result() is None
        sly = Odd(stack, replace(strict.address, spec_hash=loose.address.spec_hash), http)
        assert await sly.call("PUT", "output", b'{"ok": 1}', token=strict.token, **json) == (403, "token-refused")
        assert await loose.call("PUT", "output", b'{"ok": 1}', **json) == (201, "")
        await changed(stack, {"type": "array"})
        young = Odd(stack, await accepted(stack, "checked", "checked"), http)
        assert await young.call("PUT", "output", b'{"ok": true}', **json) == (422, "invalid-output")
        assert await strict.call("PUT", "output", b'{"ok": true}', **json) == (201, "")


async def test_a_version_that_nobody_knows_is_no_way_around_the_schema(stack: Stack) -> None:
    receipt = await stack.client.publish("made.up", b"")
    await stack.client.result(receipt.request_id, wait=60)
    address = RunAddress(receipt.request_id, "typed", "madeup")
    await stack.client.pause("typed")  # else the run is made all the same, and may end first
    await stack.client.custody.results.put_ticket(
        RunTicket(run_id=address.run_id, request_id=address.request_id, function=address.function)
    )
    async with session(stack.url) as http:
        liar = Odd(stack, address, http)
        for _ in range(2):  # what was learnt the first time holds the second time
            assert await liar.call("PUT", "output", b'{"ok": 1}', Content_Type="application/json") == (
                422,
                "invalid-output",
            )
        assert await liar.call("PUT", "output", b'{"ok": true}', Content_Type="application/json") == (201, "")
    await stack.client.resume("typed")


# every odd call


async def test_every_odd_call_has_its_documented_answer(stack: Stack, odd: Odd) -> None:
    other = Odd(stack, await accepted(stack, "held.y", "held"), odd.http)
    nobody = Odd(stack, RunAddress("never", "held"), odd.http)
    event = {"Invoker_Topic": "next", "Invoker_Position": "0"}
    got: dict[str, tuple[int, str]] = {}
    for name, asked, answer in [
        ("none", odd.call("GET", "input", token=""), (401, "token-missing")),
        ("other's", odd.call("PUT", "output", b"x", token=other.token), (403, "token-refused")),
        ("invented", odd.call("PUT", "output", b"x", token="a" * 52), (403, "token-refused")),
        ("nobody", nobody.call("GET", "input"), (404, "unknown")),
        ("huge", odd.call("PUT", "output", BytesIO(bytes(MAX_OUTPUT + 1))), (413, "output-too-large")),
        ("huge, unsaid", odd.call("PUT", "output", parts(MAX_OUTPUT + 1)), (413, "output-too-large")),
        ("event", odd.call("POST", "events", BytesIO(bytes(1_000_001)), **event), (413, "payload-too-large")),
        ("event, unsaid", odd.call("POST", "events", parts(1_000_001), **event), (413, "payload-too-large")),
        ("note", odd.call("POST", "progress", b" " * 70_000), (413, "payload-too-large")),
        ("no JSON", odd.call("POST", "progress", b"{"), (400, "run-api-refused")),
        ("deep", odd.call("POST", "error", b"[" * 60_000), (400, "run-api-refused")),
        ("topic", odd.call("POST", "events", b"x", Invoker_Topic="a..b", Invoker_Position="0"), (422, "invalid-topic")),
        ("position", odd.call("POST", "events", b"x", Invoker_Topic="a"), (400, "run-api-refused")),
        ("encoded", odd.call("PUT", "output", b"x", Content_Encoding="gzip"), (415, "unsupported-content")),
        ("slow", odd.call("PUT", "output", stopping()), (408, "body-silent")),
        ("progress", odd.call("POST", "progress", b'{"percent": 40}'), (204, "")),
    ]:
        got[name] = await asked
        assert got[name] == answer, name
    assert await odd.result() is None, "nothing of all that became a result"
    assert await odd.call("PUT", "output", b"mine") == (201, "")
    for name, asked, answer in [
        ("again", odd.call("PUT", "output", b"mine"), (201, "")),
        ("posted", odd.call("POST", "output", b"mine"), (201, "")),
        ("another", odd.call("PUT", "output", b"other"), (410, "run-finished")),
        ("input after", odd.call("GET", "input"), (410, "run-finished")),
        ("event after", odd.call("POST", "events", b"x", **event), (410, "run-finished")),
        ("news after", odd.call("POST", "progress", b"{}"), (410, "run-finished")),
    ]:
        got[name] = await asked
        assert got[name] == answer, name
    told = {one for one in got.values() if one[0] != 204}
    assert told <= documented(), told - documented()


async def parts(size: int) -> AsyncIterator[bytes]:
    """A body that does not say its length."""
    for start in range(0, size, 1 << 20):
        yield bytes(min(1 << 20, size - start))


async def stopping() -> AsyncIterator[bytes]:
    """A body that begins and does not go on."""
    yield bytes(100_000)
    await asyncio.Event().wait()


async def test_doubled_at_once_is_one_result(odd: Odd) -> None:
    outputs = [b"%d" % (number % 4) * 50_000 for number in range(12)]
    answers = await asyncio.gather(*(odd.call("PUT", "output", BytesIO(data)) for data in outputs))
    result = await odd.result()
    assert result is not None
    stands = await odd.stack.client.output(result)
    for data, answer in zip(outputs, answers, strict=True):
        assert answer == ((201, "") if data == stands else (410, "run-finished"))


async def test_cut_in_the_middle_leaves_nothing(odd: Odd) -> None:
    url = run_url("", odd.address).removeprefix("/")
    host, port = odd.stack.url.removeprefix("http://").split(":")
    for said in (b"Content-Length: 9000000\r\n", b"Transfer-Encoding: chunked\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"PUT /{url}/output HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {odd.token}\r\n".encode()
        body = bytes(200_000) if b"Length" in said else b"30d40\r\n" + bytes(200_000) + b"\r\n"
        writer.write(head + said + b"\r\n" + body)
        await writer.drain()
        writer.close()
        assert await reader.read() == b""
    assert await odd.result() is None
    assert await odd.call("PUT", "output", b"whole") == (201, "")


async def test_a_member_that_stands_twice_in_a_note_is_refused(odd: Odd) -> None:
    assert await odd.call("POST", "progress", b'{"percent": 1, "percent": 2}') == (400, "run-api-refused")


async def test_a_request_past_its_retention(stack: Stack, odd: Odd) -> None:
    """Its record is gone: told while its message still waits to be looked at by a controller, and once one has."""
    late = Odd(stack, RunAddress("past", "held"), odd.http)
    ticket = RunTicket(run_id=late.address.run_id, request_id="past", function="held")
    await stack.client.pause("held")
    await stack.client.custody.results.put_ticket(ticket)
    assert await late.call("PUT", "output", b"late") == (410, "expired")
    await stack.client.resume("held")

    async def looked_at() -> bool:
        return await late.call("PUT", "output", b"late") == (410, "run-finished")

    await eventually(looked_at, what="a controller that has looked")
    assert {(410, "expired"), (410, "run-finished")} <= documented()


async def test_without_the_key_there_is_no_run_api(stack: Stack, odd: Odd) -> None:
    path = f"{run_url('', odd.address)}/output"
    async with running_gateway(stack.server.url, run_token_key=None) as bare, session(bare.url) as http:
        assert (await http.put(path, data=b"x")).status == 404
    async with running_gateway(stack.server.url, run_token_key="another key") as foreign, session(foreign.url) as http:
        headers = {"Authorization": f"Bearer {odd.token}"}
        assert (await http.put(path, data=b"x", headers=headers)).status == 403


# killed in the middle

LARGE = """
import hashlib
import os
import pathlib


def handle(event, context):
    path = os.path.join(context.workdir, "output")
    with open(path, "wb") as file:
        for number in range(12):
            file.write(hashlib.sha256(event["data"] + b"%d" % number).digest() * 32768)
    return pathlib.Path(path)
"""


def large(data: bytes) -> str:
    """The sha256 of what `large` makes of that event."""
    hasher = hashlib.sha256()
    for number in range(12):
        hasher.update(hashlib.sha256(data + b"%d" % number).digest() * 32768)
    return hasher.hexdigest()


class GatewayProcess:
    """`invoker gateway` as a process of its own, at one port, until it is killed."""

    def __init__(self, nats_url: str, log_file: Path) -> None:
        self.port, self._log_file, self._nats_url = lasting_port(), log_file, nats_url
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        settings = {
            "INVOKER_NATS_URL": self._nats_url,
            "INVOKER_RUN_TOKEN_KEY": RUN_TOKEN_KEY,
            "INVOKER_GATEWAY_PORT": str(self.port),
            "INVOKER_GATEWAY_PROBE_PORT": "0",
        }
        environ = {"PATH": os.environ["PATH"], "HOME": str(self._log_file.parent)} | settings
        program = "import sys; from invoker.cli import main; sys.argv = ['invoker', 'gateway']; main()"
        with self._log_file.open("ab") as log:
            command = [sys.executable, "-c", program]
            self._process = await asyncio.to_thread(subprocess.Popen, command, env=environ, stdout=log, stderr=log)
        await eventually(self._answers, what="a gateway that listens")

    async def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log_file.read_text()[-2000:]
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@asynccontextmanager
async def killable(folder: Path) -> AsyncIterator[tuple[list[GatewayProcess], View]]:
    """A controller whose functions are sent to gateways behind one address, as behind a Service."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(nats_server(folder / "jetstream"))
        catalog = write_catalog(folder / "catalog", python("large", "large", LARGE))
        service = Service("127.0.0.1")
        await service.open()
        stack.push_async_callback(service.close)
        settings = {"run_token_key": RUN_TOKEN_KEY, "run_api_url": service.url}
        await stack.enter_async_context(running_controller(server.url, catalog, folder / "state", **settings))
        gateways = [GatewayProcess(server.url, folder / f"gateway-{number}.log") for number in range(3)]
        for gateway in gateways:
            stack.callback(gateway.kill)
            service.add(gateway.url)
        await asyncio.gather(*(gateway.start() for gateway in gateways))
        connection = await connect(ConnectionOptions(url=server.url))
        stack.push_async_callback(connection.close)
        yield gateways, View(connection)


@pytest.mark.timeout(300)
async def test_gateways_killed_in_the_middle_of_outputs_lose_and_double_nothing(tmp_path: Path) -> None:
    async with killable(tmp_path) as (gateways, view):
        stream = f"OBJ_{view.names.payloads_bucket}"

        async def chunks() -> int:
            return int((await view.client.jetstream().stream_info(stream)).state.last_seq)

        async def more_than(seen: int) -> bool:
            # While this process stood still the others may have come to their end: then nothing more comes.
            return await chunks() > seen or await view.queued() == (0, 0)

        inputs = [b"input %d" % number for number in range(6)]
        for number, data in enumerate(inputs):
            await view.publish("large", data, f"r{number}")
        for gateway, further in zip(gateways, (4, 25), strict=False):
            seen = await chunks() + further
            await eventually(lambda seen=seen: more_than(seen), within=90, what="the middle of an output")
            gateway.kill()
        for number, data in enumerate(inputs):
            result = await view.result(f"r{number}", "large", within=90)
            assert result.succeeded, result
            assert result.output.claim is not None
            assert result.output.claim.sha256 == large(data)
            assert len(result.attempts) == 1, "the function was not run again"
        await view.quiet(within=60)
        state = (await view.client.jetstream().stream_info(view.names.results_stream)).state
        assert state.messages == 2 * len(inputs), "one record and one result each"
