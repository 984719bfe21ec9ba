"""The programs that pages show, to be run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
GITFAAS_PAGE, WIRE_PAGE = DOCS / "gitfaas.md", DOCS / "wire.md"


def examples(page: Path, language: str) -> list[str]:
    """A page's blocks of that language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
