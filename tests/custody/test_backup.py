"""Backup and restore as docs/operations.md says: nothing that a backup holds is lost or has two results."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import nats_server
from invoker.streams import StreamLimits, ensure_streams
from tests.conftest import eventually
from tests.controllers import running_controller
from tests.custody.stream_backup import Backup, backup, restore
from tests.custody.workload import Workload, kill_catalog

pytestmark = pytest.mark.integration
NAMES = wire.Names()
ORDER = (
    NAMES.events_stream, NAMES.runs_stream, NAMES.results_stream, NAMES.dead_stream, f"OBJ_{NAMES.payloads_bucket}",
)  # fmt: skip
"""As the page says: what is unfinished before what is finished, large bytes last."""
EVENTS = 12


async def half_done(work: Workload, url: str, catalog: Path, state: Path) -> None:
    """Some events finished, some in work, some waiting; then the controller stops in an orderly way."""
    await ensure_streams(work.client.jetstream(timeout=60), NAMES, StreamLimits())
    await work.publish_all("before", EVENTS)  # all of them are there before the first one is taken
    async with running_controller(url, catalog, state, max_running=3):

        async def some() -> bool:
            done = (await work.client.jetstream().stream_info(NAMES.results_stream)).state.messages
            return done > 3 * EVENTS // 2 and await work.unfinished() > EVENTS // 3

        await eventually(some, what="work of which a part is done")


async def stored_results(client: NatsClient) -> dict[str, bytes]:
    jetstream = client.jetstream()
    info = await jetstream.stream_info(NAMES.results_stream, subjects_filter=">")
    found = {}
    for subject in info.state.subjects or {}:
        found[subject] = (await jetstream.get_msg(NAMES.results_stream, subject=subject)).data or b""
    return found


async def test_a_copy_of_a_stopped_servers_store_goes_on_where_it_was(tmp_path: Path) -> None:
    catalog = kill_catalog(tmp_path / "catalog", tmp_path / "notes")
    async with nats_server(tmp_path / "store") as server:
        client = await connect(ConnectionOptions(url=server.url))
        work = await Workload(client, tmp_path / "notes").listen()
        await half_done(work, server.url, catalog, tmp_path / "one")
        before = await stored_results(client)
        assert 0 < len(before) < len(work.subjects())
        await client.close()
    shutil.copytree(tmp_path / "store", tmp_path / "copy")
    shutil.rmtree(tmp_path / "store")
    async with nats_server(tmp_path / "copy") as server:
        client = await connect(ConnectionOptions(url=server.url))
        work.client = client
        async with running_controller(server.url, catalog, tmp_path / "two"):
            await work.finished()
        await work.prove(replies=False)
        after = await stored_results(client)
        assert {subject: after[subject] for subject in before} == before, "what was finished is as it was"
        await client.close()


async def test_streams_saved_one_by_one_while_no_controller_runs_make_a_whole(tmp_path: Path) -> None:
    """Publishers go on meanwhile: what they publish after EVENTS was saved is in no backup."""
    catalog = kill_catalog(tmp_path / "catalog", tmp_path / "notes")
    async with nats_server(tmp_path / "store") as server:
        client = await connect(ConnectionOptions(url=server.url))
        work = await Workload(client, tmp_path / "notes").listen()
        await half_done(work, server.url, catalog, tmp_path / "one")
        await work.publish("the-last-one")
        saved: list[Backup] = [await backup(client, ORDER[0])]
        other = Workload(client, tmp_path / "notes")
        publishing = asyncio.create_task(other.publish_all("too-late", 50))
        saved += [await backup(client, stream) for stream in ORDER[1:]]
        await publishing
        before = await stored_results(client)
        await client.close()
    async with nats_server(tmp_path / "another") as server:
        client = await connect(ConnectionOptions(url=server.url))
        for one in saved:
            await restore(client, one)
        assert await stored_results(client) == before
        work.client = client
        async with running_controller(server.url, catalog, tmp_path / "two"):
            await work.finished()
        await work.prove(replies=False)
        await client.close()


async def test_an_old_backup_runs_again_what_was_unfinished_then(tmp_path: Path) -> None:
    """What was finished after the backup was made is run a second time, under the same ids, with one result each."""
    catalog = kill_catalog(tmp_path / "catalog", tmp_path / "notes")
    async with nats_server(tmp_path / "store") as server:
        client = await connect(ConnectionOptions(url=server.url))
        work = await Workload(client, tmp_path / "notes").listen()
        await half_done(work, server.url, catalog, tmp_path / "one")
        saved = [await backup(client, stream) for stream in ORDER]
        async with running_controller(server.url, catalog, tmp_path / "one"):
            await work.finished()
        everything = await stored_results(client)
        await client.close()
    async with nats_server(tmp_path / "another") as server:
        client = await connect(ConnectionOptions(url=server.url))
        for one in saved:
            await restore(client, one)
        work.client = client
        async with running_controller(server.url, catalog, tmp_path / "two"):
            await work.finished()
        await work.prove(replies=False)
        assert set(await stored_results(client)) == set(everything), "the same requests and runs"
        await client.close()
