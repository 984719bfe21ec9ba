"""The overview: what runs, the figures of the hour, why runs fail, what is broken; each caller's part of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from invoker import wire
from invoker.gateway.dashboard.overview_view import HEIGHT, nice_top, per_minute, place_of, rate_drawing
from invoker.gateway.dashboard.running_now import SHOWN, busiest, in_order
from invoker.gateway.run_figures import MinuteFigures
from invoker.result import State
from invoker.views import FunctionInfo, FunctionProblem, RunRow
from tests.conftest import eventually
from tests.custody.workload import function
from tests.dashboard.html_page import Element
from tests.dashboard.still_world import gateway_over, still_world
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.reading import events, finished, publish
from tests.gateway.stack import Stack, running_gateway, running_stack, session

NOW = datetime(2026, 3, 1, 12, 30, 20, tzinfo=UTC)


def hour(**last: int) -> tuple[MinuteFigures, ...]:
    """An hour in which something finished in its last minute only."""
    begin = NOW.replace(second=0)
    empty = [MinuteFigures(begin - timedelta(minutes=ago)) for ago in range(59, 0, -1)]
    return (*empty, MinuteFigures(begin, **last))


def test_the_rate_is_drawn_with_good_below_bad_below_cancelled() -> None:
    drawing = rate_drawing(hour(good=12, bad=6, cancelled=2))
    assert (drawing.top, len(drawing.bars)) == (20, 60)
    assert [len(bar.parts) for bar in drawing.bars[:59]] == [0] * 59
    parts = drawing.bars[-1].parts
    assert [part.kind for part in parts] == ["good", "bad", "cancelled"]
    assert [part.height for part in parts] == [60, 30, 10]
    assert parts[0].y + parts[0].height == HEIGHT
    assert [one.y for one in parts] == [40, 10, 0]
    assert drawing.bars[-1].words == "12:30: 12 succeeded, 6 failed, 2 cancelled"
    assert drawing.words == "Finished per minute in the last hour: 20 runs, 6 failed; at most 20 a minute"
    assert drawing.bars[-1].x + 10 == drawing.width


def test_one_among_many_is_still_seen() -> None:
    parts = rate_drawing(hour(good=100_000, bad=1)).bars[-1].parts
    assert parts[1].height == 1
    assert all(part.y >= 0 for part in parts)


def test_scales_end_with_round_numbers() -> None:
    assert [nice_top(n) for n in (0, 1, 2, 3, 6, 11, 21, 501)] == [1, 1, 2, 5, 10, 20, 50, 1000]


def test_the_rate_is_of_the_last_minutes() -> None:
    assert per_minute(hour(good=13), NOW) == 3.0
    assert per_minute(hour(good=1300), NOW) == 300
    assert per_minute(hour(), NOW) == 0


def test_a_mistake_is_named_once() -> None:
    def broken(message: str) -> FunctionInfo:
        return FunctionInfo(name="f", status="broken", problem=FunctionProblem(file="f.yaml", line=3, message=message))

    assert place_of(broken("no such key")) == "f.yaml:3"
    assert place_of(broken("f.yaml:3: no such key")) == ""
    assert place_of(FunctionInfo(name="f", file="g.yaml")) == "g.yaml"


def test_what_runs_comes_before_what_waits() -> None:
    def row(name: str, state: State, ago: int) -> RunRow:
        at = NOW - timedelta(seconds=ago)
        return RunRow(name, name, "f", "t", state, None, 0, at, None, None, "u1")

    rows = [row("q1", State.QUEUED, 1), row("r9", State.RUNNING, 9), row("s5", State.STARTING, 5)]
    rows += [row("r8", State.RUNNING, 8), row("q0", State.QUEUED, 0)]
    assert [one.run_id for one in in_order(rows)] == ["r8", "r9", "s5", "q0", "q1"]
    functions = tuple(FunctionInfo(name=f"f{n}", running=n) for n in range(4))
    assert [one.name for one in busiest(functions, 2)] == ["f3", "f2"]


def figure(page: Element, name: str) -> str:
    """A number at the top of the page."""
    pairs = page.one("dl", id="figures").all("div")
    return next(pair.one("dd").text for pair in pairs if pair.one("dt").text == name)


async def test_what_runs_what_failed_and_what_took_long(stack: Stack, visitor: Visitor) -> None:
    async with session(stack.url) as http:
        good = await finished(http, await publish(http, "echo.overview"))
        bad = await finished(http, await publish(http, "fail.overview"))
        waiting = await publish(http, "gate.overview")

        async def seen() -> bool:
            page = await visitor.page("/ui")
            rows = page.one("section", id="going").all("tr", text="gate")
            counted = int(figure(page, "Finished, last hour")) >= 2 and int(figure(page, "Failed, last hour")) >= 1
            return counted and any("running" in row.text for row in rows)

        await eventually(seen, what="the run that goes on, and the figures of those that have ended")
        page = await visitor.page("/ui")
        assert page.one("section", id="reasons").link("error") == "/ui/runs?reason=error&since=1h"
        slow = page.one("section", id="slowest")
        assert {"echo", "fail"} <= {one.text for one in slow.all("a")}
        rate = page.one("section", id="rate").one("svg", class_="rate-drawing")
        assert rate["aria-label"].startswith("Finished per minute in the last hour: ")
        assert len(rate.all("g")) == 60
        assert rate.all("rect", class_="bad")
        assert page.one("body")["data-stream"] == "/ui/live"
        assert (good["state"], bad["state"]) == ("finished", "finished")
        stack.open_gate(waiting)
        await finished(http, waiting)

        async def gone() -> bool:
            return not (await visitor.page("/ui")).one("section", id="going").all("tr", text="gate.overview")

        await eventually(gone, what="a page without the run that has ended")


async def test_a_run_that_waits_behind_many_others_is_not_hidden_by_them(tmp_path: Path) -> None:
    """Thirty newer ones wait: what runs was accepted before all of them."""
    wait = 'while [ ! -e "$GATES/$INVOKER_REQUEST_ID" ]; do sleep 0.02; done'
    env = [{"name": "GATES", "value": str(tmp_path / "gates")}]
    only = [function("gate", "gate.>", wait, env=env, concurrency=1)]
    async with running_stack(tmp_path, functions=only) as stack, visiting(stack.url) as visitor:
        async with session(stack.url) as http:
            first = await publish(http, "gate.first")
            await eventually(lambda: _running(stack, "gate"), what="a run that goes on")
            others = [await publish(http, "gate.later") for _ in range(30)]
        await eventually(lambda: _queued(stack, "gate", 30), what="thirty runs that wait")

        async def shown() -> bool:
            rows = (await visitor.page("/ui")).one("section", id="going").one("tbody").all("tr")
            return len(rows) == SHOWN and "gate.first" in rows[0].text

        await eventually(shown, what="the run that goes on, before as many of the others as there is room for")
        for one in (first, *others):
            stack.open_gate(one)


async def _running(stack: Stack, function: str) -> bool:
    await stack.gateway.catalog.refresh()
    found = stack.gateway.catalog.function(function)
    return found is not None and found.running > 0


async def _queued(stack: Stack, function: str, count: int) -> bool:
    await stack.gateway.catalog.refresh()
    found = stack.gateway.catalog.function(function)
    return found is not None and found.queued == count


async def test_progress_is_told_as_the_run_tells_it(tmp_path: Path) -> None:
    async with still_world(tmp_path) as (client, world):
        await world.accept("steps", "f", topic="steps.x")
        await world.running("steps", "f")
        status = await client.custody.results.status(wire.run_id_of("steps", "f"))
        assert status is not None
        told = status.model_copy(update={"percent": 42.4, "text": "<script>alert(1)</script>", "topic": "steps.x"})
        await world.news(told)
        async with gateway_over(client) as up, visiting(up.url) as visitor:
            seen = await visitor.get("/ui")
    assert "<script>alert" not in seen.text
    row = seen.page.one("section", id="going").one("tr", text="steps.x")
    assert row.one("progress")["value"] == "42.4"
    assert "42 %" in row.text
    assert "<script>alert(1)</script>" in row.text


async def test_broken_functions_and_dead_letters_are_named(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack, visiting(stack.url) as visitor, session(stack.url) as http:
        page = await visitor.page("/ui")
        assert "There are none." in page.one("section", id="broken").text
        assert "There are none." in page.one("section", id="dead").text
        async with events(http, "/ui/live") as stream:
            await stream.until("change")
            (stack.catalog / "broken.yaml").write_text(
                "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: odd}\nspec: {nonsense: 1}\n"
            )

            async def known() -> bool:
                await stack.gateway.catalog.refresh()
                return stack.gateway.catalog.function("odd") is not None

            await eventually(known, what="the broken function")
            page = await visitor.page("/ui")
            broken = page.one("section", id="broken")
            assert broken.has("span", class_="broken")
            assert broken.link("odd") == "/ui/functions/odd"
            assert "broken.yaml" in broken.text
            await stack.client.publish("nobody.wants", b"x")
            await eventually(lambda: _dead(visitor), what="the dead letter")
            await stream.until("change")
        dead = (await visitor.page("/ui")).one("section", id="dead")
        assert "1 kept" in dead.text
        assert "nobody.wants" in dead.text
        assert dead.link("no-subscription").startswith("/ui/dead-letters/")


async def _dead(visitor: Visitor) -> bool:
    return not (await visitor.page("/ui")).one("section", id="dead").has("p", class_="none")


async def test_that_no_controller_answers_is_said(tmp_path: Path, stack: Stack) -> None:
    async with running_gateway(stack.server.url, instance="other") as up, visiting(up.url) as visitor:
        seen = await visitor.get("/ui")
        assert seen.status in (200, 503)
        assert "controller" in seen.page.text


async def test_a_caller_is_told_of_his_part_only(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "narrow", "read mine.* mine-*")
    at = datetime.now(UTC) - timedelta(seconds=1)
    async with still_world(tmp_path) as (client, world):
        for number in range(3):
            await world.accept(f"m{number}", "mine-a", "theirs", topic="mine.x")
            for name in ("mine-a", "theirs"):
                await world.finish(f"m{number}", name, topic="mine.x", started_at=at)
        await world.accept("hidden", "theirs", topic="theirs.secret")
        await world.accept("open", "mine-b", topic="mine.y")
        keys: dict[str, Any] = {"gateway_keys": tmp_path / "keys.json", "gateway_anonymous": ()}
        async with gateway_over(client, **keys) as up, visiting(up.url, key) as visitor:
            seen = await visitor.get("/ui")
        async with gateway_over(client) as up, visiting(up.url) as visitor:
            whole = await visitor.page("/ui")
    assert seen.status == 200
    assert "theirs" not in seen.text
    assert figure(seen.page, "Finished, last hour") == "3"
    assert [one.text for one in seen.page.one("section", id="slowest").all("a")] == ["mine-a"]
    assert [one.text for one in seen.page.one("section", id="going").all("a", text="mine-")] == ["mine-b"]
    assert figure(whole, "Finished, last hour") == "6"
    assert [one.text for one in whole.one("section", id="slowest").all("a")] == ["mine-a", "theirs"]
