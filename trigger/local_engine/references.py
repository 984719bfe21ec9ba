"""Variables that refer to Secrets and ConfigMaps, read from a folder of this machine: `NAME/KEY` is a file each, as a
pod would mount them. So a function that refers to its password runs here as it stands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from invoker.errors import StartRefusedError
from invoker.result import Reason
from trigger.local_engine import workfolder
from trigger.plan import RunPlan

MAX_VALUE_BYTES = 128 * 1024 - 1
"""What Linux takes for one variable, its name included."""
_KINDS = {"secretKeyRef": "Secret", "configMapKeyRef": "ConfigMap"}


class UnreadableReferenceError(Exception):
    """A value that the run needs is not there, in words for the function's owner. They never hold a value."""


def references_of(plan: RunPlan) -> tuple[Mapping[str, Any], ...]:
    """The plan's variables that refer to something, as Kubernetes spells them."""
    entries = plan.pod.get("env") or ()
    if not isinstance(entries, list | tuple):
        return ()
    return tuple(entry for entry in entries if isinstance(entry, Mapping) and entry.get("valueFrom"))


def check_readable(plan: RunPlan, folder: Path | None) -> None:
    """Raise `StartRefusedError` when variables refer to what no folder can hold, or when there is no folder."""
    references = references_of(plan)
    of_pods = [str(one.get("name")) for one in references if _key_reference(one) is None]
    if of_pods:
        _refuse(plan, "refers to what only pods have", of_pods, "or use the kubernetes engine")
    if references and folder is None:
        names = [str(one.get("name")) for one in references]
        hint = "set INVOKER_SECRETS_DIR to a folder with a file NAME/KEY for each"
        _refuse(plan, "refers to secrets or configuration that the local engine cannot read", names, hint)


def values_of(plan: RunPlan, folder: Path) -> dict[str, str]:
    """The values of the plan's references, read now, without a last line break; who is `optional` may be missing.

    Raises `UnreadableReferenceError` naming the file that is missing or cannot be a variable.
    """
    values: dict[str, str] = {}
    for one in references_of(plan):
        found = _key_reference(one)
        assert found is not None, "checked by check_readable"
        value = _read(folder, *found)
        if value is not None:
            values[str(one["name"])] = value
    return values


def _read(folder: Path, kind: str, reference: Mapping[str, Any]) -> str | None:
    name, key = str(reference["name"]), str(reference["key"])
    what = f"key {key!r} of the {kind} {name!r}"
    if not (_is_file_name(name) and _is_file_name(key)):
        raise UnreadableReferenceError(f"{what} is no name of a file")
    path = folder / name / key
    try:
        with path.open("rb") as file:
            data = file.read(MAX_VALUE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        if reference.get("optional"):
            return None
        raise UnreadableReferenceError(f"{what} is not there: no file {path}") from None
    except OSError as error:
        raise UnreadableReferenceError(f"{what} cannot be read: {workfolder.words(error)}") from error
    if len(data) > MAX_VALUE_BYTES:
        raise UnreadableReferenceError(f"{what} is larger than a variable can be ({MAX_VALUE_BYTES} bytes): {path}")
    return _as_text(data, what, path)


def _as_text(data: bytes, what: str, path: Path) -> str:
    try:
        text = data.decode()
        if "\0" in text:
            raise ValueError("the system ends a variable there")
    except ValueError:
        raise UnreadableReferenceError(f"{what} is no text that a variable can hold: {path}") from None
    return text.removesuffix("\n").removesuffix("\r")


def _key_reference(entry: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """Secret or ConfigMap, and which key of which; None of what refers to a pod."""
    source = entry.get("valueFrom")
    for field, kind in _KINDS.items():
        reference = source.get(field) if isinstance(source, Mapping) else None
        if isinstance(reference, Mapping):
            return kind, reference
    return None


def _is_file_name(text: str) -> bool:
    return text not in ("", ".", "..") and "/" not in text and "\0" not in text


def _refuse(plan: RunPlan, text: str, names: list[str], hint: str) -> None:
    it = "it" if len(names) == 1 else "them"
    raise StartRefusedError(
        f"function {plan.function} {text}: {', '.join(names)}; give {it} a value, {hint}", reason=str(Reason.CONFIG)
    )
