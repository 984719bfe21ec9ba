"""What a handler is given, what its process has of ours, and what becomes of what it returns."""

from __future__ import annotations

import asyncio
import json
import sys

import pytest

from invoker.runtime import ENTRY
from tests.integration.run_world import RunWorld
from tests.integration.runtime.function_place import Place

pytestmark = pytest.mark.integration
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"


@pytest.mark.parametrize(
    ("code", "content_type", "output"),
    [
        ("def handle(event, context): return 'grün'", TEXT, "grün".encode()),
        ("def handle(event, context): return b'\\xff\\x00'", BYTES, b"\xff\x00"),
        ("def handle(event): return {'a': [1, 2.5, None, 'ä']}", JSON, '{"a":[1,2.5,null,"ä"]}'.encode()),
        ("def handle(event): return [1]", JSON, b"[1]"),
        ("def handle(event): return 7", JSON, b"7"),
        ("def handle(event): return False", JSON, b"false"),
        ("def handle(event): return 1.5", JSON, b"1.5"),
        ("def handle(): return None", None, b""),
        ("def handle(): pass", None, b""),
        ("async def handle(event, context): return 'later'", TEXT, b"later"),
        (
            "import asyncio\nasync def handle(event):\n  await asyncio.sleep(0)\n  return event['topic']",
            TEXT,
            b"orders.created",
        ),
        (
            "from dataclasses import dataclass\n@dataclass\nclass P:\n  a: int\ndef handle(): return P(3)",
            JSON,
            b'{"a":3}',
        ),
        (
            "from pathlib import Path\ndef handle(event, context):\n  p = Path(context.workdir) / 'o.csv'\n"
            "  p.write_text('a,b')\n  return p",
            "text/csv; charset=utf-8",
            b"a,b",
        ),
        (
            "def handle(event, context):\n  context.content_type = 'image/png'\n  return b'png'",
            "image/png",
            b"png",
        ),
        ("def handle(event, context): return event['data']", JSON, b'{"n":7}'),
        ("class H:\n  def __call__(self, event): return 'object'\nhandle = H()", TEXT, b"object"),
    ],
)
async def test_what_is_returned_is_the_output(
    world: RunWorld, place: Place, code: str, content_type: str | None, output: bytes
) -> None:
    run = await world.accept(b'{"n": 7}', content_type="application/json")
    ended = await place.run(run, code)
    assert (ended.code, ended.stderr, ended.termination) == (0, "", b"")
    result = await run.result()
    assert result is not None
    assert result.succeeded
    assert result.output.inline_bytes() == output
    assert result.output.content_type == content_type


async def test_the_handler_sees_its_event_and_context(world: RunWorld, place: Place) -> None:
    code = """
import json
def handle(event, context):
    seen = {key: event[key] for key in event if key != "data"}
    seen["data"] = event["data"].decode()
    seen["context"] = dict(context)
    for name in ("attempt", "workdir", "run_id", "request_id", "function"):
        seen[name] = getattr(context, name)
    seen["deadline"] = context.deadline.isoformat()
    return seen
"""
    run = await world.accept(
        b"xyz", headers={"x-note": "ä b"}, params={"level": "9"}, topic="größe.neu", content_type="image/png"
    )
    deadline = "2020-01-02T03:04:05+00:00"
    ended = await place.run(
        run, code, INVOKER_TIMEOUT_SECONDS="180", INVOKER_MEMORY_LIMIT="268435456", INVOKER_DEADLINE=deadline
    )
    assert ended.code == 0, ended.stderr
    result = await run.result()
    assert result is not None
    seen = json.loads(result.output.inline_bytes() or b"")
    assert seen == {
        "data": "xyz",
        "event-id": run.address.request_id,
        "event-type": "image/png",
        "event-time": run.record.received_at.isoformat(),
        "event-namespace": "invoker.dev",
        "extensions": {},
        "topic": "größe.neu",
        "headers": {"x-note": "ä b"},
        "params": {"level": "9"},
        "context": {
            "function-name": "convert",
            "timeout": "180",
            "runtime": f"python{sys.version_info[0]}.{sys.version_info[1]}",
            "memory-limit": "268435456",
        },
        "attempt": 1,
        "workdir": str(place.folder / "work"),
        "run_id": run.run_id,
        "request_id": run.address.request_id,
        "function": "convert",
        "deadline": deadline,
    }


async def test_resolved_parameters_and_topic_win_over_those_that_came(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"", params={"level": "9"})
    code = "def handle(event): return [event['params'], event['topic']]"
    ended = await place.run(run, code, INVOKER_PARAMS='{"level":9,"speed":"fast"}', INVOKER_TOPIC="as.planned")
    assert ended.code == 0, ended.stderr
    result = await run.result()
    assert result is not None
    assert json.loads(result.output.inline_bytes() or b"") == [{"level": 9, "speed": "fast"}, "as.planned"]


async def test_the_deadline_is_the_attempts_own_when_that_is_sooner(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"")
    code = """
import datetime
def handle(event, context):
    left = context.deadline - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(seconds=500) < left <= datetime.timedelta(seconds=600), left
"""
    ended = await place.run(run, code, INVOKER_TIMEOUT_SECONDS="600", INVOKER_DEADLINE="2100-01-01T00:00:00+00:00")
    assert ended.code == 0, ended.stderr


async def test_prints_are_the_handlers_own(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"")
    ended = await place.run(run, "print('at import')\ndef handle():\n  print('in handler')\n  return 'x'")
    assert ended.stdout == b"at import\nin handler\n"


@pytest.mark.parametrize("flags", [["-I", "-u"], ["-u"]])
async def test_the_path_holds_the_functions_code_and_nothing_of_ours(
    world: RunWorld, place: Place, flags: list[str]
) -> None:
    run = await world.accept(b"")
    place.write("import sys\ndef handle(): return [sys.path, sorted(sys.modules)]")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *flags, ENTRY, env=place.environment(run), cwd=place.folder, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await process.communicate()
    assert process.returncode == 0, stderr
    result = await run.result()
    assert result is not None
    found = result.output.inline_bytes() or b""
    path, modules = json.loads(found if result.output.claim is None else await world.claims.read(result.output.claim))
    assert path[0] == str(place.folder)
    assert not any(folder.endswith("invoker/runtime") for folder in path)
    assert "invoker" not in modules


async def test_json_and_headers_cost_no_import(world: RunWorld, place: Place) -> None:
    run = await world.accept(b'{"a": [1, "x"]}', content_type="application/json", headers={"x": "y"})
    code = """
import atexit, sys
atexit.register(lambda: print(*sys.modules))
def handle(event, context):
    context.publish("next", {"a": 1})
    return {"a": event["data"], "h": event["headers"]}
"""
    ended = await place.run(run, code, INVOKER_PARAMS='{"level":9}')
    assert ended.code == 0, ended.stderr
    assert set(ended.stdout.decode().split()) & {"json", "re", "enum", "typing", "socket", "signal", "asyncio"} == set()
