"""Which request an event becomes: the one of its caller's own key, or a new one. Pure but for new keys.

A key belongs to the caller who sends it: two who choose the same one send two events, and neither learns of the
other's. So the request's id is made of both. It is the same at every gateway and after every restart, since nothing is
kept: a caller is known by the name of his key or token, which a renewed one keeps. Who may do everything is taken at
his word, as on NATS: his key is the request's id.
"""

from __future__ import annotations

from dataclasses import dataclass

from invoker import wire
from invoker.gateway.access.scopes import Caller
from invoker.requesting import new_request_id


@dataclass(frozen=True, slots=True)
class EventId:
    """The id of one event: its request's, the message id that it is published with, and the key that repeats it."""

    request_id: str
    message_id: str
    key: str
    is_new: bool
    """The key was made for this event, so nothing can be there yet."""


def event_id(caller: Caller, key: str | None) -> EventId:
    """The id of an event that this caller sends with that key; without one it is another event every time."""
    chosen = key or new_request_id()
    message_id = chosen if caller.may_do_everything() else own_request_id(caller, chosen)
    return EventId(wire.canonical_id(message_id), message_id, chosen, key is None)


def own_request_id(caller: Caller, key: str) -> str:
    """The request id of the caller's key: nobody else has a key for it. With the instant of the key, if it has one, in
    front, so that it sorts by time and is told from one that never was when it has expired."""
    at = wire.time_of_id(key)
    if at is None:
        return wire.digest_id("own-key", caller.kind, caller.name, key)
    return wire.timed_digest_id(at, "own-key", caller.kind, caller.name, key)
