"""Writes what is in the image of controller and gateway as CycloneDX 1.5: `dist/nats-invoker-VERSION.cdx.json`.

Made from the locked requirements alone (requirements/image.txt), so the same lock gives the same document, byte for
byte, on any machine and without network. Standard library only. `python scripts/sbom.py -` prints it.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "image.txt"
PROJECT = "nats-invoker"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://invoker.dev/sbom")
_PIN = re.compile(r"([A-Za-z0-9._-]+)==([^ ;\\]+)(?: *; *([^\\]+?))?(?: *\\)?$")
_HASH = re.compile(r" +--hash=(sha256):([0-9a-f]{64})")
_SOURCE = re.compile(r" +# +(?:via +)?([A-Za-z0-9._-]+)")
_ELSEWHERE = re.compile(r"(sys_platform|platform_system) == '(win32|emscripten|Windows|darwin)'")
_VERSION = re.compile(r"python_(full_)?version")


@dataclass
class Package:
    """One pinned package: the sha256 of each of its files, and what asks for it."""

    name: str
    version: str
    marker: str | None
    hashes: list[str] = field(default_factory=list)
    wanted_by: list[str] = field(default_factory=list)

    @property
    def reference(self) -> str:
        return f"pkg:pypi/{self.name}@{self.version}"

    @property
    def scope(self) -> str:
        """Whether an image has it: always, with some versions of Python, or never, since it is for other platforms."""
        if self.marker is None:
            return "required"
        if _ELSEWHERE.search(self.marker):
            return "excluded"
        return "optional" if _VERSION.search(self.marker) else "required"


def packages_of(lock: str) -> list[Package]:
    """What a file written by `uv pip compile --generate-hashes` pins. Pure."""
    found: list[Package] = []
    for line in lock.splitlines():
        if pin := _PIN.match(line):
            found.append(Package(pin[1], pin[2], pin[3]))
        elif found and (digest := _HASH.match(line)):
            found[-1].hashes.append(digest[2])
        elif found and line.startswith(" ") and (source := _SOURCE.match(line)) and source[1] not in ("via", "-c"):
            found[-1].wanted_by.append(source[1])
    return found


def document(packages: list[Package], version: str) -> dict[str, Any]:
    """The bill of materials. Pure: its serial number comes from its content, and it has no time."""
    project = {
        "type": "application",
        "bom-ref": f"pkg:pypi/{PROJECT}@{version}",
        "name": PROJECT,
        "version": version,
        "purl": f"pkg:pypi/{PROJECT}@{version}",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }
    components = [_component(package) for package in packages]
    references = {package.name: package.reference for package in packages} | {PROJECT: str(project["bom-ref"])}
    needs: dict[str, list[str]] = {reference: [] for reference in references.values()}
    for package in packages:
        for source in package.wanted_by:
            if source in references:
                needs[references[source]].append(package.reference)
    dependencies = [{"ref": one, "dependsOn": sorted(of)} for one, of in sorted(needs.items())]
    content = json.dumps([components, dependencies, version], sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, content)}",
        "version": 1,
        "metadata": {"component": project},
        "components": components,
        "dependencies": dependencies,
    }


def _component(package: Package) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "library",
        "bom-ref": package.reference,
        "name": package.name,
        "version": package.version,
        "purl": package.reference,
        "scope": package.scope,
        "hashes": [{"alg": "SHA-256", "content": digest} for digest in package.hashes],
    }
    if package.marker is not None:
        found["properties"] = [{"name": "invoker:marker", "value": package.marker}]
    return found


def version_of_project() -> str:
    """The version, read without importing anything."""
    found = re.search(r'__version__ = "([^"]+)"', (ROOT / "invoker" / "version.py").read_text())
    assert found is not None
    return found[1]


def main(arguments: list[str]) -> int:
    version = version_of_project()
    text = json.dumps(document(packages_of(LOCK.read_text()), version), indent=2) + "\n"
    if arguments == ["-"]:
        print(text, end="")
        return 0
    file = ROOT / "dist" / f"{PROJECT}-{version}.cdx.json"
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    print(f"wrote {file.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
