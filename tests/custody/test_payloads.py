"""Bytes behind claim checks that somebody removed by hand: said in words, and nothing waits for them for ever."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.nats_server import NatsServer
from invoker.publish import EventPublisher, OutgoingEvent
from invoker.request import ClaimCheck, Content
from invoker.result import Reason, State
from tests.conftest import eventually
from tests.controllers import View, problem_of, running_controller
from tests.custody.processes import ControllerProcess
from tests.custody.workload import CALL, function, write_catalog
from trigger.moments import Moment

pytestmark = pytest.mark.integration


async def remove_all_payloads(view: View) -> None:
    await view.client.jetstream().purge_stream(f"OBJ_{view.names.payloads_bucket}")


async def test_an_output_is_removed_before_its_reply(server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    """A controller dies after the result; until the next one is there the bytes are gone."""
    view = await View(client).listen()
    script = "head -c 100000 /dev/zero"
    catalog = write_catalog(
        tmp_path / "catalog",
        function("large", "large", script, output={"from": "stdout"}, onSuccess={"publish": "next"}),
        function("next", "next", "true"),
    )
    shared = {"ack_wait_seconds": 4, "heartbeat_seconds": 1}
    async with running_controller(server.url, catalog, tmp_path / "first", **shared):
        pass
    await view.publish("large", request_id="r")
    doomed = ControllerProcess(tmp_path / "doomed", server.url, catalog, crash_at=Moment.VERDICT_STORED)
    await doomed.start()
    assert await doomed.ended() == -signal.SIGKILL
    await remove_all_payloads(view)
    async with running_controller(server.url, catalog, tmp_path / "heir", **shared):
        reply = (await view.reply("r"))[0]
        claim = ClaimCheck.model_validate_json(reply.headers[wire.H_CLAIM])
        assert claim.size_bytes == 100_000
        letter = (await view.dead_letters(1))[0]
        assert (letter.reason, letter.topic) == ("claim-check", "next")
        await view.quiet()


@pytest.mark.parametrize(
    ("how", "reason"), [("api", Reason.ERROR), ("file", Reason.ENGINE), ("env", Reason.INVALID_INPUT)]
)
async def test_an_input_is_removed_before_its_run_starts(
    how: str, reason: Reason, server: NatsServer, client: NatsClient, tmp_path: Path
) -> None:
    view, jetstream = await View(client).listen(), client.jetstream()
    script = f'{CALL}\ncall GET input ""; [ "$status" = 200 ]' if how == "api" else "true"
    catalog = write_catalog(tmp_path / "catalog", function("large", "large", script, input={"as": how}))
    size = 50_000 if how == "env" else 900_000
    async with running_controller(server.url, catalog, tmp_path / "state"):
        await view.control("pause", function="large")
        claims = ClaimStore(jetstream, view.names)
        claim = await claims.put(b"x" * size, owner="event")
        headers = {wire.H_CLAIM: claim.to_json().decode()}
        await view.publish("large", claim.to_json(), request_id="r", **headers)
        await eventually(lambda: view.results.record("r"), what="the record")
        await remove_all_payloads(view)
        await view.control("resume", function="large")
        result = await view.result("r", "large")
        assert (result.state, result.reason) == (State.FAILED, reason)
        assert problem_of((await view.reply("r"))[0])["code"] == str(reason)
        await view.quiet()


async def test_what_a_claim_promises_is_checked(server: NatsServer, client: NatsClient, tmp_path: Path) -> None:
    """A claim check with another digest than its bytes have is not a way to other bytes."""
    view = await View(client).listen()
    cat = function("cat", "cat", 'cat "$INVOKER_INPUT_FILE"', input={"as": "file"}, output={"from": "stdout"})
    catalog = write_catalog(tmp_path / "catalog", cat)
    async with running_controller(server.url, catalog, tmp_path / "state"):
        claims = ClaimStore(client.jetstream(), view.names)
        publisher = EventPublisher(client, client.jetstream(), claims, view.names)
        right = await claims.put(b"y" * 600_000, owner="event")
        wrong = right.model_copy(update={"sha256": wire.sha256_hex(b"other")})
        await publisher.publish(OutgoingEvent("cat", Content.claimed(wrong), request_id="wrong"))
        result = await view.result("wrong", "cat")
        assert not result.succeeded
        assert "claim check" in result.message
        await publisher.publish(OutgoingEvent("cat", Content.claimed(right), request_id="right"))
        assert (await view.result("right", "cat")).succeeded
