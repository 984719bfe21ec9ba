"""One use of the command line: what the global options said, where words and data go, and the connection.

Standard output carries data only; everything meant for people (notes, hints, progress, errors) goes to standard error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from invoker.cli.failure import printable

if TYPE_CHECKING:
    from invoker.client import Client

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Session:
    """The global options, and the two streams. `quiet` silences notes and hints, never errors or data."""

    server: str | None = None
    context: str | None = None
    creds: Path | None = None
    quiet: bool = False
    verbose: bool = False
    no_color: bool = False

    def data(self, content: str | bytes) -> None:
        """Write to standard output and flush. A reader that has gone away (`| head`) ends the program quietly."""
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(raw)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            forget_stdout()
            raise typer.Exit(0) from None

    def output(self, content: bytes) -> None:
        """Write a function's output: exactly its bytes, save on a terminal, where the line is ended."""
        self.data(content)
        if sys.stdout.isatty() and content and not content.endswith(b"\n"):
            self.data("\n")

    def note(self, text: str) -> None:
        """A line for people on standard error."""
        if not self.quiet:
            self.complain(text)

    def detail(self, text: str) -> None:
        """A line that only `-v` shows."""
        if self.verbose:
            self.complain(text)

    def complain(self, text: str) -> None:
        """A line on standard error that `-q` does not silence."""
        with suppress(BrokenPipeError, ValueError):
            print("\n".join(printable(line) for line in text.split("\n")), file=sys.stderr, flush=True)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Client]:
        """A client of the chosen server: the options', the running `invoker dev`, the NATS context, or the default."""
        from invoker import settings
        from invoker.client import Client

        options = settings.connection_options(server=self.server, context=self.context, creds=self.creds)
        self.detail(f"server {options.shown}")
        client = await Client.connect(options)
        try:
            yield client
        finally:
            await client.close()


def session_of(context: typer.Context) -> Session:
    """The session that the root command made of the global options."""
    found = context.find_object(Session)
    return found if found is not None else Session()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; Ctrl-C cancels it and ends the program with 130."""
    import asyncio

    return asyncio.run(work)


@contextmanager
def detaching(session: Session, come_back: str) -> Iterator[None]:
    """Waiting that Ctrl-C only leaves: the work goes on, and the user is told how to come back to it."""
    import asyncio

    try:
        yield
    except asyncio.CancelledError:
        session.complain(f"\ndetached, nothing was cancelled; come back with: {come_back}")
        raise


def forget_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush cannot complain about a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
