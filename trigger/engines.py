"""Which engine a controller has, made from its settings. The one place that knows them all; each loads when used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from trigger.catalog import Catalog
from trigger.engine import START_ANSWERS, Engine
from trigger.input_file import InputReader
from trigger.metrics import Metrics
from trigger.plan import Code
from trigger.settings import ControllerSettings

_VERBS = ("create", "get", "list", "watch", "patch", "delete", "log")
_ANSWERS = ("200", "401", "403", "404", "409", "410", "422", "429", "500", "503", "504", "unanswered")


def request_reasons(engine: str) -> tuple[str, ...]:
    """What `engine_requests_total` of an engine usually says: verb and answer."""
    if engine != "kubernetes":
        return START_ANSWERS
    return ("create 201", *(f"{verb} {answer}" for verb in _VERBS for answer in _ANSWERS))


def engine_of(
    settings: ControllerSettings, inputs: InputReader, metrics: Metrics, catalog: Callable[[], Catalog]
) -> AbstractAsyncContextManager[Engine]:
    """The engine that the settings name, not yet entered. Raises `SettingsError` when its library is not installed."""
    if settings.engine == "kubernetes":
        return _kubernetes(settings, metrics, catalog)
    from trigger.local_engine.engine import LocalEngine

    return LocalEngine(
        settings.state_dir / "engine",
        fetch_input=inputs.read,
        secrets_dir=settings.secrets_dir,
        on_request=metrics.requested,
    )


def problem_of(engine: Engine) -> str | None:
    """Why the engine cannot work at the moment, in words; None when it can, or does not tell."""
    problem: Any = getattr(engine, "problem", None)
    return None if problem is None else f"{engine.name}: {problem}"


def _kubernetes(
    settings: ControllerSettings, metrics: Metrics, catalog: Callable[[], Catalog]
) -> AbstractAsyncContextManager[Engine]:
    from trigger.kubernetes_engine.installed import require_installed

    require_installed()
    from trigger.kubernetes_engine.api import Api
    from trigger.kubernetes_engine.engine import KubernetesEngine
    from trigger.kubernetes_engine.options import access_of, engine_options

    def count(verb: str, status: int) -> None:
        metrics.requested(f"{verb} {status or 'unanswered'}")

    def functions() -> list[tuple[str, str, Code]]:
        return [(one.name, one.spec_hash, one.code) for one in catalog().functions.values()]

    api = Api(access_of(settings.kubernetes), on_request=count)
    return KubernetesEngine(api, engine_options(settings.cluster_instance, settings.kubernetes), functions=functions)
