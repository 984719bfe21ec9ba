"""The command line as a user has it: real processes in a folder of their own, with pipes or in a pseudo-terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 100.0
"""Seconds until a test gives up on a moment that must come. Long, since it costs only who fails: with four tests on two
cores a command takes seconds before it says anything, and a pod half a minute."""
WAIT = f"{PATIENCE:g}"
"""The same, as what `--wait` takes."""
INVOKER = str(Path(sys.executable).parent / "invoker")
NOT_KEPT = ("INVOKER_", "NATS_", "XDG_", "OTEL_", "NO_COLOR", "FORCE_COLOR", "TTY_", "PY_COLORS", "GITHUB_", "LINES")
"""Beginnings of the variables of whoever runs the tests that would change what a command does or draws."""
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")
FUNCTION = """\
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {{name: {name}}}
spec:
  description: {about}
  subscriptions: [{{topic: {topic}}}]
  runtime: python
{more}
"""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


def error_lines(ran: Ran) -> list[str]:
    """The error, which is the last thing said: three lines at most."""
    lines = ran.err.splitlines()
    start = max(number for number, line in enumerate(lines) if line.startswith("error: "))
    found = lines[start:]
    assert len(found) <= 3, ran.err
    assert "Traceback" not in ran.err
    return found


@dataclass
class Desk:
    """A folder with a catalog and a state, and the commands given there."""

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def catalog(self) -> Path:
        return self.folder / "functions"

    @property
    def env(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(NOT_KEPT)}
        beside = str(Path(sys.executable).parent)
        own = {"INVOKER_STATE": str(self.state), "HOME": str(self.folder), "PATH": f"{beside}:{kept.get('PATH', '')}"}
        return kept | own | {"TERM": "xterm-256color", "COLUMNS": ""} | self.environ

    def run(
        self, *arguments: str, stdin: bytes = b"", timeout: float = PATIENCE + 10, env: dict[str, str] | None = None
    ) -> Ran:
        """The command with pipes, to its end."""
        done = subprocess.run(
            [INVOKER, *arguments], cwd=self.folder, env=self.env | (env or {}), input=stdin,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def does(self, *arguments: str, stdin: bytes = b"") -> Ran:
        """The command with pipes, which must end well: the test that it prepares would fail in the dark."""
        ran = self.run(*arguments, stdin=stdin)
        assert ran.code == 0, f"invoker {' '.join(arguments)} ended with {ran.code}: {ran.err}"
        return ran

    def raw(self, *arguments: str) -> bytes:
        """The bytes on standard output."""
        command = [INVOKER, *arguments]
        return subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, timeout=PATIENCE + 10, check=True
        ).stdout

    def shell(self, line: str, timeout: float = PATIENCE + 10) -> Ran:
        """A command line as it stands in the help, in a shell."""
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=self.env, stdin=subprocess.DEVNULL,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace"))

    def start(self, *arguments: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """The command, running, its two streams into files `out` and `err` of the folder."""
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            return subprocess.Popen(
                [INVOKER, *arguments], cwd=self.folder, env=self.env | (env or {}), stdin=subprocess.DEVNULL,
                stdout=out, stderr=err,
            )  # fmt: skip

    def out(self) -> str:
        return (self.folder / "out").read_text("utf-8", "replace")  # half a letter may be there by now

    def err(self) -> str:
        return (self.folder / "err").read_text("utf-8", "replace")

    def facts(self) -> dict[str, Any] | None:
        """What dev.json says, None while there is none."""
        try:
            found: dict[str, Any] = json.loads((self.state / "dev.json").read_text())
        except FileNotFoundError:
            return None
        return found

    @contextmanager
    def dev(self, *arguments: str, env: dict[str, str] | None = None) -> Iterator[dict[str, Any]]:
        """A ready `invoker dev` on free ports, stopped at the end; gives what dev.json says."""
        process = self.start("dev", "--port", "0", "--http-port", "0", *arguments, env=env)
        try:
            found = until(lambda: self._ready(process), what="dev.json")
            assert found, self.err()
            yield found
        finally:
            end(process)

    def _ready(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """This process's facts: a killed one before it may have left its own. Empty when it has ended."""
        if process.poll() is not None:
            return {}
        found = self.facts()
        return found if found is not None and found["pid"] == process.pid else None

    @contextmanager
    def terminal(self, *arguments: str, columns: int = 100, rows: int = 40) -> Iterator[Terminal]:
        """The command in a pseudo-terminal of that size."""
        mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        process = subprocess.Popen(
            [INVOKER, *arguments], cwd=self.folder, env=self.env, stdin=its, stdout=its, stderr=its,
            start_new_session=True, preexec_fn=_take_terminal,  # Ctrl-C reaches only who has the terminal
        )  # fmt: skip
        os.close(its)
        terminal = Terminal(process, mine)
        try:
            yield terminal
        finally:
            end(process)
            os.close(mine)

    def function(
        self, name: str, code: str, topic: str | None = None, more: Sequence[str] = (), about: str = ""
    ) -> None:
        """Write a function into the catalog."""
        folder = self.catalog / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(f"  {line}" for line in more)
        (folder / "main.py").write_text(code)
        (folder / "function.yaml").write_text(
            FUNCTION.format(name=name, topic=topic or name, about=about or name, more=lines)
        )


@dataclass
class Terminal:
    """A running command and the terminal it draws on."""

    process: subprocess.Popen[bytes]
    descriptor: int
    drawn: bytes = b""

    @property
    def text(self) -> str:
        """All that was drawn so far, without control sequences."""
        return ANSI.sub("", self.drawn.decode("utf-8", "replace")).replace("\r\n", "\n")

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def sees(self, wanted: str, within: float = PATIENCE) -> str:
        """Read until the text is on the screen; fails with what is there instead."""
        deadline = time.monotonic() + within
        while wanted not in self.text:
            if not self._read(deadline):
                raise AssertionError(f"{wanted!r} is not on the screen:\n{self.text}")
        return self.text

    def ends(self, within: float = PATIENCE) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + within
        while self._read(deadline):
            pass
        return self.process.wait(max(0.1, deadline - time.monotonic()))

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return False
        try:
            found = os.read(self.descriptor, 65536)
        except OSError:
            return False  # the other side is closed
        self.drawn += found
        return bool(found)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def until(ask: Callable[[], Any], within: float = PATIENCE, what: str = "the moment") -> Any:
    """The first truthy (or empty, not None) answer; fails when there is none in time."""
    deadline = time.monotonic() + within
    while (answer := ask()) is None or answer is False:
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come within {within:g} s")
        time.sleep(0.02)
    return answer


def end(process: subprocess.Popen[bytes]) -> int:
    """End a process in the orderly way; one that does not end within a minute is killed, and fails the test."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError("did not end within 60 s of SIGTERM") from None
    return process.wait()
