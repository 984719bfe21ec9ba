"""`invoker dead`: events that could not become runs; why, and another try."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli.examples import examples
from invoker.cli.group import command_group
from invoker.cli.options import plain_id
from invoker.cli.output import Form, FormOption, rendered_item, rendered_items
from invoker.cli.session import run, session_of
from invoker.errors import UnknownIdError

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.views import DeadLetter

app = command_group("dead", "Dead letters: events that could not become runs.")

DeadIdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of a dead letter, shortened, or @latest.")]


@app.command("list", epilog=examples("invoker dead list", "invoker dead list --limit 5 -o json"))
def list_dead(
    context: typer.Context,
    limit: Annotated[int, typer.Option(metavar="NUMBER", min=1, max=10_000, help="How many at most.")] = 50,
    output: FormOption = Form.TABLE,
) -> None:
    """List dead letters, newest first."""
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            letters = await client.dead(limit=limit)
        if not output.for_people:
            from invoker.cli.documents import plain

            session.data(rendered_items(map(plain, letters), output, "id"))
        elif not letters:
            session.note("no dead letters")
        else:
            from datetime import UTC, datetime

            from invoker.cli import screen

            screen.show(session, screen.dead_rows(letters, datetime.now(UTC), wide=output is Form.WIDE))

    run(work())


@app.command("show", epilog=examples("invoker dead show @latest", "invoker dead show @latest -o json"))
def show(context: typer.Context, identifier: DeadIdArgument, output: FormOption = Form.TABLE) -> None:
    """Show one dead letter: why it is one, its headers, the beginning of its body."""
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            letter = await _letter(client, plain_id(identifier))
        if output.for_people:
            from invoker.cli import screen

            screen.show(session, screen.dead_screen(letter))
        else:
            from invoker.cli.documents import plain

            session.data(rendered_item(plain(letter), output, "id"))

    run(work())


async def _letter(client: Connected, given: str) -> DeadLetter:
    if given != "@latest":
        return await client.dead_letter(given)
    newest = await client.dead(limit=1)
    if not newest:
        raise UnknownIdError("there are no dead letters", try_command="invoker dead list")
    return newest[0]


@app.command("redrive", epilog=examples("invoker dead redrive @latest"))
def redrive(context: typer.Context, identifier: DeadIdArgument, output: FormOption = Form.TABLE) -> None:
    """Publish a dead letter's event again, as a new request; the letter stays as it is."""
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            letter = await _letter(client, plain_id(identifier))
            request_id = await client.redrive(letter.id)
        if output.for_people or output is Form.NAME:
            session.data(f"{request_id}\n")
            session.note(f"invoker result {request_id} --wait 60")
        else:
            session.data(rendered_item({"request_id": request_id, "dead_id": letter.id}, output, "request_id"))

    run(work())
