"""Placeholders such as `{{params.level}}` in environment values and arguments.

Pure. What may stand in one is closed: a declared parameter, and five facts about the run. They are checked when a
function is loaded and filled when a run is planned, always in one string of the parsed spec, never in YAML text.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

FACTS = ("request.id", "root.id", "run.id", "function", "topic")

_PLACEHOLDER = re.compile(r"\{\{\s*(.{0,200}?)\s*\}\}", re.DOTALL)
_SHELLS = {"sh", "bash", "dash", "ash", "zsh", "ksh"}


def placeholders(text: str) -> list[str]:
    """The names inside `{{…}}`, in order."""
    return _PLACEHOLDER.findall(text)


def problem_of(text: str, parameters: Iterable[str]) -> str | None:
    """The sentence about the first placeholder that does not exist, None when all do."""
    if text.count("{{") != len(placeholders(text)):
        return "'{{' without its '}}'; a placeholder is written {{params.name}}"
    known = [*(f"params.{name}" for name in parameters), *FACTS]
    for name in placeholders(text):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            return f"unknown placeholder {name[:60]!a}{hint} Allowed here: {', '.join(known)}"
    return None


def problem_of_command(command: Iterable[str]) -> tuple[int, str] | None:
    """Where a request's value would choose what is executed: in the program's name, or inside a shell's text."""
    words = list(command)
    if words and placeholders(words[0]):
        return 0, "a placeholder may not name the program that is started"
    if words and words[0].rsplit("/", 1)[-1] in _SHELLS:
        for index, word in enumerate(words[1:], 1):
            if placeholders(word):
                return index, 'a placeholder may not be part of a shell\'s text; put it in env and write "$NAME"'
    return None


def fill(text: str, values: Mapping[str, str]) -> str:
    """The text with every placeholder replaced by its value, once: a value that looks like one stays as it is.

    A declared parameter that was not given and has no default becomes empty.
    """
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], ""), text) if "{{" in text else text
