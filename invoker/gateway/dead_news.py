"""What there is of dead letters, for whoever wants to know at a glance: how many, and the newest, read once for all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from invoker.client import Client
from invoker.errors import ServerUnreachableError
from invoker.views import DeadLetter

NEWEST = 20
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """How many dead letters are kept, and the newest of them without their bytes, newest first."""

    count: int = 0
    newest: Sequence[DeadLetter] = ()


class DeadNews:
    """The dead letters of one instance. `run` is its task."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._reading = asyncio.Lock()
        self._read: tuple[tuple[int, int], DeadLetters] = ((-1, -1), DeadLetters())
        self.position = 0
        """The place of the newest letter that was heard of: another one means that there are new ones."""

    async def run(self) -> None:
        """Hear of new letters, for ever; an outage is only a pause."""
        reader, names = self._client.custody.reader, self._client.names
        while True:
            try:
                self.position = (await reader.state(names.dead_stream)).state.last_seq
                async with reader.tail(
                    names.dead_stream, [names.dead("*")], first=self.position + 1, headers_only=True
                ) as tail:
                    async for letter in tail:
                        self.position = letter.sequence
            except ServerUnreachableError:
                await asyncio.sleep(RETRY_SECONDS)

    async def present(self) -> DeadLetters:
        """The letters as they are now; the newest are read only when there are others than before.

        Raises `ServerUnreachableError`.
        """
        async with self._reading:
            state = (await self._client.custody.reader.state(self._client.names.dead_stream)).state
            moment = (state.messages, state.last_seq)
            if self._read[0] != moment:
                newest = await self._client.stored.dead_letters(NEWEST) if state.messages else []
                self._read = moment, DeadLetters(state.messages, tuple(letter for _, letter in newest))
            return self._read[1]
