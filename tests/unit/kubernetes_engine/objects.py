"""Recorded Jobs and pods for the tests of what is pure, and small values made by hand where none was recorded."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from trigger.kubernetes_engine.status import ContainerView, JobView, PodView, job_view, pod_view
from trigger.kubernetes_engine.terms import Terms

FOLDER = Path(__file__).parent / "recorded"
JOBS = sorted(file.stem for file in (FOLDER / "jobs").glob("*.json"))
PODS = sorted(file.stem for file in (FOLDER / "pods").glob("*.json"))
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@cache
def _text(kind: str, name: str) -> str:
    return (FOLDER / kind / f"{name}.json").read_text()


def recorded_job(name: str) -> Any:
    """The object as the API server told it; a new one with every call."""
    return json.loads(_text("jobs", name))


def recorded_pod(name: str) -> Any:
    return json.loads(_text("pods", name))


def job(name: str) -> JobView:
    found = job_view(recorded_job(name))
    assert found is not None
    return found


def pod(name: str) -> PodView:
    found = pod_view(recorded_pod(name))
    assert found is not None
    return found


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def made_job(terms: Terms | None = None, **fields: Any) -> JobView:
    return JobView("invoker-run", "uid", "run", terms or Terms(), START, **fields)


def made_pod(name: str = "a", created: float = 0, **fields: Any) -> PodView:
    return PodView(name, f"uid-{name}", "run", at(created), **fields)


def ended(exit_code: int, started: float = 1, finished: float = 2, **fields: Any) -> ContainerView:
    return ContainerView(started_at=at(started), finished_at=at(finished), exit_code=exit_code, **fields)


def failed_pod(name: str = "a", created: float = 0, exit_code: int = 1, **fields: Any) -> PodView:
    """A pod whose container ended with that code, a second after it had started."""
    fields.setdefault("main", ended(exit_code, created + 1, created + 2))
    return made_pod(name, created, **({"phase": "Failed"} | fields))


def running_pod(name: str = "a", created: float = 0, **fields: Any) -> PodView:
    return made_pod(name, created, phase="Running", main=ContainerView(started_at=at(created + 1)), **fields)
