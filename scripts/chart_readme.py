"""Writes the table of values in `charts/invoker/README.md` again: what values.schema.json says, and the defaults.

`python scripts/chart_readme.py` writes it; `tests/chart/test_values.py` fails when it is behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parents[1] / "charts" / "invoker"
_TABLE = re.compile(r"(<!-- generated: values -->\n).*?(<!-- end -->)", re.DOTALL)
SHORT = 60


def written(text: str) -> str:
    """The page with its table as it should be. Reads the chart's schema and values."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    rows = ["| value | default | meaning |", "| --- | --- | --- |", *_rows(schema, values, "")]
    return _TABLE.sub(lambda found: found[1] + "\n".join(rows) + "\n" + found[2], text)


def _rows(schema: Mapping[str, Any], values: Mapping[str, Any], above: str) -> Iterator[str]:
    for name, part in schema["properties"].items():
        if name not in values:
            continue  # `global`: Helm's own
        path = f"{above}{name}"
        if "properties" in part:
            yield from _rows(part, values[name], f"{path}.")
        else:
            meaning = part["description"].replace("|", "\\|")
            yield f"| `{path}` | {_shown(values[name])} | {meaning}{_choices(part)} |"


def _shown(value: Any) -> str:
    text = json.dumps(value).replace("|", "\\|")
    if value is None or value == "":
        return "–"
    return f"`{text}`" if len(text) <= SHORT else "see values.yaml"


def _choices(part: Mapping[str, Any]) -> str:
    """The words that are allowed, where the schema lists them."""
    words = [f"`{word}`" for word in part.get("enum", []) if word is not None]
    return f" One of {', '.join(words)}." if words else ""


if __name__ == "__main__":
    page = CHART / "README.md"
    page.write_text(written(page.read_text()))
