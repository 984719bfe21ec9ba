"""The values that documentation shows are values of the chart, and their functions are functions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.chart.helm import CHART, Helm
from tests.chart.rendering import NAME, Document, of_kind, rendering, the
from tests.docs.transcript import ROOT
from trigger.catalog_source.directory import DirectorySource

INSTALL = (ROOT / "docs/install.md").read_text().partition("## Kubernetes with Helm")[2]
PAGES = {"install.md": INSTALL, "README.md": (CHART / "README.md").read_text()}
SHOWN = [
    pytest.param(yaml.safe_load(block), id=f"{name} {number}")
    for name, text in PAGES.items()
    for number, block in enumerate(re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL), start=1)
]


@pytest.mark.parametrize("values", SHOWN)
def test_the_chart_takes_what_pages_show(values: Document, helm: Helm) -> None:
    assert of_kind(rendering(helm)(values), "Deployment")


def test_there_are_some() -> None:
    assert len(SHOWN) >= 5


def test_the_rule_that_opens_the_network_is_one(helm: Helm) -> None:
    (rule,) = re.findall(r"`jobs\.networkPolicy\.egress: (\[.*?\])`\. DNS", INSTALL)
    policy = the(
        rendering(helm)({"jobs": {"networkPolicy": {"egress": yaml.safe_load(rule)}}}),
        "NetworkPolicy",
        f"{NAME}-functions",
    )
    assert policy["spec"]["egress"][-1]["ports"] == [{"port": 5432}]


@pytest.mark.parametrize("values", SHOWN)
def test_functions_in_them_can_be_loaded(values: dict[str, Any], tmp_path: Path) -> None:
    functions = values.get("catalog", {}).get("functions", {})
    for name, files in functions.items():
        for file, text in files.items():
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / file).write_text(text)
    catalog = DirectorySource(tmp_path).load()
    assert (list(catalog.functions), list(catalog.broken)) == (sorted(functions), [])
