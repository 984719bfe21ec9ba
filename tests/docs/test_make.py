"""The two commands of the README: `make demo` in a copy of its own, twice, and `make test` as what CI does."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.docs.transcript import ROOT, commands_left_out

NOT_COPIED = shutil.ignore_patterns(".venv", ".git", "__pycache__", ".*_cache", ".hypothesis", ".cluster")


def make(folder: Path, *arguments: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("INVOKER_", "NATS_", "MAKE", "MFLAGS"))
    }
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=kept | (environ or {}), capture_output=True, text=True, check=False
    )


def test_the_readme_shows_these_two_commands_and_ci_runs_the_second() -> None:
    assert commands_left_out(ROOT / "README.md") == ["make demo", "make test"]
    assert re.search(r"^make --silent test$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    planned = make(ROOT, "--dry-run", "--always-make", "test").stdout
    for part in ("ruff check", "ruff format --check", "mypy", "lint-imports", "-m pytest"):
        assert part in planned


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_make_demo_sets_up_and_runs_and_the_second_time_only_runs(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=NOT_COPIED, symlinks=True)
    first = make(copy, "demo", environ={"HOME": str(tmp_path)})
    assert first.returncode == 0, first.stdout + first.stderr
    assert "installing requirements/run.txt" in first.stdout
    assert "✓ done" in first.stdout + first.stderr
    again = make(copy, "demo", environ={"HOME": str(tmp_path)})
    assert again.returncode == 0, again.stdout + again.stderr
    assert "installing" not in again.stdout
    assert "✓ done" in again.stdout + again.stderr


def test_make_lists_its_targets() -> None:
    said = make(ROOT).stdout
    for target in (
        "demo",
        "test",
        "check",
        "lint",
        "format",
        "types",
        "test-unit",
        "soak",
        "bench",
        "clean",
        "lock",
        "docs",
        "images",
    ):
        assert f"make {target} " in said


def test_images_are_built_one_on_the_other(tmp_path: Path) -> None:
    """A builder that only tells what it was asked; tests/cluster/test_images.py has the real one."""
    builder = tmp_path / "buildah"
    builder.write_text('#!/bin/sh\nshift\necho "$@"\n')
    builder.chmod(0o755)
    given = ("images", f"BUILDER={builder}", "BASE=mine:1", "IMAGE_PREFIX=images.example.org/x-", "IMAGE_TAG=7")
    said = make(ROOT, *given)
    assert said.returncode == 0, said.stderr
    first, *asked = [line for line in said.stdout.splitlines() if line.startswith("--build-arg")]
    runtime, samples = "images.example.org/x-python:7", ("collect", "uncompress", "convert")
    assert first.startswith("--build-arg BASE=mine:1 -t images.example.org/x-invoker:7 --build-arg VERSION=")
    assert asked == [
        f"--build-arg BASE=mine:1 -t {runtime} -f functions/runtimes/python/Dockerfile .",
        *(f"--build-arg BASE={runtime} -t images.example.org/x-sample-{name}:7 functions/samples/{name}"
          for name in samples),
    ]  # fmt: skip


def test_images_without_a_builder_say_what_is_missing(tmp_path: Path) -> None:
    for program in ("sh", "dirname", "make"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    said = make(ROOT, "images", environ={"PATH": str(tmp_path)})
    assert said.returncode != 0
    assert "built by buildah or docker, and neither is here; try: apt-get install buildah" in said.stderr


def test_requirements_are_pinned_with_hashes_and_without_addresses() -> None:
    for name in ("run", "dev", "lock"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text()
        assert "://" not in text
        assert "--index-url" not in text
        for line in re.findall(r"^[a-z].*$", text, re.MULTILINE):
            assert re.match(r"[a-z0-9_.-]+==\S+ (; .* )?\\$", line), line
        assert text.count("==") <= text.count("--hash=sha256:")


def test_what_runs_is_pinned_as_it_is_tested() -> None:
    pins = {name: dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements" / f"{name}.txt").read_text(), re.MULTILINE))
            for name in ("run", "dev")}  # fmt: skip
    assert pins["run"].items() <= pins["dev"].items()
