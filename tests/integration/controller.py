"""A controller in the test's own event loop, with functions written by the test, on the test's nats-server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from invoker.connection import ConnectionOptions
from trigger.app import Running, run_controller
from trigger.settings import load_settings


def write_functions(catalog: Path, functions: Mapping[str, str]) -> None:
    """One folder per function; the text is the `spec:` part, indented or not, of its function.yaml."""
    for name, spec in functions.items():
        folder = catalog / name
        folder.mkdir(parents=True, exist_ok=True)
        indented = "\n".join(f"  {line}" for line in spec.strip("\n").splitlines())
        head = f"apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec:\n"
        (folder / "function.yaml").write_text(head + indented + "\n")


@asynccontextmanager
async def controller(nats_url: str, catalog: Path, state: Path, **given: Any) -> AsyncIterator[Running]:
    """A controller that is ready when this is entered, and stopped in order when it is left."""
    settings = load_settings(
        {}, **{"catalog": catalog, "state_dir": state, "http_port": 0, "audit_seconds": 0.5} | given
    )
    up: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
    stopping = asyncio.Event()
    task = asyncio.create_task(
        run_controller(settings, ConnectionOptions(url=nats_url), ready=up.set_result, stopping=stopping)
    )
    await asyncio.wait([up, task], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield up.result()
    finally:
        stopping.set()
        await task
