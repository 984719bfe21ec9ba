"""The examples of docs/client.md and docs/plain-nats.md, run against a real controller with the functions they show.

A comment behind or below a `print` is what it must print: `print(1 + 1)  # 2`.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from invoker import Client, HttpClient
from invoker.nats_server import NatsServer
from tests.gateway.stack import running_gateway
from tests.integration.controller import controller

pytestmark = pytest.mark.integration
DOCS = Path(__file__).parents[2] / "docs"
SHOWN_URL = "nats://127.0.0.1:4222"
SHOWN_GATEWAY = "http://127.0.0.1:8080"
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[tuple[int, str]]:
    """The blocks of a page in a language, each with the line it begins at."""
    text = (DOCS / page).read_text()
    return [(text[: m.start(2)].count("\n") + 1, m[2]) for m in FENCE.finditer(text) if m[1] == language]


def examples(page: str) -> list[Any]:
    return [pytest.param(source, id=f"{page}:{line}") for line, source in blocks(page, "python")]


def promised(source: str) -> list[str]:
    """What the comments at prints say: behind one, and in the lines right below it that hold nothing else."""
    lines: list[str] = []
    at_print = False
    for line in map(str.strip, source.splitlines()):
        if line.startswith("# ") and at_print:
            lines.append(line.removeprefix("# "))
            continue
        at_print = "print(" in line
        if at_print and "  # " in line:
            lines.append(line.partition("  # ")[2])
    return lines


@pytest.fixture
async def url(server: NatsServer, tmp_path: Path) -> AsyncIterator[str]:
    catalog = tmp_path / "functions"
    for _, source in blocks("client.md", "yaml"):
        folder = catalog / yaml.safe_load(source)["metadata"]["name"]
        folder.mkdir(parents=True)
        (folder / "function.yaml").write_text(source)
    async with controller(server.url, catalog, tmp_path / "state"):
        yield server.url


async def run(source: str, **given: Any) -> list[str]:
    """Run a block, in which `await` stands at the top; the lines it printed."""
    printed: list[str] = []
    scope = given | {"print": lambda *values: printed.append(" ".join(map(str, values)))}
    code = compile(source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(code, scope)
    if inspect.iscoroutine(made):
        await asyncio.wait_for(made, 60)
    return printed


@pytest.mark.parametrize("source", examples("client.md"))
async def test_the_client_page(source: str, url: str) -> None:
    if "asyncio.run(" in source:
        assert sorted(await program(source, url)) == ['measure {"bytes":5}', "shout HELLO!"]
        return
    if SHOWN_GATEWAY in source:
        async with running_gateway(url) as gateway:
            assert await run(source.replace(SHOWN_GATEWAY, gateway.url)) == promised(source)
        return
    async with Client.connect(url) as client:
        assert await run(source, client=client) == promised(source)


@pytest.mark.parametrize("source", examples("plain-nats.md"))
async def test_the_plain_nats_page(source: str, url: str) -> None:
    assert "invoker import" not in source
    assert SHOWN_URL in source
    assert await run(source.replace(SHOWN_URL, url)) == promised(source)


async def program(source: str, url: str) -> list[str]:
    """Run a whole program as a user does, with the address in the environment; the lines it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", source, env={"NATS_URL": url, "PATH": "/usr/bin:/bin"}, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0
    return output.decode().splitlines()


def test_every_example_promises_something() -> None:
    for page in ("client.md", "plain-nats.md"):
        for line, source in blocks(page, "python"):
            assert promised(source) or "asyncio.run(" in source, f"{page}:{line} shows nothing that could be wrong"


def test_promises_are_read_out_of_comments() -> None:
    source = """
    print(1)  # one
    for _ in range(2):
        print(2)
        # two
        # three
    x = 1  # not printed
    # nor this
    """
    assert promised(textwrap.dedent(source)) == ["one", "two", "three"]


def test_every_method_of_the_client_is_on_its_page() -> None:
    page = (DOCS / "client.md").read_text()
    public = [name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")]
    over_http = [name for name, _ in inspect.getmembers(HttpClient, inspect.isfunction) if not name.startswith("_")]
    ours_alone = {"allow_events_of", "read_results_from", "source"}  # for who serves others
    assert set(over_http) == set(public) - ours_alone
    for name in public:
        assert re.search(rf"\b{name}\(|`{name}`", page), f"Client.{name} is not on docs/client.md"
