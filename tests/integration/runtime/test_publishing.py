"""Events and progress that a handler publishes while it runs."""

from __future__ import annotations

import json

import pytest

from invoker import wire
from invoker.request import ClaimCheck
from tests.conftest import eventually
from tests.integration.run_world import RunWorld
from tests.integration.runtime.function_place import Place

pytestmark = pytest.mark.integration
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
PUBLISHING = """
from pathlib import Path
{kind}def handle(event, context):
    ids = [
        context.publish("next.one", {{"n": 1}}, headers={{"x-h": "v"}}),
        context.publish("next.two", "text"),
        context.publish("next.größe", b"raw", content_type="image/png"),
    ]
    file = Path(context.workdir) / "large.json"
    file.write_bytes(b"1" * 600_000)
    ids.append(context.publish("next.file", file))
    ids.append(context.publish("next.empty"))
    if context.attempt == 1:
        raise RuntimeError("once more")
    return ids
"""


@pytest.mark.parametrize("kind", ["", "async "])
async def test_a_repeated_attempt_publishes_the_same_events(world: RunWorld, place: Place, kind: str) -> None:
    run = await world.accept(b"x")
    code = PUBLISHING.format(kind=kind)
    first = await place.run(run, code)
    assert first.note["message"] == "once more"
    assert len(await world.events()) == 5
    second = await place.run(run, code, INVOKER_POD_UID="pod-2")
    assert second.code == 0, second.stderr
    events = await world.events()
    assert [event.subject for event in events] == [
        "events.next.one", "events.next.two", "events.next.größe", "events.next.file", "events.next.empty",
    ]  # fmt: skip
    result = await run.result()
    assert result is not None
    ids = json.loads(result.output.inline_bytes() or b"")
    assert ids == [event.headers["Nats-Msg-Id"] for event in events]
    assert [event.headers.get("Content-Type") for event in events] == [JSON, TEXT, "image/png", JSON, None]
    assert [event.data for event in events[:3]] == [b'{"n":1}', b"text", b"raw"]
    assert events[0].headers["x-h"] == "v"
    assert events[0].headers["Invoker-Parent-Run-Id"] == run.run_id
    claim = ClaimCheck.model_validate_json(events[3].headers["Invoker-Claim"])
    assert claim.size_bytes == 600_000
    assert [attempt.number for attempt in result.attempts][-1] == 2


async def test_an_event_that_is_refused_is_an_exception_of_the_handlers(world: RunWorld, place: Place) -> None:
    code = """
def handle(event, context):
    try:
        context.publish("a b", "x")
    except Exception as error:
        first = [type(error).__name__, error.code, str(error)]
    return [first, context.publish("fine", "x")]
"""
    run = await world.accept(b"x")
    ended = await place.run(run, code)
    assert ended.code == 0, ended.stderr
    result = await run.result()
    assert result is not None
    first, identity = json.loads(result.output.inline_bytes() or b"")
    assert first[:2] == ["PublishRefusedError", "invalid-topic"]
    assert first[2].startswith("publishing on a b: topic 'a b' has white space")
    assert identity == wire.chained_id(run.run_id, "published", 0), "what was refused takes no position"


async def test_progress_is_limited_and_never_in_the_way(world: RunWorld, place: Place) -> None:
    code = """
import time
def handle(event, context):
    began = time.monotonic()
    for number in range(2000):
        context.progress(number / 20, f"at {number}")
    context.progress("no number", object())
    return time.monotonic() - began
"""
    run = await world.accept(b"x")
    ended = await place.run(run, code)
    assert ended.code == 0, ended.stderr
    status = await eventually(lambda: world.results.status(run.run_id))
    assert status.text is not None
    assert status.text.startswith("at ")
    info = await world.client.jetstream().stream_info(world.names.status_stream)
    result = await run.result()
    assert result is not None
    took = json.loads(result.output.inline_bytes() or b"")
    assert info.state.last_seq <= took / 0.1 + 2
