"""An installation whose functions end in every way a run's page tells apart, and who may see how much of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from invoker import wire
from invoker.result import State
from tests.conftest import eventually
from tests.custody.workload import CALL, function
from tests.dashboard.html_page import Element
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key, guarded_gateway
from tests.gateway.stack import Stack, running_stack

INPUT = 'cat "$INVOKER_INPUT_FILE"'
FILE: dict[str, Any] = {"input": {"as": "file"}, "output": {"from": "stdout"}}
WAIT = 'while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do sleep 0.02; done'
# Statuses are lossy, so progress is told again and again: the controller's own news may come right behind the first.
STEPS = f"""{CALL}
echo 'begun <b>here</b>'
echo 'warning: slow today' >&2
while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do
  call POST progress '{{"percent": 40, "text": "reading <i>rows</i>"}}'; sleep 0.1
done
echo 'an ERROR in the last line'
"""
TWICE = """
if [ ! -e "$GATES/again-$INVOKER_REQUEST_ID" ]; then
  touch "$GATES/again-$INVOKER_REQUEST_ID"; echo 'not yet' >&2; exit 5
fi
echo fine
"""
CRASH = """
def handle(event, context):
    return event["data"]["lines"][0]["price"]
"""
ACCOUNT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "password": {"type": "string", "format": "password", "minLength": 12},
        "cards": {"type": "array", "items": {"$ref": "#/$defs/card"}},
    },
    "$defs": {"card": {"type": "object", "properties": {"number": {"type": "string", "x-secret": True}}}},
}
PASSWORD, CARD, PIN = "correct-horse-battery", "4000-1234", "pin-9876"
LARGE_BYTES = 600_000


def catalog(gates: Path) -> list[dict[str, Any]]:
    env = {"env": [{"name": "GATES", "value": str(gates)}]}
    documents = [
        function("echo", "echo.>", INPUT, **FILE),
        function("steps", "steps.*", STEPS, **env),
        function("twice", "twice.*", TWICE, backoffLimit=1, **env),
        function("crash", "crash.*", "", code=CRASH, runtime="python", handler="main.handle",
                 input={"schema": {"type": "object"}}),
        function("large", "large.*", f"head -c {LARGE_BYTES} /dev/zero", output={"from": "stdout"}),
        function("chatter", "chatter.*", "for i in $(seq 2100); do echo $i; done"),
        function("single", "single.*", WAIT, concurrency=1, **env),
        function("paused", "paused.*", INPUT, **FILE),
        function("first", "chain.begin", INPUT, onSuccess={"publish": "chain.end"}, **FILE),
        function("gated", "gated.begin", f"{WAIT}; echo on", output={"from": "stdout"},
                 onSuccess={"publish": "chain.end"}, **env),
        function("second", "chain.end", INPUT, **FILE),
        function(
            "account", "accounts.*", INPUT, input={"as": "file", "schema": ACCOUNT},
            output={"from": "stdout", "schema": ACCOUNT},
            parameters=[{"name": "pin", "schema": {"type": "string", "writeOnly": True}}],
        ),
        function("audit", "accounts.*", "true"),
    ]  # fmt: skip
    for document in documents:
        if "runtime" in document["spec"]:
            del document["spec"]["command"]
    return documents


@dataclass(frozen=True)
class World:
    """The installation, and its readers: one for whom nothing is refused, one who may only read, one who may operate
    and publish, one who may operate `audit` alone, one who may operate and not publish, and one who sees nothing."""

    stack: Stack
    anyone: Visitor
    viewer: Visitor
    operator: Visitor
    auditor: Visitor
    keeper: Visitor
    stranger: Visitor

    async def run(self, topic: str, data: Any = b"x", *, function: str | None = None, **more: Any) -> str:
        """The id of a run that has finished."""
        run_id = await self.begun(topic, data, function=function, **more)
        await self.finished(run_id)
        return run_id

    async def begun(self, topic: str, data: Any = b"x", *, function: str | None = None, **more: Any) -> str:
        """The id of a run that has been accepted, and is found by that id."""
        receipt = await self.stack.client.publish(topic, data, **more)

        async def accepted() -> Any:
            return (await self.stack.client.result(receipt.request_id)).runs

        runs = await eventually(accepted, within=90, what=f"runs of {topic}")
        run_id = next(str(run.run_id) for run in runs if function in (None, run.function))

        async def found() -> bool:
            # The request's record names its runs; what is found by a run's id comes behind it.
            return await self.stack.client.stored.run_of_id(run_id) is not None

        await eventually(found, within=90, what=f"the run {run_id}")
        return run_id

    async def finished(self, run_id: str) -> None:
        async def done() -> bool:
            return (await self.stack.client.run(run_id)).finished

        await eventually(done, within=90, what=f"the end of {run_id}")

    async def has_state(self, run_id: str, state: State) -> None:
        async def there() -> bool:
            return (await self.stack.client.run(run_id)).state is state

        await eventually(there, within=90, what=f"{state} of {run_id}")

    async def request_of(self, run_id: str) -> str:
        return (await self.stack.client.run(run_id)).request_id

    async def page(self, run_id: str) -> Element:
        """The run's page, as nobody is kept from anything."""
        return await self.anyone.page(f"/ui/runs/{run_id}")

    async def open_gate(self, run_id: str) -> None:
        """Let the run end."""
        self.stack.open_gate(await self.request_of(run_id))


@asynccontextmanager
async def run_world(folder: Path) -> AsyncIterator[World]:
    """The installation below that folder, as long as this is entered."""
    file = folder / "keys.json"
    shown = {
        "viewer": add_key(file, "vera", "read"),
        "operator": add_key(file, "olga", "operate", "publish"),
        "auditor": add_key(file, "alf", "read", "publish", "operate > audit"),
        "keeper": add_key(file, "kim", "operate"),
        "stranger": add_key(file, "stan", "read elsewhere.>"),
    }
    async with AsyncExitStack() as opened:
        stack = await opened.enter_async_context(running_stack(folder, functions=catalog(folder / "gates")))
        await stack.client.pause("paused")
        await stack.knows("paused")
        guarded = await opened.enter_async_context(guarded_gateway(stack.server.url, gateway_keys=file))
        await eventually(lambda: _known(guarded.gateway), what="the guarded gateway's catalog")
        visitors = {name: await opened.enter_async_context(visiting(guarded.url, key)) for name, key in shown.items()}
        yield World(stack, await opened.enter_async_context(visiting(stack.url)), **visitors)


async def _known(gateway: Any) -> bool:
    await gateway.catalog.refresh()
    return gateway.catalog.function("account") is not None


def chained(run_id: str, kind: str) -> str:
    """The id of the request that the run's end published."""
    return wire.chained_id(run_id, kind)
