"""Other ways in and out: input of the environment or a file, mounted code, output on stdout or in a file, limits."""

from __future__ import annotations

import base64

import pytest
from nats.aio.client import Client as NatsClient

from tests.integration.run_world import RunWorld, run_world
from tests.integration.runtime.function_place import Place

pytestmark = pytest.mark.integration


async def test_an_input_from_the_environment_or_a_file_asks_the_fence_too(world: RunWorld, place: Place) -> None:
    run = await world.accept(b'{"a": 1}', content_type="application/json")
    code = "def handle(event):\n  print(event.get('data-file'))\n  return event['data']"
    brought = {"INVOKER_INPUT_BASE64": base64.b64encode(b'{"a": 2}').decode()}
    ended = await place.run(run, code, **brought)
    assert ended.code == 0, ended.stderr
    result = await run.result()
    assert result is not None
    assert result.output.inline_bytes() == b'{"a":2}'
    late = await place.run(run, code, **brought)
    assert (late.code, late.stdout) == (64, b"")
    file = place.folder / "given"
    file.write_bytes(b'{"a": 3}')
    other = await world.accept(b'{"a": 1}', content_type="application/json")
    ended = await place.run(other, code, INVOKER_INPUT_FILE=str(file))
    assert (ended.code, ended.stdout.decode()) == (0, f"{file}\n")
    found = await other.result()
    assert found is not None
    assert found.output.inline_bytes() == b'{"a":3}'


async def test_an_input_file_that_is_not_there_is_said_in_words(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"x")
    ended = await place.run(run, "def handle(): print('ran')", INVOKER_INPUT_FILE="/nowhere/input")
    assert (ended.code, ended.stdout) == (1, b"")
    assert ended.note["type"] == "InputUnavailable"
    assert "/nowhere/input" in ended.note["message"]
    assert "Traceback" not in ended.stderr


async def test_code_may_be_a_mounted_configuration(world: RunWorld, place: Place) -> None:
    """The kubelet mounts links into a folder that it swaps: `main.py` → `..data/main.py` → `..2026…/main.py`."""
    version = place.folder / "..2026_01_05_09_00_00.1"
    (version / "parts").mkdir(parents=True)
    (version / "main.py").write_text("import beside\nfrom parts import inner\nhandle = beside.handle\n")
    (version / "beside.py").write_text("import parts.inner\ndef handle(event): return parts.inner.NAME")
    (version / "parts" / "inner.py").write_text("NAME = 'found'")
    (place.folder / "..data").symlink_to(version.name)
    for name in ("main.py", "beside.py", "parts"):
        (place.folder / name).symlink_to(f"..data/{name}")
    run = await world.accept(b"x")
    ended = await place.run(run)
    assert ended.code == 0, ended.stderr
    result = await run.result()
    assert result is not None
    assert result.output.inline_bytes() == b"found"


@pytest.mark.parametrize(
    ("code", "stdout"),
    [
        ("def handle():\n  print('printed')\n  return {'a': 1}", b'printed\n{"a":1}'),
        ("def handle():\n  print('printed')", b"printed\n"),
        ("def handle(): return b'\\xff'", b"\xff"),
    ],
)
async def test_stdout_may_be_the_output(world: RunWorld, place: Place, code: str, stdout: bytes) -> None:
    run = await world.accept(b"")
    ended = await place.run(run, code, INVOKER_OUTPUT_MODE="stdout")
    assert (ended.code, ended.stdout) == (0, stdout)
    assert await run.result() is None, "the engine hands in what was printed"


async def test_the_termination_file_may_be_the_output(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"")
    ended = await place.run(run, "def handle(): return {'a': 1}", INVOKER_OUTPUT_MODE="termination")
    assert (ended.code, ended.termination) == (0, b'{"a":1}')
    ended = await place.run(run, "def handle(): return 'x' * 5000", INVOKER_OUTPUT_MODE="termination")
    assert ended.code == 64
    assert ended.note["reason"] == "output-too-large"
    assert "5000 bytes" in ended.note["message"]


async def test_an_output_above_the_limit_names_both_numbers(client: NatsClient, place: Place) -> None:
    async with run_world(client, max_output_bytes=100_000) as world:
        run = await world.accept(b"")
        ended = await place.run(run, "def handle(): return 'x' * 5_000_000")
        assert ended.code == 64
        assert ended.note["reason"] == "output-too-large"
        assert "5000000" in ended.note["message"]
        assert "100000" in ended.note["message"]
        assert await run.result() is None


async def test_an_output_that_does_not_fit_its_schema_names_the_places(client: NatsClient, place: Place) -> None:
    places = [{"pointer": "/a", "detail": "is wrong"}]
    async with run_world(client, check_output=lambda *_: places) as world:
        run = await world.accept(b"")
        ended = await place.run(run, "def handle(): return {'a': 1}")
        assert ended.code == 1
        assert (ended.note["reason"], ended.note["errors"]) == ("invalid-output", places)
