"""The image of controller and gateway as it is built here: its size, what is in it and what is not, how it is run."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest

from invoker.version import __version__
from scripts import sbom
from tests.cluster import images
from tests.cluster.built_image import beginnings_of, config_of, content_bytes, layers_above, members_of
from tests.cluster.invoker_image import invoker_archive
from tests.compose.daemon import need_builder

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(400)]

MAX_ADDED_BYTES = 220_000_000
HOME = "opt/invoker/lib/python3.11/site-packages"
UNCHECKED = (1).to_bytes(4, "little")
"""The mark of compiled code that is never compared with its source."""
TOOLS = ("pip", "setuptools", "hatchling", "wheel", "uv")
_DIST = re.compile(rf"{HOME}/([^/]+)-([^-/]+)\.dist-info/METADATA")


@pytest.fixture(scope="module")
def archive() -> Path:
    need_builder()
    return invoker_archive()


@pytest.fixture(scope="module")
def members(archive: Path) -> list[tarfile.TarInfo]:
    """What it adds to its base."""
    return members_of(archive, layers_above(archive, images.archive_of(images.BASE)))


def test_it_is_small(archive: Path) -> None:
    above = layers_above(archive, images.archive_of(images.BASE))
    added = sum(content_bytes(archive, layer["digest"]) for layer in above)
    print(f"the image of controller and gateway adds {added:,} bytes to its base")
    assert 50_000_000 < added <= MAX_ADDED_BYTES


def test_it_says_how_it_is_run_and_where_it_is_from(archive: Path) -> None:
    config = config_of(archive)
    assert config["User"] == "10001:10001"
    assert config["Entrypoint"] == ["invoker"]
    assert config["Cmd"] == ["--help"]
    assert config["WorkingDir"] == "/var/lib/invoker"
    assert "Healthcheck" not in config
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()}
    assert labels["title"] == "invoker"
    assert labels["licenses"] == "Apache-2.0"
    assert (labels["version"], labels["revision"]) == ("unknown", "unknown"), "what the build was not told"
    assert labels["created"] == "1970-01-01T00:00:00Z", "a clock has no say in it"
    assert labels["source"].startswith("https://")


def test_it_has_exactly_what_is_locked(members: list[tarfile.TarInfo]) -> None:
    found = {match[1].lower().replace("_", "-"): match[2] for one in members if (match := _DIST.match(one.name))}
    assert found.pop("nats-invoker") == __version__
    packages = {one.name: one for one in sbom.packages_of(sbom.LOCK.read_text())}
    required = {name: one.version for name, one in packages.items() if one.scope == "required"}
    optional = {name: one.version for name, one in packages.items() if one.scope == "optional"}
    assert {name: version for name, version in found.items() if name not in optional} == required
    assert not [name for name in TOOLS if name in found]
    assert not [one.name for one in members if re.search(r"/bin/(pip|nats-server|activate)", one.name)]


def test_it_is_compiled_and_nobody_but_root_may_change_it(members: list[tarfile.TarInfo]) -> None:
    names = {one.name for one in members}
    sources = [name for name in names if re.match(rf"{HOME}/(invoker|trigger|nats|pydantic)/.*\.py$", name)]
    assert len(sources) > 200
    for name in sources:
        folder, _, file = name.rpartition("/")
        assert f"{folder}/__pycache__/{file[:-3]}.cpython-311.pyc" in names, name
    own = [one for one in members if one.name.startswith("opt/invoker")]
    assert {one.uid for one in own} == {0}
    assert not [one.name for one in own if one.mode & 0o022 and not one.issym()]
    assert not [one.name for one in own if not one.mode & 0o004]
    (state,) = [one for one in members if one.name.rstrip("/") == "var/lib/invoker"]
    assert (state.uid, state.gid, state.mode & 0o722) == (10001, 10001, 0o700)


def test_its_files_have_no_time(archive: Path, members: list[tarfile.TarInfo]) -> None:
    """The same sources give the same files at any hour, and nothing is compiled anew at every start because of one."""
    compiled = beginnings_of(archive, layers_above(archive, images.archive_of(images.BASE)), ".pyc", 8)
    assert len(compiled) > 1_000
    assert [name for name, head in compiled.items() if head[4:] != UNCHECKED] == []
    assert {one.mtime for one in members if one.name.startswith("opt/invoker/")} == {0}
