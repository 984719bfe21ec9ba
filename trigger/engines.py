"""Which engine a controller has, made from its settings. The one place that knows them all; each loads when used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from trigger.catalog import Catalog
from trigger.engine import Engine
from trigger.input_file import InputReader
from trigger.metrics import Metrics
from trigger.plan import Code
from trigger.settings import ControllerSettings


def engine_of(
    settings: ControllerSettings, inputs: InputReader, metrics: Metrics, catalog: Callable[[], Catalog]
) -> AbstractAsyncContextManager[Engine]:
    """The engine that the settings name, not yet entered. Raises `SettingsError` when its library is not installed."""
    if settings.engine == "kubernetes":
        return _kubernetes(settings, metrics, catalog)
    from trigger.local_engine.engine import LocalEngine

    return LocalEngine(settings.state_dir / "engine", fetch_input=inputs.read)


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
        metrics.engine_requests.labels("kubernetes", f"{verb} {status or 'unanswered'}").inc()

    def functions() -> list[tuple[str, str, Code]]:
        return [(one.name, one.spec_hash, one.code) for one in catalog().functions.values()]

    api = Api(access_of(settings.kubernetes), on_request=count)
    return KubernetesEngine(api, engine_options(settings.cluster_instance, settings.kubernetes), functions=functions)
