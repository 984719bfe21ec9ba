"""Files around an attempt: its input, the code it runs, what earlier controllers left. Blocking; run in a thread."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from io import RawIOBase
from pathlib import Path

from invoker.errors import EngineUnavailableError
from invoker.result import Reason

INLINE_FILE = "main.py"
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def take_state(state_dir: Path) -> int:
    """Take the folder for one engine, make the folders in it and set aside what an earlier engine left.

    Returns the descriptor to be closed when the folder is given up; the end of the process gives it up as well. Raises
    `EngineUnavailableError` naming a folder that cannot be used, or that another engine uses now.
    """
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        lock = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _set_aside(state_dir)
        except BaseException:
            os.close(lock)
            raise
    except BlockingIOError as error:
        text = f"the state folder {state_dir} is in use by another engine"
        raise EngineUnavailableError(text, hint="end that one, or choose another folder") from error
    except OSError as error:
        text = f"the state folder {state_dir} cannot be used: {words(error)}"
        raise EngineUnavailableError(text, hint="make it writable, or choose another one") from error
    return lock


def _set_aside(state_dir: Path) -> None:
    """Renaming is quick whatever the size; removing is the spawner's."""
    old = Path(tempfile.mkdtemp(prefix="old-", dir=state_dir))
    for name in ("work", "code"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(state_dir / name, old / name)
        (state_dir / name).mkdir(mode=0o700)
    environments = state_dir / "environments"
    environments.mkdir(mode=0o700, exist_ok=True)
    named = {os.readlink(path) for path in environments.iterdir() if path.is_symlink()}
    for path in environments.iterdir():
        if not path.is_symlink() and path.name not in named:  # half a one: its engine was killed
            os.rename(path, old / path.name)


def leftovers(state_dir: Path) -> list[Path]:
    """Folders set aside by this or an earlier `take_state` and still there."""
    return sorted(state_dir.glob("old-*"))


def new_input(folder: Path, path: Path) -> RawIOBase:
    """Make a fresh work folder (private to its owner) and an input file in it, open for writing. Raises OSError."""
    folder.parent.mkdir(mode=0o700, exist_ok=True)
    if folder.exists():  # fetching the input is tried again
        shutil.rmtree(folder)
    folder.mkdir(mode=0o700)
    return open(path, "xb", buffering=0)


def snapshot_code(state_dir: Path, name: str, folder: Path | None, inline: str | None) -> Path:
    """The code of one version of a function, copied once; later edits of the original do not reach it.

    Safe to repeat and to run twice at once: the copy appears whole or not at all. Links are copied as the files they
    lead to, since the catalog has checked them. Raises OSError.
    """
    target = state_dir / "code" / name
    if target.is_dir():
        return target
    draft = Path(tempfile.mkdtemp(prefix=".draft-", dir=target.parent))
    try:
        if folder is not None:
            shutil.copytree(folder, draft, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__", ".git"))
        if inline is not None:
            (draft / INLINE_FILE).write_text(inline, encoding="utf-8")
        draft.chmod(0o700)
        os.rename(draft, target)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if target.is_dir():  # somebody else was faster
            return target
        raise
    return target


def write_all(file: RawIOBase, data: bytes) -> None:
    """Write a chunk; an unbuffered file may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def words(error: OSError) -> str:
    """What the system said, with the file and the error's name: `No space left on device (ENOSPC), /state/…`."""
    named = f" ({errno.errorcode.get(error.errno, error.errno)})" if error.errno else ""
    where = f", {os.fsdecode(error.filename)}" if isinstance(error.filename, str | bytes) else ""
    return f"{error.strerror or error}{named}{where}"


def reason_of(number: int | None) -> Reason:
    """Whose fault a refused file is: the set-up's (`config`) when something is forbidden, else the machine's."""
    return Reason.CONFIG if number in _FORBIDDEN else Reason.ENGINE


def read_spool(path: Path) -> bytes:
    """The output that the spawner kept in a file."""
    return path.read_bytes()
