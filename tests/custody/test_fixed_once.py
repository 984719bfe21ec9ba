"""The runs of a request are fixed once: whoever goes on with a half accepted event goes on with *its* list,
whatever the catalog says by then."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.nats_server import NatsServer
from invoker.result import Reason
from invoker.results.nats import Answers, ResultStream
from tests.conftest import eventually
from tests.custody.processes import ControllerProcess
from tests.custody.workload import function, write_catalog
from trigger.moments import Moment

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("moment", [Moment.RECORD_WRITTEN, Moment.SOME_RUNS_WRITTEN, Moment.EVENT_ACKED], ids=str)
async def test_another_catalog_changes_no_request(
    moment: Moment, server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    # What leaves does not end before its controller does: whether its run was begun is all the same then.
    leaves = function("leaves", "start", "sleep 600")
    before = write_catalog(tmp_path / "before", function("stays", "start", "true"), leaves)
    after = write_catalog(tmp_path / "after", *(function(name, "start", "true") for name in ("stays", "comes")))
    doomed = await ControllerProcess(tmp_path / "doomed", server.url, before, crash_at=moment).start()
    await client.jetstream().publish("events.start", b"", headers={wire.H_MESSAGE_ID: "one"})
    assert await doomed.ended() == -signal.SIGKILL
    heir = await ControllerProcess(tmp_path / "heir", server.url, after).start()
    answers = await _complete(client, "one")
    assert {name: result.reason for name, result in answers.results.items()} == {
        "stays": Reason.COMPLETED,
        "leaves": Reason.FUNCTION_REMOVED,
    }
    await client.jetstream().publish("events.start", b"", headers={wire.H_MESSAGE_ID: "two"})
    assert set((await _complete(client, "two")).results) == {"stays", "comes"}, "the new catalog was in use"
    assert set((await _complete(client, "one")).results) == {"stays", "leaves"}
    heir.terminate()
    assert await heir.ended() == 0


async def _complete(client: NatsClient, request_id: str) -> Answers:
    results = ResultStream(client, client.jetstream(), wire.Names())

    async def complete() -> Answers | None:
        answers = await results.answers(request_id)
        return answers if answers.complete else None

    answers = await eventually(complete, what=f"every result of {request_id}")
    assert answers is not None
    return answers
