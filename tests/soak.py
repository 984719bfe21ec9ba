"""Whether tests of custody shall take their long form: `make soak`."""

from __future__ import annotations

import os


def soaking() -> bool:
    """More seeds, more kills, minutes instead of seconds."""
    return os.environ.get("INVOKER_SOAK") == "1"
