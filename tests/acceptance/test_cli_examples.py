"""Every command in an EXAMPLES block of the help does what it promises: it is run here as it stands."""

from __future__ import annotations

import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from invoker.cli.reference import helps
from tests.acceptance.cli_desk import INVOKER, Desk, end, until

pytestmark = pytest.mark.acceptance

ORDER = """apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: order}
spec: {runtime: python, handler: main.handle}
"""
ORDER_HANDLER = """from dataclasses import dataclass

@dataclass
class Order:
    number: int

def handle(order: Order, context): ...
"""


def _examples() -> list[tuple[str, str]]:
    found = []
    for path, text in helps():
        _, _, block = text.partition("EXAMPLES\n")
        found += [(path, line.strip()) for line in block.splitlines() if line.strip()]
    return found


EXAMPLES = _examples()
PROGRAMS = ("invoker controller", "invoker gateway")
ENDLESS = ("invoker watch", "invoker top")
SERVERS = ("invoker dev", "invoker demo", *PROGRAMS, *ENDLESS)
ANY_PORT = {"INVOKER_GATEWAY_PORT": "0", "INVOKER_GATEWAY_PROBE_PORT": "0"}
"""For the examples that leave it to the usual ones, which somebody may have on this machine."""
QUICK = [line for path, line in EXAMPLES if path not in SERVERS]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("examples"))
    assert made.run("functions", "new", "hello").code == 0
    with made.dev() as facts:
        _dead_letter(made)
        context = made.folder / ".config" / "nats" / "context"
        context.mkdir(parents=True)
        (context / "production.json").write_text(f'{{"url": "{facts["nats_url"]}"}}')
        (made.folder / "invoker.toml").write_text('catalog = "functions"\nstate_dir = ".controller"\nhttp_port = 0\n')
        order = made.folder / "shop" / "order"
        order.mkdir(parents=True)
        (order / "function.yaml").write_text(ORDER)
        (order / "main.py").write_text(ORDER_HANDLER)
        assert made.run("keys", "new", "uploader", "--file", "keys.json", "--may", "publish").code == 0
        (made.folder / "data").mkdir()
        (made.folder / "data" / "table.csv").write_text("a,b\n1,2\n3,4\n")
        yield made


def _dead_letter(desk: Desk) -> None:
    """An event for which there may be a function, if only its file could be read."""
    broken = desk.catalog / "broken" / "function.yaml"
    broken.parent.mkdir()
    broken.write_text("kind: [")
    desk.run("functions", "reload")
    assert desk.run("publish", "for.broken", "x", "--wait", "10m").code == 6
    shutil.rmtree(broken.parent)
    desk.run("functions", "reload")


def test_every_command_has_examples() -> None:
    paths = {path for path, text in helps() if "Commands:" not in text}
    assert paths == {path for path, _ in EXAMPLES}
    assert {"invoker publish", "invoker runs list"} < paths, "the help was read"


@pytest.mark.parametrize("line", QUICK)
def test_example(desk: Desk, line: str) -> None:
    at = desk
    if line.startswith("invoker functions new"):
        at = Desk(desk.folder / "elsewhere", desk.environ)
        shutil.rmtree(at.folder, ignore_errors=True)
        at.folder.mkdir()
    elif "@latest" in line and "dead" not in line:
        assert desk.run("publish", "hello", '{"name": "Ada"}', "--wait", "90").out == "Hello, Ada!"
    ran = at.shell(line)
    if line.startswith("invoker functions pause"):
        desk.does("functions", "resume", "hello")  # the example that does so may be another worker's
    assert ran.code == 0, ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("line", [line for path, line in EXAMPLES if path == "invoker demo"])
def test_demo_example(desk: Desk, line: str) -> None:
    ran = desk.shell(line, timeout=100)
    assert ran.code == 0, ran.err


@pytest.mark.parametrize("line", [line for path, line in EXAMPLES if path == "invoker dev"])
def test_dev_example(tmp_path: Path, line: str) -> None:
    own = Desk(tmp_path)
    own.run("functions", "new", "hello")
    state = own.folder / (re.findall(r"--state (\S+)", line) or ["state"])[0]
    process = subprocess.Popen(
        ["bash", "-c", f"exec {line}"], cwd=own.folder, env=own.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        until(lambda: (state / "dev.json").exists() or (process.poll() is not None) or None, what="dev.json")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 0, err.decode()
        assert ("-o json" in line) == out.startswith(b'{"nats_url"')
    finally:
        end(process)


@pytest.mark.parametrize(("path", "line"), [one for one in EXAMPLES if one[0] in PROGRAMS])
def test_program_example(desk: Desk, path: str, line: str) -> None:
    ready = f'"{path.removeprefix("invoker ")} ready"'
    process = subprocess.Popen(
        ["bash", "-c", re.sub(rf"\b{path}", f"exec {path.replace('invoker', str(INVOKER), 1)}", line)],
        cwd=desk.folder, env=desk.env | ANY_PORT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        deadline = time.monotonic() + 90
        lines = []
        while time.monotonic() < deadline and (said := process.stderr.readline()):
            lines.append(said)
            if ready in said:
                break
        assert ready in "".join(lines[-1:]), lines
    finally:
        assert end(process) == 0
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize(("path", "line"), [one for one in EXAMPLES if one[0] in ENDLESS])
def test_endless_example(desk: Desk, path: str, line: str) -> None:
    """It shows what goes on until it is interrupted."""
    process = subprocess.Popen(
        ["bash", "-c", re.sub(rf"\b{path}", f"exec {path.replace('invoker', str(INVOKER), 1)}", line)],
        cwd=desk.folder, env=desk.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        topic = "orders.created" if "orders" in line else "hello"

        def shown() -> bool | None:
            desk.run("publish", topic, "{}")
            return bool(select.select([process.stdout], [], [], 0.5)[0]) or None

        until(shown, what=f"something that {line} shows")  # interrupted before, it might be at its imports still
        assert process.poll() is None or "--count" in line, "it goes on"
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert b"Traceback" not in err
