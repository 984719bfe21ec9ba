"""The cluster behind `invoker dev --engine kubernetes` and the demo: looked at before anything starts, and cleaned.

A desk is not the only user of its namespace, so every state folder has a name of its own there, kept with the key of
its runs' tokens: Jobs that outlive this dev are found, and answered, by the next one on the same state.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from invoker.cli.ports import check_host
from invoker.errors import SettingsError
from invoker.quantities import count

if TYPE_CHECKING:
    from invoker.cli.dev_server import DevPlan
    from trigger.cluster import Removed
    from trigger.function import Function
    from trigger.settings import ControllerSettings

HOST_HINT = "--http-host ADDRESS names an address of this machine that pods reach; NATS stays on 127.0.0.1"
_OPTIONS = {"kubeconfig": "--kubeconfig", "kube_context": "--kube-context", "kube_namespace": "--namespace"}
KEY_FILE, NAME_FILE = "run-token.key", "cluster-instance"


def settings_given(plan: DevPlan) -> dict[str, Any]:
    """The settings that a dev on a cluster has beside those of the environment, which win where a desk needs none of
    its own. Makes key and name of the state when they are new.
    """
    from trigger.settings import load_settings

    chosen = load_settings(engine="local")
    given: dict[str, Any] = {**plan.cluster, "http_host": plan.http_host or chosen.http_host}
    if chosen.run_token_key is None:
        given["run_token_key"] = plan.state.secret(KEY_FILE)
    if chosen.kube_instance is None:
        given["kube_instance"] = plan.state.name(NAME_FILE, plan.kind)
    return given


def check_cluster(settings: ControllerSettings) -> str:
    """Where Jobs will be made, for the screen, once it is sure that they can be.

    Raises `SettingsError` or `EngineUnavailableError` with what is missing: a library, kubeconfig, context, namespace,
    right, or an image that a function of the catalog needs.
    """
    from trigger.catalog_source.directory import DirectorySource
    from trigger.cluster import look_at

    check_host(settings.http_host)
    place = asyncio.run(look_at(settings.kubernetes))
    catalog = DirectorySource(settings.catalog, setting="--catalog").load()
    check_images(catalog.functions.values(), settings.runtime_images)
    return f"kubernetes   {place}, as {settings.cluster_instance}-…"


def check_images(functions: Iterable[Function], images: dict[str, str]) -> None:
    """Raises `SettingsError` naming the functions that run in an image of ours when none is configured. Pure."""
    if images:
        return
    needing = [one.name for one in functions if one.code.image is None and one.job is None]
    if needing:
        shown = ", ".join(needing[:5]) + (", …" if len(needing) > 5 else "")
        raise SettingsError(
            f"INVOKER_RUNTIME_IMAGES is missing: no image is configured that runs {shown}",
            hint="build one (docs/images.md: make images) and set INVOKER_RUNTIME_IMAGES=python=IMAGE",
        )


def check_options(engine: str, cluster: Mapping[str, Any]) -> None:
    """Raises `SettingsError` when options name a cluster that the engine would not look at. Pure."""
    if cluster and engine != "kubernetes":
        shown = " and ".join(_OPTIONS[name] for name in cluster)
        raise SettingsError(
            f"{shown}: only --engine kubernetes looks at a cluster, the engine is {engine}",
            hint="add --engine kubernetes",
        )


def clear_cluster(settings: ControllerSettings) -> str:
    """Remove what this installation has made in its namespace; the sentence about it."""
    from trigger.cluster import remove_all

    return removed_words(asyncio.run(remove_all(settings.kubernetes, settings.cluster_instance)))


def removed_words(removed: Removed) -> str:
    """What was removed, for people. Pure."""
    what = f"{count(removed.jobs, 'Job')} and {count(removed.config_maps, 'ConfigMap')}"
    left = f"; {removed.left} of their pods still end" if removed.left else ""
    return f" removed {what} from namespace {removed.namespace}{left}"
