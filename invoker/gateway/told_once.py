"""Documents of ours that callers send: a member that stands twice is refused, since readers differ in which one they
take."""

from __future__ import annotations

import json
from typing import Any

from invoker.errors import InputRefusedError


def check_told_once(data: bytes) -> None:
    """Raise `InputRefusedError` when an object in this JSON has a member twice. What is no JSON is not looked at."""
    try:
        json.loads(data, object_pairs_hook=once)
    except InputRefusedError:
        raise
    except (ValueError, RecursionError):
        return  # whoever reads it says what is wrong


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object with these members; raises `InputRefusedError` when a name is there twice. For `json.loads`."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputRefusedError(
            f"{twice[:80]!a} stands twice in the body",
            errors=[{"pointer": f"/{twice[:80]}", "detail": "stands twice"}],
        )
    return found
