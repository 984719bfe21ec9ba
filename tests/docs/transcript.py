"""Replaying what a page shows: its ```console blocks, command by command, in a terminal, and what they print.

A line that begins with `$ ` is a command, the lines after it are what it prints. `…` stands for any text within a line,
a line of only `…` for any number of lines. Lines that begin with `> ` go on with
the command. A command that ends in `# in a terminal of its own` runs until the page's
end. A block below `<!-- not replayed: why -->` is left out, one below `<!-- replayed on a cluster: where -->` needs a
cluster.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
OWN_TERMINAL = "# in a terminal of its own"
COMMAND_SECONDS = 90.0
READY_SECONDS = 90.0
PATIENCE = 80
USUAL_HTTP = "http://127.0.0.1:7222"

_BLOCK = re.compile(
    r"(<!-- (not replayed: (?P<why>[^>]+?)|replayed on a cluster: (?P<where>[^>]+?)) -->\n)?"
    r"```console\n(?P<text>.*?)```",
    re.DOTALL,
)
_REQUEST_ID = re.compile(r"^([0-9a-z]{26})\r?$", re.MULTILINE)
_HTTP = re.compile(r"HTTP +(http://127\.0\.0\.1:\d+)")
_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[=>78])")


@dataclass
class Step:
    """One command of a page and the lines that it is shown to print."""

    command: str
    expected: list[str] = field(default_factory=list)

    @property
    def own_terminal(self) -> bool:
        return self.command.endswith(OWN_TERMINAL)


def steps_of(page: Path, *, on_cluster: bool = False) -> list[Step]:
    """The commands of a page in their order, save those of blocks that say why they are not replayed; those that need a
    cluster, or all others."""
    blocks = [one for one in _BLOCK.finditer(page.read_text()) if not one["why"] and bool(one["where"]) is on_cluster]
    return [step for block in blocks for step in _steps(block["text"])]


def commands_left_out(page: Path) -> list[str]:
    """The commands of blocks that are not replayed here."""
    blocks = [block for block in _BLOCK.finditer(page.read_text()) if block["why"]]
    return [step.command for block in blocks for step in _steps(block["text"])]


def _steps(text: str) -> list[Step]:
    steps: list[Step] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            steps.append(Step(line[2:].rstrip()))
        elif line.startswith("> ") and not steps[-1].expected:
            steps[-1].command += f"\n{line[2:]}"
        elif line.strip() or (steps and steps[-1].expected):
            steps[-1].expected.append(line.rstrip())
    return steps


def difference(expected: list[str], printed: str) -> str | None:
    """Where what was printed is not what the page shows; None when it is. Lines after the shown ones are refused."""
    lines = [line.rstrip() for line in printed.replace("\r", "").splitlines()]
    pattern = "".join(
        "(.*\n)*?" if line.strip() == "…" else f"{'.*'.join(map(re.escape, line.split('…')))}\n"
        for line in _without_blank(expected)
    )
    if re.fullmatch(pattern, "".join(f"{line}\n" for line in _without_blank(lines))):
        return None
    return "shown:\n  " + "\n  ".join(expected) + "\nprinted:\n  " + "\n  ".join(lines)


def _without_blank(lines: list[str]) -> list[str]:
    return [line for line in lines if line.strip()]


class Desk:
    """A person at a desk: a folder, an environment in which `invoker` is found, terminals to type commands into.

    Pages write `http://127.0.0.1:7222`, which a busy machine may have given away: what is typed in its place is the
    address that `invoker dev` printed. They wait for 30 seconds, as people do, and this person for longer; and what was
    published is accepted before the next line is typed.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        own = ("INVOKER_", "NATS_", "XDG_", "COLUMNS", "LINES")
        kept = {key: value for key, value in os.environ.items() if not key.startswith(own)}
        self.environ = kept | {
            "PATH": path, "HOME": str(folder),
            "NO_COLOR": "1", "TERM": "xterm", **(environ or {}),
        }  # fmt: skip
        self._terminals: list[Terminal] = []
        self._http = USUAL_HTTP

    def run(self, command: str) -> str:
        """What the command prints on a terminal until it ends, whatever its exit code."""
        printed = self._typed(command.replace(USUAL_HTTP, self._http).replace("--wait 30", f"--wait {PATIENCE}"))
        if command.startswith("invoker publish ") and "--wait" not in command:
            for request_id in _REQUEST_ID.findall(printed):
                self._typed(f"invoker result {request_id} --wait {PATIENCE}")
        return printed

    def _typed(self, command: str) -> str:
        terminal = Terminal(command, self.folder, self.environ)
        try:
            return terminal.read_to_end(COMMAND_SECONDS)
        finally:
            terminal.close()

    def leave_running(self, command: str, shown_at_last: str) -> Terminal:
        """A terminal of its own for a command, once it has printed the line that the page shows last."""
        terminal = Terminal(command.removesuffix(OWN_TERMINAL), self.folder, self.environ)
        self._terminals.append(terminal)
        terminal.read_until(shown_at_last, READY_SECONDS)
        if (found := _HTTP.search(terminal.printed)) is not None:
            self._http = found[1]
        return terminal

    def close(self) -> None:
        for terminal in self._terminals:
            terminal.close()


class Terminal:
    """One command in a pseudo-terminal."""

    def __init__(self, command: str, folder: Path, environ: Mapping[str, str]) -> None:
        self.command = command
        self.printed = ""
        self._screen, inner = pty.openpty()
        termios.tcsetwinsize(inner, (50, 110))
        self._process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=folder, env=dict(environ), stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        )  # fmt: skip
        os.close(inner)

    def read_to_end(self, seconds: float) -> str:
        deadline = time.monotonic() + seconds
        while self._read_some(deadline):
            pass
        self._process.wait(timeout=max(1.0, deadline - time.monotonic()))
        return self.printed

    def read_until(self, text: str, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        wanted = re.compile(".*".join(map(re.escape, text.strip().split("…"))))
        while not wanted.search(self.printed):
            assert self._read_some(deadline), f"{self.command} ended before it printed {text!r}:\n{self.printed}"

    def _read_some(self, deadline: float) -> bool:
        """Read what is there; False at the end. Fails the test when nothing comes in time."""
        ready, _, _ = select.select([self._screen], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"{self.command} does not end:\n{self.printed}"
        try:
            data = os.read(self._screen, 65536)
        except OSError:  # Linux' way to say that the other side of a pseudo-terminal is closed
            return False
        self.printed = _ESCAPE.sub("", self.printed + data.decode("utf-8", "replace"))
        return bool(data)

    def close(self) -> None:
        """Ctrl-C, and without an end within a while, the hard way."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGINT)
            try:
                deadline = time.monotonic() + 60
                while self._process.poll() is None and time.monotonic() < deadline:
                    self._read_some(deadline)
                self._process.wait(timeout=1)
            except (AssertionError, subprocess.TimeoutExpired):
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
        os.close(self._screen)
