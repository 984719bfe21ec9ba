"""`python -m tests.compose COMMAND …`: the command beside a Docker daemon of its own that has the file's images.

It runs where the ports are that containers publish, so `curl http://127.0.0.1:8080` works in it; `bash` gives a shell.
"""

from __future__ import annotations

import os
import subprocess
import sys

from tests.compose.daemon import daemon
from tests.compose.images import load_images


def main(command: list[str]) -> int:
    with daemon() as docker:
        load_images(docker)
        environment = os.environ | docker.environment | {"HOME": os.environ.get("HOME", "/")}
        return subprocess.run(docker.entered(*command), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["bash"]))
