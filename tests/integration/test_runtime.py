"""The runtime as a real process against a real run API."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client as NatsClient

from invoker import wire
from invoker.connection import ConnectionOptions, connect
from invoker.nats_server import nats_server
from invoker.request import ClaimCheck
from invoker.runtime import ENTRY
from tests.conftest import eventually
from tests.integration.run_world import Run, RunWorld, run_world

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Ended:
    """How a function's process ended."""

    code: int
    stdout: bytes
    stderr: str
    termination: bytes

    @property
    def note(self) -> dict[str, Any]:
        assert len(self.termination) <= 4096
        document: dict[str, Any] = json.loads(self.termination)
        return document


@dataclass(frozen=True)
class Place:
    """Folders of one function, and how an engine starts it there."""

    folder: Path

    def environment(self, run: Run, handler: str = "main.handle", **more: str) -> dict[str, str]:
        work = self.folder / "work"
        work.mkdir(exist_ok=True)
        return {
            "PATH": "/usr/bin:/bin",
            "INVOKER_HANDLER": handler,
            "INVOKER_CODE_DIR": str(self.folder),
            "INVOKER_RUN_URL": run.url,
            "INVOKER_RUN_TOKEN": run.token,
            "INVOKER_RUN_ID": run.run_id,
            "INVOKER_REQUEST_ID": run.address.request_id,
            "INVOKER_FUNCTION": run.address.function,
            "INVOKER_POD_UID": "pod-1",
            "INVOKER_WORKDIR": str(work),
            "INVOKER_TERMINATION_FILE": str(self.folder / "termination"),
        } | more

    def write(self, code: str) -> None:
        (self.folder / "main.py").write_text(code)

    async def start(self, run: Run, code: str | None = None, **more: str) -> asyncio.subprocess.Process:
        if code is not None:
            self.write(code)
        (self.folder / "termination").unlink(missing_ok=True)
        return await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "-I", "-u", ENTRY, env=self.environment(run, **more), cwd=self.folder,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def ended(self, process: asyncio.subprocess.Process) -> Ended:
        stdout, stderr = await process.communicate()
        file = self.folder / "termination"
        termination = file.read_bytes() if file.exists() else b""
        return Ended(process.returncode or 0, stdout, stderr.decode(), termination)

    async def run(self, run: Run, code: str | None = None, **more: str) -> Ended:
        return await self.ended(await self.start(run, code, **more))


@pytest.fixture
async def world(client: NatsClient) -> AsyncIterator[RunWorld]:
    async with run_world(client) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Place:
    folder = tmp_path / "function"
    folder.mkdir()
    return Place(folder)


# what is returned


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
    assert datetime.timedelta(seconds=55) < left <= datetime.timedelta(seconds=60), left
"""
    ended = await place.run(run, code, INVOKER_TIMEOUT_SECONDS="60", INVOKER_DEADLINE="2100-01-01T00:00:00+00:00")
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


# what goes wrong


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
        "import subprocess\ndef handle():\n  try:\n    subprocess.run(['sh', '-c', 'echo up; exec sleep 60'])\n"
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


# publishing and progress


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


# other ways in and out


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


# trouble with the run API


async def test_an_outage_of_nats_is_waited_out(tmp_path: Path, place: Place) -> None:
    async with AsyncExitStack() as stack:
        async with nats_server(tmp_path / "js") as server:
            client = await connect(ConnectionOptions(url=server.url), keep_trying=True)
            stack.push_async_callback(client.close)
            world = await stack.enter_async_context(run_world(client, timeout=0.3))
            run = await world.accept(b"x")
            code = "import sys\ndef handle():\n  print('up')\n  sys.stdin.read()\n  return 'made it'"
            process = await place.start(run, code)
            assert process.stdout is not None
            assert process.stdin is not None
            assert await process.stdout.readline() == b"up\n"
        process.stdin.close()
        refused = await run.call("PUT", "output", b"asked while it is away")
        assert refused.status == 503
        assert process.returncode is None
        async with nats_server(tmp_path / "js", port=server.port):
            ended = await place.ended(process)
            assert ended.code == 0, ended.stderr

            async def sealed() -> Any:
                return await run.result()

            result = await eventually(sealed)
            assert result.output.inline_bytes() == b"made it"


async def test_a_run_api_that_stays_away_is_an_error_in_words(world: RunWorld, place: Place) -> None:
    run = await world.accept(b"x")
    address = run.url.replace(world.base_url, "http://127.0.0.1:9")
    ended = await place.run(run, "def handle(): ...", INVOKER_RUN_URL=address, INVOKER_RETRY_SECONDS="0.2")
    assert ended.code == 1
    assert ended.note["type"] == "RunApiUnreachable"
    assert "cannot be reached for 0.2 s" in ended.note["message"]
    assert "Traceback" not in ended.stderr
