"""Images from the project's own Dockerfiles, built here and known to the cluster's node. Base images are `images`.

Kept by the hash of what goes into them. The builder has a store of its own in the cache and runs in its own mount
namespace, so that nothing of it stays mounted on this machine.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.cluster import images
from tests.cluster.build import BuildError, last_lines
from tests.cluster.facts import Cluster
from tests.cluster.folders import CHECKOUT, cache_folder, digest_of, locked, write_whole
from tests.cluster.loading import load_archive

KEPT_SECONDS = 2 * 3600.0
_ALONE = ("unshare", "--mount", "--propagation", "private")


def build_image(
    cluster: Cluster, dockerfile: Path, context: Path, tag: str, build_args: Mapping[str, str] | None = None
) -> None:
    """Afterwards pods of this cluster can name `tag`, such as `localhost/invoker-python:test`.

    A build argument whose value names a base image or a tag that was built before may be used in FROM; nothing is
    pulled. Safe to repeat, and quick then. Raises `BuildError`, and `LoadError` for a cluster that takes no images.
    """
    load_archive(cluster, build_archive(dockerfile, context, tag, build_args or {}))


def build_archive(dockerfile: Path, context: Path, tag: str, build_args: Mapping[str, str]) -> Path:
    """The image as an archive in the cache, built when it is not there."""
    images.build_base_images()
    with locked(cache_folder(), "builder.lock"):
        bases = {value: _archive_of_base(value) for value in build_args.values() if value.startswith("localhost/")}
        arguments = json.dumps(sorted(build_args.items()))
        key = digest_of(tag, dockerfile, arguments, *(base.name for base in bases.values()))
        key = digest_of(key, *_contents(sources(dockerfile.read_text()), context))
        archive = _folder() / f"{_file_name(tag)}-{key}.tar"
        if archive.exists():
            archive.touch()  # in use: not to be forgotten
        else:
            _forget_old()
            _build(archive, dockerfile, context, tag, build_args, bases)
        write_whole(_latest(tag), archive.name)
    return archive


def sources(dockerfile: str) -> list[str]:
    """The paths of the context that a Dockerfile copies from; `.` when one of them cannot be known from its text."""
    found: list[str] = []
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = line.split()
        if not words or words[0].upper() not in ("COPY", "ADD") or any(word.startswith("--from=") for word in words):
            continue
        named = line.split(maxsplit=1)[1]
        listed = json.loads(named) if named.startswith("[") else [word for word in words[1:] if word[:2] != "--"]
        found += listed[:-1]
    return ["."] if any("$" in path for path in found) else found


def _archive_of_base(reference: str) -> Path:
    if reference in images.BASE_IMAGES:
        return images.archive_of(reference)
    try:
        return _folder() / _latest(reference).read_text()
    except FileNotFoundError:
        raise BuildError(f"{reference} is neither a base image nor was it built before") from None


def _folder() -> Path:
    return cache_folder() / "built-images"


def _latest(tag: str) -> Path:
    """Remembers which archive a tag means, for the builds that start from it. Each checkout has its own."""
    return _folder() / digest_of(str(CHECKOUT)) / _file_name(tag)


def _forget_old() -> None:
    """Removes what no test has asked for lately: every change of the code makes archives that no other change uses."""
    for archive in _folder().glob("*.tar"):
        if archive.stat().st_mtime < time.time() - KEPT_SECONDS:
            archive.unlink()
            archive.with_suffix(".log").unlink(missing_ok=True)


def _contents(paths: Iterable[str], context: Path) -> list[bytes]:
    found: list[bytes] = []
    for pattern in sorted(paths):
        for top in sorted(context.glob(pattern)) if pattern not in (".", "./") else [context]:
            for file in [top] if top.is_file() else sorted(top.rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    mode = bytes([file.stat().st_mode & 0o100])
                    found += [str(file.relative_to(context)).encode(), mode, file.read_bytes()]
    return found


def _build(
    archive: Path, dockerfile: Path, context: Path, tag: str, build_args: Mapping[str, str], bases: Mapping[str, Path]
) -> None:
    if shutil.which("buildah") is None:
        raise BuildError("images of Dockerfiles are built by buildah, which is not here; try: apt-get install buildah")
    archive.parent.mkdir(parents=True, exist_ok=True)
    log = archive.with_suffix(".log")
    with tempfile.TemporaryDirectory(prefix="invoker-builder-") as scratch:
        store = ["--root", str(cache_folder() / "builder"), "--runroot", scratch]
        for reference, base in bases.items():
            _buildah(log, *store, "pull", "--quiet", f"oci-archive:{base}:{reference}")
        words = [part for name, value in build_args.items() for part in ("--build-arg", f"{name}={value}")]
        how = ["--isolation", "chroot", "--network", "host", "--pull-never"]
        _buildah(log, *store, "bud", *how, *words, "--file", str(dockerfile), "--tag", tag, str(context))
        unfinished = Path(scratch) / "image.tar"
        _buildah(log, *store, "rmi", "--prune", "--force")  # what tags of earlier builds left in the store
        _buildah(log, *store, "push", "--disable-compression", tag, f"oci-archive:{unfinished}:{tag}")
        shutil.move(unfinished, archive.with_suffix(".unfinished"))
    archive.with_suffix(".unfinished").rename(archive)


def _buildah(log: Path, *arguments: str) -> None:
    with log.open("a") as file:
        done = subprocess.run([*_ALONE, "buildah", *arguments], stdout=file, stderr=file, check=False)
    if done.returncode != 0:
        raise BuildError(f"buildah {' '.join(arguments[4:])} ended with {done.returncode}\n{last_lines(log)}")


def _file_name(tag: str) -> str:
    return tag.removeprefix("localhost/").replace("/", "-").replace(":", "-")
