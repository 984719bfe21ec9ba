"""The log on a run's page: while it runs and after, by attempt, cut, as a file, and as it comes."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.conftest import eventually
from tests.dashboard.conftest import OpenWindow
from tests.dashboard.html_page import Element
from tests.dashboard.routes import covers
from tests.dashboard.run_world import World, run_world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    async with run_world(tmp_path_factory.mktemp("logs")) as running:
        yield running


async def log_with(world: World, run_id: str, *words: str) -> Element:
    """The log on the page, once it has all of these words."""

    async def there() -> Any:
        log = (await world.page(run_id)).one("section", id="run-log")
        return log if all(one in log.text for one in words) else None

    return await eventually(there, within=90, what=f"{words!r} in the log of {run_id}")


async def frames(world: World, run_id: str) -> AsyncIterator[tuple[str, Any]]:
    """Events of the stream of lines."""
    async with world.anyone.http.get(f"/ui/runs/{run_id}/log/live") as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        name = ""
        async for raw in answer.content:
            line = raw.decode().rstrip("\n")
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield name, json.loads(line.removeprefix("data: "))


async def test_while_it_runs_its_lines_have_attempt_and_stream(world: World) -> None:
    run_id = await world.begun("steps.log")
    log = await log_with(world, run_id, "begun", "slow today")
    assert log["data-log-stream"] == f"/ui/runs/{run_id}/log/live"
    assert [one.text for one in log.all("h3")] == ["Attempt 1"]
    lines = {one.raw_text: one.classes for one in log.all("div", class_="line")}
    assert lines == {"begun <b>here</b>": {"line"}, "stderrwarning: slow today": {"line", "warn", "err"}}
    assert "2 lines, 1 likely warning" in log.text
    await world.open_gate(run_id)
    await world.finished(run_id)


async def test_the_stream_gives_every_line_from_the_first_to_the_end(world: World) -> None:
    run_id = await world.begun("steps.stream")
    told: list[tuple[str, Any]] = []
    async for event, document in frames(world, run_id):
        told.append((event, document.get("text")))
        if len(told) == 2:
            await world.open_gate(run_id)
    # What was written to two streams at one moment may come either way.
    assert sorted(told[:2]) == [("line", "begun <b>here</b>"), ("line", "warning: slow today")]
    assert told[2:] == [("line", "an ERROR in the last line"), ("end", None)]


async def test_afterwards_the_end_of_it_is_there_and_all_of_it_as_a_file(world: World) -> None:
    run_id = await world.begun("steps.after")
    await log_with(world, run_id, "begun", "slow today")
    await world.open_gate(run_id)
    await world.finished(run_id)
    log = await log_with(world, run_id, "an ERROR in the last line")
    assert log.has("div", class_="bad")
    assert "1 likely error, 1 likely warning" in log.text
    seen = await world.anyone.get(log.link("Download"))
    assert set(seen.text.splitlines()) == {
        "begun <b>here</b>", "warning: slow today", "an ERROR in the last line"
    }  # fmt: skip
    assert seen.headers["Content-Disposition"].startswith("attachment")
    assert seen.headers["Content-Type"].startswith("text/plain")


async def test_of_many_lines_the_page_has_the_last_ones(world: World) -> None:
    run_id = await world.run("chatter.now")
    log = await log_with(world, run_id, "2,100 lines")
    lines = [one.raw_text for one in log.all("div", class_="line")]
    assert (len(lines), lines[0], lines[-1]) == (2000, "101", "2100")
    assert "100 earlier lines are only in the download." in log.text
    seen = await world.anyone.get(f"/ui/runs/{run_id}/log")
    assert len(seen.text.splitlines()) == 2100


async def test_a_run_that_wrote_nothing_says_so(world: World) -> None:
    run_id = await world.run("echo.quiet", b"x")
    await log_with(world, run_id, "It has written nothing.")
    assert (await world.anyone.get(f"/ui/runs/{run_id}/log")).body == b""


@covers("GET /ui/runs/{run_id}", "GET /ui/runs/{run_id}/log/live")
async def test_a_browser_follows_the_log_and_the_run_to_its_end(world: World, open_page: OpenWindow) -> None:
    run_id = await world.begun("steps.browser")
    window = await open_page(world.stack.url, f"/ui/runs/{run_id}")
    lines = window.page.locator("#run-log .line")
    for words in ("begun <b>here</b>", "stderrwarning: slow today"):  # of two streams, so they may come either way
        await expect(lines.filter(has_text=re.compile(f"^{re.escape(words)}$"))).to_have_count(1)
    await expect(lines).to_have_count(2)
    await expect(window.page.locator("#run-log h3")).to_have_text("Attempt 1")
    await expect(window.page.locator("#run-head progress")).to_have_attribute("value", "40.0")
    await world.open_gate(run_id)
    await expect(lines).to_have_count(3)
    await expect(window.page.locator("#run-head h1")).to_contain_text("succeeded")
    await expect(window.page.locator("[data-log-count]")).to_have_text("3 lines, 1 likely error, 1 likely warning")
    await window.page.get_by_label("Only lines with").fill("ERROR")
    await expect(window.page.locator("#run-log .line:visible")).to_have_count(1)
    await expect(window.page.locator("[data-log-count]")).to_contain_text("1 of 3 lines")
    await window.page.get_by_role("button", name="To the end").click()
    await expect(window.page.get_by_role("link", name="Replay…")).to_be_visible()


@covers("GET /ui/runs/{run_id}")
async def test_a_browser_sees_the_next_stage_come(world: World, open_page: OpenWindow) -> None:
    run_id = await world.begun("gated.begin")
    window = await open_page(world.stack.url, f"/ui/runs/{run_id}")
    await expect(window.page.locator("#run-head h1")).to_contain_text("running")
    await world.open_gate(run_id)
    await expect(window.page.locator(".children li")).to_contain_text("finished")
    await expect(window.page.locator(".children li")).to_contain_text("second")
