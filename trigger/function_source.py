"""A function as people wrote it, and what holds of it: its text, its code, each setting with where it comes from. Pure.

The text of a file may hold what only its operators should see: values of environment variables, comments, defaults of
fields that a schema declares secret. `concealed` gives the same document without them.
"""

from __future__ import annotations

from typing import Any

from invoker.schema_secrets import CONCEALED, without_given_secrets
from trigger.consumers import DEFAULT_CONCURRENCY
from trigger.function import Function
from trigger.yaml_document import read_documents, written

MAX_SOURCE_BYTES = 256 * 1024
"""Of text and code together: an answer must fit into one message."""


def describe_source(function: Function, *, masked: bool) -> dict[str, Any]:
    """What the control service answers about one function. With `masked` without what is for its operators only."""
    document = _document(function)
    text = concealed(document) if masked else function.source.text
    text, cut = _bounded(text, MAX_SOURCE_BYTES)
    code, code_cut = _bounded(function.source.code or "", MAX_SOURCE_BYTES - len(text.encode()))
    return {
        "function": function.name,
        "file": function.file,
        "line": None if masked else function.source.line,
        "text": text,
        "masked": masked,
        "truncated": cut,
        "code_file": function.source.code_file,
        "code": None if function.source.code is None else code,
        "code_truncated": code_cut,
        "settings": settings_of(function, document),
    }


def concealed(document: Any) -> str:
    """The document as YAML without comments, values of environment variables, and values of secret fields."""
    return written(without_given_secrets(_without_values(document)))


def settings_of(function: Function, document: Any) -> list[dict[str, Any]]:
    """What holds for every run of the function: the key as it is written in a file, the value, and whether the file
    gives it (otherwise it is the default)."""
    values: dict[str, Any] = {
        "concurrency": function.concurrency or DEFAULT_CONCURRENCY,
        "backoffLimit": function.backoff_limit,
        "timeoutSeconds": function.timeout_seconds,
        "pendingTimeoutSeconds": function.pending_timeout_seconds,
        "ttlSecondsAfterFinished": function.ttl_seconds_after_finished,
        "noRetryExitCodes": sorted(function.no_retry_exit_codes),
        "input.as": str(function.input.mode),
        "output.from": str(function.output.mode),
        "resources.requests": dict(function.resources.requests),
        "resources.limits": dict(function.resources.limits),
        "volume.size": function.volume.size if function.volume else None,
        "volume.mountPath": function.volume.mount_path if function.volume else None,
        "keepLog": function.keep_log,
        "keepPod": function.keep_pod,
    }
    spec = document.get("spec") if isinstance(document, dict) else None
    return [{"name": name, "value": value, "given": _is_given(spec, name)} for name, value in values.items()]


def _is_given(spec: Any, name: str) -> bool:
    for part in name.split("."):
        if not isinstance(spec, dict) or spec.get(part) is None:
            return False
        spec = spec[part]
    return True


def _document(function: Function) -> Any:
    """The function's document again: it is read when somebody asks, so that a catalog holds it once, as text."""
    documents = read_documents(function.source.text)
    return documents[0].value if documents else {}


def _bounded(text: str, limit: int) -> tuple[str, bool]:
    data = text.encode()
    return (text, False) if len(data) <= limit else (data[:limit].decode("utf-8", "ignore"), True)


def _without_values(value: Any) -> Any:
    """The document without the values of environment variables, wherever there are some."""
    if isinstance(value, list):
        return [_without_values(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: _without_values(one) for name, one in value.items()}
    if isinstance(value.get("env"), list):
        found["env"] = [_without_value(one) for one in found["env"]]
    return found


def _without_value(variable: Any) -> Any:
    return {**variable, "value": CONCEALED} if isinstance(variable, dict) and "value" in variable else variable
