"""Placeholders inside a function's own pod settings and Job: the few places where a request's value may stand.

Pure. Environment values, arguments and annotations: strings that containers and people read. Never a key, a name, an
image or anything else that decides what runs, where, and as whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from trigger.placeholder import fill, problem_of, problem_of_command

Path = tuple[str | int, ...]

_CONTAINERS = ("containers", "initContainers", "sidecars")
_PLACES = "only in an env value, in command, args or an annotation of a container's pod"


def problem_of_pod(pod: Any, parameters: Iterable[str]) -> tuple[Path, str] | None:
    """The first placeholder that is unknown, or stands where none may; its place and a sentence."""
    known = list(parameters)
    for path, text, is_key in _texts(pod, ()):
        if "{{" not in text:
            continue
        if is_key or not _may_hold(path):
            return path, f"a placeholder may not stand here, {_PLACES}"
        sentence = problem_of(text, known)
        if sentence is not None:
            return path, sentence
    return _problem_of_commands(pod, ())


def filled(pod: Any, values: Mapping[str, str], path: Path = ()) -> Any:
    """The same with every placeholder replaced by its value; nothing else changes, keys and lengths of lists included.

    In what the kubelet expands, a value's `$` is doubled: `$(NAME)` in a request must not become another variable.
    """
    if isinstance(pod, Mapping):
        return {name: filled(value, values, (*path, name)) for name, value in pod.items()}
    if isinstance(pod, list | tuple):
        return [filled(value, values, (*path, index)) for index, value in enumerate(pod)]
    if not isinstance(pod, str) or "{{" not in pod or not _may_hold(path):
        return pod
    is_expanded = not _is_annotation(path)
    return fill(pod, {name: value.replace("$", "$$") for name, value in values.items()} if is_expanded else values)


def _may_hold(path: Path) -> bool:
    return _is_annotation(path) or _is_env_value(path) or _is_word(path)


def _is_annotation(path: Path) -> bool:
    return path[:-1] in (("annotations",), ("template", "metadata", "annotations"))


def _is_env_value(path: Path) -> bool:
    return len(path) >= 5 and path[-5] in _CONTAINERS and path[-3] == "env" and path[-1] == "value"


def _is_word(path: Path) -> bool:
    return len(path) >= 4 and path[-4] in _CONTAINERS and path[-2] in ("command", "args")


def _texts(value: Any, path: Path) -> Iterator[tuple[Path, str, bool]]:
    """Every text with its place, and whether it is a key."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield (*path, name), name, True
            yield from _texts(one, (*path, name))
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _texts(one, (*path, index))
    elif isinstance(value, str):
        yield path, value, False


def _problem_of_commands(value: Any, path: Path) -> tuple[Path, str] | None:
    """A request's value as the name of a program, or inside a shell's text, in any of the containers."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            if name in _CONTAINERS and isinstance(one, list | tuple):
                for index, container in enumerate(one):
                    found = _problem_of_container(container, (*path, name, index))
                    if found is not None:
                        return found
            elif (found := _problem_of_commands(one, (*path, name))) is not None:
                return found
    return None


def _problem_of_container(container: Mapping[str, Any], path: Path) -> tuple[Path, str] | None:
    command, args = container.get("command") or [], container.get("args") or []
    # Without a command the first argument is the program, unless the image has an entry point: nobody knows that here.
    problem = problem_of_command([*command, *args])
    if problem is None:
        return None
    index, sentence = problem
    place: Path = ("command", index) if index < len(command) else ("args", index - len(command))
    return (*path, *place), sentence
