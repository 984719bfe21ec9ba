"""What the pages about running it tell people to type, and the files that they show."""

from __future__ import annotations

import asyncio
import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from invoker.cli.tree import app
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.errors import UnknownIdError
from invoker.nats_server import nats_server
from invoker.settings import connection_options
from invoker.streams import StreamLimits, stream_configs
from invoker.wire import Names
from tests.controllers import fast_settings
from tests.custody.test_backup import ORDER
from tests.custody.workload import function, write_catalog
from tests.docs.transcript import ROOT
from trigger.app import run_controller
from trigger.function_code import FunctionFolder
from trigger.function_file import read_functions

DOCS = ROOT / "docs"
PAGES = ["operations.md", "runbooks.md", "security.md", "metrics.md"]
OPERATIONS = (DOCS / "operations.md").read_text()


def typed_commands() -> list[tuple[str, str]]:
    """Every command of ours that a page names between backticks or in a block, with the page."""
    found = []
    for page in PAGES:
        text = (DOCS / page).read_text()
        inline = re.findall(r"`(invoker [^`\n]+)`", text)
        blocks = "\n".join(re.findall(r"```(?:console|sh)?\n(.*?)```", text, re.DOTALL))
        shown = re.findall(r"(?:^|  |\$ )(invoker [a-z][^\n]*?)(?=  |$| &&)", blocks, re.MULTILINE)
        found += [(page, command) for command in [*inline, *shown]]
    return found


@pytest.mark.parametrize(("page", "command"), typed_commands())
def test_a_command_is_one_and_has_the_options(page: str, command: str) -> None:
    words = shlex.split(command, comments=True)[1:]
    current: Any = typer.main.get_command(app)
    while words and hasattr(current, "commands"):
        assert words[0] in current.commands, f"{page}: {command}"
        current = current.commands[words.pop(0)]
    assert not hasattr(current, "commands"), f"{page}: {command} is only a group"
    known = {name for parameter in current.params for name in [*parameter.opts, *parameter.secondary_opts]}
    known |= {"--server", "--creds", "--context", "--gateway"}
    assert {word for word in words if word.startswith("-")} <= known, f"{page}: {command}"


def test_the_pages_name_many_commands() -> None:
    assert len(typed_commands()) > 30


def test_the_streams_that_are_saved_and_removed_are_all_there_are() -> None:
    names = {config.name or "" for config in stream_configs(Names(), StreamLimits())}
    backup = re.findall(r"for stream in ([A-Z_ ]+); do\n +nats stream backup", OPERATIONS)[0].split()
    assert backup == list(ORDER), "in the order that the test of the backup proves"
    assert names - set(backup) == {"INVOKER_STATUS"}
    removed = re.findall(r"for stream in ([A-Z ]+); do nats stream rm \"INVOKER_", OPERATIONS)[0].split()
    assert {f"INVOKER_{name}" for name in removed} | {"OBJ_INVOKER_PAYLOADS"} == names


def test_the_queue_of_the_page_is_one_that_a_function_may_name() -> None:
    named = re.findall(r"`spec: (\{pod: .*?\})`", OPERATIONS)[0]
    spec = yaml.safe_load(named) | {"subscriptions": [{"topic": "a"}], "image": "img", "command": ["true"]}
    document = {"apiVersion": "invoker.dev/v1alpha1", "kind": "Function", "metadata": {"name": "one"}, "spec": spec}
    found = read_functions(yaml.safe_dump(document).encode(), "function.yaml", FunctionFolder(ROOT))
    assert not found.broken
    objects = list(yaml.safe_load_all(OPERATIONS.split("```yaml\n")[1].split("```")[0]))
    assert [one["kind"] for one in objects] == ["ClusterQueue", "LocalQueue"]
    assert objects[1]["metadata"]["name"] == spec["pod"]["queue"]


async def test_a_server_takes_the_setting_of_the_durable_profile(tmp_path: Path) -> None:
    setting = re.findall(r"`(sync_interval: \w+)` in each server's `jetstream` block", OPERATIONS)[0]
    config = f'jetstream {{ store_dir: "{tmp_path / "store"}", {setting} }}'
    log = tmp_path / "log"
    async with (
        nats_server(tmp_path, jetstream=False, extra_config=config, log_file=log) as server,
        Client.connect(ConnectionOptions(url=server.url)),
    ):
        pass
    assert "JetStream" in log.read_text()


@asynccontextmanager
async def tenant(options: ConnectionOptions, folder: Path, name: str) -> AsyncIterator[None]:
    """A controller of a tenant, under the usual names of streams and subjects."""
    echo = function("who", "who", f"printf {name}", output={"from": "stdout"})
    settings = fast_settings(write_catalog(folder / "catalog", echo), folder / "state")
    stopping, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(run_controller(settings, options, ready=lambda running: ready.set(), stopping=stopping))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if task.done():
        task.result()
    try:
        yield
    finally:
        stopping.set()
        await asyncio.wait_for(task, 60)


@pytest.mark.integration
async def test_the_accounts_of_two_tenants_keep_them_apart(tmp_path: Path) -> None:
    """The page's own file, on a real server: equal names of everything, and nobody hears of the other."""
    shown = re.findall(r" *```conf\n(.*?)```", OPERATIONS, re.DOTALL)[0]
    permissions = (ROOT / "deploy" / "nats" / "permissions.conf").read_text()
    users = re.findall(r"user: ([a-z-]+)", shown)
    passwords = "".join(f'{user.upper().replace("-", "_")}_PASSWORD: "{user} secret"\n' for user in users)
    config = passwords + shown.replace("include permissions.conf", permissions)

    def options(user: str, role: str) -> ConnectionOptions:
        own = {"URL": server.url, "USER": user, "PASSWORD": f"{user} secret", "INBOX_PREFIX": f"_INBOX.{role}"}
        return connection_options(environ={f"INVOKER_NATS_{name}": value for name, value in own.items()})

    async with (
        nats_server(tmp_path / "store", extra_config=config) as server,
        tenant(options("sales-controller", "controller"), tmp_path / "sales", "sales"),
        tenant(options("billing-controller", "controller"), tmp_path / "billing", "billing"),
        Client.connect(options("sales-gateway", "gateway")) as sales,
        Client.connect(options("billing-gateway", "gateway")) as billing,
    ):
        for client, name in ((sales, b"sales"), (billing, b"billing")):
            replies = await client.request("who", b"", timeout=60)
            assert [await reply.read() for reply in replies] == [name]
        asked = (await sales.request("who", b"", timeout=60))[0].request_id
        assert (await sales.result(asked)).request_id == asked
        with pytest.raises(UnknownIdError):
            await billing.result(asked)
