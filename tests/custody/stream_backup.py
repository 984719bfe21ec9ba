"""What `nats stream backup` and `nats stream restore` do, asked of the server in the same words."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg


@dataclass(frozen=True)
class Backup:
    """One stream as of one moment: its settings, and its messages and consumers as the server packed them."""

    stream: str
    config: dict[str, Any]
    state: dict[str, Any]
    chunks: list[bytes] = field(repr=False)


async def backup(client: NatsClient, stream: str) -> Backup:
    """The stream, packed by the server; it goes on meanwhile."""
    inbox, chunks, done = client.new_inbox(), [], asyncio.Event()

    async def arrived(message: Msg) -> None:
        if not message.data:
            done.set()
            return
        chunks.append(message.data)
        if message.reply:
            await client.publish(message.reply, b"")  # the server waits for it before it sends many more

    subscription = await client.subscribe(inbox, cb=arrived)
    answer = await _ask(client, f"$JS.API.STREAM.SNAPSHOT.{stream}", {"deliver_subject": inbox})
    await asyncio.wait_for(done.wait(), 60)
    await subscription.unsubscribe()
    return Backup(stream, answer["config"], answer["state"], chunks)


async def restore(client: NatsClient, saved: Backup) -> None:
    """The stream is there as it was; it must not have been there before."""
    wanted = {"config": saved.config, "state": saved.state}
    where = (await _ask(client, f"$JS.API.STREAM.RESTORE.{saved.stream}", wanted))["deliver_subject"]
    for chunk in saved.chunks:
        await client.request(where, chunk, timeout=60)
    last = json.loads((await client.request(where, b"", timeout=60)).data)
    assert "error" not in last, last


async def _ask(client: NatsClient, subject: str, document: dict[str, Any]) -> dict[str, Any]:
    answer = dict(json.loads((await client.request(subject, json.dumps(document).encode(), timeout=60)).data))
    assert "error" not in answer, answer
    return answer
