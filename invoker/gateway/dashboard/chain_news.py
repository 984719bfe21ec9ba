"""Which news are about one chain: its requests, and those that they cause later."""

from __future__ import annotations

from invoker.errors import ExpiredError, UnknownIdError
from invoker.feed import FeedItem
from invoker.gateway.sight import Sight
from invoker.result import RunStatusDocument

MAX_REQUESTS = 200


class ChainNews:
    """Knows the requests of a chain, and learns of those that come."""

    def __init__(self, root_request_id: str) -> None:
        self._root = root_request_id
        self._members = {root_request_id}

    async def read(self, sight: Sight) -> None:
        """Take in what is there already; a result does not tell the chain that it belongs to."""
        try:
            root = await sight.whole_request(self._root)
        except (UnknownIdError, ExpiredError):
            return
        chain = await sight.gateway.client.stored.chain(root, MAX_REQUESTS)
        self._members |= {node.view.request_id for node in chain}

    def concerns(self, news: FeedItem | RunStatusDocument) -> bool:
        """Whether it is about the chain."""
        if news.root_request_id == self._root:
            self._members.add(news.request_id)
        return news.request_id in self._members
