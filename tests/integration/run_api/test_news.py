"""News of an attempt through the run API: progress, and errors that are no result yet."""

from __future__ import annotations

import json

import pytest

from invoker.result import RunStatusDocument, State
from tests.conftest import eventually
from tests.integration.run_world import RunWorld

pytestmark = pytest.mark.integration


async def test_progress_is_news_and_keeps_what_is_known(world: RunWorld) -> None:
    run = await world.accept(b"x")
    await run.call("GET", "input")
    assert (await run.call("POST", "progress", b'{"percent": 40, "text": "half"}')).status == 204

    async def status() -> RunStatusDocument | None:
        found = await world.results.status(run.run_id)
        return found if found and found.percent == 40 else None

    found = await eventually(status)
    assert (found.text, found.state, found.function) == ("half", State.RUNNING, "convert")
    assert [attempt.number for attempt in found.attempts] == [1]
    assert found.spec_hash == "spec-1"
    long = json.dumps({"percent": 1000, "text": "ä" * 3000})
    assert (await run.call("POST", "progress", long.encode())).status == 204

    async def later() -> RunStatusDocument | None:
        found = await world.results.status(run.run_id)
        return found if found and found.percent == 100 else None

    found = await eventually(later)
    assert found.text is not None
    assert len(found.text.encode()) <= 1024
    assert [attempt.number for attempt in found.attempts] == [1]


async def test_an_attempts_error_is_news_and_no_result(world: RunWorld) -> None:
    run = await world.accept(b"x")
    note = b'{"type": "ValueError", "message": "no", "traceback": "..."}'
    assert (await run.call("POST", "error", note)).status == 204
    found = await eventually(lambda: world.results.status(run.run_id))
    assert found.text == "attempt 1 failed: ValueError: no"
    assert await run.result() is None
    assert (await run.call("PUT", "output", b"after all", pod="pod-2")).status == 201


@pytest.mark.parametrize(
    "body",
    [b"[]", b"{", b"\xff", b'{"percent": "x"}', b'{"percent": true}', b'{"text": 3}', b"[" * 9000,
     b'{"percent": 1%s}' % (b"0" * 400), b'{"percent": NaN}', b'{"percent": 1e999}', b'{"text": "\\ud800"}'],
)  # fmt: skip
async def test_news_that_are_none_are_refused(world: RunWorld, body: bytes) -> None:
    run = await world.accept(b"x")
    assert (await run.call("POST", "progress", body)).status == 400
    assert await world.results.status(run.run_id) is None


@pytest.mark.parametrize("note", [b'{"message": "\\ud800"}', b'{"type": "\\udfff", "message": "x"}'])
async def test_an_attempts_error_that_is_no_text_is_refused(world: RunWorld, note: bytes) -> None:
    run = await world.accept(b"x")
    assert (await run.call("POST", "error", note)).status == 400


async def test_news_are_small(world: RunWorld) -> None:
    run = await world.accept(b"x")
    assert (await run.call("POST", "error", b" " * 70_000)).status == 413
