"""Functions and runs of every kind, for pages that show them: a shop's day, and somebody who tries to break in.

`catalog` are the functions, `live_through` the day; both work on an `invoker dev` and on a stack inside of the test.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invoker import wire
from invoker.client import Client
from invoker.result import State
from invoker.views import Receipt
from tests.conftest import eventually
from tests.custody.workload import function

FILE: dict[str, Any] = {"input": {"as": "file"}, "output": {"from": "stdout"}}
INPUT = 'cat "$INVOKER_INPUT_FILE"'
SECRET = "4000-1234-SECRET"
"""What stands in a field that is declared secret."""
PICTURE = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAIklEQVR4nGP4z8BAEiJN9aiGUQ1DSMN/EtFgS6DVMGg0AABkK/4B"
        "a6bZ4wAAAABJRU5ErkJggg=="
    )
).decode()
ORDER = {
    "type": "object",
    "title": "Order",
    "description": "What a customer wants",
    "required": ["customer", "amount"],
    "properties": {
        "customer": {"type": "string", "description": "Who ordered", "minLength": 1},
        "amount": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 1},
        "express": {"type": "boolean"},
        "paid_by": {"enum": ["card", "invoice"], "description": "How it is paid"},
        "card": {"type": "string", "writeOnly": True, "description": "The number of the card"},
        "items": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
    },
}
BILL = {"type": "object", "properties": {"customer": {"type": "string"}, "card": {"type": "string", "writeOnly": True}}}
CRASH = """
def total(lines):
    return sum(line["price"] * line["count"] for line in lines)


def handle(event, context):
    print("reading the invoice")
    return {"total": total(event["data"]["lines"])}
"""
FLAKY = """
def handle(event, context):
    if context.attempt == 1:
        raise ConnectionError("the warehouse does not answer")
    return {"reserved": True, "attempt": context.attempt}
"""
PAINT = f"""
import base64


def handle(event, context):
    context.content_type = "image/png"
    context.progress(50, "half of the picture")
    return base64.b64decode("{PICTURE}")
"""
TALK = 'for i in $(seq 2500); do echo "row $i is taken"; done >&2; echo done | tee /dev/stderr'
GATED = f'echo waiting >&2; while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do sleep 0.05; done; {INPUT}'
LIVE = {State.RUNNING, State.STARTING}


def attack(where: str) -> str:
    """A text that runs a script wherever it is taken for HTML, inside of an element or of an attribute."""
    return f"\"'><img src=x onerror=\"broken('{where}')\"><script>broken('{where}')</script>{{{{7*7}}}}"


HOSTILE_TOPIC = "evil.<img/src=x/onerror=broken('topic')//\"onfocus='broken(1)"
"""A legal topic: neither white space nor wildcards are in it."""
EVIL = f"""
class Hostile(Exception):
    pass


Hostile.__name__ = Hostile.__qualname__ = {attack("type")!r}


def handle(event, context):
    context.progress(10, {attack("progress")!r})
    print({attack("log")!r}, flush=True)
    if event["topic"] == "evil.page":
        context.content_type = "text/html"
        return {attack("output")!r}
    raise Hostile({attack("message")!r})
"""


def catalog(gates: Path) -> list[dict[str, Any]]:
    """The functions. `report` waits until a file named as its request is in `gates`."""
    python: dict[str, Any] = {"runtime": "python", "handler": "main.handle"}
    evil_parameter = {"description": attack("parameter"), "schema": {"type": "string"}, "default": attack("default")}
    documents = [
        function(
            "take-order", "orders.*", INPUT, input={"as": "file", "schema": ORDER},
            output={"from": "stdout", "schema": BILL}, description="Takes an order, and answers with the bill",
            parameters=[
                {"name": "level", "description": "How hard to try", "default": 6,
                 "schema": {"type": "integer", "minimum": 1, "maximum": 9}},
                {"name": "note", "schema": {"type": "string"}},
            ],
        ),
        function("add-up", "invoices.*", "", code=CRASH, input={"schema": {"type": "object"}}, **python),
        function("reserve", "stock.*", "", code=FLAKY, backoffLimit=2, **python),
        function("paint", "pictures.*", "", code=PAINT, description="Draws a thumbnail", **python),
        function("import-rows", "imports.*", TALK, output={"from": "stdout"}),
        function("report", "reports.*", GATED, env=[{"name": "GATES", "value": str(gates)}], **FILE),
        function("nightly", "nightly", INPUT, **FILE),
        function("collect", "feeds.*", INPUT, onSuccess={"publish": "collected.gz"}, **FILE),
        function("uncompress", "collected.*", INPUT, onSuccess={"publish": "uncompressed.csv"}, **FILE),
        function("convert", "uncompressed.*", f"printf 'converted '; {INPUT}", **FILE),
        function(
            "evil", "evil.>", "", code=EVIL, description=attack("description"),
            input={"schema": {
                "title": attack("title"), "description": attack("schema"),
                "properties": {attack("property"): {"type": "string", "description": attack("field")},
                               "choice": {"enum": [attack("choice")]}},
            }},
            parameters=[{"name": "trick"} | evil_parameter],
            **python,
        ),
    ]  # fmt: skip
    for document in documents:
        if "runtime" in document["spec"]:
            del document["spec"]["command"]
    documents[0]["metadata"]["labels"] = {"team": "sales"}
    return documents


@dataclass(frozen=True)
class Day:
    """What happened: request ids by a word for each. A run's id is `run(word, function)`."""

    requests: dict[str, str]
    dead: str
    hostile_dead: str

    def run(self, word: str, function: str) -> str:
        return wire.run_id_of(self.requests[word], function)


async def live_through(client: Client, *, calm: bool = False) -> Day:
    """Everything that there is a page for; when this returns it has happened, save what still runs or waits. On a
    `calm` day nobody tries to break in, and there is more to do."""
    order = {"customer": "Ada", "amount": 2, "card": SECRET, "items": [{"sku": "a-1"}, {"sku": "b-2"}]}
    sent = {
        "order": await client.publish("orders.new", order, params={"level": 3}, headers={"X-Shop": "Berlin"}),
        "bad": await client.publish("orders.new", {"amount": 0}),
        "crash": await client.publish("invoices.march", {"lines": [{"price": 3}]}),
        "flaky": await client.publish("stock.reserve", {"sku": "a-1"}),
        "picture": await client.publish("pictures.small", b"draw"),
        "talk": await client.publish("imports.big", b""),
        "chain": await client.publish("feeds.daily", "a,b\n1,2\n", content_type="text/csv"),
        "unmatched": await client.publish("order.new", {"customer": "Bob"}),
        "bytes": await client.publish("reports.gone", bytes(range(256)) * 4, content_type="application/octet-stream"),
        "running": await client.publish("reports.daily", {"day": "2026-03-01"}),
        "cancelled": await client.publish("reports.cancelled", b"x"),
    }  # fmt: skip
    sent |= await (_more_orders(client) if calm else _attacks(client))
    await client.pause("nightly")
    sent["queued"] = await client.publish("nightly", {"night": 1})
    requests = {word: one.request_id for word, one in sent.items()}
    for word in ("bytes", "running", "cancelled"):
        await has_state(client, requests[word], LIVE)
    await client.cancel(requests["cancelled"])
    await client.cancel(requests["bytes"], message="not needed any more" if calm else attack("cancel"))
    await has_state(client, requests["queued"], {State.QUEUED})
    for word in sorted(set(requests) - {"running", "queued"}):
        await client.result(requests[word], wait=60)
    await client.chain(requests["chain"], wait=60)
    dead = await client.publish("orders.far", {"customer": "Eve"}, headers={wire.H_HOPS: "40"})
    odd = await client.publish(HOSTILE_TOPIC, attack("dead"), headers={"X-Trick": attack("header"), wire.H_HOPS: "40"})
    letters = [await dead_letter_of(client, one.request_id) for one in (dead, odd)]
    return Day(requests, *letters)


async def _attacks(client: Client) -> dict[str, Receipt]:
    hostile = {"X-Trick": attack("header"), "X-'Odd'&Name": "name"}
    return {
        "evil": await client.publish(
            HOSTILE_TOPIC, {"trick": attack("payload")}, headers=hostile, params={"trick": attack("value")},
            request_id=attack("id"),
        ),
        "evil-output": await client.publish("evil.page", attack("input")),
        "evil-unmatched": await client.publish(HOSTILE_TOPIC.replace("evil", "ill"), attack("unmatched")),
    }  # fmt: skip


async def _more_orders(client: Client) -> dict[str, Receipt]:
    """A busy morning, most of it good."""
    sent = {}
    for number in range(60):
        order = {"customer": ("Ada", "Grace", "Mary", "Joan")[number % 4], "amount": number % 23}
        sent[f"order-{number}"] = await client.publish("orders.shop", order)
        if number % 6 == 0:
            sent[f"stock-{number}"] = await client.publish("stock.reserve", {"sku": f"a-{number}"})
    return sent


async def has_state(client: Client, request_id: str, states: set[State]) -> None:
    """When this returns the only run of the request is in one of the states."""

    async def there() -> bool:
        runs = (await client.result(request_id)).runs
        return bool(runs) and runs[0].state in states

    await eventually(there, within=90, what=f"{sorted(states)} of {request_id}")


async def dead_letter_of(client: Client, request_id: str) -> str:
    """The id of the dead letter that the request has become."""

    async def there() -> str | None:
        found = [one.id for one in await client.dead(20) if one.request_id == request_id]
        return found[0] if found else None

    return await eventually(there, within=90, what=f"a dead letter of {request_id}")
