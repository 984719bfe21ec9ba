"""What stands around every page: what it says of the past while that is being read."""

from __future__ import annotations

import pytest
from nats.aio.client import Client as NatsClient
from starlette.requests import Request

from invoker import wire
from invoker.client import Client
from invoker.connection import ConnectionOptions
from invoker.gateway.access.scopes import Action, Caller, Grant
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.dashboard.rendering import Pages
from invoker.gateway.dead_news import DeadNews
from invoker.gateway.door import CALLER
from invoker.gateway.gateway import Gateway
from invoker.gateway.run_table import RunTable
from invoker.gateway.settings import GatewaySettings
from invoker.gateway.shared_reads import SharedReads
from invoker.gateway.topic_table import TopicTable
from tests.dashboard.html_page import read_page


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
    caller = Caller("vera", "key", (Grant(frozenset({Action.READ}), topics),))
    scope = {"type": "http", "method": "GET", "path": "/ui", "query_string": b"", "headers": [], CALLER: caller}
    answer = Pages(unread_gateway()).question(Request(scope), "Really?", action="/ui/reload", yes="Yes", back="/ui")
    assert says in read_page(bytes(answer.body).decode()).text
