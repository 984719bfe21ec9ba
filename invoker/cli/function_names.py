"""Names of functions as people type them: looked up at the controllers before anything is stored under one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli.session import Session
from invoker.errors import CatalogError, InvokerError, UnknownIdError

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.views import CatalogInfo, FunctionInfo

_NOTE_SECONDS = 2.0
"""For a note nobody waits longer."""
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A function's name.")]


def known_function(catalog: CatalogInfo, name: str) -> FunctionInfo:
    """The function of that name. Raises `UnknownIdError` with the nearest names."""
    found = catalog.function(name)
    if found is not None:
        return found
    import difflib

    near = difflib.get_close_matches(name, [one.name for one in catalog.functions], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else None
    nameless = next((one for one in catalog.functions if one.problem and one.name.startswith(f"{name}/")), None)
    if nameless is not None and nameless.problem is not None:
        hint = f"a file in its folder is refused: {nameless.problem.message}"
    raise UnknownIdError(f"there is no function {name!r}", hint=hint, try_command="invoker functions list")


async def refuse_unusable(client: Connected, name: str) -> FunctionInfo | None:
    """The function, None when nobody can tell or may.

    Raises `UnknownIdError` when there is surely no function of that name, and `CatalogError` when its file is refused
    and no version of it can run.
    """
    try:
        catalog = await client.functions()
    except InvokerError:
        return None
    found = known_function(catalog, name)
    if found.status == "broken":
        raise CatalogError(
            f"{name} cannot run, its file is refused: {found.problem.message if found.problem else found.file}",
            try_command=f"invoker functions describe {name}",
        )
    return found


async def note_if_kept(
    session: Session, client: Connected, topic: str, kind: str | None, headers: dict[str, str]
) -> None:
    """Say which functions that such an event runs have a file that is refused, and so run an older version."""
    if session.quiet:
        return
    import asyncio

    try:
        async with asyncio.timeout(_NOTE_SECONDS):
            kept = [one for one in (await client.functions()).functions if one.status == "kept"]
            matched = (await client.explain(topic, content_type=kind, headers=headers)).matched if kept else ()
    except (InvokerError, TimeoutError) as error:
        session.detail(f"functions: {error}")
        return
    for one in kept:
        if one.name in matched:
            tell_if_kept(session, one)


def tell_if_kept(session: Session, one: FunctionInfo | None) -> None:
    """Say that the function's file is refused, and that an older version runs; nothing when that is not so."""
    if one is not None and one.status == "kept" and one.problem is not None:
        session.note(f"{one.name} runs its last good version: {one.problem.message}")


async def note_if_unknown(session: Session, client: Connected, name: str | None) -> None:
    """Say that a list or a view is of a function that there is not now; its runs may have outlived it."""
    if name is None or session.quiet:
        return
    try:
        known_function(await client.functions(), name)
    except UnknownIdError as error:
        session.note(f"{error.message} now" + (f"; {error.hint}" if error.hint else ""))
    except InvokerError as error:
        session.detail(f"functions: {error.message}")
