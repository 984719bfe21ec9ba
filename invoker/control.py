"""Asking a controller: the control services, JSON in and JSON out, with their errors turned back into ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import nats.errors

from invoker import wire
from invoker.connection import nats_errors
from invoker.errors import InvokerError, ServerUnreachableError
from invoker.problem import error_of_problem, parsed_problem
from invoker.request import Document
from invoker.views import LogLine

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient

FIRST_LINE_SECONDS = 1.0
"""A controller that holds the run answers at once; longer than this means that nobody holds it."""

AnyDocument = TypeVar("AnyDocument", bound=Document)


class ControlServices:
    """The verbs of every controller of one instance; any of them answers."""

    def __init__(self, client: NatsClient, names: wire.Names, *, timeout: float = 10.0) -> None:
        self._client = client
        self._names = names
        self._timeout = timeout

    async def ask(self, verb: str, kind: type[AnyDocument], /, **question: Any) -> AnyDocument:
        """The controller's answer. Raises `ServerUnreachableError` when no controller runs, else the error it names."""
        payload = json.dumps({key: value for key, value in question.items() if value is not None}).encode()
        with nats_errors(f"asking for {verb}"):
            try:
                answer = await self._client.request(self._names.control(verb), payload, timeout=self._timeout)
            except nats.errors.NoRespondersError as error:
                raise no_controller(self._names) from error
        code = wire.header(answer.headers, wire.H_SERVICE_ERROR_CODE)
        if code is not None:
            words = wire.header(answer.headers, wire.H_SERVICE_ERROR) or "no reason given"
            raise error_of_problem(parsed_problem(answer.data) or {}, words)
        return _parsed(kind, verb, answer.data)

    async def log_lines(self, run_id: str, *, follow: bool) -> AsyncGenerator[LogLine | None, None]:
        """The lines of a run from the controller that holds it. One None at the beginning when nobody answers."""
        inbox = self._client.new_inbox()
        with nats_errors(f"reading the log of {run_id}"):
            subscription = await self._client.subscribe(inbox)
            subject = self._names.control(f"logs.{run_id}")
            await self._client.publish(subject, json.dumps({"follow": follow}).encode(), reply=inbox)
        try:
            first = True
            while True:
                try:
                    message = await subscription.next_msg(timeout=FIRST_LINE_SECONDS if first else None)
                except (nats.errors.TimeoutError, TimeoutError):
                    yield None
                    return
                if wire.header(message.headers, "Status") == "503":
                    yield None
                    return
                if not message.data:
                    return
                first = False
                yield _log_line(message.data)
        finally:
            await asyncio.shield(subscription.unsubscribe())


def no_controller(names: wire.Names) -> ServerUnreachableError:
    return ServerUnreachableError(
        f"no controller of the instance {names.instance!r} answers on this NATS",
        hint="start `invoker dev` or `invoker controller`",
    )


def _parsed(kind: type[AnyDocument], verb: str, data: bytes) -> AnyDocument:
    try:
        return kind.model_validate_json(data)
    except ValueError as error:
        raise InvokerError(f"the controller's answer to {verb} cannot be read: {error}") from error


def _log_line(data: bytes) -> LogLine:
    document = parsed_problem(data) or {}
    return LogLine(
        text=str(document.get("text", "")),
        attempt=document.get("attempt"),
        stream=document.get("stream"),
        at=_instant(document.get("at")),
    )


def _instant(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)) if text else None
    except ValueError:
        return None
