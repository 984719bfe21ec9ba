"""An attempt that the run API refuses, or that does not reach it: too late, a foreign token, NATS or the API away."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import eventually
from tests.integration.run_world import RunWorld, mortal_run_world
from tests.integration.runtime.function_place import Place

pytestmark = pytest.mark.integration


# the fence


async def test_an_attempt_that_is_too_late_runs_nothing(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"x")
    assert (await run.call("PUT", "output", b"first")).status == 201
    ended = await place.run(run, "print('imported')\ndef handle(): print('ran')")
    assert (ended.code, ended.stdout, ended.termination) == (64, b"", b"")
    assert ended.stderr.startswith("invoker: this attempt is too late: ")
    assert ended.stderr.count("\n") == 1


async def test_an_output_that_is_too_late_is_not_taken(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"x")
    process = await place.start(run, "import sys\ndef handle():\n  print('up')\n  sys.stdin.read()\n  return 'late'")
    assert process.stdout is not None
    assert process.stdin is not None
    assert await process.stdout.readline() == b"up\n"
    assert (await run.call("PUT", "output", b"first", pod="pod-2")).status == 201
    process.stdin.close()
    ended = await place.ended(process)
    assert (ended.code, ended.termination) == (64, b"")
    assert ended.stderr.startswith("invoker: the output was not taken: ")
    result = await run.result()
    assert result is not None
    assert result.output.inline_bytes() == b"first"


async def test_a_foreign_token_gets_nothing(world: RunWorld, place: Place) -> None:
    run, other = await world.accept(b"x"), await world.accept(b"y")
    ended = await place.run(run, "def handle(): print('ran')", INVOKER_RUN_TOKEN=other.token)
    assert (ended.code, ended.stdout) == (64, b"")
    assert ended.note["message"] == "the token is not the one of this run"


# trouble with the run API


async def test_an_outage_of_nats_is_waited_out(tmp_path: Path, place: Place) -> None:
    async with mortal_run_world(tmp_path / "js") as (server, world):
        run = await world.accept(b"x")
        code = "import sys\ndef handle():\n  print('up')\n  sys.stdin.read()\n  return 'made it'"
        process = await place.start(run, code)
        assert process.stdout is not None
        assert process.stdin is not None
        assert await process.stdout.readline() == b"up\n"
        await server.stop()
        process.stdin.close()
        refused = await run.call("PUT", "output", b"asked while it is away")
        assert refused.status == 503
        assert process.returncode is None
        await server.start()
        ended = await place.ended(process)
        assert ended.code == 0, ended.stderr
        result = await eventually(run.result, what="the result")
        assert result.output.inline_bytes() == b"made it"


async def test_a_run_api_that_stays_away_is_an_error_in_words(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"x")
    address = run.url.replace(world.base_url, "http://127.0.0.1:9")
    ended = await place.run(run, "def handle(): ...", INVOKER_RUN_URL=address, INVOKER_RETRY_SECONDS="0.2")
    assert ended.code == 1
    assert ended.note["type"] == "RunApiUnreachable"
    assert "cannot be reached for 0.2 s" in ended.note["message"]
    assert "Traceback" not in ended.stderr
