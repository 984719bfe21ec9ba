"""A catalog's folder as a test writes it, and what was read of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from trigger.catalog import Catalog
from trigger.catalog_source.directory import DirectorySource

SOON = 60.0
"""Seconds a change may take on a busy machine; the promise is 2, and a test is no benchmark."""

HEAD = "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {{name: {name}}}\nspec:\n"
MAIN = "def handle(event, context):\n    return event['data']\n"


def text_of(name: str, spec: str = "  runtime: python\n") -> str:
    return HEAD.format(name=name) + spec


def put(root: Path, name: str, text: str) -> Path:
    """Write a file as an editor does: whole, under another name, then moved into place."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text)
    beside.replace(path)
    return path


def put_function(root: Path, name: str, spec: str = "  runtime: python\n", main: str = MAIN) -> Path:
    put(root, f"{name}/main.py", main)
    return put(root, f"{name}/function.yaml", text_of(name.rpartition("/")[2], spec))


def load(root: Path, previous: Catalog | None = None) -> Catalog:
    return DirectorySource(root).load(previous)


def names(catalog: Catalog) -> list[str]:
    return list(catalog.functions)


def messages(catalog: Catalog) -> list[str]:
    return [one.message for one in catalog.broken]


async def following(catalogs: AsyncIterator[Catalog]) -> Catalog:
    async with asyncio.timeout(SOON):
        return await anext(catalogs)
