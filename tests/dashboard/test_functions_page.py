"""Pages of functions: what they show and to whom, pause, resume and reload; and the places of their drawing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from invoker.errors import UnknownIdError
from invoker.gateway.dashboard import function_view as view
from invoker.gateway.dashboard.histogram import HEIGHT, WIDTH, histogram
from invoker.gateway.run_figures import duration_figures
from invoker.nats_server import nats_server
from invoker.views import CatalogInfo, FunctionInfo, SettingInfo, SubscriptionInfo
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.workload import function, write_catalog
from tests.dashboard.html_page import Element
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.stack import FILE, INPUT, Stack, running_gateway, running_stack

HOSTILE = '<img src=x onerror="alert(1)">'
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "pin": {"type": "string", "writeOnly": True, "default": "pin-4711"}},
}
TWO = """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: with-code}
spec:
  runtime: python  # a comment for colleagues
  handler: main.handle
  env: [{name: TOKEN, value: hunter2}]
  subscriptions: [{topic: code.*, filter: {prefix: {type: order}}}]
"""


def documents() -> list[dict[str, Any]]:
    described = function("described", "described.*", INPUT, description=HOSTILE, input={"as": "file", "schema": SCHEMA},
                         output={"from": "stdout"}, onSuccess={"publish": "echo.next"}, concurrency=3,
                         parameters=[{"name": "level", "schema": {"type": "integer"}, "default": 6}])  # fmt: skip
    described["metadata"]["labels"] = {"team": "sales"}
    return [described, function("echo", "echo.>", INPUT, **FILE), function("fail", "fail.*", "exit 3")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path_factory.mktemp("stack"), functions=documents()) as running:
        folder = running.catalog / "with-code"
        folder.mkdir()
        (folder / "function.yaml").write_text(TWO)
        (folder / "main.py").write_text("def handle(event, context):\n    return 'its own code'\n")
        await running.client.reload()
        await running.knows("with-code")
        yield running


def names(page: Element) -> list[str]:
    """The functions of the list, in its order."""
    return [words for words, address in page.one(id="functions").links if address.startswith("/ui/functions/")]


async def test_the_list_has_every_function_and_its_figures(stack: Stack, visitor: Visitor) -> None:
    await stack.client.request("fail.now", b"", timeout=60)

    async def counted() -> bool:
        return any(row[0] == "fail" and row[5:7] == ["1", "1"] for row in (await visitor.page("/ui/functions")).rows)

    await eventually(counted, what="the run in the figures of its function")
    page = await visitor.page("/ui/functions")
    assert names(page) == ["described", "echo", "fail", "with-code"]
    assert page.rows[1][1] == "ready"
    assert page.link("described") == "/ui/functions/described"
    assert HOSTILE in page.rows[0][0]
    assert not page.has("img", src="x")


async def test_the_list_is_narrowed_by_text_and_label(visitor: Visitor) -> None:
    form = (await visitor.page("/ui/functions")).form("Filter")
    assert names((await visitor.send(form, text="FAIL")).page) == ["fail"]
    assert names((await visitor.send(form, label="team=sales")).page) == ["described"]
    assert (await visitor.send(form, label="team=none")).page.rows == [["No function fits the filter."]]
    assert (await visitor.page("/ui/functions?label=team")).form("Filter").value("label") == "team"


async def test_refused_files_stand_first_with_their_problem(stack: Stack, visitor: Visitor) -> None:
    bad, echo = stack.catalog / "bad.yaml", stack.catalog / "echo" / "function.yaml"
    good = echo.read_text()
    try:
        bad.write_text("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: bad}\nspec: {topic: x}\n")
        echo.write_text("kind: [")
        await stack.client.reload()
        await stack.gateway.catalog.refresh()
        page = await visitor.page("/ui/functions")
        assert [row[0] for row in page.rows[:2]] == ["bad", "echo"]
        assert page.rows[0][-1] == "–"
        assert page.rows[0][1].startswith("broken bad.yaml:4: spec")
        assert page.rows[1][1].startswith("kept echo/function.yaml:")
        page = await visitor.page("/ui/functions/bad")
        assert "spec.topic" in page.one("p", class_="bad").text
        assert not page.has("a", text="Publish")
        assert page.text.count("Not known, as its file is refused.") == 2, "nobody says that it has no subscriptions"
        page = await visitor.page("/ui/functions/echo")
        assert "last good version" in page.text
        assert '"name": "echo"' in page.one("pre", aria_label="Source of echo").raw_text
    finally:
        bad.unlink()
        echo.write_text(good)
        await stack.client.reload()
        await stack.gateway.catalog.refresh()


async def test_one_function_shows_what_holds_for_it(stack: Stack, visitor: Visitor) -> None:
    replies = await stack.client.request("described.one", json.dumps({"name": "x"}).encode(), timeout=60)

    async def listed() -> Element | None:
        page = await visitor.page("/ui/functions/described")
        is_there = page.has("a", title=f"run {replies[0].run_id}") and page.has("svg", class_="drawing")
        return page if is_there else None

    page = await eventually(listed, what="the run on its function's page, in the list and in the drawing")
    assert page.link("echo.next") == "/ui/topics/echo.next"
    assert page.link("echo") == "/ui/functions/echo"
    assert ["concurrency", "3", "its file", "runs at once"] in page.rows
    assert ["pendingTimeoutSeconds", "10 m 00 s", "the default", "longest wait for a place to run"] in page.rows
    assert ["level", "6", '{"type": "integer"}', ""] in page.rows
    assert "1 run above" in page.text
    assert HOSTILE in page.text
    assert not page.has("img", src="x")


async def test_source_and_code_stand_there_as_they_are_written(visitor: Visitor) -> None:
    page = await visitor.page("/ui/functions/with-code")
    assert page.one("pre", aria_label="Source of with-code").raw_text == TWO
    assert "its own code" in page.one("pre", aria_label="Code of with-code").raw_text
    assert "type begins with 'order'" in page.text


async def test_the_client_is_told_the_source_without_secrets_unless_it_asks_for_them(stack: Stack) -> None:
    assert "hunter2" not in (await stack.client.source("with-code")).text
    whole = await stack.client.source("with-code", masked=False)
    assert (whole.text, whole.file, whole.line, whole.truncated) == (TWO, "with-code/function.yaml", 1, False)
    with pytest.raises(UnknownIdError):
        await stack.client.source("nope")


async def test_who_may_only_read_sees_no_secret_and_no_button(stack: Stack, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    may_read, may_fail = add_key(file, "reader", "read"), add_key(file, "part", "operate > fail")
    async with (
        running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=()) as up,
        visiting(up.url, may_read) as reader,
        visiting(up.url, may_fail) as part,
    ):
        await up.gateway.catalog.refresh()
        page = await reader.page("/ui/functions/with-code")
        source = page.one("pre", aria_label="Source of with-code").raw_text
        assert "hunter2" not in page.text
        assert "comment for colleagues" not in page.text
        assert "•••" in source
        assert "its own code" in page.text
        assert "pin-4711" not in (await reader.page("/ui/functions/described")).text
        assert not [words for words, _ in page.links if words in ("Pause…", "Publish…", "Resume…")]
        assert not (await reader.page("/ui/functions")).has("a", text="Read the catalog again")
        for path in ("functions/fail/pause", "functions/fail/resume", "reload"):
            assert (await reader.get(f"/ui/{path}")).status == 403
            assert (await reader.ask("POST", f"/ui/{path}", "once=a1")).status == 403
        assert [row[0] for row in (await part.page("/ui/functions")).rows] == ["fail"]
        assert (await part.get("/ui/functions/with-code")).status == 404
        assert (await part.ask("POST", "/ui/functions/with-code/pause", "once=a1")).status == 404
        assert (await part.page("/ui/functions/fail")).has("a", text="Pause…")


async def test_pause_and_resume_ask_once_and_may_be_sent_twice(stack: Stack, visitor: Visitor) -> None:
    for verb, words, paused in (("pause", "Pause it", True), ("resume", "Resume it", False)):
        page = await visitor.page((await visitor.page("/ui/functions/fail")).link(f"{verb.capitalize()}…"))
        form = page.form(words)
        assert form.value("once")
        for _ in range(2):
            seen = await visitor.send(form)
            assert (seen.status, seen.location) == (303, f"/ui/functions/fail?done={verb}d")
        page = await visitor.page(seen.location)
        assert page.one("p", class_="good").text.startswith(f"{verb.capitalize()}d")
        found = (await stack.client.functions("fail")).function("fail")
        assert found is not None
        assert found.paused is paused
        assert page.has("span", class_="paused") is paused
    assert (await visitor.ask("POST", "/ui/functions/fail/pause", "x=1")).status == 400
    found = (await stack.client.functions("fail")).function("fail")
    assert found is not None
    assert not found.paused


async def test_the_catalog_is_read_again(stack: Stack, visitor: Visitor) -> None:
    form = (await visitor.page((await visitor.page("/ui/functions")).link("Read the catalog again…"))).form(
        "Read it again"
    )
    seen = await visitor.send(form)
    assert (seen.status, seen.location) == (303, "/ui/functions?done=reloaded")
    assert "read again" in (await visitor.page(seen.location)).one("p", class_="good").text


async def test_without_a_controller_the_pages_say_that_they_are_older(tmp_path: Path) -> None:
    catalog = write_catalog(tmp_path / "catalog", *documents()[1:])
    async with nats_server(tmp_path / "jetstream") as server, running_gateway(server.url) as up:
        async with running_controller(server.url, catalog, tmp_path / "state"):
            await up.gateway.catalog.refresh()
        await up.gateway.catalog.refresh()
        async with visiting(up.url) as visitor:
            page = await visitor.page("/ui/functions")
            assert "This catalog is older" in page.text
            assert [row[0] for row in page.rows] == ["echo", "fail"]
            page = await visitor.page("/ui/functions/echo")
            assert "This catalog is older" in page.text
            assert "cannot be shown now" in page.text


async def test_names_that_are_none_have_no_page(visitor: Visitor) -> None:
    for name in ("nope", "a%2Fb", "%3Cb%3E", "..%2F..", "A" * 300):
        seen = await visitor.get(f"/ui/functions/{name}")
        assert seen.status == 404, name


def test_bars_stand_within_the_drawing_and_say_all_runs() -> None:
    for durations in ([0.001], [0.02] * 1000, [0.003 * 1.3**n for n in range(40)], [3600.0, 0.001]):
        drawing = histogram(duration_figures(durations))
        assert drawing is not None
        for one in drawing.columns:
            assert one.x >= 0
            assert one.x + one.width <= WIDTH
            assert 0 <= one.y < one.y + one.height <= drawing.base < HEIGHT
        said = [one.words.split(": ")[1].split()[0].replace(",", "") for one in drawing.columns]
        assert sum(map(int, said)) == len(durations)
        assert drawing.ticks[0].anchor == "start"
        if len(drawing.ticks) > 1:
            assert drawing.ticks[-1].anchor == "end"
        # Words of six characters, which begin at the first place and end at the last one, do not touch.
        room = {"start": (0, 45), "middle": (22, 23), "end": (45, 0)}
        for before, after in pairwise(drawing.ticks):
            assert before.x + room[before.anchor][1] < after.x - room[after.anchor][0]
    assert histogram(duration_figures([])) is None


def test_one_run_is_said_as_one() -> None:
    """Its bar has one text below it, and nothing is said about halves of it."""
    drawing = histogram(duration_figures([0.25]))
    assert drawing is not None
    assert [(one.anchor, " to " in one.words) for one in drawing.ticks] == [("start", True)]
    assert drawing.words == "1 run: it took 250 ms"


def test_what_follows_names_the_functions_that_listen_there() -> None:
    one = FunctionInfo(name="one", on_success={"publish": "a.b", "forward_reply": True})
    others = [
        FunctionInfo(name=name, subscriptions=(SubscriptionInfo(topic=topic),))
        for name, topic in (("two", "a.*"), ("three", "a"), ("hidden", ">"))
    ]
    found = view.followings(one, CatalogInfo(functions=(one, *others)), {"one", "two", "three"})
    assert [(each.when, each.topic, each.functions, each.forwards_reply) for each in found] == [
        ("succeeds", "a.b", ("two",), True)
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "none"), (True, "yes"), (600.0, "10 m 00 s"), ([3, 4], "3, 4"), ({"cpu": "1"}, "cpu 1"), (1000, "1,000")],
)
def test_values_of_settings_in_words(value: Any, words: str) -> None:
    name = "timeoutSeconds" if isinstance(value, float) else "x"
    assert view.settings_in_words([SettingInfo(name=name, value=value, given=True)])[0].value == words
