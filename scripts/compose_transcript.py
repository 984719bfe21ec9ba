"""Records what the commands of docs/install.md print on a machine with Docker, and puts it there.

    python scripts/compose_transcript.py            prints it
    python scripts/compose_transcript.py --write    puts it on the page

It needs a Docker daemon that has the images of docker-compose.yml and nothing on port 8080; `python -m tests.compose
python scripts/compose_transcript.py` starts one. Works in a copy, with secrets of its own. What differs from run to run
(ids, times) is cut short; nothing else is changed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "install.md"
COMMANDS = (
    "make compose-secrets",
    "docker-compose up --detach",
    "docker-compose ps",
    "docker-compose run --rm demo",
    """curl -s -H "X-Api-Key: $(cat .secrets/api_key)" 'http://127.0.0.1:8080/v1/topics/demo.collect?wait=30' \\\n"""
    """    --json '{"source": "data/tzdata", "pattern": "zone1970*"}'""",
    "docker-compose stop nats; sleep 20",
    "docker-compose ps controller",
    "docker inspect --format '{{(index .State.Health.Log 4).Output}}' invoker_controller_1",
    "docker-compose start nats; sleep 10",
    "docker-compose ps controller",
    "docker-compose down --volumes",
)
PARTS = ("Makefile", "docker-compose.yml", "deploy", "functions/samples", "scripts")
_BLOCK = re.compile(r"(<!-- recorded: compose[^>]* -->\n```text\n).*?(```)", re.DOTALL)
_ID = re.compile(r"\b([0-9a-z]{6})[0-9a-z]{20}\b")


def recorded(folder: Path) -> str:
    """The commands and what they print, in a folder with what they need."""
    lines: list[str] = []
    for command in COMMANDS:
        done = subprocess.run(
            ["bash", "-c", command], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise SystemExit(f"$ {command}\n{done.stdout}")
        lines += [f"$ {command}", *_shown(done.stdout)]
    return "\n".join(lines) + "\n"


def _shown(text: str) -> list[str]:
    """Only the last state of each line that docker-compose draws several times; ids cut short."""
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line).rsplit("\r", 1)[-1].rstrip() for line in text.splitlines()]
    begun = {line.removesuffix("... done").removesuffix(" ") for line in lines if line.endswith("... done")}
    kept = [line for line in lines if line and line.removesuffix("...").removesuffix(" ") not in begun]
    return [_ID.sub(r"\1…", line) for line in kept]


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "invoker"
        folder.mkdir()
        os.chmod(scratch, 0o755)
        for part in PARTS:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "wheels"))
            else:
                shutil.copy(ROOT / part, folder / part)
        text = recorded(folder)
    if "--write" not in arguments:
        print(text, end="")
        return 0
    PAGE.write_text(_BLOCK.sub(lambda found: found[1] + text + found[2], PAGE.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
