"""Helm, built beside the test cluster's programs, with folders of its own: nothing of this machine's Helm is read."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.build import programs_folder

CHART = Path(__file__).parents[2] / "charts" / "invoker"


class HelmError(Exception):
    """helm ended with another code than 0; the text is what it said."""


def helm_program() -> Path | None:
    """Where it is, or None when it is not built here (`make cluster-build`)."""
    program = programs_folder() / "helm"
    return program if program.exists() else None


@dataclass(frozen=True)
class Helm:
    """Calls of one helm, at one cluster where a kubeconfig is given. `folder` is its home and safe to remove."""

    program: Path
    kubeconfig: Path | None = None
    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "invoker-test-helm")

    def __call__(self, *arguments: str, given: str | None = None, timeout: float = 300) -> str:
        """What helm prints. `given` is its standard input. Raises `HelmError` with what it said."""
        command = [str(self.program), *arguments]
        done = subprocess.run(
            command, input=given, env=self.environ, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode != 0:
            raise HelmError(f"helm {' '.join(arguments)} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which helm, and kubectl beside it, is run."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
        own = {f"HELM_{what}_HOME": str(self.folder / what.lower()) for what in ("CACHE", "CONFIG", "DATA")}
        place = {"KUBECONFIG": str(self.kubeconfig or "/nowhere"), "KUBECACHEDIR": str(self.folder / "kubectl")}
        return kept | own | place | {"PATH": f"{self.program.parent}:{os.environ['PATH']}"}

    def parsed(self, *arguments: str, **more: Any) -> Any:
        """`... --output json`, parsed."""
        return json.loads(self(*arguments, "--output", "json", **more))
