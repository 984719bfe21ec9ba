"""What goes wrong in a handler is told everywhere: errors, wrong input, no memory, signals."""

from __future__ import annotations

import json
import re
import signal

import pytest

from tests.conftest import eventually
from tests.integration.run_world import RunWorld
from tests.integration.runtime.function_place import Place

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("code", "exit_code", "wanted"),
    [
        ("def handle(): raise ValueError('no')", 1, {"type": "ValueError", "message": "no"}),
        ("class OddError(Exception): ...\ndef handle(): raise OddError", 1, {"type": "main.OddError", "message": ""}),
        ("async def handle(): raise KeyError('k')", 1, {"type": "KeyError", "message": "'k'"}),
        ("def handle(): exit_now()", 1, {"type": "NameError", "message": "name 'exit_now' is not defined"}),
        ("def handle(): raise MemoryError", 1, {"type": "MemoryError", "message": ""}),
        (
            "import sys\ndef handle(): sys.exit()",
            1,
            {"type": "SystemExit", "message": "the handler called sys.exit and so gave no output; return instead"},
        ),
        (
            "import sys\ndef handle(): sys.exit(3)",
            3,
            {"type": "SystemExit", "message": "the handler called sys.exit(3)"},
        ),
        ("import sys\ndef handle(): sys.exit('words')", 1, {"type": "SystemExit", "message": "words"}),
        ("def handle(): raise BaseException('b')", 1, {"type": "BaseException", "message": "b"}),
        (
            "class Gone(Exception): retryable = False\ndef handle(): raise Gone('no customer 17')",
            64,
            {"type": "main.Gone", "message": "no customer 17"},
        ),
        ("class Busy(Exception): retryable = None\ndef handle(): raise Busy('b')", 1, {"type": "main.Busy"}),
        (
            "class Odd(Exception):\n  @property\n  def retryable(self): raise OSError\ndef handle(): raise Odd('o')",
            1,
            {"type": "main.Odd", "message": "o"},
        ),
        (
            "def handle(): return {1, 2}",
            1,
            {
                "type": "InvalidOutput",
                "message": "what the handler returned is a set that cannot be JSON: a value of type set has no form in "
                "JSON; return str, bytes, a path, None, or JSON values, dataclasses and pydantic models",
                "reason": "invalid-output",
            },
        ),
        (
            "import missing_package\ndef handle(): ...",
            1,
            {"type": "ModuleNotFoundError", "message": "No module named 'missing_package' (main.py, line 1)"},
        ),
        ("def handle(:\n  pass", 64, {"type": "SyntaxError", "message": "invalid syntax (main.py, line 1)"}),
        ("\n1 / 0", 1, {"type": "ZeroDivisionError", "message": "division by zero (main.py, line 2)"}),
        ("import sys\nsys.exit(0)", 1, {"type": "SystemExit"}),
        ("other = 1", 64, {"type": "HandlerError", "message": "'handle' does not exist in main.py"}),
        ("def handle(a, b, c): ...", 64, {"type": "HandlerError"}),
    ],
)
async def test_a_failure_is_told_everywhere(
    world: RunWorld, place: Place, code: str, exit_code: int, wanted: dict[str, str]
) -> None:
    run = await world.accept(b"x")
    ended = await place.run(run, code)
    assert ended.code == exit_code, ended.stderr
    assert {key: ended.note[key] for key in wanted} == wanted
    assert ended.note["type"] in ended.stderr
    assert "invoker/runtime" not in ended.stderr, "our own frames are in the way"
    assert "asyncio" not in ended.stderr
    assert await run.result() is None
    status = await eventually(lambda: world.results.status(run.run_id), what="the news of the failure")
    assert status.text is not None
    assert status.text.startswith("attempt 1 failed: " + ended.note["type"])


async def test_a_traceback_ends_where_it_happened(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"x")
    ended = await place.run(run, "def inner(): raise ValueError('ä' * 9000)\ndef handle():\n  inner()\n")
    assert ended.code == 1
    assert len(ended.termination) <= 4096
    plain = await place.run(run, "def inner():\n  raise ValueError('x')\ndef handle():\n  inner()\n")
    assert "line 4, in handle" in plain.note["traceback"]
    assert "line 2, in inner" in plain.note["traceback"]
    assert plain.note["traceback"].endswith("ValueError: x\n")
    assert plain.stderr == plain.note["traceback"]


async def test_input_that_is_no_json_never_reaches_the_handler(world: RunWorld, place: Place) -> None:
    run = await world.accept(b'{"a": tru}', content_type="application/json")
    ended = await place.run(run, "def handle(event): print('ran')")
    assert (ended.code, ended.stdout) == (64, b"")
    assert ended.note["reason"] == "invalid-input"
    assert "line 1, column 7" in ended.note["message"]
    assert ended.note["errors"] == [{"pointer": "", "detail": ended.note["message"].removeprefix("the input ")}]


TYPED = """
from __future__ import annotations
{imports}
class Order({base}):
    number: int
    names: list[str]
def handle(order: Order, context):
    print('ran')
    return [type(order).__name__, order.number, order.names, context.attempt]
"""
MODELS = {
    "dataclass": TYPED.format(imports="from dataclasses import dataclass\n@dataclass", base="object"),
    "pydantic": TYPED.format(imports="import pydantic", base="pydantic.BaseModel"),
}


@pytest.mark.parametrize("kind", ["dataclass", "pydantic"])
async def test_typed_data_is_validated_before_the_handler_runs(world: RunWorld, place: Place, kind: str) -> None:
    run = await world.accept(b'{"number": 3, "names": ["a"]}', content_type="application/json")
    ended = await place.run(run, MODELS[kind])
    assert ended.code == 0, ended.stderr
    result = await run.result()
    assert result is not None
    assert json.loads(result.output.inline_bytes() or b"") == ["Order", 3, ["a"], 1]
    wrong = await world.accept(b'{"number": "x", "names": [1]}', content_type="application/json")
    ended = await place.run(wrong, MODELS[kind])
    assert (ended.code, ended.stdout) == (64, b"")
    assert ended.note["reason"] == "invalid-input"
    assert [error["pointer"] for error in ended.note["errors"]] == ["/number", "/names/0"]
    assert "Traceback" not in ended.stderr
    assert await wrong.result() is None


async def test_a_handler_without_memory_can_still_say_so(world: RunWorld, place: Place) -> None:
    code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
kept = []
def eat():
    local = [0]
    while True:
        kept.append(bytes(64 << 10))
        local.append(bytearray(64))
def handle():
    eat()
"""
    run = await world.accept(b"x")
    ended = await place.run(run, code)
    assert ended.code == 1
    assert ended.note["type"] == "MemoryError"
    assert "in eat" in ended.note["traceback"]
    assert "MemoryError" in ended.stderr


async def test_sigterm_lets_the_handler_clean_up(world: RunWorld, place: Place) -> None:
    for code in (
        "import time\ndef handle():\n  try:\n    print('up')\n    time.sleep(60)\n  finally:\n    print('down')",
        "import asyncio\nasync def handle():\n  try:\n    print('up')\n    await asyncio.sleep(60)\n"
        "  finally:\n    print('down')",
        # Its output is not ours: a signal that comes before `run` knows its child leaves that behind, for a minute.
        "import subprocess\ndef handle():\n  try:\n"
        "    subprocess.run(['sh', '-c', 'echo up; exec sleep 60 > /dev/null 2>&1'])\n"
        "  finally:\n    print('down')",
    ):
        run = await world.accept(b"x")
        process = await place.start(run, code)
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        process.send_signal(signal.SIGTERM)
        ended = await place.ended(process)
        assert (ended.code, ended.stdout) == (143, b"down\n")
        assert ended.note["type"] == "Terminated"
        assert "/function/main.py" in ended.note["traceback"], "where it stood is what one wants to know"
        assert "143" not in ended.note["traceback"]
        assert re.fullmatch(r"invoker: the attempt was ended by a signal while at main\.py, line \d\n", ended.stderr)


async def test_a_handler_that_ignores_sigterm_once_is_ended_by_the_next(world: RunWorld, place: Place) -> None:
    code = """
import time
def handle():
    while True:
        try:
            print('up')
            time.sleep(60)
        except BaseException:
            print('no')
"""
    run = await world.accept(b"x")
    process = await place.start(run, code)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    assert await process.stdout.readline() == b"no\n"
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == -signal.SIGTERM
    await place.ended(process)
