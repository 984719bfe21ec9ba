"""Functions as pages show them: lines of the list, what holds for one, what follows on its runs. Pure."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from invoker import wire
from invoker.errors import InvokerError
from invoker.gateway.run_figures import FunctionFigures
from invoker.quantities import duration
from invoker.schema_secrets import without_given_secrets
from invoker.views import CatalogInfo, FunctionInfo, ParameterInfo, SettingInfo

PAGE_ROWS = 200
_RANK = {"broken": 0, "kept": 1, "ready": 2}
STATUS_WORDS = {
    "ready": "Its file is good.",
    "kept": "Its file was changed and is refused: it runs in its last good version.",
    "broken": "Its file is refused, and there is no version that could run.",
}
SETTING_WORDS = {
    "concurrency": "runs at once",
    "backoffLimit": "more attempts after the first",
    "timeoutSeconds": "longest attempt",
    "pendingTimeoutSeconds": "longest wait for a place to run",
    "ttlSecondsAfterFinished": "how long a Job stays when its run has finished",
    "noRetryExitCodes": "exit codes after which there is no other attempt",
    "input.as": "how the input comes",
    "output.from": "where the output comes from",
    "resources.requests": "what is set aside for it",
    "resources.limits": "the most it may use",
    "volume.size": "a disk of its own",
    "volume.mountPath": "where that is",
    "keepLog": "keep the log of runs that succeed",
    "keepPod": "keep the pod when the run has finished",
}


@dataclass(frozen=True, slots=True)
class FunctionLine:
    """One function in the list. `has_page` is False for a refused file of which not even the name can be read."""

    info: FunctionInfo
    has_page: bool
    runs_with: str
    place: str | None
    figures: FunctionFigures | None

    @property
    def problem(self) -> str | None:
        return self.info.problem.message if self.info.problem is not None else None


@dataclass(frozen=True, slots=True)
class FunctionsFilter:
    """What the list is narrowed to: a text in name, description, topics or file, and a label (`team=etl` or `team`)."""

    text: str = ""
    label: str = ""

    def fits(self, info: FunctionInfo) -> bool:
        return self._has_text(info) and self._has_label(info.labels)

    def _has_text(self, info: FunctionInfo) -> bool:
        places = (info.name, info.description or "", info.file or "", *(one.topic for one in info.subscriptions))
        return not self.text or any(self.text.lower() in place.lower() for place in places)

    def _has_label(self, labels: Mapping[str, str]) -> bool:
        name, equals, value = self.label.partition("=")
        return not self.label or (name in labels and (not equals or labels[name] == value))


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a function, in words."""

    name: str
    meaning: str
    value: str
    given: bool


@dataclass(frozen=True, slots=True)
class Following:
    """Where the end of a run leads: the topic, and the functions that listen there."""

    when: str
    topic: str
    forwards_reply: bool
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParameterLine:
    """A declared parameter as one reads it."""

    info: ParameterInfo
    schema: str
    default: str | None


def function_lines(
    functions: Iterable[FunctionInfo], wanted: FunctionsFilter, figures: Mapping[str, FunctionFigures]
) -> list[FunctionLine]:
    """The wanted functions: first what is broken, then by name."""
    fitting = sorted((one for one in functions if wanted.fits(one)), key=lambda one: (_RANK[one.status], one.name))
    return [_line(one, figures.get(one.name)) for one in fitting]


def labels_of(functions: Iterable[FunctionInfo]) -> list[str]:
    """Every label that any of them has, as `name=value`."""
    return sorted({f"{name}={value}" for one in functions for name, value in one.labels.items()})


def runs_with(info: FunctionInfo) -> str:
    """What executes it: `python main.handle`, an image, a command; empty when that is not known."""
    if info.runtime is not None:
        return " ".join(part for part in (info.runtime, info.handler, info.image and f"in {info.image}") if part)
    if info.image is not None:
        return info.image
    if info.command:
        return " ".join(info.command)[:200]
    return "" if info.status == "broken" else "a Job of its own"


def place_of(info: FunctionInfo) -> str | None:
    """`convert/function.yaml:12`; None when no file is known, or the problem's own words begin with it."""
    file = info.problem.file if info.problem is not None and info.problem.file else info.file
    line = info.problem.line if info.problem is not None else None
    place = f"{file}:{line}" if file and line else file
    says_it = info.problem is not None and place is not None and info.problem.message.startswith(f"{place}:")
    return None if says_it else place


def share_without_failure(hour: FunctionFigures | None) -> str:
    """`98.5 %` of the runs that finished, a dash when none has."""
    if hour is None or not hour.finished:
        return "–"
    share = 100 * (hour.finished - hour.failed) / hour.finished
    return "100 %" if not hour.failed else f"{min(share, 99.9):.1f} %"


def settings_in_words(settings: Iterable[SettingInfo]) -> list[Setting]:
    """The settings that hold, those of the file first; what is neither given nor anything by default is left out."""
    shown = [one for one in settings if one.given or one.value not in (None, [], {}, False)]
    lines = [Setting(one.name, SETTING_WORDS.get(one.name, ""), _said(one.name, one.value), one.given) for one in shown]
    return sorted(lines, key=lambda one: not one.given)


def followings(info: FunctionInfo, catalog: CatalogInfo, seen: Collection[str]) -> list[Following]:
    """What a run's end publishes, and which of the functions that the reader may see listen there."""
    found = []
    for when, following in (("succeeds", info.on_success), ("fails", info.on_failure)):
        if isinstance(following, Mapping) and following.get("publish"):
            topic = str(following["publish"])
            reached = tuple(one.name for one in catalog.functions if one.name in seen and listens(one, topic))
            found.append(Following(when, topic, bool(following.get("forward_reply")), reached))
    return found


def listens(info: FunctionInfo, topic: str) -> bool:
    """Whether one of the function's patterns fits the topic; a filter may still say no."""
    return info.status != "broken" and any(wire.subject_matches(one.topic, topic) for one in info.subscriptions)


def parameter_lines(parameters: Iterable[ParameterInfo], *, hide_secrets: bool) -> list[ParameterLine]:
    """The parameters with schema and default as JSON; what stands there for secret ones may be hidden."""
    return [_parameter(one, hide_secrets) for one in parameters]


def is_function_name(name: str) -> bool:
    try:
        wire.check_function_name(name)
    except InvokerError:
        return False
    return True


def is_one_topic(pattern: str) -> bool:
    """Whether a pattern is a single topic, which has a page."""
    return not any(part in ("*", ">") for part in pattern.split("."))


def json_text(value: Any) -> str:
    """The value as JSON for reading."""
    return json.dumps(value, indent=2, ensure_ascii=False)


def json_line(value: Any) -> str:
    """The value as JSON in one line."""
    return json.dumps(value, ensure_ascii=False)


def _line(info: FunctionInfo, figures: FunctionFigures | None) -> FunctionLine:
    return FunctionLine(info, is_function_name(info.name), runs_with(info), place_of(info), figures)


def _parameter(info: ParameterInfo, hide_secrets: bool) -> ParameterLine:
    given = {"schema": info.schema_, "default": info.default}
    if hide_secrets:
        given = without_given_secrets(given)
    return ParameterLine(
        info, json_line(given["schema"]), None if info.default is None else json_line(given["default"])
    )


def _said(name: str, value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith(("Seconds", "AfterFinished")) and isinstance(value, int | float):
        return duration(value).replace(".0 s", " s")
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(str(one) for one in value) or "none"
    return f"{value:,}" if isinstance(value, int) else str(value)
