"""Logging: JSON lines in production, short coloured lines at a desk. Bound once: component, request_id, run_id."""

from __future__ import annotations

import logging
import sys
from typing import Literal, TextIO

import structlog

LogFormat = Literal["json", "console"]


def configure_logs(log_format: LogFormat = "json", level: str = "info", stream: TextIO | None = None) -> None:
    """From here on every log line of this process goes to `stream` (stderr) in that format. Safe to repeat."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if log_format != "json":
        # Without local variables, as below; the library's own choice shows them.
        renderer = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="timestamp"),
    ]
    if log_format == "json":
        # Without local variables: they hold payloads and tokens.
        transformer = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors.append(structlog.processors.ExceptionRenderer(transformer))
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper(), logging.INFO)),
        logger_factory=structlog.WriteLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=False,
    )
    _take_over()


class _OneForm(logging.Handler):
    """Lines of the libraries that we use (event loop, HTTP server, NATS client), in the same form as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            log = structlog.get_logger(component=record.name)
            log.log(record.levelno, record.getMessage(), exc_info=record.exc_info or None)
        except Exception:  # a line that cannot be written; the standard library says so in its own way
            self.handleError(record)


def _take_over() -> None:
    """Write what libraries log as we write our own: otherwise their lines are plain text between ours."""
    root = logging.getLogger()
    for handler in list(root.handlers):
        if isinstance(handler, _OneForm):
            return
    root.addHandler(_OneForm(logging.WARNING))
