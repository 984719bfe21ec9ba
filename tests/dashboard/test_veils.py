"""Fields declared secret, wherever their values go: through chains, replays, failures and dead letters.

`bill` gives a card's number and sends what it gave to `mail`; `strict` refuses a short password, and its failures
become events; neither `mail` nor `watch` declares anything.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from invoker import wire
from invoker.gateway.access.scopes import Action, Caller, Grant
from invoker.gateway.dashboard.forms import new_key
from invoker.gateway.dashboard.payloads import input_shown
from invoker.gateway.dashboard.veils import MAX_STEPS
from invoker.gateway.run_table import RunTable
from invoker.gateway.sight import Sight
from tests.conftest import eventually
from tests.custody.workload import function
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key, bearer, guarded_gateway
from tests.gateway.reading import world_of
from tests.gateway.stack import FILE, INPUT, Stack, running_stack, session

CARD, PASSWORD, PIN, ENV = "4000-1234-5678", "hunter2", "pin-9876", "value-of-env"
SECRET_CARD = {"properties": {"card": {"type": "string", "x-secret": True}}}
SECRET_PASSWORD = {"properties": {"password": {"type": "string", "format": "password", "minLength": 12}}}
BILL = {"as": "file"}, {"from": "stdout", "schema": SECRET_CARD}


def catalog() -> list[dict[str, Any]]:
    giving = """printf '{"name": "Ada", "card": "%s"}' "$CARD\""""
    card = {"name": "CARD", "value": CARD}
    given, gives = BILL
    return [
        function("bill", "bill.*", giving, input=given, output=gives, onSuccess={"publish": "mail.send"},
                 env=[{"name": "TOKEN", "value": ENV}, card]),
        function("leaving", "leaving.*", giving, input=given, output=gives, onSuccess={"publish": "mail.left"},
                 env=[card]),
        function("mail", "mail.*", INPUT, **FILE),
        function("strict", "strict.*", "true", input={"as": "file", "schema": SECRET_PASSWORD},
                 onFailure={"publish": "failures.strict"}),
        function("watch", "failures.*", "true"),
        function("shut", None, "true", input={"as": "file", "schema": SECRET_PASSWORD},
                 subscriptions=[{"topic": "shut.*", "filter": {"prefix": {"content-type": "text/"}}}]),
        function("vault", "vault.*", INPUT, input={"as": "file", "schema": SECRET_PASSWORD}, output={"from": "stdout"},
                 parameters=[{"name": "pin", "schema": {"type": "string", "writeOnly": True}}]),
        function("audit", "vault.*", "true"),
    ]  # fmt: skip


@dataclass(frozen=True)
class Town:
    """The installation, and who reads: one who may only read, and one who may operate everything on some topics."""

    stack: Stack
    url: str
    keys: dict[str, str]
    viewer: Visitor

    def visitor(self, name: str) -> Visitor:
        return replace(self.viewer, key=self.keys[name])

    async def done(self, topic: str, data: Any, **more: Any) -> str:
        """The id of a request all of whose chain has ended."""
        receipt = await self.stack.client.publish(topic, data, **more)
        await self.stack.client.chain(receipt.request_id, wait=60)
        return receipt.request_id

    async def billed(self, topic: str = "bill.one") -> tuple[str, str]:
        """The run of the function that gave the number, and the request that its output became."""
        request_id = await self.done(topic, {})
        run_id = wire.run_id_of(request_id, topic.partition(".")[0])
        return run_id, wire.chained_id(run_id, "onSuccess", 0)

    async def hides(self, address: str, *words: str, of: str = "viewer") -> str:
        """The page as that reader sees it: without these words, which one who may operate everything does see."""
        seen = await self.visitor(of).get(address)
        assert seen.status == 200, (address, seen.status)
        assert not [one for one in words if one in seen.text], address
        whole = (await self.visitor("boss").get(address)).text
        assert not [one for one in words if one not in whole], "there is nothing to be hidden"
        return seen.text

    async def gives_no_bytes(self, address: str, of: str = "viewer") -> None:
        assert (await self.visitor(of).get(address)).status == 403, address
        assert (await self.visitor("boss").get(address)).status == 200, address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("town")
    file = folder / "keys.json"
    keys = {
        "viewer": add_key(file, "vera", "read"),
        "boss": add_key(file, "bo", "operate", "publish"),
        "postman": add_key(file, "pat", "read", "publish", "operate mail.>"),
        "cashier": add_key(file, "cas", "read", "operate bill.>"),
    }
    async with (
        running_stack(folder, functions=catalog()) as stack,
        guarded_gateway(stack.server.url, gateway_keys=Path(file)) as up,
        visiting(up.url, keys["viewer"]) as viewer,
    ):
        await up.gateway.catalog.refresh()
        await up.gateway.client.feed.live()
        yield Town(stack, up.url, keys, viewer)


async def test_an_output_stays_secret_as_the_event_that_it_becomes(town: Town) -> None:
    _, request_id = await town.billed()
    seen = await town.hides(f"/ui/requests/{request_id}", CARD)
    assert "Ada" in seen, "what is not secret is shown"
    await town.gives_no_bytes(f"/ui/requests/{request_id}/input")


async def test_who_operates_other_topics_does_not_see_it(town: Town) -> None:
    """He may operate `mail.>` with every function, so what `mail` gets; what `bill` declares secret he may not see."""
    _, request_id = await town.billed()
    await town.hides(f"/ui/requests/{request_id}", CARD, of="postman")
    await town.gives_no_bytes(f"/ui/requests/{request_id}/input", of="postman")
    assert CARD in (await town.visitor("cashier").get(f"/ui/requests/{request_id}")).text, "he operates its function"


async def test_a_direct_call_is_not_everybodys_who_operates_some_topic(town: Town) -> None:
    """Neither is what it gave, nor the event that this becomes."""
    run_id = wire.run_id_of(await town.done(town.stack.client.names.direct_topic("bill"), {}), "bill")
    await town.hides(f"/ui/runs/{run_id}", CARD, of="postman")
    await town.gives_no_bytes(f"/ui/runs/{run_id}/output", of="postman")
    await town.hides(f"/ui/requests/{wire.chained_id(run_id, 'onSuccess', 0)}", CARD, of="postman")
    assert CARD in (await town.visitor("cashier").get(f"/ui/runs/{run_id}")).text


async def test_a_replay_hides_what_its_original_does(town: Town) -> None:
    _, request_id = await town.billed()
    for _ in range(2):
        receipt = await town.stack.client.replay(request_id, function="mail")
        await town.stack.client.result(receipt.request_id, wait=60)
        request_id = receipt.request_id
        await town.hides(f"/ui/requests/{request_id}", CARD)
        await town.gives_no_bytes(f"/ui/requests/{request_id}/input")


async def test_a_replay_for_one_function_hides_what_the_others_declare(town: Town) -> None:
    original = await town.done("vault.open", {"password": PASSWORD * 3}, params={"pin": PIN})
    receipt = await town.stack.client.replay(original, function="audit", params={"pin": PIN})
    await town.stack.client.result(receipt.request_id, wait=60)
    await town.hides(f"/ui/requests/{receipt.request_id}", PASSWORD, PIN)


async def test_after_too_many_replays_nothing_is_shown(town: Town) -> None:
    """And one of an event that is not there is none that can be told."""
    jetstream = world_of(town.stack.client).client.jetstream()
    before = await town.done("mail.first", {"word": "visible"})
    assert "visible" in (await town.viewer.get(f"/ui/requests/{before}")).text
    for number in range(MAX_STEPS + 1):
        again = f"again-{number}"
        headers = {wire.H_REPLAY_OF: before, wire.H_MESSAGE_ID: again, "Content-Type": "application/json"}
        await jetstream.publish("events.mail.again", b'{"word": "visible"}', headers=headers)
        await eventually(lambda one=again: _accepted(town, one), what=again)
        seen = (await town.viewer.get(f"/ui/requests/{again}")).text
        assert ("visible" in seen) == (number < MAX_STEPS), number
        before = again


async def _accepted(town: Town, request_id: str) -> bool:
    return await town.stack.client.stored.accepted(request_id) is not None


@pytest.mark.parametrize("header", [wire.H_PARENT_RUN_ID, wire.H_REPLAY_OF])
async def test_what_comes_from_something_unknown_is_not_shown(town: Town, header: str) -> None:
    request_id = f"odd-{header.lower()}"
    headers = {header: "a" * 26, wire.H_MESSAGE_ID: request_id}
    await world_of(town.stack.client).client.jetstream().publish("events.mail.odd", b"visible", headers=headers)
    await eventually(lambda: _accepted(town, request_id), what=request_id)
    await town.hides(f"/ui/requests/{request_id}", "visible")


async def test_a_failure_does_not_quote_what_did_not_fit(town: Town) -> None:
    request_id = await town.done("strict.one", {"password": PASSWORD})
    run_id = wire.run_id_of(request_id, "strict")
    failure = wire.chained_id(run_id, "onFailure", 0)
    await town.hides(f"/ui/requests/{failure}", PASSWORD)
    await town.hides(f"/ui/runs/{wire.run_id_of(failure, 'watch')}", PASSWORD)
    await town.gives_no_bytes(f"/ui/requests/{failure}/input")
    await town.hides(f"/ui/runs/{run_id}", PASSWORD)


async def test_a_dead_letter_of_a_chain_hides_what_the_output_was(town: Town) -> None:
    run_id, _ = await town.billed()
    request_id = f"far-{run_id}"
    headers = {
        wire.H_PARENT_RUN_ID: run_id, wire.H_HOPS: "99", wire.H_MESSAGE_ID: request_id,
        "Content-Type": "application/json",
    }  # fmt: skip
    data = json.dumps({"name": "Ada", "card": CARD}).encode()
    await world_of(town.stack.client).client.jetstream().publish("events.mail.far", data, headers=headers)

    async def there() -> str | None:
        return next((one.id for one in await town.stack.client.dead(20) if one.request_id == request_id), None)

    dead_id = await eventually(there, within=90, what="the dead letter")
    for reader in ("viewer", "postman"):
        seen = await town.hides(f"/ui/dead-letters/{dead_id}", CARD, of=reader)
        assert "Ada" in seen
        await town.gives_no_bytes(f"/ui/dead-letters/{dead_id}/body", of=reader)
    question = await town.visitor("postman").get(f"/ui/dead-letters/{dead_id}/redrive")
    assert question.status == 200
    assert CARD not in question.text, "who may send it again sees no more of it"


async def test_a_redriven_letter_hides_what_the_letter_does(town: Town) -> None:
    run_id, _ = await town.billed()
    request_id = f"redriven-{run_id}"
    headers = {wire.H_PARENT_RUN_ID: run_id, wire.H_HOPS: "99", wire.H_MESSAGE_ID: request_id}
    data = json.dumps({"name": "Ada", "card": CARD}).encode()
    await world_of(town.stack.client).client.jetstream().publish("events.mail.far", data, headers=headers)

    async def there() -> str | None:
        return next((one.id for one in await town.stack.client.dead(20) if one.request_id == request_id), None)

    again = await town.stack.client.redrive(await eventually(there, within=90, what="the dead letter"))
    await town.stack.client.result(again, wait=60)
    await town.hides(f"/ui/requests/{again}", CARD)


async def test_an_event_that_ran_nothing_hides_what_its_listeners_declare(town: Town) -> None:
    refused = await town.done("shut.door", {"password": PASSWORD, "word": "visible"})
    seen = await town.hides(f"/ui/requests/{refused}", PASSWORD)
    assert "visible" in seen
    await town.gives_no_bytes(f"/ui/requests/{refused}/input")
    unmatched = await town.done("nothing.listens", {"word": "visible"})
    assert "visible" in (await town.viewer.get(f"/ui/requests/{unmatched}")).text


async def test_while_the_table_of_runs_is_read_outputs_stay_secret(town: Town) -> None:
    _, request_id = await town.billed()
    client = town.stack.client
    gateway = replace(town.stack.gateway, runs=RunTable(client.feed))  # nothing has been read into it
    reader = Caller("vera", "key", (Grant(frozenset({Action.READ})),))
    view = await client.stored.request(request_id)
    shown = await input_shown(Sight(gateway, reader), view)
    assert shown.hides
    assert "Ada" in str(shown), "its function was found in what is stored"
    assert CARD not in str(shown)
    boss = replace(reader, grants=(Grant(frozenset({Action.OPERATE})),))
    assert CARD in str(await input_shown(Sight(gateway, boss), view))


async def test_when_the_function_is_gone_its_output_is_not_shown_as_an_event(town: Town) -> None:
    _, request_id = await town.billed("leaving.now")
    assert "Ada" in (await town.viewer.get(f"/ui/requests/{request_id}")).text
    (town.stack.catalog / "leaving" / "function.yaml").unlink()

    async def hidden() -> bool:
        return "Ada" not in (await town.viewer.get(f"/ui/requests/{request_id}")).text

    await eventually(hidden, within=90, what="a page without the payload")
    await town.hides(f"/ui/requests/{request_id}", CARD, "Ada")


async def test_who_operates_other_topics_is_no_operator_of_the_function(town: Town) -> None:
    """`mail.>` covers nothing that `bill` listens to: neither its source nor its pause is his, here or over the API."""
    postman, cashier = town.visitor("postman"), town.visitor("cashier")
    page = await postman.get("/ui/functions/bill")
    assert page.status == 200
    assert ENV not in page.text
    assert "/ui/functions/bill/pause" not in page.text
    whole = (await cashier.get("/ui/functions/bill")).text
    assert ENV in whole
    assert "/ui/functions/bill/pause" in whole
    for verb in ("pause", "resume"):
        asked = await postman.get(f"/ui/functions/bill/{verb}")
        refused = await postman.ask("POST", f"/ui/functions/bill/{verb}", f"once={new_key()}")
        assert (asked.status, refused.status) == (403, 403)
        assert "bill.*" in refused.text, "it says which topics are missing"
        assert (await cashier.get(f"/ui/functions/bill/{verb}")).status == 200
    async with session(town.url) as http:
        for name, status in (("postman", 403), ("viewer", 403), ("cashier", 200)):
            for verb in ("pause", "resume"):
                path, headers = f"/v1/functions/bill/{verb}", bearer(town.keys[name])
                async with http.post(path, headers=headers) as answer:
                    assert answer.status == status, (name, verb)
                    assert status == 200 or "operate bill.* bill" in (await answer.json())["hint"]
