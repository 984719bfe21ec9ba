"""The list of runs over HTTP: filters in the address, pages by key, empty states that say why, opening by id."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from invoker.gateway.dashboard.forms import Form
from invoker.gateway.dashboard.run_filters import FAILED, RunsQuery, problem_of, read_query
from invoker.result import Reason, State
from invoker.views import RequestView
from tests.conftest import eventually
from tests.dashboard.html_page import Element
from tests.dashboard.visitor import Visitor, visiting
from tests.gateway.access_world import add_key
from tests.gateway.stack import Stack, running_gateway, running_stack


async def done(stack: Stack, topic: str, data: bytes = b"x", **options: str) -> RequestView:
    """A request on that topic, once all of its runs have finished."""
    receipt = await stack.client.publish(topic, data, **options)  # type: ignore[arg-type]  # only an id
    return await stack.client.result(receipt.request_id, wait=60)


def runs_of(page: Element) -> list[str]:
    """The ids of the listed runs."""
    return [one["value"] for one in page.all("input", name="run")]


async def test_the_list_pages_without_loss_or_repeat_while_runs_finish(stack: Stack, visitor: Visitor) -> None:
    finished = [(await done(stack, "echo.paged")).runs[0].run_id for _ in range(7)]
    page = await visitor.page("/ui/runs?topic=echo.paged&limit=3")
    seen, addresses = runs_of(page), []
    assert seen == finished[:-4:-1]
    while older := page.all("a", rel="next"):
        later = (await done(stack, "echo.paged")).runs[0].run_id
        addresses.append(older[0]["href"])
        page = await visitor.page(older[0]["href"])
        assert later not in runs_of(page)
        seen += runs_of(page)
        assert page.link("← Newest") == "/ui/runs?topic=echo.paged&limit=3"
        assert "data-stream" not in page.one("body").attributes, "only the first page is live"
    assert seen == finished[::-1]
    assert len(addresses) == 2
    assert dict(parse_qsl(urlsplit(addresses[0]).query))["topic"] == "echo.paged", "the filters stay in the address"


async def test_filters_are_kept_in_the_form_and_in_the_address(stack: Stack, visitor: Visitor) -> None:
    bad = (await done(stack, "half.filtered")).runs
    failed = next(run for run in bad if run.function == "half-bad")
    page = await visitor.page("/ui/runs?topic=half.filtered")
    assert sorted(runs_of(page)) == sorted(run.run_id for run in bad)
    assert runs_of(await visitor.page(page.link("Failed"))) == [failed.run_id]
    assert "open" in page.one("details", data_key="filters").attributes
    assert "open" not in (await visitor.page("/ui/runs?limit=7")).one("details", data_key="filters").attributes
    assert (await visitor.page("/ui/runs?limit=7")).one("option", selected="", text="7").text == "7"
    form = next(one for one in page.forms if one.action == "/ui/runs")
    seen = await visitor.send(
        form, state=["failed", "lost"], reason="error", since="1h", until="2100-01-01 00:00", text=failed.run_id[4:12]
    )
    assert seen.status == 200
    assert runs_of(seen.page) == [failed.run_id]
    again = next(one for one in seen.page.forms if one.action == "/ui/runs")
    for name, value in (
        ("topic", "half.filtered"), ("since", "1h"), ("until", "2100-01-01 00:00"), ("text", failed.run_id[4:12]),
    ):  # fmt: skip
        assert again.value(name) == value
    ticked = [one["value"] for one in seen.page.all("input", name="state") if "checked" in one.attributes]
    assert ticked == ["failed", "lost"]
    row = seen.page.rows[0]
    assert row[1].startswith("failed error")
    assert (row[2], row[3], row[6]) == ("half-bad", "half.filtered", "1")


async def test_what_cannot_be_read_is_said_beside_the_filter(visitor: Visitor) -> None:
    for wrong, words in (
        ("since=yesterday", "From: 'yesterday'"), ("until=2026-13-01", "Until: '2026-13-01'"), ("topic=a..b", "a..b"),
        ("reason=odd", "there is no reason 'odd'"), ("function=Not+One", "Not One"),
    ):  # fmt: skip
        seen = await visitor.get(f"/ui/runs?{wrong}")
        assert seen.status == 200
        assert words in seen.page.one("p", role="alert").text
        assert "data-stream" not in seen.page.one("body").attributes
    assert (await visitor.get("/ui/runs?cursor=x")).status == 400


async def test_empty_lists_say_why(tmp_path: Path) -> None:
    async with running_stack(tmp_path) as stack, visiting(stack.url) as visitor:
        page = await visitor.page("/ui/runs")
        assert "Nothing has run yet" in page.one("section", id="runs").text
        assert "invoker publish TOPIC DATA" in page.text
        page = await visitor.page("/ui/runs?state=failed")
        assert "No run fits these filters" in page.text
        assert page.link("Clear filters") == "/ui/runs"
        await done(stack, "echo.only")
        page = await visitor.page("/ui/runs?cursor=f1")
        assert "There are no older runs." in page.text


async def test_a_reader_gets_no_boxes_and_only_what_he_may_see(stack: Stack, tmp_path: Path) -> None:
    own, other = await done(stack, "echo.mine"), await done(stack, "echo.others")
    file = tmp_path / "keys.json"
    reads, acts = add_key(file, "reader", "read echo.mine"), add_key(file, "both", "read echo.>", "operate echo.mine")
    async with running_gateway(stack.server.url, gateway_keys=file, gateway_anonymous=()) as guarded:
        async with visiting(guarded.url, reads) as reader:
            page = await reader.page("/ui/runs?function=echo")
            assert not page.has("input", name="run")
            assert not page.has("form", id="pick")
            assert [row[1:3] for row in page.rows] == [["echo", "echo.mine"]]
            for hidden in (other.request_id, other.runs[0].run_id, other.runs[0].run_id[:12]):
                assert (await reader.get(f"/ui/open?id={hidden}")).status == 404
        async with visiting(guarded.url, acts) as operator:
            page = await operator.page("/ui/runs?function=echo")
            assert runs_of(page) == [own.runs[0].run_id]
            assert "echo.others" in page.text


async def test_an_id_is_opened_whole_shortened_or_as_the_latest(stack: Stack, visitor: Visitor) -> None:
    view = await done(stack, "pair.opened", request_id="opened-by-hand-1")
    run_id = view.runs[1].run_id
    for given, page in (
        (view.request_id, f"/ui/requests/{view.request_id}"), ("opened-by-hand", f"/ui/requests/{view.request_id}"),
        (run_id, f"/ui/runs/{run_id}"), (run_id[-9:], f"/ui/runs/{run_id}"),
        ("%40latest", f"/ui/requests/{view.request_id}"), ("%20opened-by-hand-1%20", f"/ui/requests/{view.request_id}"),
    ):  # fmt: skip
        seen = await visitor.get(f"/ui/open?id={given}")
        assert (seen.status, seen.location) == (303, page), given
    search = (await visitor.page("/ui/runs")).one("form", role="search")
    assert search["action"] == "/ui/open"


async def test_an_id_that_is_none_or_fits_several_is_explained(stack: Stack, visitor: Visitor) -> None:
    for number in (1, 2):
        await done(stack, "echo.twice", request_id=f"fits-several-{number}")
    seen = await visitor.get("/ui/open?id=fits-several")
    assert seen.status == 409
    assert seen.page.link("fits-several-2") == "/ui/open?id=fits-several-2"
    for unknown in ("never-was-there", "", "%3Cscript%3E", "x" * 600):
        seen = await visitor.get(f"/ui/open?id={unknown}")
        assert seen.status == 404, unknown
        assert "mistyped" in seen.page.text
    assert (await visitor.get("/ui/open?id=010000000000000000000000AB")).status in (404, 410)


async def test_unfinished_runs_come_first_and_are_found_by_all_filters(stack: Stack, visitor: Visitor) -> None:
    receipt = await stack.client.publish("gate.listed", b"x", request_id="gate-listed")
    await done(stack, "echo.listed")

    async def running() -> bool:
        return "running" in (await visitor.page("/ui/runs?topic=gate.listed")).one("section", id="runs").text

    await eventually(running, what="a running run on the page")
    page = await visitor.page("/ui/runs?limit=1")
    assert page.rows[0][2] == "gate"
    for query in ("state=running&state=queued", "text=gate-listed", "since=1h", "function=gate"):
        assert [row[2] for row in (await visitor.page(f"/ui/runs?{query}")).rows][:1] == ["gate"], query
    for query in ("state=failed", "reason=error", "until=1h", "text=nowhere"):
        assert "gate.listed" not in (await visitor.page(f"/ui/runs?{query}")).text.replace("topic gate.listed", "")
    stack.open_gate(receipt.request_id)


NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-02-03", datetime(2026, 2, 3, tzinfo=UTC)),
        ("2026-02-03 04:05", datetime(2026, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-02-03T04:05:06", datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)),
        ("2026-02-03T04:05:06+02:00", datetime(2026, 2, 3, 2, 5, 6, tzinfo=UTC)),
        ("90m", NOW - timedelta(minutes=90)),
        ("", None),
    ],
)
def test_instants_are_read_as_people_write_them(text: str, at: datetime | None) -> None:
    assert RunsQuery(since=text).wanted(NOW).since == at
    assert RunsQuery(until=text).wanted(NOW).until == at


def test_a_query_and_its_address_say_the_same() -> None:
    query = RunsQuery("convert", FAILED, "error", "a.>", "r 1", "1h", "5m", "&x=", 200)
    address = query.address(cursor="f12")
    pairs = parse_qsl(urlsplit(address).query)
    assert read_query(Form(pairs)) == query
    assert dict(pairs)["cursor"] == "f12"
    wanted = query.wanted(NOW)
    assert (wanted.states, wanted.reason, wanted.text) == (frozenset(FAILED), Reason.ERROR, "&x=")
    assert query.is_narrow
    assert not RunsQuery(limit=200).is_narrow
    assert problem_of(query, NOW) is None
    assert not query.is_quick
    assert RunsQuery().is_quick
    assert RunsQuery(states=FAILED[::-1]).is_quick
    assert not RunsQuery(states=FAILED[:1]).is_quick


def test_what_no_form_sends_is_left_out() -> None:
    query = read_query(Form([("state", "odd"), ("state", "lost"), ("state", "lost"), ("limit", "9999"), ("x", "y")]))
    assert query == RunsQuery(states=(State.LOST,), limit=200)
    assert read_query(Form([("limit", "-3")])).limit == 50
    assert read_query(Form([("limit", "0")])).limit == 1
