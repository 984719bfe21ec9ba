"""A function as the control service tells it: what it is, whether it can be used, what waits for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trigger.catalog import BrokenFunction
from trigger.consumers import Backlog
from trigger.function import Function, NextTopic


def problem_of(function: Function, broken: Iterable[BrokenFunction]) -> BrokenFunction | None:
    """Why a function is in use as it last was: its own refusal, or that of its whole file; None when it is fine."""
    for one in broken:
        if one.name == function.name or (one.name is None and one.kept and one.file == function.file):
            return one
    return None


def without_function(broken: Iterable[BrokenFunction], functions: Iterable[str]) -> list[BrokenFunction]:
    """The refusals that no usable function stands for."""
    names = set(functions)
    return [one for one in broken if one.name not in names and not (one.name is None and one.kept)]


def describe_function(function: Function, problem: BrokenFunction | None, backlog: Backlog) -> dict[str, Any]:
    """One usable function; with a problem, its last good version is what is used (`kept`)."""
    return {
        "name": function.name,
        "description": function.description,
        "labels": dict(function.labels),
        "subscriptions": [
            {"topic": one.topic, "filter": one.filter.words if one.filter else None} for one in function.subscriptions
        ],
        "status": "kept" if problem else "ready",
        "problem": _problem(problem),
        "paused": backlog.paused,
        "queued": backlog.waiting,
        "running": backlog.handed_out,
        "concurrency": function.concurrency,
        "runtime": function.code.runtime,
        "image": function.code.image,
        "command": list(function.code.command) if function.code.command else None,
        "handler": function.code.handler,
        "file": function.file,
        "spec_hash": function.spec_hash,
        "timeout_seconds": function.timeout_seconds,
        "backoff_limit": function.backoff_limit,
        "no_retry_exit_codes": sorted(function.no_retry_exit_codes),
        "input_schema": function.input.schema,
        "output_schema": function.output.schema,
        "parameters": [
            {
                "name": one.name,
                "schema": one.schema.document,
                "default": one.default,
                "required": one.required,
                "description": one.description,
            }
            for one in function.parameters
        ],
        "on_success": _next(function.on_success),
        "on_failure": _next(function.on_failure),
    }


def describe_broken(broken: BrokenFunction) -> dict[str, Any]:
    """A function (or a whole file) that cannot be used and has no last good version."""
    return {
        "name": broken.name or broken.file,
        "status": "broken",
        "problem": _problem(broken),
        "file": broken.file,
        "subscriptions": [],
        "paused": False,
        "queued": 0,
        "running": 0,
    }


def _problem(broken: BrokenFunction | None) -> dict[str, Any] | None:
    if broken is None:
        return None
    return {"file": broken.file, "line": broken.line, "field": broken.field, "message": broken.message}


def _next(following: NextTopic | None) -> dict[str, Any] | None:
    return {"publish": following.publish, "forward_reply": following.forward_reply} if following else None
