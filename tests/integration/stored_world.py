"""What a controller would store, stored by a test: for the client's reading side, one moment at a time."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.claimcheck import ClaimStore
from invoker.request import Content, RequestRecord, RunTicket
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.results.nats import ResultStream
from tests.conftest import eventually


@dataclass
class StoredWorld:
    """Writes into one instance's streams."""

    client: NatsClient
    names: wire.Names
    results: ResultStream
    claims: ClaimStore

    @classmethod
    def of(cls, client: NatsClient, names: wire.Names) -> StoredWorld:
        js = client.jetstream()
        return cls(client, names, ResultStream(client, js, names), ClaimStore(js, names))

    async def accept(self, request_id: str, *functions: str, data: bytes = b"", **given: Any) -> RequestRecord:
        """A request with queued runs, as after accept."""
        record = await self.record(request_id, *functions, data=data, **given)
        for function, run_id in record.run_ids().items():
            await self.results.put_ticket(RunTicket(run_id=run_id, request_id=request_id, function=function))
        return record

    async def record(self, request_id: str, *functions: str, data: bytes = b"", **given: Any) -> RequestRecord:
        """A request whose runs have no message yet, as in the middle of accept."""
        now = datetime.now(UTC)
        fields: dict[str, Any] = {
            "topic": "orders", "received_at": now, "accepted_at": now, "sha256": wire.sha256_hex(data), "catalog": "c",
            "root_request_id": request_id, "body": Content.inline(data),
        }  # fmt: skip
        record = RequestRecord(request_id=request_id, functions=functions, **(fields | given))
        assert await self.results.put_record(record)
        return record

    async def take_event(self) -> None:
        """What intake does last: the oldest event leaves EVENTS."""
        js = self.client.jetstream()
        state = (await js.stream_info(self.names.events_stream)).state
        await js.delete_msg(self.names.events_stream, state.first_seq)

    async def running(self, request_id: str, function: str, state: State = State.RUNNING) -> None:
        await self.news(
            RunStatusDocument(
                run_id=wire.run_id_of(request_id, function),
                request_id=request_id,
                function=function,
                topic="orders",
                state=state,
                at=datetime.now(UTC),
                started_at=datetime.now(UTC),
            )
        )

    async def news(self, status: RunStatusDocument) -> None:
        """The latest news of a run, stored when this returns: nobody acknowledges a status, and the server stores what
        it got after it has answered the ping of a flush."""
        await self.results.put_status(status)

        async def stored() -> bool:
            return await self.results.status(status.run_id) == status

        await eventually(stored, what="the status in its stream")

    async def seal(
        self,
        request_id: str,
        function: str,
        output: bytes | Content = b"",
        reason: Reason = Reason.COMPLETED,
        **given: Any,
    ) -> Result:
        """The run's result, as the run API stores it; the run's message stays in RUNS until `release`."""
        state = State.SUCCEEDED if reason is Reason.COMPLETED else State.FAILED
        fields: dict[str, Any] = {
            "topic": "orders", "state": state, "reason": reason, "finished_at": datetime.now(UTC),
            "root_request_id": request_id,
            "output": output if isinstance(output, Content) else Content.inline(output),
        }  # fmt: skip
        result = Result(
            request_id=request_id, run_id=wire.run_id_of(request_id, function), function=function, **(fields | given)
        )
        assert await self.results.put_result(result)
        return result

    async def release(self, request_id: str, function: str) -> None:
        """What finish does last: the run's message leaves RUNS."""
        js = self.client.jetstream()
        subject = self.names.run(function, wire.run_id_of(request_id, function))
        message = await js.get_msg(self.names.runs_stream, subject=subject)
        await js.delete_msg(self.names.runs_stream, message.seq or 0)

    async def finish(self, request_id: str, function: str, output: bytes | Content = b"", **given: Any) -> Result:
        result = await self.seal(request_id, function, output, **given)
        await self.release(request_id, function)
        return result

    async def reply(self, reply_to: str, result: Result, runs: int, data: bytes = b"", **headers: str) -> None:
        """The reply of a run, as finish sends it."""
        given = {
            wire.H_REQUEST_ID: result.request_id, wire.H_RUN_ID: result.run_id, wire.H_FUNCTION: result.function,
            wire.H_STATE: str(result.state), wire.H_REASON: str(result.reason), wire.H_RUNS: str(runs),
        }  # fmt: skip
        await self.client.publish(reply_to, data, headers=given | headers)


def run_id(request_id: str, function: str) -> str:
    return wire.run_id_of(request_id, function)


async def put_letter(world: StoredWorld, letter: dict[str, Any]) -> None:
    """A dead letter, as the controller stores it."""
    headers = {wire.H_REQUEST_ID: letter.get("request_id") or "", wire.H_REASON: letter["reason"]}
    await world.client.jetstream().publish(world.names.dead(letter["id"]), json.dumps(letter).encode(), headers=headers)


async def followed(world: StoredWorld) -> None:
    """Wait until somebody follows RESULTS (or STATUS is of no interest): then the wait has really begun."""
    js = world.client.jetstream()

    async def consumers() -> bool:
        return (await js.stream_info(world.names.results_stream)).state.consumer_count > 0

    await eventually(consumers, what="a follower")
