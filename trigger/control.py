"""The control and call services of a controller, as NATS services: the CLI, the gateway and plain clients ask here.

`invoker.call.…` lets any NATS client use a plain request: the event is stored, and the reply is the run's own. The
`invoker.ctl.…` services answer with JSON; an error is a problem document with NATS' own service error headers.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import nats.micro
import structlog
from nats.aio.msg import Msg
from nats.micro.request import Request as ServiceRequest
from nats.micro.service import Service, ServiceConfig

from invoker import wire
from invoker.errors import InputRefusedError, InvokerError, UnknownIdError
from invoker.publish import EventPublisher, OutgoingEvent
from invoker.request import RunTicket
from invoker.result import Reason
from invoker.results.nats import ResultStream
from invoker.version import __version__
from trigger.catalog import Catalog
from trigger.consumers import Backlog, Consumers
from trigger.custody import Custody
from trigger.deadletter import DeadLetters
from trigger.describe import describe_broken, describe_function, problem_of, without_function
from trigger.engine import Engine
from trigger.filter import EventAttributes
from trigger.function_source import describe_source
from trigger.reply import error_reply
from trigger.seal import Sealer
from trigger.verdict import Verdict

if TYPE_CHECKING:
    from nats.aio.client import Client as NatsClient

log = structlog.get_logger(component="control")

Answer = Mapping[str, Any]
Question = dict[str, Any]


class ControlServices:
    """Answers the questions of clients; keeps nothing of its own."""

    def __init__(
        self,
        client: NatsClient,
        names: wire.Names,
        catalog: Callable[[], Catalog],
        reload: Callable[[], Awaitable[Catalog]],
        consumers: Consumers,
        custody: Custody,
        engine: Engine,
        results: ResultStream,
        publisher: EventPublisher,
        dead_letters: DeadLetters,
        sealer: Sealer,
        reply_subjects: tuple[str, ...],
    ) -> None:
        self._client = client
        self._names = names
        self._catalog = catalog
        self._reload = reload
        self._consumers = consumers
        self._custody = custody
        self._engine = engine
        self._results = results
        self._publisher = publisher
        self._dead = dead_letters
        self._sealer = sealer
        self._reply_subjects = reply_subjects

    async def serve(self, tasks: asyncio.TaskGroup) -> Service:
        """When this returns every service answers. The caller stops the returned service at the end."""
        config = ServiceConfig(
            name="invoker-controller", version=__version__, description="Invoker: runs functions for events"
        )
        service = await nats.micro.add_service(self._client, config)
        verbs: dict[str, Callable[[Question], Awaitable[Answer]]] = {
            "functions": self.functions,
            "source": self.source,
            "explain": self.explain,
            "reload": self.reload,
            "pause": self.pause,
            "resume": self.resume,
            "cancel": self.cancel,
            "dead.redrive": self.redrive,
        }
        for verb, answer in verbs.items():
            await service.add_endpoint(
                name=verb.replace(".", "-"), subject=self._names.control(verb), handler=_answering(answer, tasks)
            )
        for name, subject, handler in (
            ("call-topic", self._names.call_topic(">"), self._call_topic),
            ("call-function", self._names.call_function("*"), self._call_function),
        ):
            await service.add_endpoint(name=name, subject=subject, handler=_calling(handler, tasks))
        # Every controller hears it, only the one that holds the run answers: no queue group.
        await self._client.subscribe(self._names.control("logs.*"), cb=_spawning(self._logs, tasks))
        return service

    async def functions(self, question: Question) -> Answer:
        """Every function, or the one named, with its backlog; broken files with their problem."""
        catalog, backlogs = self._catalog(), await self._consumers.backlogs()
        name = question.get("name")
        if name is not None and name not in catalog.functions:
            self._function(name)
        nothing = Backlog(0, 0, False)
        found = [
            describe_function(function, problem_of(function, catalog.broken), backlogs.get(function.name, nothing))
            for function in catalog.functions.values()
            if name in (None, function.name)
        ]
        if name is None:
            found += [describe_broken(broken) for broken in without_function(catalog.broken, catalog.functions)]
        return {"catalog": catalog.version, "engine": self._engine.name, "functions": found}

    async def source(self, question: Question) -> Answer:
        """One function as it is written, as it was last loaded; with `masked` without what its operators alone see."""
        function = self._catalog().functions[self._function(_text(question, "function"))]
        masked = question.get("masked") is not False
        return await asyncio.to_thread(describe_source, function, masked=masked)  # a large file takes a while to read

    async def explain(self, question: Question) -> Answer:
        """For an event that may be made up: every subscription, whether it matches, and the clause that decided."""
        topic = wire.check_topic(_text(question, "topic"))
        data = base64.b64decode(question.get("data_base64") or "")
        headers = {str(key): str(value) for key, value in (question.get("headers") or {}).items()}
        attributes = EventAttributes(
            topic=topic,
            id=wire.header(headers, wire.H_MESSAGE_ID) or "",
            type=wire.header(headers, "ce-type"),
            source=wire.header(headers, "ce-source"),
            content_type=question.get("content_type") or wire.header(headers, wire.H_CONTENT_TYPE),
            size_bytes=len(data),
            headers=headers,
        )
        called = self._names.function_of_direct_topic(topic)
        if called is not None:
            return {"topic": topic, **_explained_call(topic, called, self._catalog())}
        matcher = self._catalog().matcher
        return {
            "topic": topic,
            "matched": list(matcher.match(attributes)),
            "subscriptions": [
                {"function": one.function, "pattern": one.pattern, "matched": one.matched, "clause": one.clause}
                for one in matcher.explain(attributes)
            ],
            "nearest": [{"pattern": pattern, "function": function} for pattern, function in matcher.nearest(topic)],
        }

    async def reload(self, question: Question) -> Answer:
        """Load the catalog now; answers once the new one is in use."""
        catalog = await self._reload()
        return {"catalog": catalog.version, "functions": len(catalog.functions), "broken": len(catalog.broken)}

    async def pause(self, question: Question) -> Answer:
        """Start no more runs of a function, on any controller; its events stay queued."""
        function = self._function(_text(question, "function"))
        await self._consumers.pause(function)
        log.info("function paused", function=function)
        return {"function": function, "paused": True}

    async def resume(self, question: Question) -> Answer:
        function = self._function(_text(question, "function"))
        await self._consumers.resume(function)
        log.info("function resumed", function=function)
        return {"function": function, "paused": False}

    async def cancel(self, question: Question) -> Answer:
        """Seal the unfinished runs that are meant as cancelled; a queued one is answered when its turn comes."""
        tickets, finished = await self._meant(question)
        message = str(question.get("message") or "cancelled on request")[:500]
        cancelled: list[str] = []
        for ticket in tickets:
            record = await self._results.record(ticket.request_id)
            held = self._custody.get(ticket.run_id)
            result = await self._sealer.seal(
                ticket,
                record,
                Verdict(Reason.CANCELLED, message),
                facts=held.facts if held else None,
                status=held.status if held else None,
            )
            (cancelled if result.reason is Reason.CANCELLED else finished).append(ticket.run_id)
        return {"cancelled": cancelled, "already_finished": finished}

    async def redrive(self, question: Question) -> Answer:
        """Publish a dead letter's event again, as a new request that names the original."""
        return {"request_id": await self._dead.redrive(_id(question, "dead_id", "dead letter"))}

    async def _meant(self, question: Question) -> tuple[list[RunTicket], list[str]]:
        """The unfinished runs a cancel is about, and the ids of those that are finished already."""
        if question.get("run_id"):
            run_id = _id(question, "run_id", "run")
            ticket = await self._results.ticket(run_id)
            if ticket is None and await self._results.status(run_id) is None:
                raise UnknownIdError(f"no unfinished run {run_id}", hint="name its request and its function instead")
            return ([ticket], []) if ticket is not None else ([], [run_id])
        request_id = _id(question, "request_id", "request")
        record = await self._results.record(request_id)
        if record is None:
            raise UnknownIdError(f"no request {request_id}")
        only = question.get("function")
        tickets, finished = [], []
        for function, run_id in record.run_ids().items():
            if only not in (None, function):
                continue
            done = await self._results.result(request_id, function) is not None
            if done:
                finished.append(run_id)
            else:
                tickets.append(RunTicket(run_id=run_id, request_id=request_id, function=function))
        return tickets, finished

    async def _call_topic(self, message: ServiceRequest, reply_to: str) -> None:
        topic = message.subject.removeprefix(self._names.call_topic(""))
        await self._publish(topic, message, reply_to)

    async def _call_function(self, message: ServiceRequest, reply_to: str) -> None:
        function = self._function(message.subject.removeprefix(self._names.call_function("")))
        await self._publish(self._names.direct_topic(function), message, reply_to)

    async def _publish(self, topic: str, message: ServiceRequest, reply_to: str) -> None:
        wire.check_reply_subject(reply_to, self._reply_subjects)
        headers = {key: value for key, value in (message.headers or {}).items() if key != wire.H_REPLY_TO}
        await self._publisher.publish(
            OutgoingEvent(
                topic=topic,
                data=message.data,
                request_id=wire.header(headers, wire.H_MESSAGE_ID),
                reply_to=reply_to,
                headers=headers,
            )
        )

    async def _logs(self, message: Msg) -> None:
        """Stream a held run's lines to the asker, then an empty message; silent when the run is not held here."""
        run_id = message.subject.rsplit(".", 1)[1]
        if not message.reply or self._custody.get(run_id) is None:
            return
        try:
            follow = bool(_question(message.data).get("follow"))
            async for line in self._engine.logs(run_id, follow):
                document = {
                    "attempt": line.attempt,
                    "stream": line.stream,
                    "text": line.text,
                    "at": line.at.isoformat(),
                }
                await self._client.publish(message.reply, json.dumps(document, ensure_ascii=False).encode())
            await self._client.publish(message.reply, b"")
        except Exception:  # one asker's lines; the controller goes on
            log.exception("streaming logs failed", run_id=run_id)

    def _function(self, name: str) -> str:
        if name not in self._catalog().functions:
            known = ", ".join(sorted(self._catalog().functions)) or "none"
            raise UnknownIdError(f"no function {name!r}; there are: {known}", hint="invoker functions list")
        return name


def _explained_call(topic: str, called: str, catalog: Catalog) -> Answer:
    """The verdict on a direct call: it is for its function, whatever that subscribes to."""
    found = called in catalog.functions
    near = [] if found else get_close_matches(called, catalog.functions, n=3)
    patterns = {name: topic[: len(topic) - len(called)] + name for name in (called, *near)}
    verdict = {"function": called, "pattern": topic, "matched": True, "clause": "called by its name"}
    return {
        "matched": [called] if found else [],
        "subscriptions": [verdict] if found else [],
        "nearest": [{"pattern": patterns[name], "function": name} for name in near],
    }


def _answering(
    answer: Callable[[Question], Awaitable[Answer]], tasks: asyncio.TaskGroup
) -> Callable[[ServiceRequest], Awaitable[None]]:
    """A service handler that answers with JSON. In a task of its own: one slow answer must not delay the others."""

    async def handle(request: ServiceRequest) -> None:
        try:
            body = await answer(_question(request.data))
            await request.respond(json.dumps(body, ensure_ascii=False, default=str).encode())
        except InvokerError as error:
            await _refuse(request, error)
        except Exception:  # whatever it is, the asker is answered and the service goes on
            log.exception("control service failed", subject=request.subject)
            await _refuse(request, InvokerError("the controller could not answer; its log says why"))

    return _spawning(handle, tasks)


def _calling(
    call: Callable[[ServiceRequest, str], Awaitable[None]], tasks: asyncio.TaskGroup
) -> Callable[[ServiceRequest], Awaitable[None]]:
    """A service handler whose answer is sent by the run itself; here only refusals are answered."""

    async def handle(request: ServiceRequest) -> None:
        reply_to = request._msg.reply  # the micro API has no public name for it
        try:
            await call(request, reply_to)
        except InvokerError as error:
            await _refuse(request, error)
        except Exception:  # the same for a call
            log.exception("call service failed", subject=request.subject)
            await _refuse(request, InvokerError("the controller could not take the call; its log says why"))

    return _spawning(handle, tasks)


async def _refuse(request: ServiceRequest, error: InvokerError) -> None:
    if request._msg.reply:
        reply = error_reply(error, "")
        await request.respond(reply.data, headers=reply.headers)


def _spawning(handle: Callable[[Any], Awaitable[None]], tasks: asyncio.TaskGroup) -> Callable[[Any], Awaitable[None]]:
    async def spawn(message: Any) -> None:
        async def run() -> None:
            await handle(message)

        answering = run()
        try:
            tasks.create_task(answering)
        except RuntimeError:
            # The controller stops, and was asked a moment before its subscriptions ended: another one answers.
            answering.close()

    return spawn


def _question(data: bytes) -> Question:
    try:
        question = json.loads(data or b"{}")
    except ValueError as error:
        raise InputRefusedError("the question is not JSON") from error
    if not isinstance(question, dict):
        raise InputRefusedError("the question is not a JSON object")
    return question


def _text(question: Question, key: str) -> str:
    value = question.get(key)
    if not isinstance(value, str) or not value:
        raise InputRefusedError(f"the question has no {key}")
    if len(value) > 512:
        raise InputRefusedError(f"{key} is too long")
    return value


def _id(question: Question, key: str, what: str) -> str:
    """An id becomes a subject token: with a wildcard in it somebody else's run would be meant."""
    value = _text(question, key)
    if not wire.is_plain_id(value):
        raise UnknownIdError(f"no {what} {ascii(value)[:80]}")
    return value
