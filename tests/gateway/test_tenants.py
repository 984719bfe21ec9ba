"""Callers beside one another: what is one's own answers all others as if it had never been; so do keys of events."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from invoker import HttpClient, wire
from invoker.errors import IdempotencyMismatchError, WaitExpiredError
from invoker.gateway.access.scopes import Action, Caller, Grant, anonymous
from invoker.gateway.app import RunningGateway
from invoker.gateway.event_id import event_id, own_request_id
from invoker.gateway.routes import routers
from invoker.gateway.run_address import RunAddress, run_token, run_url
from invoker.http.settings import GatewayOptions
from tests.gateway.access_world import add_key, bearer
from tests.gateway.reading import finished, get, post, publish, world_of
from tests.gateway.stack import RUN_TOKEN_KEY, Stack, running_gateway, session

NAMES = ("anna", "bert", "carl")
OWNED = {"request_id", "run_id", "given", "dead_id", "request_uid"}
"""Parameters of paths that name what belongs to somebody."""


@dataclass
class Tenants:
    """Two gateways over one installation. Each tenant may do everything with the topics `echo.NAME.>` of his own."""

    one: RunningGateway
    other: RunningGateway
    keys: dict[str, str]
    by_name: dict[str, aiohttp.ClientSession]
    admin: aiohttp.ClientSession

    def at_other(self, name: str) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(self.other.url, headers=bearer(self.keys[name]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tenants(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tenants]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    keys = {name: add_key(file, name, f"publish,operate echo.{name}.>", "publish gone.> echo") for name in NAMES}
    admin = add_key(file, "admin", "admin")
    settings = {"gateway_keys": file, "gateway_anonymous": (), "gateway_gitfaas": True}
    async with AsyncExitStack() as opened:
        one, other = [await opened.enter_async_context(running_gateway(stack.server.url, **settings)) for _ in range(2)]
        sessions = {
            name: await opened.enter_async_context(session(one.url, headers=bearer(key))) for name, key in keys.items()
        }
        everything = await opened.enter_async_context(session(one.url, headers=bearer(admin)))
        for up in (one, other):
            await up.gateway.client.feed.live()
            await up.gateway.catalog.refresh()
        yield Tenants(one, other, keys, sessions, everything)


async def _one_of_each(tenants: Tenants, stack: Stack, name: str) -> dict[str, str]:
    """A request, its run and a dead letter that belong to that tenant."""
    request_id = await publish(tenants.by_name[name], f"echo.{name}.x", name.encode())
    await finished(tenants.by_name[name], request_id)
    letter = {
        "id": f"dead{name}", "reason": "hop-limit", "message": "too far", "topic": f"echo.{name}.dead",
        "dead_at": "2026-01-01T00:00:00Z", "body": {"bytes": 2, "inline_base64": "aGk="},
    }  # fmt: skip
    subject = wire.Names().dead(letter["id"])  # type: ignore[arg-type] # a text
    headers = {wire.H_REASON: "hop-limit"}
    await world_of(stack.client).client.jetstream().publish(subject, json.dumps(letter).encode(), headers=headers)
    return {
        "request_id": request_id, "given": request_id, "request_uid": request_id, "dead_id": f"dead{name}",
        "run_id": wire.run_id_of(request_id, "echo"),
    }  # fmt: skip


def _owned_routes(up: RunningGateway) -> list[tuple[str, str]]:
    """Method and template of every route whose path names something that belongs to somebody."""
    found = {
        (method, str(getattr(route, "path", "")))
        for router in routers(up.gateway)
        for route in router.routes
        for method in getattr(route, "methods", None) or ()
        if set(re.findall(r"\{(\w+)", getattr(route, "path", ""))) & OWNED
    }
    return sorted(found)


async def test_nothing_of_one_tenant_is_there_for_another_on_any_route(tenants: Tenants, stack: Stack) -> None:
    belongings = {name: await _one_of_each(tenants, stack, name) for name in NAMES}
    never = {"request_id": "0" * 26, "given": "0" * 26, "request_uid": "0" * 26, "dead_id": "never", "run_id": "a" * 26}
    routes = _owned_routes(tenants.one)
    assert len(routes) >= 19, routes

    async def asked(who: str, method: str, template: str, ids: dict[str, str]) -> tuple[int, str]:
        path = template.format_map(ids)
        async with tenants.by_name[who].request(method, path) as answer:
            text = await answer.text()
        for given in sorted(set(ids.values()), key=len, reverse=True):
            text = text.replace(given, "ID")
        return answer.status, text

    for (who, whose), (method, template) in itertools.product(itertools.permutations(NAMES, 2), routes):
        foreign = await asked(who, method, template, belongings[whose])
        assert foreign == await asked(who, method, template, never), (who, whose, method, template)
        # gitfaas answers 200 for what is unknown, and says so.
        assert foreign[0] == 404 or '"state":"unknown"' in foreign[1], (who, whose, method, template, foreign)
    for name in NAMES:
        for template in ("/v1/requests/{request_id}", "/v1/runs/{run_id}/output", "/v1/dead-letters/{dead_id}"):
            assert (await asked(name, "GET", template, belongings[name]))[0] == 200, (name, template)
        rows = (await get(tenants.by_name[name], "/v1/runs?limit=500"))["items"]
        assert {row["topic"].split(".")[1] for row in rows} == {name}


async def test_a_runs_token_opens_no_run_of_another(tenants: Tenants) -> None:
    one, other = [RunAddress(await publish(tenants.by_name[name], f"echo.{name}.x"), "echo") for name in NAMES[:2]]
    token = run_token(RUN_TOKEN_KEY.encode(), one)
    async with session(tenants.one.url) as http:
        for method, what in (("GET", "input"), ("PUT", "output"), ("POST", "events"), ("POST", "progress")):
            path = run_url("", other) + f"/{what}"
            async with http.request(method, path, headers=bearer(token), data=b"x") as answer:
                assert (answer.status, (await answer.json())["code"]) == (403, "token-refused"), what
        async with http.post(f"/response/{run_url('', other).rpartition('/')[2]}.{token}", data=b"x") as answer:
            assert (await answer.json())["error"] is True


async def test_two_tenants_with_one_key_send_two_events(tenants: Tenants) -> None:
    ids = {name: await publish(tenants.by_name[name], f"echo.{name}.x", b"x", **_key("order-17")) for name in NAMES}
    assert len(set(ids.values())) == len(NAMES)
    for name, request_id in ids.items():
        done = await finished(tenants.by_name[name], request_id)
        assert done["topic"] == f"echo.{name}.x"
    async with tenants.admin.get("/v1/requests/order-17") as answer:
        assert answer.status == 404, "the key of a tenant is no id of the installation"


async def test_a_key_means_the_same_event_at_every_gateway(tenants: Tenants) -> None:
    first = await post(tenants.by_name["anna"], "/v1/topics/echo.anna.x", 202, data=b"x", headers=_key("again"))
    async with tenants.at_other("anna") as http:
        second = await post(http, "/v1/topics/echo.anna.x", 202, data=b"x", headers=_key("again"))
        assert (second["request_id"], second["duplicate"]) == (first["request_id"], True)
        refused = await post(http, "/v1/topics/echo.anna.x", 422, data=b"another", headers=_key("again"))
        assert refused["code"] == "idempotency-mismatch"


async def test_who_knows_an_id_learns_nothing_by_taking_it_for_his_key(tenants: Tenants) -> None:
    foreign = await publish(tenants.by_name["anna"], "echo.anna.x", b"same")
    own = await post(tenants.by_name["bert"], "/v1/topics/echo.bert.x", 202, data=b"same", headers=_key(foreign))
    assert (own["duplicate"], own["request_id"] != foreign) == (False, True)
    ahead = own_request_id(Caller("anna", "key", ()), "tomorrow")
    taken = await post(tenants.by_name["bert"], "/v1/topics/echo.bert.x", 202, data=b"mine", headers=_key(ahead))
    assert taken["request_id"] != ahead
    hers = await post(tenants.by_name["anna"], "/v1/topics/echo.anna.x", 202, data=b"hers", headers=_key("tomorrow"))
    assert (hers["request_id"], hers["duplicate"]) == (ahead, False), "nobody can have taken her event's place"


async def test_cloud_events_calls_and_replays_have_keys_of_their_caller_too(tenants: Tenants) -> None:
    made = []
    for name in NAMES[:2]:
        http = tenants.by_name[name]
        event = {"specversion": "1.0", "id": "1", "source": "/desk", "type": f"echo.{name}.x", "data": 1}
        kind = {"Content-Type": "application/cloudevents+json"}
        for _ in range(2):
            answer = await post(http, "/v1/events", 202, data=json.dumps(event), headers=kind)
            made.append(answer["request_id"])
        for _ in range(2):
            called = await post(http, "/v1/functions/echo/calls", 202, data=b"1", headers=_key("called"))
            made.append(called["request_id"])
        await finished(tenants.admin, made[-1])
        await finished(http, answer["request_id"])
        for _ in range(2):
            path = f"/v1/requests/{answer['request_id']}/replay"
            made.append((await post(http, path, 202, headers=_key("once-more")))["request_id"])
    assert len(made) == 12
    assert len(set(made)) == 6, "each of the three once for each of the two"


async def test_who_may_do_everything_says_the_id_itself(tenants: Tenants) -> None:
    assert await publish(tenants.admin, "echo.anna.x", b"x", **_key("by-admin")) == "by-admin"


async def test_the_client_knows_its_events_whatever_id_they_get(tenants: Tenants, stack: Stack) -> None:
    options = GatewayOptions(tenants.one.url, key=tenants.keys["carl"])
    async with HttpClient.connect(options) as client:
        first = await client.publish("echo.carl.x", b"x", request_id="mine")
        again = await client.publish("echo.carl.x", b"x", request_id="mine")
        assert (again.request_id, first.duplicate, again.duplicate) == (first.request_id, False, True)
        assert first.request_id != "mine"
        with pytest.raises(IdempotencyMismatchError):
            await client.publish("echo.carl.x", b"other", request_id="mine")
        (reply,) = await client.request("echo.carl.x", b"asked", timeout=60, request_id="asked")
        assert await reply.read() == b"asked"
        fresh = await client.publish("echo.carl.x", b"x")
        at = wire.time_of_id(fresh.request_id)
        assert at is not None
        assert abs((datetime.now(UTC) - at).total_seconds()) < 60, "so that it expires, and was not never there"


async def test_a_wait_that_ends_early_names_the_request_as_it_is_stored(stack: Stack, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "gates", "publish,operate gate.>")
    async with (
        running_gateway(stack.server.url, gateway_keys=tmp_path / "keys.json", gateway_anonymous=()) as up,
        HttpClient.connect(GatewayOptions(up.url, key=key)) as client,
    ):
        await up.gateway.client.feed.live()
        with pytest.raises(WaitExpiredError) as expired:
            await client.request("gate.x", b"x", timeout=1.0, request_id="waited")
        request_id = str(expired.value.fields["request_id"])
        assert request_id != "waited"
        stack.open_gate(request_id)
        assert (await client.result(request_id, wait=60)).complete


def _key(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


@pytest.mark.parametrize(
    "key",
    ["order-17", "an odd one: ü", "x" * 255, wire.new_request_id(datetime.now(UTC), b"r" * 10)],
    ids=["plain", "odd", "long", "of-now"],
)
def test_the_id_of_a_key_is_its_callers_alone(key: str) -> None:
    some = (Grant(frozenset({Action.PUBLISH})),)
    callers = [
        Caller("ann", "key", some),
        Caller("ann", "jwt", some),
        Caller("an", "key", some),
        anonymous(["publish"]),
    ]
    ids = {own_request_id(caller, key) for caller in callers if caller is not None}
    assert len(ids) == 4
    assert all(wire.is_plain_id(one) for one in ids)
    assert {wire.time_of_id(one) for one in ids} == {wire.time_of_id(key)}
    rotated = Caller("ann", "key", (Grant(frozenset({Action.PUBLISH, Action.READ})),))
    assert own_request_id(rotated, key) in ids, "a new key of the same name goes on with its events"


def test_an_event_without_a_key_can_be_sent_again_with_the_one_that_was_made_for_it() -> None:
    for actions in (["publish"], ["admin"]):
        caller = anonymous(actions)
        assert caller is not None
        made = event_id(caller, None)
        again = event_id(caller, made.key)
        assert (again.request_id, made.is_new, again.is_new) == (made.request_id, True, False)


async def test_no_tenant_waits_for_another(tenants: Tenants) -> None:
    """Many at once with the same few keys: each event is one request of its sender."""

    async def send(name: str, key: int) -> tuple[str, int, str]:
        return name, key, await publish(tenants.by_name[name], f"echo.{name}.many", b"x", **_key(f"many-{key}"))

    sent = await asyncio.gather(*(send(name, key) for name in NAMES for key in range(5) for _ in range(3)))
    assert len({request_id for _, _, request_id in sent}) == len({(name, key) for name, key, _ in sent}) == 15
