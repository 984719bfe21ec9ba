"""What stands around every page: what it says of the past while that is being read."""

from __future__ import annotations

import json
import re
from importlib.resources import files

import pytest
from nats.aio.client import Client as NatsClient
from starlette.requests import Request

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.gateway import dashboard
from invoker.gateway.access.scopes import Action, Caller, Grant
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.dashboard.assets import STYLES, asset
from invoker.gateway.dashboard.refusal import refusal_page
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.dead_news import DeadNews
from invoker.gateway.door import CALLER
from invoker.gateway.gateway import Gateway
from invoker.gateway.run_table import RunTable
from invoker.gateway.settings import GatewaySettings
from invoker.gateway.topic_table import TopicTable
from invoker.shared_reads import SharedReads
from tests.dashboard.html_page import Element, read_page


def unread_gateway() -> Gateway:
    """One that is connected to nothing, and has read nothing of the past."""
    client = Client(NatsClient(), wire.Names(), ConnectionOptions())
    return Gateway(
        GatewaySettings(), client, CatalogCopy(client), RunTable(client.feed), TopicTable(client.feed, wire.Names()),
        DeadNews(client), SharedReads(client.stored.request),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("topics", "says"),
    [
        ((">",), "Still reading the past: 0 finished runs so far."),
        (("orders.>",), "Still reading the past. Lists are complete"),
    ],
)
def test_how_many_runs_there_are_is_told_to_who_sees_all_of_them(topics: tuple[str, ...], says: str) -> None:
    assert says in question(topics).text


def test_a_button_that_ends_something_looks_so() -> None:
    assert question((">",), ends=True).one("button", text="Yes")["class"] == "danger"
    assert question((">",)).one("button", text="Yes")["class"] == "primary"


def question(topics: tuple[str, ...], **more: bool) -> Element:
    """A question as somebody sees it who may read those topics."""
    caller = Caller("vera", "key", (Grant(frozenset({Action.READ}), topics),))
    scope = {"type": "http", "method": "GET", "path": "/ui", "query_string": b"", "headers": [], CALLER: caller}
    pages = Pages(unread_gateway())
    answer = pages.question(Request(scope), "Really?", action="/ui/reload", yes="Yes", back="/ui", **more)
    return read_page(bytes(answer.body).decode())


def test_what_is_not_there_leads_on_and_names_no_call_of_the_api() -> None:
    """The hint of the problem document is for programs; people get links."""
    problem = {"detail": "no run 'x' is known", "hint": "GET /v1/runs lists what there is", "code": "unknown"}
    answer = refusal_page(404, json.dumps(problem).encode(), "/ui/runs/x", had_session=False)
    page = read_page(bytes(answer.body).decode())
    assert page.one("h1").text == "Not found"
    assert "No run 'x' is known." in page.text
    assert "/v1" not in page.text
    assert page.link("All runs") == "/ui/runs"
    refused = {"detail": "vera may not publish", "hint": "ask for a key", "code": "forbidden"}
    other = refusal_page(403, json.dumps(refused).encode(), "/ui", had_session=False)
    assert "vera may not publish Ask for a key." in read_page(bytes(other.body).decode()).text, "names stay as they are"


def test_every_part_of_the_style_sheet_is_in_it() -> None:
    folder = files(dashboard) / "static" / "styles"
    assert sorted(f"{part}.css" for part in STYLES) == sorted(file.name for file in folder.iterdir())


def test_the_style_sheet_closes_what_it_opens() -> None:
    """One brace too few makes all that follows hold on phones only. Rules stand by themselves or in a media query."""
    sheet = re.sub(r"/\*.*?\*/", "", asset("dashboard.css").data.decode(), flags=re.DOTALL)
    depth = 0
    for at, brace in ((one.start(), one.group()) for one in re.finditer(r"[{}]", sheet)):
        depth += 1 if brace == "{" else -1
        assert 0 <= depth <= 2, sheet[at - 80 : at]
    assert depth == 0
    for query in re.finditer(r"@media", sheet):
        assert sheet.count("{", 0, query.start()) == sheet.count("}", 0, query.start()), sheet[query.start() :][:80]
