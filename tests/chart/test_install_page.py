"""What docs/install.md shows of Helm is what happens: recorded anew, line by line."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chart.helm import Helm
from tests.chart.images import ROOT

PAGE = ROOT / "docs" / "install.md"


def test_the_commands_to_copy_wait_and_take_new_defaults() -> None:
    """`helm test` right after needs a gateway, and `--reuse-values` would leave out the values of a newer chart."""
    commands = re.findall(r"^(?:\$ )?(helm (?:install|upgrade) (?:.*\\\n)*.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) >= 3
    for command in commands:
        assert "--wait" in command
        assert "--reuse-values" not in command


def test_what_is_deleted_for_good_is_what_the_notes_name() -> None:
    """Every Secret and claim that an uninstall of the transcript leaves, and every drawn Secret has its row."""
    page = PAGE.read_text()
    kept = set(re.findall(r"^  ((?:secret|persistentvolumeclaim)/\S+)$", page, re.MULTILINE))
    (command,) = re.findall(r"^kubectl --namespace invoker delete (secret/(?:.*\\\n)*.*)$", page, re.MULTILINE)
    assert set(command.replace("\\", " ").split()) == kept
    rows = set(re.findall(r"^\| .* \| `(secret/[^`]+)` \|", page, re.MULTILINE))
    assert rows == {one for one in kept if one.startswith("secret/")}


@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_the_life_of_a_release_is_as_the_page_shows_it(cluster_helm: Helm, namespace: str, folder: Path) -> None:
    """Installed with the chart's own values, tested, used, upgraded, rolled back, removed."""
    script = [sys.executable, str(ROOT / "scripts" / "helm_transcript.py"), namespace]
    done = subprocess.run(
        script, env=cluster_helm.environ, capture_output=True, text=True, timeout=700, check=False, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    shown = PAGE.read_text().split("<!-- recorded: helm")[1].split("```text\n")[1].split("```")[0]
    assert done.stdout.splitlines() == shown.splitlines()
