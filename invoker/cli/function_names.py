"""Names of functions as people type them: looked up at the controllers before anything is stored under one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli.session import Session
from invoker.errors import CatalogError, InvokerError, UnknownIdError

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.views import CatalogInfo, FunctionInfo

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A function's name.")]


def known_function(catalog: CatalogInfo, name: str) -> FunctionInfo:
    """The function of that name. Raises `UnknownIdError` with the nearest names."""
    found = catalog.function(name)
    if found is not None:
        return found
    import difflib

    near = difflib.get_close_matches(name, [one.name for one in catalog.functions], n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else None
    raise UnknownIdError(f"there is no function {name!r}", hint=hint, try_command="invoker functions list")


async def refuse_unusable(client: Connected, name: str) -> None:
    """Raise `UnknownIdError` when there is surely no function of that name, and `CatalogError` when its file is refused
    and no version of it can run: who can tell is asked, and when nobody can or may, nothing is refused."""
    try:
        catalog = await client.functions()
    except InvokerError:
        return
    found = known_function(catalog, name)
    if found.status == "broken":
        raise CatalogError(
            f"{name} cannot run, its file is refused: {found.problem.message if found.problem else found.file}",
            try_command=f"invoker functions describe {name}",
        )


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
