"""One use of the command line: what the global options said, where words and data go, and the connection: to NATS, or
to a gateway.

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
from invoker.errors import InvokerError, SettingsError

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.connection import ConnectionOptions

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
    gateway: str | None = None
    gateway_key_file: Path | None = None

    def data(self, content: str | bytes) -> None:
        """Write to standard output and flush. A reader that has gone away (`| head`) ends the program quietly.

        Raises `InvokerError` when it cannot be written, as on a full disk.
        """
        raw = content.encode("utf-8", "surrogateescape") if isinstance(content, str) else content
        try:
            sys.stdout.flush()
            sys.stdout.buffer.write(raw)
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            forget_stdout()
            raise typer.Exit(0) from None
        except OSError as error:
            raise unwritable(error) from error

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
    async def connected(self) -> AsyncIterator[Connected]:
        """A client by the chosen door: the options', a gateway that the environment names, else the NATS found there.

        Raises `SettingsError` when the options name both.
        """
        client = await self._client()
        try:
            yield client
        finally:
            await client.close()

    async def _client(self) -> Connected:
        if self.server is None and self.context is None and self.creds is None:
            from invoker.http.settings import gateway_options

            options = gateway_options(self.gateway, self.gateway_key_file)
            if options is not None:
                from invoker.http.client import HttpClient

                self.detail(f"gateway {options.shown}")
                return HttpClient(options)
        elif self.gateway is not None or self.gateway_key_file is not None:
            raise SettingsError("--gateway excludes --server, --context and --creds: it is either HTTP or NATS")
        from invoker import settings
        from invoker.client import Client

        nats = settings.client_options(server=self.server, context=self.context, creds=self.creds)
        self.detail(f"server {nats.shown} ({nats.origin})")
        return await Client.connect(nats)

    def nats_options(self) -> ConnectionOptions:
        """Where NATS is, by the options or what the environment says. Raises `SettingsError`."""
        from invoker import settings

        return settings.connection_options(server=self.server, context=self.context, creds=self.creds)

    def refuse_gateway(self, command: str) -> None:
        """Raise `SettingsError` when `--gateway` was given to a command that needs NATS itself."""
        if self.gateway is not None or self.gateway_key_file is not None:
            raise SettingsError(
                f"invoker {command} does not go through a gateway", hint="leave out --gateway and --gateway-key-file"
            )


def session_of(context: typer.Context) -> Session:
    """The session that the root command made of the global options."""
    found = context.find_object(Session)
    return found if found is not None else Session()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end; Ctrl-C cancels it and ends the program with 130."""
    import asyncio

    from invoker.tracing_switch import traced

    with traced("invoker-cli", needed=False):
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


def unwritable(error: OSError) -> InvokerError:
    """What to say when standard output cannot be written, as on a full disk; nothing more is written to it."""
    forget_stdout()
    return InvokerError(f"standard output cannot be written: {error.strerror or error}")


def forget_stdout() -> None:
    """Point standard output nowhere, so that the interpreter's last flush cannot complain about a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
