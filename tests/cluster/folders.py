"""Where the cluster's files are: what was built and is kept, and the state of the one that runs."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]


def cache_folder() -> Path:
    """What is built once and used by every cluster: programs and images. Safe to remove; costs a build."""
    chosen = os.environ.get("INVOKER_CLUSTER_CACHE")
    return Path(chosen).absolute() if chosen else Path.home() / ".cache" / "invoker-test-cluster"


def state_folder() -> Path:
    """The state of this checkout's cluster: kubeconfig, facts, logs. One cluster at a time lives in it."""
    chosen = os.environ.get("INVOKER_CLUSTER_STATE")
    return Path(chosen).absolute() if chosen else CHECKOUT / ".cluster"


@contextmanager
def locked(folder: Path, name: str = "lock") -> Iterator[None]:
    """One process at a time, waiting for the others; the kernel lets go of the lock of a process that was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def digest_of(*parts: str | bytes | Path) -> str:
    """A short name for the contents of texts and files."""
    total = hashlib.sha256()
    for part in parts:
        content = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()[:16]


def write_whole(path: Path, content: str | bytes, mode: int = 0o600) -> None:
    """Writes a file so that a reader finds the old content or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_bytes(content.encode() if isinstance(content, str) else content)
    unfinished.chmod(mode)
    unfinished.replace(path)
