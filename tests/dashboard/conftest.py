"""What the dashboard's tests stand on: one running installation for each test module, its pages over HTTP, a browser.

All tests of this folder run in the event loop of their module, as the installation and the browser's driver do.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.dashboard.browser import Window, open_window, running_chromium
from tests.dashboard.routes import covered_by, is_asked
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.stack import Stack, running_stack

HERE = Path(__file__).parent
OpenWindow = Callable[..., Awaitable[Window]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.integration)
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """nats-server, controller with the local engine and the standard catalog, and a gateway that allows everything."""
    async with running_stack(tmp_path_factory.mktemp("stack")) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def visitor(stack: Stack) -> AsyncIterator[Visitor]:
    """The pages of the module's gateway over HTTP, for somebody who may do everything."""
    async with visiting(stack.url) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """The system's browser."""
    async with running_chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def open_page(chromium: Browser, request: pytest.FixtureRequest) -> AsyncIterator[OpenWindow]:
    """Opens windows that notice whatever goes wrong in them: `await open_page(url, "/ui/runs", viewport=PHONE)`.

    A test that says that it drives routes fails when none of its windows asked for one of them.
    """
    windows: list[Window] = []
    async with AsyncExitStack() as opened:

        async def opening(url: str, address: str | None = None, **options: Any) -> Window:
            window = await opened.enter_async_context(open_window(chromium, url, **options))
            windows.append(window)
            if address is not None:
                await window.open(address)
            return window

        yield opening
    asked = [one for window in windows for one in window.asked]
    missing = [route for route in sorted(covered_by(request.function)) if not is_asked(route, asked)]
    assert not missing, f"said to be driven, and was not: {missing}"
