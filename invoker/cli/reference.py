"""The page `docs/cli.md`, made from the command tree itself: `python -m invoker.cli.reference > docs/cli.md`.

A test compares the page with what this makes, so it cannot fall behind.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from invoker.cli.output import Form
from invoker.cli.tree import app
from invoker.errors import InvokerError

if TYPE_CHECKING:
    from typer.core import TyperGroup

WIDTH = 100

EXIT_CODES = {
    0: "done",
    1: "internal error",
    2: "usage: the command line or a setting cannot be used",
    3: "a run failed",
    4: "unknown (or expired, or ambiguous) id",
    5: "waited in vain: not finished yet, nothing was cancelled",
    6: "input refused, or nothing subscribes to it",
    7: "server not reachable",
    130: "interrupted",
}

HEAD = """\
# Commands

Made from the program's own help by `python -m invoker.cli.reference`; a test compares the two.

- **Standard output carries data only**: a function's output byte for byte, ids, tables, documents. Notes, hints,
  progress and errors go to standard error; `-q` silences notes and hints.
- **Ids** of requests and runs may be shortened to at least four characters of their beginning or end, as long as only
  one fits; `@latest` is the newest request that somebody published, not one that a run of its chain caused.
- **Errors** take three lines at most: `error: what happened  [code]`, the cause, and a command to try. The codes are
  those of [errors.md](errors.md).
- **Ctrl-C while waiting** leaves the work alone, prints how to come back to it, and ends with 130.
- **Global options** (`--server`, `--context`, `--creds`, `--gateway`, `--gateway-key-file`, `-q`, `-v`, `--no-color`)
  may stand anywhere before a `--`.
- **Two doors**: commands talk to NATS, or over HTTP to a gateway ([client.md](client.md#over-http)), and print the
  same. `dev`, `demo`, `controller` and `gateway` need NATS itself.
- **Durations** are seconds (`30`, `0.5`) or `250ms`, `30s`, `5m`, `1h30m`, `2d`.
- **Colour** is for terminals; `NO_COLOR`, `FORCE_COLOR` and `--no-color` decide otherwise.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, _exit_codes(), _forms()]
    parts += [_section(path, text) for path, text in helps()]
    return "\n".join(parts)


def helps() -> Iterator[tuple[str, str]]:
    """Every command with its help as the program prints it, a group before its commands."""
    root = typer.main.get_command(app)
    yield from _helps(root, None, "invoker")


def _helps(command: Any, parent: typer.Context | None, name: str) -> Iterator[tuple[str, str]]:
    context = command.make_context(name, [], parent=parent, resilient_parsing=True, terminal_width=WIDTH)
    yield context.command_path, command.get_help(context)
    group: TyperGroup | None = command if hasattr(command, "commands") else None
    for below in group.commands if group is not None else ():
        assert group is not None  # it has commands
        yield from _helps(group.commands[below], context, below)


def _section(path: str, text: str) -> str:
    level = "##" if path.count(" ") < 2 else "###"
    return f"{level} {path}\n\n```text\n{text.rstrip()}\n```\n"


def _exit_codes() -> str:
    rows = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items())
    return f"## Exit codes\n\n| code | meaning |\n|---|---|\n{rows}\n"


def _forms() -> str:
    meanings = {
        Form.TABLE: "for people; fits the terminal, uncut in a pipe",
        Form.WIDE: "the same with whole ids",
        Form.JSON: "one document, or one array",
        Form.JSONL: "one line per item",
        Form.YAML: "the document as YAML",
        Form.NAME: "one id or name per line",
    }
    rows = "\n".join(f"| `-o {form}` | {meanings[form]} |" for form in Form)
    return f"## Forms of output\n\n| option | gives |\n|---|---|\n{rows}\n"


def known_exit_codes() -> set[int]:
    """Every exit code that an error of ours can end with."""

    def below(kind: type[InvokerError]) -> Iterator[int]:
        yield kind.exit_code
        for child in kind.__subclasses__():
            yield from below(child)

    return set(below(InvokerError))


if __name__ == "__main__":
    sys.stdout.write(page())
