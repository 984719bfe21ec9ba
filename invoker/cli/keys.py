"""`invoker keys`: the API keys of a gateway, in the file that INVOKER_GATEWAY_KEYS names there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli import arguments
from invoker.cli.examples import examples
from invoker.cli.group import command_group
from invoker.cli.output import Form, FormOption, rendered_item, rendered_items
from invoker.cli.session import session_of

if TYPE_CHECKING:
    from datetime import datetime

    from invoker.gateway.access.keys import Scope, StoredKey

app = command_group("keys", "API keys of a gateway: made here, stored hashed, read again by the gateway.")

FileOption = Annotated[Path, typer.Option("--file", metavar="FILE", help="The file with the keys.")]
ScopeOption = Annotated[
    list[str],
    typer.Option(
        "--may",
        metavar="'ACTIONS [TOPICS [FUNCTIONS]]'",
        help="What the key may do: of publish, read, operate, admin, with commas; on which topics, with which "
        "functions (patterns, with commas; all if left out). Repeatable.",
    ),
]
LifeOption = Annotated[
    float | None,
    typer.Option("--expires", metavar="DURATION", parser=arguments.seconds, help="After so long it is not taken."),
]
RateOption = Annotated[
    float | None,
    typer.Option("--rate", metavar="NUMBER", help="Calls per second, instead of the gateway's setting."),
]


@app.command(
    "new",
    epilog=examples(
        "invoker keys new orders --file keys.json --may 'publish orders.>' --expires 90d",
        "invoker keys new desk --file keys.json --may read --may 'operate orders.> convert,pack-*'",
    ),
)
def new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; audit lines say it.")],
    file: FileOption,
    may: ScopeOption,
    expires: LifeOption = None,
    rate: RateOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Make a key and print it: this once, since the file holds only its hash."""
    from datetime import UTC, datetime, timedelta

    from invoker.gateway.access import keys

    session, now = session_of(context), datetime.now(UTC).replace(microsecond=0)
    scopes = tuple(keys.scope_of(words) for words in may)
    try:
        until = now + timedelta(seconds=expires) if expires is not None else None
    except OverflowError as error:
        raise typer.BadParameter("--expires: that is after the end of all calendars") from error
    made = keys.new_key(name, scopes, now=now, expires_at=until, calls_per_second=rate)
    with keys.locked(file):
        keys.store(file, keys.with_key(keys.load(file, begin=True), made.stored))
    if output.for_people or output is Form.NAME:
        session.data(f"{made.text}\n")
        session.note(f"keep it now, it is not stored; it may: {_said(made.stored.scopes)}")
    else:
        session.data(rendered_item({"key": made.text, **_document(made.stored)}, output, "key"))


@app.command(
    "list", epilog=examples("invoker keys list --file keys.json", "invoker keys list --file keys.json -o json")
)
def list_keys(context: typer.Context, file: FileOption, output: FormOption = Form.TABLE) -> None:
    """List the keys: names, what they may, when they end."""
    from datetime import UTC, datetime

    from invoker.gateway.access import keys

    session, found = session_of(context), keys.load(file).keys
    if not output.for_people:
        session.data(rendered_items(map(_document, found), output, "name"))
    elif not found:
        session.note("no keys")
    else:
        from invoker.cli import screen

        now = datetime.now(UTC)
        rows = [[key.id, key.name, _said(key.scopes), _end(key, now), _rate(key)] for key in found]
        screen.show(session, screen.grid(["ID", "NAME", "MAY", "EXPIRES", "PER SECOND"], rows))


@app.command("revoke", epilog=examples("invoker keys revoke uploader --file keys.json"))
def revoke(
    context: typer.Context,
    key: Annotated[str, typer.Argument(metavar="NAME|ID", help="Name or id of the key.")],
    file: FileOption,
) -> None:
    """Remove a key; a gateway that reads the file refuses it from the next call on."""
    from invoker.gateway.access import keys

    with keys.locked(file):
        left, gone = keys.without_key(keys.load(file), key)
        keys.store(file, left)
    session_of(context).note(f"revoked {gone.name} ({gone.id})")


def _document(key: StoredKey) -> dict[str, object]:
    """A key as data: without its hash, which is nobody's business."""
    return key.model_dump(mode="json", exclude={"sha256"})


def _said(scopes: tuple[Scope, ...]) -> str:
    """Scopes as they are typed."""
    return "; ".join(
        f"{','.join(scope.actions)} {','.join(scope.topics)} {','.join(scope.functions)}".removesuffix(" > *")
        for scope in scopes
    )


def _end(key: StoredKey, now: datetime) -> str:
    if key.expires_at is None:
        return "never"
    return f"{key.expires_at:%Y-%m-%d %H:%M}Z" + (" (over)" if key.expires_at <= now else "")


def _rate(key: StoredKey) -> str:
    return f"{key.calls_per_second:g}" if key.calls_per_second is not None else ""
