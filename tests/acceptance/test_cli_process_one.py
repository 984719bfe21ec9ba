"""A command as process 1 of a container: it ends on SIGTERM from its first moment on."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.acceptance.cli_desk import INVOKER

pytestmark = pytest.mark.acceptance


@pytest.mark.skipif(os.geteuid() != 0, reason="a process namespace of its own needs root")
def test_it_is_not_deaf_before_it_works(tmp_path: Path) -> None:
    outside = subprocess.Popen(
        ["unshare", "--pid", "--fork", "--kill-child", INVOKER, "publish", "hello", "-"],
        cwd=tmp_path, env=os.environ | {"HOME": str(tmp_path)}, stdin=subprocess.PIPE,
    )  # fmt: skip
    try:
        children = Path(f"/proc/{outside.pid}/task/{outside.pid}/children")
        deadline = time.monotonic() + 60
        while not _handles_sigterm(children.read_text().split()):
            assert time.monotonic() < deadline, "it never had a handler"
            time.sleep(0.01)
        os.kill(int(children.read_text()), signal.SIGTERM)
        assert outside.wait(60) == 143
    finally:
        outside.kill()
        outside.communicate()


def _handles_sigterm(children: list[str]) -> bool:
    for child in children:
        try:
            status = Path(f"/proc/{child}/status").read_text()
        except OSError:
            continue  # it has ended: then the exit code tells
        for line in status.splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False
