"""Every route against every caller who may not use it; audit lines; and that no secret appears anywhere."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import structlog
from structlog.testing import capture_logs

from invoker import wire
from invoker.gateway.app import RunningGateway
from invoker.gateway.dashboard.paths import is_open, is_ours
from invoker.gateway.gateway import Gateway
from invoker.gateway.routes import routers
from invoker.gateway.run_address import RunAddress
from invoker.logs import LogFormat, configure_logs
from invoker.nats_server import nats_server
from tests.custody.workload import function
from tests.gateway.access_world import AUDIENCE, ISSUER, Issuer, add_key, bearer, guarded_gateway, jwks
from tests.gateway.gateway_process import gateway_process
from tests.gateway.reading import world_of
from tests.gateway.stack import Stack, running_stack, session

READING = {"GET", "HEAD"}
ONE = Issuer()


def all_routes(gateway: Gateway, **parameters: str) -> list[tuple[str, str]]:
    """Method and path of every route of the gateway that needs a login, with its parameters filled in; those of gitfaas
    are among them."""
    found = set()
    for router in routers(gateway):
        for route in router.routes:
            path = re.sub(r"\{(\w+)[^}]*\}", lambda one: parameters.get(one[1], "x"), getattr(route, "path", ""))
            found |= {(method, path) for method in getattr(route, "methods", None) or () if not is_open(path)}
    assert len(found) > 30
    assert {("POST", f"/publish/{parameters.get('topic', 'x')}"), ("GET", "/refresh")} <= found
    return sorted(found)


def run_routes(gateway: Gateway) -> list[tuple[str, str]]:
    """The same of the run API, with an address that was never given out."""
    assert gateway.run_api is not None
    address = RunAddress("never", "echo").path_token()
    found = {
        (method, str(getattr(route, "path", "")).format(address=address))
        for route in gateway.run_api.routes()
        for method in getattr(route, "methods", None) or ()
    }
    assert len(found) >= 6
    return sorted(found)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    over = datetime.now(UTC) - timedelta(seconds=1)
    return {
        "file": str(file),
        "viewer": add_key(file, "viewer", "read"),
        "elsewhere": add_key(file, "elsewhere", "admin other.topics.> other-function"),
        "publisher": add_key(file, "publisher", "publish echo.>"),
        "over": add_key(file, "over", "admin", expires_at=over),
    }


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def up(stack: Stack, texts: dict[str, str]) -> AsyncIterator[RunningGateway]:
    file = Path(texts["file"])
    (file.parent / "jwks.json").write_bytes(jwks(ONE))
    given = {"gateway_jwks": file.parent / "jwks.json", "gateway_jwt_issuer": ISSUER, "gateway_jwt_audience": AUDIENCE}
    async with guarded_gateway(stack.server.url, gateway_keys=file, gateway_gitfaas=True, **given) as running:
        await running.gateway.catalog.refresh()
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(up: RunningGateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with session(up.url) as http:
        yield http


async def asked(
    http: aiohttp.ClientSession, method: str, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, bytes]:
    async with http.request(method, path, headers=headers, data=body) as answer:
        return answer.status, await answer.read()


async def test_no_route_does_anything_for_who_is_not_known(
    guarded: aiohttp.ClientSession, up: RunningGateway, texts: dict[str, str]
) -> None:
    credentials: list[dict[str, str]] = [
        {}, {"Authorization": "Bearer nothing"}, {"X-Api-Key": "admin"}, bearer(texts["over"]),
        bearer("inv_aaaaaaaaaa_" + "a" * 52), bearer(Issuer("one").token(scope="invoker:admin")),
        bearer(ONE.token(scope="invoker:admin", aud="other")),
    ]  # fmt: skip
    routes = all_routes(up.gateway)
    for credential in credentials:
        answers = await asyncio.gather(*(asked(guarded, *route, credential, b"x") for route in routes))
        allowed = [(route, status) for route, (status, _) in zip(routes, answers, strict=True) if status != 401]
        assert not allowed, credential


async def test_the_run_api_is_for_tokens_of_runs_alone(
    guarded: aiohttp.ClientSession, up: RunningGateway, texts: dict[str, str]
) -> None:
    """No key opens it, not even one that may do everything elsewhere."""
    token = ONE.token(scope="invoker:admin")
    for method, path in run_routes(up.gateway):
        for credential in ({}, {"X-Api-Key": texts["viewer"]}, {"Authorization": "Basic eDp5"}):
            assert (await asked(guarded, method, path, credential, b"x"))[0] == 401, (method, path, credential)
        for shown in (texts["viewer"], texts["elsewhere"], token, "nothing", "a" * 52):
            assert (await asked(guarded, method, path, bearer(shown), b"x"))[0] == 403, (method, path)
    for shown in (texts["viewer"], token, "nothing", "a" * 52):
        uid = f"{RunAddress('never', 'echo').path_token()}.{shown.replace('.', '')}"
        for credential in ({}, bearer(texts["viewer"])):
            status, body = await asked(guarded, "POST", f"/response/{uid}", credential, b"x")
            assert (status, json.loads(body)["error"]) == (200, True), "gitfaas refuses with 200"


@pytest.mark.parametrize("kind", ["key", "token"])
async def test_a_viewer_reads_and_changes_nothing(
    guarded: aiohttp.ClientSession, up: RunningGateway, stack: Stack, texts: dict[str, str], kind: str
) -> None:
    viewer = bearer(texts["viewer"] if kind == "key" else ONE.token(scope="invoker:read"))
    view = (await stack.client.request("echo.seen", b"seen", timeout=60))[0]
    ids = {
        "request_id": view.request_id, "run_id": view.run_id, "function": "echo", "name": "echo", "topic": "echo.x",
        "dead_id": await dead_letter(stack, kind), "function_uid": f"{RunAddress('never', 'echo').path_token()}.x",
    }  # fmt: skip
    for method, path in all_routes(up.gateway, **ids):
        if (method in READING and path != "/refresh") or path in ("/v1/explain", "/v1/events"):
            continue
        if is_ours(path):
            continue  # forms of pages: tests/dashboard sends them as a viewer
        status, body = await asked(guarded, method, path, viewer | {"Content-Type": "application/octet-stream"}, b"")
        # gitfaas' answer of a function looks at the token in its path alone, which is none.
        wanted = (200, True) if path.startswith("/response/") else (403, False)
        assert (status, b'"error":true' in body) == wanted, (method, path, status, body)
    event = {"specversion": "1.0", "id": "1", "type": "echo.x", "source": "/tests", "topic": "echo.x"}
    cloud = viewer | {"Content-Type": "application/cloudevents+json"}
    assert (await asked(guarded, "POST", "/v1/events", cloud, json.dumps(event).encode()))[0] == 403
    for path in (f"/v1/requests/{view.request_id}", f"/v1/runs/{view.run_id}/output", "/v1/functions", "/v1/runs"):
        assert (await asked(guarded, "GET", path, viewer))[0] == 200
    assert (await stack.client.functions("echo")).functions[0].paused is False


async def dead_letter(stack: Stack, kind: str) -> str:
    """The id of one that is there."""
    letter = {
        "id": f"dead{kind}", "reason": "hop-limit", "message": "too far", "topic": "echo.dead",
        "dead_at": "2026-01-01T00:00:00Z", "body": {"bytes": 2, "inline_base64": "aGk="},
    }  # fmt: skip
    js = world_of(stack.client).client.jetstream()
    await js.publish(
        wire.Names().dead(f"dead{kind}"), json.dumps(letter).encode(), headers={wire.H_REASON: "hop-limit"}
    )
    return f"dead{kind}"


async def test_what_somebody_may_not_see_is_unknown_to_him(
    guarded: aiohttp.ClientSession, stack: Stack, texts: dict[str, str]
) -> None:
    seen = (await stack.client.request("echo.seen", b"seen", timeout=60))[0]
    elsewhere = bearer(texts["elsewhere"])
    for path in ("/v1/requests/{}", "/v1/requests/{}/input", "/v1/requests/{}/chain"):
        hidden = await asked(guarded, "GET", path.format(seen.request_id), elsewhere)
        unknown = await asked(guarded, "GET", path.format("0" * 26), elsewhere)
        assert hidden[0] == unknown[0] == 404
        assert hidden[1].replace(seen.request_id.encode(), b"ID") == unknown[1].replace(b"0" * 26, b"ID")
    for path in ("/v1/runs/{}", "/v1/runs/{}/output", "/v1/runs/{}/logs"):
        assert (await asked(guarded, "GET", path.format(seen.run_id), elsewhere))[0] == 404
    for path in ("/v1/runs", "/v1/functions", "/v1/dead-letters"):
        status, body = await asked(guarded, "GET", path, elsewhere)
        assert status == 200
        assert json.loads(body)["items"] == []
    for path in (f"/v1/requests/{seen.request_id}/cancel", f"/v1/runs/{seen.run_id}/replay"):
        assert (await asked(guarded, "POST", path, elsewhere, b""))[0] == 404


async def test_every_changing_call_leaves_one_audit_line(guarded: aiohttp.ClientSession, texts: dict[str, str]) -> None:
    with capture_logs() as lines:
        headers = bearer(texts["publisher"]) | {"X-Request-Id": "call-1", "User-Agent": "evil\x01"[:4]}
        async with guarded.post("/v1/topics/echo.audited", data=b"x", headers=headers) as answer:
            request_id = (await answer.json())["request_id"]
        await asked(guarded, "POST", "/v1/topics/mirror.x", headers, b"x")
        await asked(guarded, "POST", "/v1/topics/mirror.x", {}, b"x")
        await asked(guarded, "DELETE", "/nothing/here", headers)
        await asked(guarded, "GET", "/v1/functions", headers)
        assert (await asked(guarded, "PUT", "/v1/run/x/output", headers, b"x"))[0] == 404
    audit = [line for line in lines if line.get("component") == "audit"]
    told = [(line["caller"], line["method"], line["route"], line["status"]) for line in audit]
    assert told == [
        ("key:publisher", "POST", "/v1/topics/{topic}", 202),
        ("key:publisher", "POST", "/v1/topics/{topic}", 403),
        ("-", "POST", "(none)", 401),
        ("key:publisher", "DELETE", "(none)", 404),
    ]
    assert audit[0]["ids"] == {"topic": "echo.audited", "request_id": request_id}
    assert audit[0]["call_id"] == "call-1"
    assert audit[0]["address"] == "127.0.0.1"
    assert audit[0]["duration_ms"] > 0


TELL = 'echo "$INVOKER_RUN_URL"; echo "$INVOKER_RUN_TOKEN"'


async def test_no_secret_that_was_ever_shown_is_in_a_log_an_answer_or_a_metric(tmp_path: Path) -> None:
    """Keys, tokens and passwords, right and wrong, sent in every place; NATS goes away at the end."""
    file = tmp_path / "keys.json"
    key, wrong = add_key(file, "canary", "admin"), "inv_aaaaaaaaaa_" + "canarykey" * 5 + "aaaaaaa"
    (tmp_path / "jwks.json").write_bytes(jwks(ONE))
    token, forged = ONE.token(scope="invoker:admin"), Issuer("one").token(scope="invoker:admin")
    secrets = {
        "nats": "canary-nats-password", "run key": "canary-run-token-key", "key": key.rpartition("_")[2],
        "wrong key": wrong.rpartition("_")[2], "token": token.rpartition(".")[2],
        "forged": forged.rpartition(".")[2],
        "basic": "Y2FuYXJ5OmJhc2lj", "cookie": "canary-cookie",
        "hash": json.loads(file.read_text())["keys"][0]["sha256"],
    }  # fmt: skip
    settings = {
        "gateway_anonymous": "", "gateway_keys": file, "gateway_jwks": tmp_path / "jwks.json", "gateway_gitfaas": True,
        "gateway_jwt_issuer": ISSUER, "gateway_jwt_audience": AUDIENCE, "run_token_key": secrets["run key"],
    }  # fmt: skip
    said: list[str] = []

    async def call(http: aiohttp.ClientSession, method: str, path: str, **headers: str) -> None:
        async with http.request(method, path, headers=headers, data=b"x" if method != "GET" else None) as answer:
            said.append(f"{answer.headers} {await answer.text()}")

    with capture_logs() as lines:
        authorization = f"authorization {{ user: invoker, password: '{secrets['nats']}' }}"
        async with nats_server(tmp_path / "jetstream", extra_config=authorization) as bare:
            server = replace(bare, url=bare.url.replace("//", f"//invoker:{secrets['nats']}@"))
            functions = [function("tell", "tell", TELL, output={"from": "stdout"}), function("fail", "fail", "exit 3")]
            controller = {"run_token_key": secrets["run key"]}
            async with (
                running_stack(
                    tmp_path / "world", functions=functions, server=server, controller=controller, **controller
                ) as stack,
                gateway_process(server.url, tmp_path, **settings) as gateway,
                session(gateway.url) as http,
            ):
                url, secrets["run token"] = await run_secrets(stack)
                address = url.rpartition("/")[2]
                for shown in (key, wrong, token, forged):
                    await call(http, "POST", "/v1/topics/fail", Authorization=f"Bearer {shown}")
                    await call(http, "POST", "/v1/topics/fail", **{"X-Api-Key": shown})
                    await call(http, "GET", f"/v1/runs?key={shown}&token={shown}")
                    await call(http, "POST", "/v1/topics/a..b", Authorization=f"Bearer {shown}")
                    await call(http, "POST", "/v1/requests/none/cancel", Authorization=f"Bearer {shown}")
                await call(http, "POST", "/v1/topics/fail", Authorization=f"Basic {secrets['basic']}")
                await call(http, "POST", "/v1/topics/fail", Cookie=f"session={secrets['cookie']}")
                for run_token in (secrets["run token"], f"{secrets['run token'][:-1]}!", key):
                    shown = f"Bearer {run_token}"
                    await call(http, "PUT", f"/v1/run/{address}/output", Authorization=shown)
                    await call(http, "POST", f"/v1/run/{address}/events", Authorization=shown)
                    await call(http, "POST", f"/response/{address}.{run_token}")
                    await call(http, "GET", f"/response/{address}.{run_token}")
                async with session(f"http://127.0.0.1:{gateway.probe_port}") as probe:
                    await call(probe, "GET", "/metrics")
                async with session(stack.probe_url) as probe:
                    await call(probe, "GET", "/metrics")
                bare_log = gateway.log_file
        text = bare_log.read_text() + repr(lines)
    assert '"component":"audit"' in text.replace(": ", ":"), "there is a log to look at"
    for name, secret in secrets.items():
        assert secret not in text, f"{name} is in a log"
        assert not [one for one in said if secret in one], f"{name} is in an answer"


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_logged_exception_does_not_show_what_was_in_variables(form: LogFormat) -> None:
    stream = io.StringIO()
    configure_logs(form, stream=stream)
    try:
        token = "canary"[::-1]
        try:
            raise ValueError(f"{len(token)} characters")
        except ValueError:
            structlog.get_logger().exception("failed")
    finally:
        structlog.reset_defaults()
    assert "6 characters" in stream.getvalue()
    assert "yranac" not in stream.getvalue()


async def run_secrets(stack: Stack) -> tuple[str, str]:
    """URL and token of a run that is over."""
    reply: Any = (await stack.client.request("tell", b"", timeout=60))[0]
    url, token = (await reply.text()).split()
    return url, token
