"""What the kill tests run: one event, three functions beside each other, chains after two of them; and the proof.

    start.* ──▶ first (answers over HTTP, lives on a moment) ──▶ middle: second ──▶ last: third
            ├─▶ beside
            └─▶ faulty (fails) ──▶ mended: mend

Every function notes its start and its end, so it can be seen what really ran, and when.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from invoker import wire
from invoker.result import Reason, Result
from invoker.results.nats import ResultStream
from tests.conftest import eventually
from tests.controllers import queued

NOTE = """note() {
  printf "%s %s %s %s\\n" "$EPOCHREALTIME" "$1" "$INVOKER_FUNCTION" "$INVOKER_RUN_ID" >> "$NOTES"
}"""
"""`note WHAT`: one line, in one write, in the file that all functions of a test share."""
CALL = """call() {
  rest=${INVOKER_RUN_URL#http://}; host=${rest%%/*}
  exec 3<>"/dev/tcp/${host%:*}/${host#*:}" || return 1
  printf '%s /%s/%s HTTP/1.1\\r\\nHost: run\\r\\nConnection: close\\r\\nAuthorization: Bearer %s\\r\\n' \
    "$1" "${rest#*/}" "$2" "$INVOKER_RUN_TOKEN" >&3
  printf 'Invoker-Pod-Uid: %s\\r\\nContent-Length: %s\\r\\n\\r\\n%s' "$INVOKER_POD_UID" "${#3}" "$3" >&3
  read -r _ status _ <&3; cat <&3 > /dev/null; exec 3>&-
}"""
"""`call METHOD WHAT BODY`: one request to the run API, with nothing but bash; `$status` is the answer's."""


def function(name: str, topic: str | None, script: str, *, notes: Path | None = None, **spec: Any) -> dict[str, Any]:
    """The document of a function that is a bash script."""
    document: dict[str, Any] = {
        "apiVersion": "invoker.dev/v1alpha1",
        "kind": "Function",
        "metadata": {"name": name},
        "spec": {"subscriptions": [{"topic": topic}] if topic else [], "command": ["bash", "-c", script]} | spec,
    }
    if notes is not None:
        document["spec"]["env"] = [{"name": "NOTES", "value": str(notes)}]
    return document


def write_catalog(root: Path, *documents: Mapping[str, Any]) -> Path:
    """A folder with one file per function. JSON is YAML."""
    for document in documents:
        put_function(root, document)
    root.mkdir(exist_ok=True)
    return root


def put_function(root: Path, document: Mapping[str, Any], *, text: str | None = None) -> None:
    """Write one function's file, whole or not at all; `text` in place of the document."""
    folder = root / str(document["metadata"]["name"])
    folder.mkdir(parents=True, exist_ok=True)
    half = folder / "half"
    half.write_text(json.dumps(document) if text is None else text)
    half.rename(folder / "function.yaml")


def kill_catalog(root: Path, notes: Path) -> Path:
    """The functions of the picture above."""
    plain = f'{NOTE}\nnote start\nprintf %s "$INVOKER_FUNCTION"\nnote end'
    answering = f'{NOTE}\n{CALL}\nnote start\ncall GET input ""\ncall PUT output answered\nsleep 0.03\nnote end'
    failing = f"{NOTE}\nnote start\necho on purpose >&2\nnote end\nexit 3"
    stdout: dict[str, Any] = {"output": {"from": "stdout"}, "notes": notes}
    return write_catalog(
        root,
        function("first", "start.*", answering, notes=notes, onSuccess={"publish": "middle", "forwardReply": True}),
        function("beside", "start.>", plain, **stdout),
        function("faulty", "*.here", failing, notes=notes, onFailure={"publish": "mended"}),
        function("second", "middle", plain, onSuccess={"publish": "last"}, concurrency=2, **stdout),
        function("third", "last", plain, **stdout),
        function("mend", "mended", plain, **stdout),
    )


@dataclass(frozen=True)
class Note:
    """One line that a function wrote."""

    at: float
    what: str
    function: str
    run_id: str


def read_notes(file: Path) -> list[Note]:
    if not file.exists():
        return []
    found = []
    for line in file.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # it is being written: where it crosses a page of the file, the first part is there before the rest
        at, what, name, run_id = line.split()
        found.append(Note(float(at), what, name, run_id))
    return found


@dataclass
class Workload:
    """Events published to the kill catalog, and everything that must come of them. One NATS server, many histories."""

    client: NatsClient
    notes: Path
    names: wire.Names = field(default_factory=wire.Names)
    acknowledged: list[str] = field(default_factory=list)
    replies: Counter[str] = field(default_factory=Counter)
    words: dict[str, str] = field(default_factory=dict)

    async def listen(self) -> Workload:
        async def heard(message: Msg) -> None:
            run_id = wire.header(message.headers, wire.H_RUN_ID) or ""
            self.replies[run_id] += 1
            self.words[run_id] = f"{message.subject} {message.headers} {message.data[:500].decode()}"

        await self.client.subscribe("replies.>", cb=heard)
        return self

    async def publish(self, request_id: str) -> None:
        """One event; counted once its publish is acknowledged."""
        headers = {wire.H_MESSAGE_ID: request_id, wire.H_REPLY_TO: f"replies.{request_id}"}
        await self.client.jetstream().publish("events.start.here", request_id.encode(), headers=headers)
        self.acknowledged.append(request_id)

    async def publish_all(self, tag: str, count: int, *, pause: float = 0.0) -> None:
        for number in range(count):
            await self.publish(f"{tag}-{number}")
            if pause:
                await asyncio.sleep(pause)

    def requests(self) -> dict[str, tuple[str, ...]]:
        """Every request that must exist, with its functions: the events, and the stages after them."""
        expected: dict[str, tuple[str, ...]] = {}
        for request_id in self.acknowledged:
            expected[request_id] = ("beside", "faulty", "first")
            middle = wire.chained_id(wire.run_id_of(request_id, "first"), "onSuccess")
            expected[middle] = ("second",)
            expected[wire.chained_id(wire.run_id_of(middle, "second"), "onSuccess")] = ("third",)
            expected[wire.chained_id(wire.run_id_of(request_id, "faulty"), "onFailure")] = ("mend",)
        return expected

    def answered_runs(self) -> set[str]:
        """The runs that owe a reply: `first` hands its caller on to `second`."""
        owing = set()
        for request_id in self.acknowledged:
            middle = wire.chained_id(wire.run_id_of(request_id, "first"), "onSuccess")
            owing |= {wire.run_id_of(request_id, "beside"), wire.run_id_of(request_id, "faulty")}
            owing.add(wire.run_id_of(middle, "second"))
        return owing

    async def unfinished(self) -> int:
        """Messages in the two queues."""
        return sum(await queued(self.client, self.names))

    async def finished(self, within: float = 60) -> None:
        """Wait until nothing is unfinished and everything expected is stored."""

        async def done() -> bool:
            return await self.unfinished() == 0 and await self.has_all()

        await eventually(done, within=within, what="the end of all work")

    async def has_all(self) -> bool:
        """Whether as much is stored as is expected."""
        return len(await self._stored()) >= len(self.subjects())

    def subjects(self) -> set[str]:
        found = set()
        for request_id, functions in self.requests().items():
            found.add(self.names.accepted(request_id))
            found |= {self.names.result(request_id, name) for name in functions}
        return found

    async def _stored(self) -> set[str]:
        info = await self.client.jetstream().stream_info(self.names.results_stream, subjects_filter=">")
        return set(info.state.subjects or {})

    async def prove(self, *, replies: bool = True) -> None:
        """Every acknowledged event ended as promised; to be asked when all is quiet. `replies` False where the server
        was away too: a reply is an ordinary message, and nobody was there to hear it."""
        assert await self.unfinished() == 0
        stored = await self._stored()
        assert stored == self.subjects()
        info = await self.client.jetstream().stream_info(self.names.results_stream)
        assert info.state.messages == len(stored), "a subject holds more than one message"
        assert (await self.client.jetstream().stream_info(self.names.dead_stream)).state.messages == 0
        await self._prove_results()
        if not replies:
            return
        await self.client.flush()
        missing = {run for run in self.answered_runs() if not self.replies[run]}
        assert not missing, f"{len(missing)} runs without a reply"
        stray = self.replies.keys() - self.answered_runs()
        assert not stray, f"replies that nobody is owed: {[self.words[run] for run in stray]}"

    async def _prove_results(self) -> None:
        results = ResultStream(self.client, self.client.jetstream(), self.names)
        starts: dict[str, list[float]] = {}
        for note in read_notes(self.notes):
            if note.what == "start":
                starts.setdefault(note.run_id, []).append(note.at)
        for request_id, functions in self.requests().items():
            answers = await results.answers(request_id)
            assert answers.record is not None
            assert answers.record.functions == functions
            assert set(answers.results) == set(functions)
            for result in answers.results.values():
                await self._prove_result(result, starts.pop(result.run_id, []))
        assert not starts, "a run that nobody asked for"

    async def _prove_result(self, result: Result, starts: list[float]) -> None:
        wanted = Reason.ERROR if result.function == "faulty" else Reason.COMPLETED
        assert result.reason is wanted, (result.function, result.message)
        assert len(result.attempts) == 1, "a killed controller is no attempt of the function"
        await self.prove_starts(result, starts)

    async def prove_starts(self, result: Result, starts: list[float]) -> None:
        """The run did start, and never after its result was stored."""
        assert starts, f"run {result.run_id} of {result.function} never started"
        subject = self.names.result(result.request_id, result.function)
        message = await self.client.jetstream().get_msg(self.names.results_stream, subject=subject)
        assert message.time is not None
        late = [start for start in starts if start > message.time.timestamp()]
        assert not late, f"{result.function} started after its result was stored"
