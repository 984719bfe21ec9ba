"""What `invoker controller` and `invoker gateway` have in common: a production process that runs until a signal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

import typer

from invoker.cli.session import Session

if TYPE_CHECKING:
    import asyncio

    from invoker.logs import LogFormat

Ready = Callable[..., None]
"""Told once, when the program takes work, with the facts for the line of the log that says so."""
Serve = Callable[[Ready, "asyncio.Event"], Awaitable[None]]
"""Runs the program until the event is set."""


class LogSettings(Protocol):
    """The part of a program's settings that is about its log."""

    @property
    def log_format(self) -> LogFormat: ...

    @property
    def log_level(self) -> str: ...


def run_until_signal(session: Session, name: str, settings: LogSettings, serve: Serve) -> None:
    """Run the program until SIGTERM or SIGINT, which ends it in an orderly way; a second one, or one that comes before
    it is ready, does not wait for that. Ends with 0, or with 130 when it was interrupted before it was ready."""
    import asyncio

    from invoker.logs import configure_logs
    from invoker.tracing_switch import traced

    configure_logs(settings.log_format, "debug" if session.verbose else settings.log_level)
    with traced(f"invoker-{name}"):
        asyncio.run(_until_signal(name, serve))


async def _until_signal(name: str, serve: Serve) -> None:
    import asyncio
    import signal

    import structlog

    log = structlog.get_logger(component="cli")
    stopping, task = asyncio.Event(), asyncio.current_task()
    assert task is not None  # a coroutine that runs has a task
    is_ready = False

    def stop() -> None:
        if stopping.is_set() or not is_ready:
            task.cancel()
        stopping.set()

    def ready(**facts: Any) -> None:
        nonlocal is_ready
        is_ready = True
        log.info(f"{name} ready", **facts)

    for one in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(one, stop)
    try:
        await serve(ready, stopping)
    except asyncio.CancelledError:
        task.uncancel()
        raise typer.Exit(0 if is_ready else 130) from None
