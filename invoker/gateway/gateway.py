"""What the routes stand on, as one value."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from invoker.client import Client
from invoker.gateway.catalog_copy import CatalogCopy
from invoker.gateway.dead_news import DeadNews
from invoker.gateway.metrics import GatewayMetrics
from invoker.gateway.run_api import RunApi
from invoker.gateway.run_table import RunTable
from invoker.gateway.settings import GatewaySettings
from invoker.gateway.topic_table import TopicTable
from invoker.shared_reads import SharedReads
from invoker.views import RequestView

if TYPE_CHECKING:
    from invoker.results.filling import Filler


@dataclass(frozen=True, slots=True)
class Gateway:
    """One gateway: its connection, its settings, and what it knows. Made by `invoker.gateway.app`."""

    settings: GatewaySettings
    client: Client
    catalog: CatalogCopy
    runs: RunTable
    topics: TopicTable
    dead: DeadNews
    requests: SharedReads[RequestView]
    """The request of exactly that id (`Stored.request`), read once for all who ask at the same moment."""
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    run_api: RunApi | None = None
    """The run API, when the key of its tokens is known here."""
    closing: asyncio.Future[None] | None = None
    """Done when the gateway stops: whoever waits is answered then, and what goes on is ended where it is whole. None
    where nothing is served."""
    filler: Filler | None = None
    """What fills the copy of the results, when there is one."""

    def close(self) -> None:
        """Have all that waits answered, because the server is about to stop. Safe to repeat."""
        if self.closing is not None and not self.closing.done():
            self.closing.set_result(None)
