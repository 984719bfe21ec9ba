"""A group of commands, such as `invoker runs`: without a command it shows its help."""

from __future__ import annotations

import typer


def command_group(name: str, help: str) -> typer.Typer:
    """A Typer app for one noun."""
    app = typer.Typer(name=name, help=help, rich_markup_mode=None)

    @app.callback(invoke_without_command=True)
    def only_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            typer.echo(context.get_help())

    return app
