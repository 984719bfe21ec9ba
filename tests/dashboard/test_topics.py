"""Pages about topics: what was seen, why nothing happened, what an event would run; each caller's part of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from invoker.errors import InputRefusedError
from invoker.gateway.dashboard.explanations import stand_in
from invoker.gateway.dashboard.topics_view import MAX_HEADERS, header_lines, parsed_headers, verdicts
from invoker.request import Content
from invoker.views import ExplainedSubscription, Explanation, NearPattern
from tests.conftest import eventually
from tests.dashboard.html_page import Element
from tests.dashboard.still_world import gateway_over, heard, still_world
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.reading import events, finished, publish
from tests.gateway.stack import Stack, session

EVIL = 'evil."<img onerror=alert(1) src=x'.replace(" ", "/")


def test_what_nearly_fits_is_told_first() -> None:
    def one(function: str, pattern: str, clause: str = "token", *, matched: bool = False) -> ExplainedSubscription:
        return ExplainedSubscription(function=function, pattern=pattern, clause=clause, matched=matched)

    found = verdicts(
        Explanation(
            topic="orders.new.eu",
            matched=("all",),
            subscriptions=(
                one("z", "other.x"), one("half", "orders.old.eu"), one("filtered", "orders.>", "filter exact …"),
                one("near", "ordres.new.eu"), one("all", ">", matched=True), one("most", "orders.new.us"),
            ),
            nearest=(NearPattern(pattern="ordres.new.eu", function="near"),),
        )
    )  # fmt: skip
    assert [row.function for row in found.fitting] == ["all"]
    assert [row.function for row in found.others] == ["filtered", "near", "most", "half", "z"]
    assert (found.left_out, found.nearest) == (0, (("ordres.new.eu", "near"),))


def test_of_very_many_subscriptions_the_nearest_are_told() -> None:
    many = tuple(ExplainedSubscription(function=f"f{n}", pattern="x", matched=False) for n in range(100))
    found = verdicts(Explanation(topic="y", subscriptions=many))
    assert (len(found.others), found.left_out) == (30, 70)


def test_headers_are_read_as_they_are_typed() -> None:
    assert parsed_headers("A: 1\r\n\n b :x: y \n") == {"A": "1", "b": "x: y"}
    assert parsed_headers(header_lines({"A": "1", "B": "2"})) == {"A": "1", "B": "2"}
    with pytest.raises(InputRefusedError, match="line 2"):
        parsed_headers("A: 1\nno colon")
    with pytest.raises(InputRefusedError):
        parsed_headers("\n".join(f"h{n}: x" for n in range(MAX_HEADERS + 1)))


def test_a_body_is_judged_by_its_size() -> None:
    assert len(stand_in(Content.inline(b"12345"))) == 5


def table(page: Element, caption: str) -> list[list[str]]:
    """The rows of the table with that caption."""
    found = next(one for one in page.all("table") if one.one("caption").text == caption)
    return [[cell.text for cell in row.all("td")] for row in found.one("tbody").all("tr")]


async def test_topics_and_what_nothing_matched(stack: Stack, visitor: Visitor) -> None:
    async with session(stack.url) as http:
        await finished(http, await publish(http, "echo.seen"))
        await finished(http, await publish(http, "echo.seen"))
        lost = (await finished(http, await publish(http, "ecko.seen")))["request_id"]
    await heard(stack.client)
    page = await visitor.page("/ui/topics")
    rows = {row[0]: row[1:4] for row in table(page, "Topics that were seen, the last one first")}
    assert rows["echo.seen"] == ["2", "2", "0"]
    assert rows["ecko.seen"] == ["1", "0", "1"]
    unmatched = page.one("section", id="unmatched")
    assert table(unmatched, "The newest requests that nothing matched")[0][0] == "ecko.seen"
    why = next(address for text, address in unmatched.links if text.startswith("Why?"))
    assert why == f"/ui/explain?request={lost}"
    assert "Counted since" in page.text
    only = await visitor.send(page.form("Show"), unmatched="yes", text="SEEN")
    rows = {row[0]: row[1:4] for row in table(only.page, "Topics that were seen, the last one first")}
    assert rows == {"ecko.seen": ["1", "0", "1"]}
    answer = await visitor.page(why)
    assert "Runs nothing: no subscription fits." in answer.text
    assert "Nearest patterns: echo.> of echo" in answer.text
    assert "token 1 is 'ecko', wanted 'echo'" in answer.text
    listed = await visitor.page("/ui/unmatched?text=ecko")
    assert [row[0] for row in table(listed, "Requests that nothing matched, newest first")] == ["ecko.seen"]
    assert "No request fits." in (await visitor.page("/ui/unmatched?text=nowhere")).text


async def test_one_topic_with_its_requests_runs_and_subscriptions(stack: Stack, visitor: Visitor) -> None:
    async with session(stack.url) as http:
        request = await finished(http, await publish(http, "pair.one"))
    await heard(stack.client)
    page = await visitor.page("/ui/topics/pair.one")
    assert "Runs 2 functions: pair-a, pair-b" in page.one("section", id="subscriptions").text
    verdict = table(page, "What decided for each subscription, nearest first")
    assert [row[:2] for row in verdict[:2]] == [["yes", "pair-a"], ["yes", "pair-b"]]
    assert "pair-a, pair-b" in page.one("section", id="requests").text
    runs = page.one("section", id="runs")
    assert {one.text for one in runs.all("a") if one["href"].startswith("/ui/functions/")} == {"pair-a", "pair-b"}
    assert {one["href"] for one in runs.all("a", class_="id")} == {
        *(f"/ui/runs/{run['run_id']}" for run in request["runs"]), f"/ui/requests/{request['request_id']}",
    }  # fmt: skip
    assert page.one("body")["data-stream"] == "/ui/live?topic=pair.one"
    never = await visitor.page("/ui/topics/never.seen")
    assert "Runs nothing" in never.text
    assert "None is remembered." in never.text
    for wrong in ("a..b", "a.*", "$JS.x", "x" * 300):
        assert (await visitor.get(f"/ui/topics/{quote(wrong)}")).status == 404, wrong


async def test_a_page_of_a_topic_is_told_when_it_changes(stack: Stack) -> None:
    async with session(stack.url) as http, events(http, "/ui/live?topic=echo.live") as stream:
        await stream.until("change")
        published = await publish(http, "echo.live")
        await stream.until("change")
        await finished(http, published)
    async with session(stack.url) as http, http.get("/ui/live?topic=a..b") as answer:
        assert answer.status == 422 or answer.status == 400


async def test_what_an_event_would_run_is_only_asked(stack: Stack, visitor: Visitor) -> None:
    form = (await visitor.page("/ui/explain")).form("Explain")
    before = await stack.client.feed.kept()
    seen = await visitor.send(form, topic="orders.new", headers="A: 1", data="{}", content_type="application/json")
    assert seen.status == 200
    assert "Runs 1 function: order" in seen.page.text
    assert seen.page.one("textarea", id="headers").raw_text.strip() == "A: 1"
    assert seen.page.one("input", id="topic")["value"] == "orders.new"
    assert await stack.client.feed.kept() == before, "nothing was accepted"
    wrong = await visitor.send(form, topic="a..b", headers="", data="", content_type="")
    assert 400 <= wrong.status < 500
    assert wrong.page.has("p", role="alert")
    wrong = await visitor.send(form, topic="a.b", headers="none", data="", content_type="")
    assert "line 1 of the headers" in wrong.page.one("p", role="alert").text
    assert (await visitor.get("/ui/explain?request=never")).status == 404


async def test_a_topic_is_text_whatever_it_looks_like(stack: Stack, visitor: Visitor) -> None:
    receipt = await stack.client.publish(EVIL, b"x")
    async with session(stack.url) as http:
        await finished(http, receipt.request_id)
    await heard(stack.client)
    address = f"/ui/topics/{quote(EVIL, safe='')}"
    for page in ("/ui/topics", "/ui/unmatched", address, f"/ui/explain?topic={quote(EVIL, safe='')}"):
        seen = await visitor.get(page)
        assert seen.status == 200, page
        assert "<img/onerror" not in seen.text, page
        assert not [one for one in seen.page.all("img") if one.get("onerror")], page
    assert (await visitor.page("/ui/topics")).link(EVIL) == address
    assert (await visitor.page(address)).one("h1").text == f"Topic {EVIL}"


async def test_pages_of_topics_follow_each_other(tmp_path: Path) -> None:
    async with still_world(tmp_path) as (client, world):
        for number in range(130):
            await world.accept(f"r{number}", topic=f"many.{number:03d}")
        async with gateway_over(client) as up, visiting(up.url) as visitor:
            topics = await _walked(visitor, "/ui/topics", "Topics that were seen, the last one first")
            unmatched = await _walked(visitor, "/ui/unmatched", "Requests that nothing matched, newest first")
    assert (
        topics
        == unmatched
        == [[f"many.{n:03d}" for n in range(129, 29, -1)], [f"many.{n:03d}" for n in range(29, -1, -1)]]
    )


async def _walked(visitor: Visitor, address: str, caption: str) -> list[list[str]]:
    pages = []
    while True:
        page = await visitor.page(address)
        pages.append([row[0] for row in table(page, caption)])
        more = [path for text, path in page.links if text == "More"]
        if not more:
            return pages
        address = more[0]


async def test_a_caller_sees_his_topics_and_of_them_his_requests(tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.json", "narrow", "read mine.* mine-*", "read whole.>")
    async with still_world(tmp_path) as (client, world):
        await world.accept("a", "mine-a", "theirs", topic="mine.x")
        await world.accept("b", "theirs", topic="mine.x")
        await world.accept("c", topic="mine.x")
        await world.accept("d", "theirs", topic="mine.theirs")
        await world.accept("e", topic="theirs.secret")
        await world.accept("f", "theirs", topic="whole.y")
        keys: dict[str, Any] = {"gateway_keys": tmp_path / "keys.json", "gateway_anonymous": ()}
        async with gateway_over(client, **keys) as up, visiting(up.url, key) as visitor:
            page = await visitor.page("/ui/topics")
            rows = [row[:4] for row in table(page, "Topics that were seen, the last one first")]
            assert rows == [["whole.y", "1", "1", "0"], ["mine.x", "2", "1", "1"]]
            assert "theirs" not in page.text
            assert [row[0] for row in table(page, "The newest requests that nothing matched")] == ["mine.x"]
            listed = await visitor.page("/ui/unmatched")
            assert "theirs" not in listed.text
            topic = await visitor.page("/ui/topics/mine.x")
            assert {one["href"] for one in topic.one("section", id="requests").all("a", class_="id")} == {
                "/ui/requests/a", "/ui/requests/c",
            }  # fmt: skip
            assert "theirs" not in topic.text
            hidden = await visitor.get("/ui/topics/theirs.secret")
            assert hidden.status == 404
            assert (await visitor.get("/ui/explain?topic=theirs.secret")).status == 403
            assert (await visitor.get("/ui/explain?request=e")).status == 404


async def test_without_a_controller_the_page_says_so(tmp_path: Path) -> None:
    async with still_world(tmp_path) as (client, world):
        await world.accept("a", topic="some.x")
        async with gateway_over(client) as up, visiting(up.url) as visitor:
            page = await visitor.page("/ui/topics/some.x")
            assert "controller" in page.one("section", id="subscriptions").one("p", role="alert").text
            assert "no-match" in page.one("section", id="requests").text

            async def said() -> bool:
                return "No controller answers" in (await visitor.page("/ui")).text

            await eventually(said, what="that no controller answers")
