"""`invoker functions render`: a function's Job read, planned and written, without any server unless it is asked for."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoker.cli.output import manifest_documents
from invoker.errors import CatalogError, UnknownIdError

if TYPE_CHECKING:
    from trigger.function import Function
    from trigger.settings import ControllerSettings


class ManifestForm(StrEnum):
    """How objects are written, as `kubectl create -f -` reads them."""

    YAML = "yaml"
    JSON = "json"


def settings_for(catalog: Path | None, cluster: Mapping[str, Any]) -> ControllerSettings:
    """The settings that decide about Jobs; what only a running controller needs may be missing."""
    from trigger.settings import load_settings

    given: dict[str, Any] = {"engine": "local", **cluster}
    return load_settings(**(given if catalog is None else given | {"catalog": catalog}))


def rendered_function(
    name: str, settings: ControllerSettings, parameters: Mapping[str, str], namespace: str | None
) -> list[Mapping[str, Any]]:
    """The objects of an example run, the Job last. Raises `UnknownIdError` with the nearest names, `CatalogError` for
    a function that cannot be used or is not allowed."""
    from trigger.rendering import render

    return render(catalog_function(name, settings.catalog), settings, parameters, namespace).objects


def server_dry_run(settings: ControllerSettings, job: Mapping[str, Any]) -> dict[str, Any]:
    """The Job as the API server would store it, without what it notes for itself. Raises `CatalogError` when it would
    not, with its words."""
    import asyncio

    from trigger.cluster import dry_run

    stored = asyncio.run(dry_run(settings.kubernetes, job))
    stored.get("metadata", {}).pop("managedFields", None)
    return stored


def written(objects: Iterable[Mapping[str, Any]], form: ManifestForm) -> str:
    """The objects as text; JSON is one List."""
    if form is ManifestForm.YAML:
        return manifest_documents(objects)
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, indent=2) + "\n"


def catalog_function(name: str, folder: Path) -> Function:
    """A function of the catalog in that folder. Raises `UnknownIdError` with the nearest names, `CatalogError`."""
    import difflib

    from trigger.catalog_source.directory import DirectorySource

    catalog = DirectorySource(folder, setting="--catalog").load()
    found = catalog.functions.get(name)
    broken = next((one for one in catalog.broken if one.name == name), None)
    if found is not None:
        return found
    if broken is not None:
        raise CatalogError(broken.message, try_command=f"invoker functions check {folder}")
    near = difflib.get_close_matches(name, catalog.functions, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"the catalog is {folder}; name another with --catalog DIR"
    raise UnknownIdError(f"there is no function {name!r}", hint=hint, try_command=f"invoker functions check {folder}")
