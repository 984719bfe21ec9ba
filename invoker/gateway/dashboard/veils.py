"""What of a payload is kept from one reader: what the functions that an event is for declare secret, those of the event
that it repeats (replay, redrive), and the function whose output it was.

Where any of these cannot be told, nothing is shown. What a publisher claims about where its event came from can hide
more, never less.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from invoker import wire
from invoker.errors import ExpiredError, UnknownIdError
from invoker.gateway.access.scopes import Action
from invoker.gateway.dashboard.advice import repeats_payload
from invoker.gateway.dashboard.dead_letter_view import listeners_of
from invoker.gateway.dashboard.secrets import NO_VEIL, UNKNOWN_VEIL, SecretPlaces, Veil, veil_of
from invoker.gateway.functions import operates
from invoker.gateway.sight import ANY_FUNCTION, Sight
from invoker.request import RequestRecord
from invoker.views import DeadLetter, FunctionInfo, RequestView, RunView

MAX_STEPS = 8
"""Events and runs that are looked up for one payload; what has come a longer way is hidden."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An event and where it came from. Without functions it is for all that listen."""

    request_id: str | None
    topic: str
    functions: tuple[str, ...] = ()
    parent_run_id: str | None = None
    replay_of: str | None = None
    params: tuple[str, ...] = ()

    @classmethod
    def accepted(cls, record: RequestRecord) -> Sent:
        return cls(
            record.request_id,
            record.topic,
            record.functions,
            record.parent_run_id,
            record.replay_of,
            tuple(record.params),
        )

    @classmethod
    def buried(cls, letter: DeadLetter) -> Sent:
        parent = wire.header(letter.headers, wire.H_PARENT_RUN_ID)
        original = wire.header(letter.headers, wire.H_REPLAY_OF)
        return cls(letter.request_id, letter.topic, (), parent or None, original or None)


async def input_veil(sight: Sight, view: RequestView) -> Veil:
    """What of the request's event is kept from the caller."""
    return await sent_veil(sight, Sent.accepted(view.record)) if view.record is not None else NO_VEIL


async def sent_veil(sight: Sight, sent: Sent) -> Veil:
    """What of that event is kept from the caller."""
    return NO_VEIL if sight.caller.operates_everything() else await _Search(sight).veil(sent)


def output_veil(sight: Sight, run: RunView, topic: str) -> Veil:
    """What of the output is kept from the caller: what the function's present version declares secret, or that which
    ran."""
    if _may_operate(sight, topic, run.function):
        return NO_VEIL
    catalog = sight.gateway.catalog
    function = catalog.function(run.function)
    if function is None or function.status == "broken":
        return UNKNOWN_VEIL
    known = run.result or run.status
    spec_hash = known.spec_hash if known is not None else None
    return veil_of((function.output_schema, catalog.output_schema_of(run.function, spec_hash or "")))


async def secret_parameters(sight: Sight, view: RequestView) -> frozenset[str]:
    """The names of the parameters whose values are kept from the caller."""
    if view.record is None or not view.record.params or sight.caller.operates_everything():
        return frozenset()
    return await _Search(sight).parameters(Sent.accepted(view.record))


class _Search:
    """Looks up where one payload came from, with a bounded number of questions."""

    def __init__(self, sight: Sight) -> None:
        self._sight = sight
        self._left = MAX_STEPS

    async def veil(self, sent: Sent) -> Veil:
        veil = _own_veil(self._sight, sent)
        if sent.parent_run_id is not None and not veil.unknown:
            veil |= await self._of_parent(sent, sent.parent_run_id)
        if sent.replay_of is not None and not veil.unknown:
            original = await self._original(sent.replay_of)
            veil |= await self.veil(original) if original is not None else UNKNOWN_VEIL
        return veil

    async def parameters(self, sent: Sent) -> frozenset[str]:
        """A replay has the parameters of its original, whose functions may be others."""
        found = _own_parameters(self._sight, sent)
        if sent.replay_of is None:
            return found
        original = await self._original(sent.replay_of)
        return found | (await self.parameters(original) if original is not None else frozenset(sent.params))

    async def _of_parent(self, sent: Sent, run_id: str) -> Veil:
        """What the function declares whose run sent the event. The document of a failure quotes what did not fit, in
        words: of such a one nothing can be left out, so it is hidden whole."""
        found = await self._run(run_id)
        if found is None:
            return UNKNOWN_VEIL
        run, topic = found
        veil = output_veil(self._sight, run, topic)
        if sent.request_id == wire.chained_id(run_id, "onFailure", 0) and await self._quotes(run, veil):
            return UNKNOWN_VEIL
        return veil

    async def _quotes(self, run: RunView, output: Veil) -> bool:
        """Whether the words about the run's end may quote a value that is kept from the caller."""
        if run.result is not None and not repeats_payload(run.result.reason):
            return False
        given = await self._original(run.request_id)
        if output.hides or given is None:
            return True
        return (await self.veil(given)).hides or bool(await self.parameters(given))

    async def _run(self, run_id: str) -> tuple[RunView, str] | None:
        """That run and its topic, whether the caller may see it or not; None when that cannot be told."""
        if not self._may_ask():
            return None
        found = await self._sight.found(run_id)
        if found is None:
            return None
        try:
            return await self._sight.gateway.client.stored.run(found)
        except UnknownIdError:
            return None

    async def _original(self, request_id: str) -> Sent | None:
        """The event of that id, be it a request or a dead letter; None when that cannot be told."""
        if not self._may_ask():
            return None
        try:
            view = await self._sight.gateway.requests(request_id)
            return Sent.accepted(view.record) if view.record is not None else None
        except ExpiredError:
            return None
        except UnknownIdError as error:
            dead_id = error.fields.get("dead_id")
        try:
            letter = await self._sight.gateway.client.stored.dead_letter(str(dead_id)) if dead_id else None
        except UnknownIdError:
            return None
        return Sent.buried(letter) if letter is not None else None

    def _may_ask(self) -> bool:
        self._left -= 1
        return self._left >= 0


def _own_veil(sight: Sight, sent: Sent) -> Veil:
    """What the functions declare that the event is for. Pure, of what is known just now."""
    functions, unknown = _functions_of(sight, sent)
    return veil_of([one.input_schema for one in functions], unknown=unknown)


def _own_parameters(sight: Sight, sent: Sent) -> frozenset[str]:
    functions, unknown = _functions_of(sight, sent)
    named = frozenset(one.name for found in functions for one in found.parameters if SecretPlaces(one.schema_).any)
    return frozenset(sent.params) if unknown else named


def _functions_of(sight: Sight, sent: Sent) -> tuple[list[FunctionInfo], bool]:
    """The functions that the event is for and that the caller may not operate, and whether there may be more."""
    if not sent.functions:
        return _listening(sight, sent.topic)
    names = [one for one in sent.functions if not _may_operate(sight, sent.topic, one)]
    return _readable([sight.gateway.catalog.function(name) for name in names])


def _listening(sight: Sight, topic: str) -> tuple[list[FunctionInfo], bool]:
    """The same for an event that ran nothing: those that may have run, save for their filters. While some function's
    file is refused it is not known what that one listens to."""
    catalog = sight.gateway.catalog
    called = sight.gateway.client.names.function_of_direct_topic(topic)
    if _may_operate(sight, topic, called or ANY_FUNCTION):
        return [], False
    functions = catalog.present.functions
    listening = listeners_of(functions, topic, called)
    hidden, unknown = _readable([one for one in listening if not _may_operate(sight, topic, one.name)])
    if called is not None:
        return hidden, unknown or not listening
    return hidden, unknown or not catalog.is_known or any(one.status == "broken" for one in functions)


def _may_operate(sight: Sight, topic: str, name: str) -> bool:
    """Whether nothing that the function declares secret is kept from the caller, for an event of that topic. A direct
    call has no topic: it is for who may operate the function itself."""
    if sight.gateway.client.names.function_of_direct_topic(topic) is None:
        return sight.may(Action.OPERATE, topic, name)
    return operates(sight.caller, sight.gateway.catalog.function(name) or FunctionInfo(name=name))


def _readable(found: Iterable[FunctionInfo | None]) -> tuple[list[FunctionInfo], bool]:
    """Those whose schemas are known, and whether some are not."""
    given = list(found)
    readable = [one for one in given if one is not None and one.status != "broken"]
    return readable, len(readable) < len(given)
