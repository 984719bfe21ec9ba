"""scripts/compose-secrets: made once, random, whole, and what the programs that read them take."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

from invoker.gateway.access import keys
from invoker.nats_server import find_binary
from tests.compose.project import ROOT

SCRIPT = ROOT / "scripts" / "compose-secrets"


def made(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["sh", str(SCRIPT), str(folder)], capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}


def test_they_are_made_once_and_are_never_the_same(tmp_path: Path) -> None:
    assert made(tmp_path / "a").returncode == made(tmp_path / "b").returncode == 0
    first, other = contents(tmp_path / "a"), contents(tmp_path / "b")
    assert set(first) == set(other)
    assert not [name for name in first if first[name] == other[name]]
    again = made(tmp_path / "a")
    assert (again.returncode, again.stdout) == (0, f"kept {tmp_path / 'a'}\n")
    assert contents(tmp_path / "a") == first
    assert not [name for name in os.listdir(tmp_path) if name not in ("a", "b")]


def test_every_secret_of_the_file_is_made_and_nobody_else_enters(tmp_path: Path) -> None:
    made(tmp_path / "s")
    named = re.findall(r"\{file: \./\.secrets/(\S+)\}", (ROOT / "docker-compose.yml").read_text())
    assert sorted(named) == sorted(contents(tmp_path / "s"))
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "s").iterdir()} == {0o444}
    assert ".secrets/" in (ROOT / ".gitignore").read_text().split()
    assert ".secrets" in (ROOT / ".dockerignore").read_text().split()


def test_a_folder_that_is_not_whole_is_left_alone(tmp_path: Path) -> None:
    made(tmp_path / "s")
    (tmp_path / "s" / "api_key").unlink()
    before = contents(tmp_path / "s")
    again = made(tmp_path / "s")
    assert (again.returncode, "has no api_key" in again.stderr) == (1, True)
    assert contents(tmp_path / "s") == before


def test_the_gateway_takes_the_key(tmp_path: Path) -> None:
    made(tmp_path / "s")
    ring = keys.KeyRing(keys.load(tmp_path / "s" / "gateway_keys.json").keys)
    assert ring.caller((tmp_path / "s" / "api_key").read_text(), datetime.now(UTC)).name == "compose"


def test_the_nats_server_takes_the_passwords(tmp_path: Path) -> None:
    """The configuration of the file, each part beside the others as they are mounted."""
    made(tmp_path / "s")
    (tmp_path / "nats.conf").write_text((ROOT / "deploy" / "compose" / "nats.conf").read_text())
    (tmp_path / "permissions.conf").write_text((ROOT / "deploy" / "nats" / "permissions.conf").read_text())
    passwords = (tmp_path / "s" / "nats_passwords.conf").read_text()

    def checked(text: str) -> subprocess.CompletedProcess[str]:
        (tmp_path / "passwords.conf").write_text(text)
        command = [find_binary(), "-t", "-c", str(tmp_path / "nats.conf")]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert checked(passwords).returncode == 0, checked(passwords).stderr
    assert "GATEWAY_PASSWORD" in checked(re.sub("GATEWAY.*", "", passwords)).stderr
