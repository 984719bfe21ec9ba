"""The command tree, the global options, and the one place where an error becomes an exit code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from invoker.cli import (
    call,
    controller,
    dead,
    demo,
    dev,
    explain,
    functions,
    gateway,
    keys,
    publish,
    result,
    runs,
    top,
    watch,
)
from invoker.cli.failure import lines_of
from invoker.cli.session import Session, forget_stdout, unwritable
from invoker.errors import InvokerError
from invoker.version import __version__

USAGE, INTERNAL, INTERRUPTED = 2, 1, 130

_WITH_VALUE = ("--server", "--context", "--creds", "--gateway", "--gateway-key-file")
_FLAGS = ("-q", "--quiet", "-v", "--verbose", "--no-color")

app = typer.Typer(
    name="invoker",
    help="Run functions on events: one event in, one run per matching function, one result out.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _module in (dev, demo, publish, call, result, explain, watch, top, controller, gateway):
    _module.register(app)
for _group in (runs, functions, dead, keys):
    app.add_typer(_group.app)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; whatever went wrong has been said on standard error."""
    try:
        command = typer.main.get_command(app)
        code = command.main(args=hoisted(arguments), prog_name="invoker", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (InvokerError, BaseExceptionGroup) as error:
        return _refused(error)
    except TyperException as error:
        return _said(_usage_lines(error, arguments), USAGE)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        return 0
    except OSError as error:
        return _refused(unwritable(error)) if _is_of_stdout(error) else _unexpected(error)
    except Exception as error:  # the last line of defence: a user never meets a traceback unasked
        return _unexpected(error)


def hoisted(arguments: Sequence[str]) -> list[str]:
    """The arguments with the global options in front, where the parser wants them; people write them anywhere.

    What follows `--` is data and stays as it is.
    """
    front, rest = _parted(arguments)
    return [*front, *rest]


def _parted(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The global options, and all the rest."""
    front: list[str] = []
    rest: list[str] = []
    left = list(arguments)
    while left:
        one = left.pop(0)
        if one == "--":
            return front, [*rest, one, *left]
        if one in _WITH_VALUE and left:
            front += [one, left.pop(0)]
        elif one in _FLAGS or one.startswith(tuple(f"{name}=" for name in _WITH_VALUE)):
            front.append(one)
        else:
            rest.append(one)
    return front, rest


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    server: Annotated[
        str | None,
        typer.Option(metavar="URL", help="NATS address; else the running `invoker dev`, the NATS context, port 4222."),
    ] = None,
    nats_context: Annotated[
        str | None, typer.Option("--context", metavar="NAME", help="NATS context, as `nats` has them.")
    ] = None,
    creds: Annotated[Path | None, typer.Option(metavar="FILE", help="NATS credentials file.")] = None,
    gateway_url: Annotated[
        str | None,
        typer.Option("--gateway", metavar="URL", help="Go through a gateway over HTTP; else INVOKER_GATEWAY_URL."),
    ] = None,
    gateway_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="API key for it; else INVOKER_GATEWAY_KEY, INVOKER_GATEWAY_KEY_FILE."),
    ] = None,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No notes and hints.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Say more, such as the door chosen.")] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (NO_COLOR works too).")] = False,
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        typer.echo(f"invoker {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    context.obj = Session(
        server, nats_context, creds, quiet, verbose, no_color, gateway=gateway_url, gateway_key_file=gateway_key_file
    )


def _refused(error: InvokerError | BaseExceptionGroup[BaseException]) -> int:
    """An error of ours, alone or out of a task group; a group without one is a fault of the program."""
    found = first_of_ours(error)
    if found is not None:
        return _said(lines_of(found), found.exit_code)
    return _unexpected(error)


def first_of_ours(error: BaseException) -> InvokerError | None:
    """The first error of ours in an exception, which may be a group of groups."""
    if isinstance(error, InvokerError):
        return error
    below = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return next((found for one in below if (found := first_of_ours(one)) is not None), None)


def _is_of_stdout(error: OSError) -> bool:
    """Whether it came from the library, which writes help and version itself, or from the last flush; commands write
    through their session."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return raised_in == __name__ or raised_in.startswith("typer.")


def _usage_lines(error: TyperException, arguments: Sequence[str]) -> list[str]:
    """A usage error in the same three lines as every other one."""
    where = getattr(getattr(error, "ctx", None), "command_path", None) or command_path(arguments)
    what = error.format_message().rstrip(".").replace(": Value error, ", ": ")  # what the library puts before ours
    return [f"error: {what}  [usage]", f"  try: {where} --help"]


def command_path(arguments: Sequence[str]) -> str:
    """The command that a command line names, `invoker runs list`; the parser does not always say where it stopped."""
    found, commands = ["invoker"], getattr(typer.main.get_command(app), "commands", {})
    for one in _parted(arguments)[1]:
        if one in commands:
            found.append(one)
            commands = getattr(commands[one], "commands", {})
    return " ".join(found)


def _said(lines: Sequence[str], code: int) -> int:
    with suppress(BrokenPipeError):
        print("\n".join(lines), file=sys.stderr, flush=True)
    return code


def _unexpected(error: BaseException) -> int:
    from invoker.settings import debug_wanted

    if debug_wanted():
        import traceback

        traceback.print_exception(error)
    what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return _said([f"error: {what}  [internal]", "  INVOKER_DEBUG=1 shows the traceback"], INTERNAL)
