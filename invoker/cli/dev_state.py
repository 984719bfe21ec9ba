"""The state folder of `invoker dev`: who runs on it, where, and what a killed one left behind.

```
STATE/lock               flock, held as long as a dev runs on this state
STATE/dev.json           addresses and pid, there exactly while one is ready
STATE/nats-server.json   pid and start time of its nats-server, so that a stale one is recognised
STATE/jetstream/         the store
STATE/run-token.key      key of the runs' tokens, for Jobs that outlive a dev; readable for its owner only
STATE/cluster-instance   name of this state in a cluster
STATE/…                  what the controller keeps: work folders, environments, logs
```
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from invoker.errors import InvokerError, SettingsError

KEPT = {"lock", "cluster-instance"}
"""What outlives even `--fresh`: by its name in a cluster this state finds Jobs that it made there long ago."""
STALE_SECONDS = 10.0
"""How long a stale nats-server may take to flush its store before it is killed."""


@dataclass(frozen=True, slots=True)
class DevFacts:
    """Where a ready dev is: what `dev.json` holds."""

    nats_url: str
    http_url: str
    pid: int
    catalog: str = ""

    def document(self) -> dict[str, str | int]:
        return asdict(self)


class StateFolder:
    """One state folder. `lock` must have succeeded before anything but `facts` is called."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    @property
    def jetstream(self) -> Path:
        return self.path / "jetstream"

    def lock(self) -> bool:
        """Take the folder for this process, making it when it is new; False when another process has it.

        Raises `SettingsError` when the folder cannot be made or written. The kernel frees the lock when the process
        ends, however it ends.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = (self.path / "lock").open("ab")
        except OSError as error:
            raise SettingsError(
                f"--state: the folder {self.path} cannot be written: {error.strerror or error}",
                hint="name another one with --state DIR or INVOKER_STATE",
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            self._lock = None
            return False
        return True

    def unlock(self) -> None:
        """Give the folder back; safe to repeat."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def facts(self) -> DevFacts | None:
        """Where the running dev is, None when none is ready; what a killed one left does not count."""
        try:
            found = json.loads((self.path / "dev.json").read_text())
            facts = DevFacts(
                str(found["nats_url"]), str(found["http_url"]), int(found["pid"]), str(found.get("catalog", ""))
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return facts if started_at(facts.pid) else None

    def tell(self, facts: DevFacts) -> None:
        """Write `dev.json`: whoever reads it sees all of it or none."""
        self._write("dev.json", facts.document())

    def forget(self) -> None:
        """Remove `dev.json`; safe to repeat."""
        (self.path / "dev.json").unlink(missing_ok=True)

    def clear(self) -> None:
        """Drop everything that is kept but the lock and the name in a cluster."""
        for entry in self.path.iterdir():
            if entry.name in KEPT:
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def secret(self, name: str) -> str:
        """A secret of this state, made at first; nobody but its owner can read the file, at no moment."""
        return self._once(name, secrets.token_urlsafe(32))

    def name(self, file: str, prefix: str) -> str:
        """A name of this state that no other one has, made at first: the prefix and eight letters and digits."""
        return self._once(file, f"{prefix}-{secrets.token_hex(4)}")

    def _once(self, name: str, new: str) -> str:
        path = self.path / name
        if not path.exists():
            # Renamed when it is whole: a process that is killed in between leaves no empty secret.
            temporary = self.path / f".{name}.{os.getpid()}"
            temporary.unlink(missing_ok=True)
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(new + "\n")
            temporary.replace(path)
        try:
            found = path.read_text().strip()
        except (OSError, UnicodeError) as error:
            raise SettingsError(f"--state: {path} cannot be read: {error}") from error
        if not found:
            raise SettingsError(f"--state: {path} is empty", hint="remove it, and it is made anew")
        return found

    def remember_server(self, pid: int) -> None:
        """Note the nats-server that this dev has started."""
        self._write("nats-server.json", {"pid": pid, "started": started_at(pid)})

    def forget_server(self) -> None:
        (self.path / "nats-server.json").unlink(missing_ok=True)

    def end_stale_server(self) -> int | None:
        """End the nats-server of a dev that was killed, and wait for its end: two on one store would destroy it.

        Returns its pid, None when there was none. Recognised by pid and start time, so that nobody else's process
        that got the same pid is touched. Raises `InvokerError` when it cannot be ended.
        """
        try:
            found = json.loads((self.path / "nats-server.json").read_text())
            pid, started = int(found["pid"]), str(found["started"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        stale = _lives(pid, started)
        if stale:
            _end(pid, started)
        self.forget_server()
        return pid if stale else None

    def _write(self, name: str, document: dict[str, str | int]) -> None:
        temporary = self.path / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(document) + "\n")
        temporary.replace(self.path / name)


_PROC = Path("/proc")


def started_at(pid: int) -> str:
    """When the process started, as the system tells it; empty when there is no such process."""
    if _PROC.exists():
        with suppress(OSError, IndexError):
            stat = (_PROC / str(pid) / "stat").read_text()
            fields = stat.rpartition(")")[2].split()
            return "" if fields[0] == "Z" else fields[19]
        return ""
    told = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout.strip()


def _lives(pid: int, started: str) -> bool:
    return bool(started) and started_at(pid) == started


def _end(pid: int, started: str) -> None:
    for sent in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            try:
                os.kill(pid, sent)
            except PermissionError as error:
                raise InvokerError(f"a stale nats-server (pid {pid}) of another user is on this state") from error
        deadline = time.monotonic() + STALE_SECONDS
        while time.monotonic() < deadline:
            if not _lives(pid, started):
                return
            time.sleep(0.02)
    raise InvokerError(f"a stale nats-server (pid {pid}) is on this state and does not end", hint=f"kill -9 {pid}")


PARENT_BOUND = """\
import ctypes, os, signal, sys
parent, program = int(sys.argv[1]), sys.argv[2]
ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0)
if os.getppid() != parent:
    sys.exit("the parent has ended")
os.execv(program, sys.argv[2:])
"""
"""Asks the kernel for SIGTERM when the parent ends (PR_SET_PDEATHSIG), then becomes the program. SIGTERM and not
SIGKILL, so that the server flushes what it has acknowledged. A program and not a `preexec_fn`: no fork with threads."""


def parent_bound() -> list[str]:
    """The words before a command that make it end when this process does; none where the system cannot."""
    if sys.platform != "linux":
        return []
    return [sys.executable, "-I", "-S", "-c", PARENT_BOUND, str(os.getpid())]
