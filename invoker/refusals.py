"""What a NATS server does not let a connection do: remembered, so that it is said where it is felt.

The server tells a refused subject once, on the side; whoever published there only waits in vain. And it does not tell
when the right was given meanwhile: what may be subscribed to is asked again, what may be published is tried again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Callable

PUBLISH_STANDS_SECONDS = 20.0
"""A refused publish counts for so long: what is needed for work is tried again sooner (audits, every 10 s)."""
_REFUSED = re.compile(r"permissions violation for (publish|subscription) to \"([^\"]+)\"", re.IGNORECASE)
_PUBLISH, _SUBSCRIPTION = "publish", "subscription"
_MOST = 256
"""Refused subjects that are remembered; callers may name reply subjects without end."""


class Refusals:
    """What one connection was refused, by subject."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._publish: dict[str, tuple[str, float]] = {}
        self._subscribe: dict[str, str] = {}
        self._times: defaultdict[str, int] = defaultdict(int)
        self._asking: defaultdict[str, list[asyncio.Timeout]] = defaultdict(list)

    def heard(self, words: str, inboxes: str) -> str | None:
        """The server has said this. The subject of a subscription that was refused, which must be asked for again.

        `inboxes` is the prefix of this connection's own: what is told of one of them is told of all.
        """
        found = _REFUSED.search(words)
        if found is None:
            return None
        kind, subject = found[1].lower(), found[2]
        if kind == _SUBSCRIPTION:
            self._subscribe[subject] = _sentence(kind, f"{inboxes}.>" if subject.startswith(f"{inboxes}.") else subject)
            self._times[subject] += 1
            return subject
        while len(self._publish) >= _MOST:
            self._publish.pop(next(iter(self._publish)))
        self._publish[subject] = (_sentence(kind, subject), self._clock())
        self._wake(self._asking.get(subject, ()))
        return None

    def inbox_refused(self) -> None:
        """No answer can come: whoever waits for one need not."""
        for waiting in list(self._asking.values()):
            self._wake(waiting)

    def times(self, subject: str) -> int:
        """How often that subscription was refused."""
        return self._times[subject]

    def mended(self, subject: str) -> None:
        """That subscription is there now."""
        self._subscribe.pop(subject, None)
        self._times.pop(subject, None)

    def forget(self) -> None:
        """Another connection, perhaps another user: nothing of this is known there."""
        self._publish.clear()
        self._subscribe.clear()
        self._times.clear()

    def of(self, subject: str, inbox: str) -> str | None:
        """Why a request there has no answer, in a sentence; None when nothing of the kind was said lately."""
        told, at = self._publish.get(subject, ("", 0.0))
        if told and self._clock() - at < PUBLISH_STANDS_SECONDS:
            return told
        return self.of_inbox(inbox)

    def of_inbox(self, inbox: str) -> str | None:
        """Why no request is answered, in a sentence; None while answers can come."""
        return self._subscribe.get(inbox) if self._subscribe else None

    def standing(self, instance: str) -> list[str]:
        """What keeps a part of that instance from its work, one sentence each.

        Publishes count where they are its own: events and replies go where callers say, and who names a subject that
        this user may not publish to must not make the instance unready.
        """
        now, own = self._clock(), ("$JS.", "$O.", f"{instance}.")
        publish = [
            told
            for subject, (told, at) in self._publish.items()
            if subject.startswith(own) and now - at < PUBLISH_STANDS_SECONDS
        ]
        return sorted({*publish, *self._subscribe.values()})

    def begin(self, subject: str) -> asyncio.Timeout:
        """What ends the wait for an answer to a request there, once it is refused. To be given to `end`."""
        limit = asyncio.timeout(None)
        self._asking[subject].append(limit)
        return limit

    def end(self, subject: str, limit: asyncio.Timeout) -> None:
        """The wait is over, however."""
        waiting = self._asking[subject]
        waiting.remove(limit)
        if not waiting:
            del self._asking[subject]

    def _wake(self, waiting: tuple[asyncio.Timeout, ...] | list[asyncio.Timeout]) -> None:
        for limit in waiting:
            limit.reschedule(asyncio.get_running_loop().time())


def _sentence(kind: str, subject: str) -> str:
    return f"this NATS user may not {'publish' if kind == _PUBLISH else 'subscribe'} to {subject}"
