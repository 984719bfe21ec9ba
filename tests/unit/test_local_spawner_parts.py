"""The spawner's parts that need no process: messages, captured output, folders, and what it imports."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigger.local_engine import protocol
from trigger.local_engine.channels import SPOOL_BYTES, Capture, ChannelPool
from trigger.local_engine.descendants import Children
from trigger.local_engine.folders import SMALL, WorkFolders
from trigger.local_engine.protocol import Order

ROOT = Path(__file__).resolve().parents[2]


def order(**fields: Any) -> Order:
    known: dict[str, Any] = {
        "path": "/bin/true",
        "argv": ["true"],
        "env": {},
        "folder": "/nowhere",
        "make_folder": True,
        "mark": "INVOKER_POD_UID=x",
        "memory_bytes": None,
        "log_bytes": 100,
        "output_bytes": None,
        "spool": "/nowhere/spool",
        "termination": "",
    }
    return Order(**(known | fields))


# messages


@given(st.lists(st.lists(st.tuples(st.text(), st.integers(), st.binary()), max_size=5), max_size=5), st.data())
def test_messages_arrive_whole_however_they_are_cut(frames: list[list[Any]], data: st.DataObject) -> None:
    stream = b"".join(protocol.encode(frame) for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = protocol.Decoder()
    got: list[Any] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += decoder.feed(stream[begin:end])
    assert got == [message for frame in frames for message in frame]


def test_an_order_survives_the_journey() -> None:
    sent = order(env={"NAME": "wäre\udcff"}, output_bytes=5)
    (message,) = protocol.Decoder().feed(protocol.encode([(protocol.START, 1, tuple(sent))]))
    assert Order(*message[2]) == sent


# captured output


def test_a_log_that_comes_too_fast_keeps_its_end() -> None:
    capture = Capture(order(log_bytes=10))
    for piece in (b"0123456", b"789", b"abcd"):
        capture.take(protocol.STDOUT, piece)
    capture.take(protocol.STDERR, b"!")
    assert capture.news() == ([(1, b"56"), (1, b"789"), (1, b"abcd"), (2, b"!")], 5)
    assert capture.news() == ([], 0)


def test_one_piece_larger_than_everything_is_cut() -> None:
    capture = Capture(order(log_bytes=3))
    capture.take(protocol.STDOUT, b"abcdef")
    assert capture.news() == ([(1, b"def")], 3)


def test_a_small_output_stays_in_memory(tmp_path: Path) -> None:
    capture = Capture(order(output_bytes=10**6, spool=str(tmp_path / "spool")))
    capture.take(protocol.STDOUT, b"x" * SPOOL_BYTES)
    capture.take(protocol.STDERR, b"news")
    assert not capture.spooled
    assert capture.close() == b"x" * SPOOL_BYTES
    assert not (tmp_path / "spool").exists()
    assert capture.news() == ([(2, b"news")], 0)


def test_a_large_output_goes_to_a_file_up_to_the_limit(tmp_path: Path) -> None:
    capture = Capture(order(output_bytes=100_000, spool=str(tmp_path / "spool")))
    for _ in range(5):
        capture.take(protocol.STDOUT, b"y" * 50_000)
    assert (capture.spooled, capture.close(), capture.size) == (True, b"", 250_000)
    assert (tmp_path / "spool").read_bytes() == b"y" * 100_000


def test_an_output_that_cannot_be_kept_is_trouble_in_words() -> None:
    capture = Capture(order(output_bytes=10**6, spool="/dev/full"))
    capture.take(protocol.STDOUT, b"z" * (SPOOL_BYTES + 1))
    capture.take(protocol.STDOUT, b"more")
    assert capture.trouble == "its output cannot be kept in /dev/full: No space left on device"
    capture.close()


# pipes


def test_clean_pipes_are_used_again_and_others_are_not() -> None:
    registered: set[int] = set()
    pool = ChannelPool(registered.add, registered.remove)
    first = pool.take()
    pool.give_back(first, clean=True)
    assert pool.take() == first
    pool.give_back(first, clean=False)
    assert registered == set()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first.out_writer)


def test_a_spare_pipe_in_which_something_stirs_is_closed() -> None:
    registered: set[int] = set()
    pool = ChannelPool(registered.add, registered.remove)
    first, second = pool.take(), pool.take()
    pool.give_back(first, clean=True)
    pool.give_back(second, clean=True)
    pool.hear_noise(first.err)
    assert registered == {second.out, second.err}
    assert pool.take() == second
    second.close()


def test_a_pipe_used_again_blocks_its_writer_as_a_new_one_does() -> None:
    pool = ChannelPool(lambda fd: None, lambda fd: None)
    channels = pool.take()
    os.set_blocking(channels.out_writer, False)
    pool.give_back(channels, clean=True)
    assert os.get_blocking(pool.take().out_writer)
    channels.close()


# folders

NEVER, LONG_PAST = 0.0, float("inf")


@pytest.fixture
def run(tmp_path: Path) -> str:
    return str(tmp_path / "run")


def make(folders: WorkFolders, run: str) -> int:
    folders.make(f"{run}/1")
    assert os.stat(run).st_mode & 0o777 == 0o700
    assert os.stat(f"{run}/1").st_mode & 0o777 == 0o700
    assert os.listdir(f"{run}/1") == []
    return os.stat(f"{run}/1").st_ino


def test_an_untouched_folder_is_used_again(run: str) -> None:
    folders = WorkFolders()
    first = make(folders, run)
    folders.discard(run)
    assert make(folders, f"{run}-2") == first
    assert os.listdir(os.path.dirname(run)) == ["run-2"]
    assert folders.due() is None


TOUCHES: list[Callable[[str], Any]] = [
    lambda run: Path(run, "1", "file").touch(),
    lambda run: Path(run, "1.termination").touch(),
    lambda run: Path(run, "2").mkdir(),
    lambda run: Path(run, "1").chmod(0o755),
    lambda run: Path(run).chmod(0o755),
    lambda run: os.setxattr(f"{run}/1", "user.mine", b"x"),
    lambda run: (Path(run, "1").rmdir(), Path(run, "1").symlink_to("/tmp")),
]


@pytest.mark.parametrize("touch", TOUCHES)
def test_a_touched_folder_is_removed_and_not_used_again(run: str, touch: Callable[[str], Any]) -> None:
    folders = WorkFolders()
    make(folders, run)
    touch(run)
    folders.discard(run)
    make(folders, f"{run}-2")
    assert os.listdir(os.path.dirname(run)) == ["run-2"]
    assert folders.take_big(10) == []


def test_what_nobody_uses_again_goes_soon(run: str) -> None:
    folders = WorkFolders()
    make(folders, run)
    folders.discard(run)
    assert folders.due() is not None
    folders.clear(NEVER)
    assert os.path.exists(run)
    folders.clear(LONG_PAST)
    assert not os.path.exists(run)
    assert folders.due() is None


def test_later_attempts_get_folders_of_their_own(run: str) -> None:
    folders = WorkFolders()
    make(folders, run)
    folders.make(f"{run}/2")
    assert sorted(os.listdir(run)) == ["1", "2"]
    with pytest.raises(FileExistsError):
        folders.make(f"{run}/2")


def test_much_is_left_to_somebody_else(run: str) -> None:
    folders = WorkFolders()
    make(folders, run)
    for number in range(SMALL + 1):
        Path(run, "1", str(number)).touch()
    folders.discard(run)
    folders.discard(f"{run}-never-made")
    folders.clear(LONG_PAST)
    assert folders.take_big(10) == [run]
    assert folders.take_big(10) == []


def test_links_are_removed_and_not_followed(run: str, tmp_path: Path) -> None:
    folders = WorkFolders()
    make(folders, run)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").touch()
    Path(run, "1", "link").symlink_to(tmp_path / "precious")
    folders.discard(run)
    folders.clear(LONG_PAST)
    assert not os.path.exists(run)
    assert (tmp_path / "precious" / "file").exists()


# descendants


def test_every_child_is_found_also_when_they_are_many() -> None:
    """More than a page of the kernel's list, which is how much it gives at once."""
    children = [os.posix_spawn("/bin/sleep", ["sleep", "600"], {}) for _ in range(900)]
    try:
        assert set(children) <= set(Children().pids())
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


# the program


def test_the_spawner_imports_the_standard_library_and_its_own_parts_only() -> None:
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "from trigger.local_engine import keeper\n"
        "files = {name: str(getattr(module, '__file__', '')) for name, module in sys.modules.items()}\n"
        "print(*sorted(name for name, file in files.items() if sys.argv[1] in file))\n"
        "print(len(sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], stdout=subprocess.PIPE, check=True, text=True
    )
    own, count = done.stdout.splitlines()
    assert own.split() == [
        "trigger",
        "trigger.local_engine",
        *(
            f"trigger.local_engine.{name}"
            for name in ("channels", "descendants", "folders", "keeper", "launcher", "protocol", "spawner")
        ),
    ]
    assert int(count) < 90, "every module costs the start of the engine time and the spawner memory"
