"""What a caller asks: the event as it came, and the record of the request that it became.

Pure: no I/O, no clock. `Content` holds bytes either inline or behind a claim check; `Event` is a decoded message;
`RequestRecord` is the create-only document that fixes, once, which functions run for a request.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from invoker import wire


class Document(BaseModel):
    """A stored document: frozen, and tolerant of keys that a later version added."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, serialize_by_alias=True)

    def to_json(self) -> bytes:
        return self.model_dump_json().encode()


class ClaimCheck(Document):
    """A reference to bytes in the object store: what was promised about them is checked when they are read.

    `size_bytes` (`bytes` on the wire) is the size, `sha256` lower-case hex. On the wire
    the header `Invoker-Claim` holds this document as JSON
    and the message's body holds the same JSON, for readers that do not look at headers.
    """

    object: str
    size_bytes: Annotated[int, Field(ge=0, alias="bytes")]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class Content(Document):
    """Bytes of an event or an output: none, inline (base64), or behind a claim check. `size_bytes` is `bytes` on
    the wire."""

    size_bytes: int = Field(default=0, alias="bytes")
    content_type: str | None = None
    inline_base64: str | None = None
    claim: ClaimCheck | None = None

    @classmethod
    def inline(cls, data: bytes, content_type: str | None = None) -> Content:
        return cls(size_bytes=len(data), content_type=content_type, inline_base64=base64.b64encode(data).decode())

    @classmethod
    def claimed(cls, claim: ClaimCheck, content_type: str | None = None) -> Content:
        return cls(size_bytes=claim.size_bytes, content_type=content_type, claim=claim)

    def inline_bytes(self) -> bytes | None:
        """The bytes when they are inline (or there are none), None when they are behind a claim check."""
        if self.claim is not None:
            return None
        return base64.b64decode(self.inline_base64) if self.inline_base64 else b""


@dataclass(frozen=True, slots=True)
class Event:
    """One message on a topic, decoded and legal. `content` is inline, or the claim check that its publisher sent.

    `headers` are the ones that travel on (`wire.copied_headers`), `received_at` is when the stream stored it.
    """

    topic: str
    request_id: str
    content: Content
    sha256: str
    headers: Mapping[str, str]
    received_at: datetime
    message_id: str | None = None
    reply_to: str | None = None
    root_request_id: str | None = None
    parent_run_id: str | None = None
    hops: int = 0
    replay_of: str | None = None
    params: Mapping[str, str] = field(default_factory=dict)


class RequestRecord(Document):
    """One accepted event and the functions that run for it: written once, never changed, kept for the retention.

    `functions` is empty when nothing matched; `message_id` is the publisher's own id when it had to be hashed;
    `body` is readable as long as the record is (replay, viewers).
    """

    version: int = 1
    request_id: str
    message_id: str | None = None
    topic: str
    received_at: AwareDatetime
    accepted_at: AwareDatetime
    sha256: str
    catalog: str
    functions: tuple[str, ...] = ()
    reply_to: str | None = None
    root_request_id: str
    parent_run_id: str | None = None
    hops: int = 0
    replay_of: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    params: dict[str, str] = Field(default_factory=dict)
    body: Content = Content()

    def run_ids(self) -> dict[str, str]:
        """Run id by function, in the record's order."""
        return {function: wire.run_id_of(self.request_id, function) for function in self.functions}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTicket:
    """The message of one unfinished run in the RUNS stream: ids only, never a payload.

    No `Document`: a controller keeps one for each of its runs, and a model takes five times the room.
    """

    version: int = 1
    run_id: str
    request_id: str
    function: str

    def to_json(self) -> bytes:
        return _TICKETS.dump_json(self)

    @classmethod
    def from_json(cls, data: bytes) -> RunTicket:
        """Raises `ValueError` for what is no ticket; keys that a later version added do no harm."""
        return _TICKETS.validate_json(data)

    @classmethod
    def read(cls, data: bytes) -> RunTicket | None:
        """The ticket in a message of RUNS; None for anything else, such as what somebody put there by hand."""
        try:
            ticket = cls.from_json(data)
        except ValueError:
            return None
        return ticket if ticket.run_id == wire.run_id_of(ticket.request_id, ticket.function) else None


_TICKETS = TypeAdapter(RunTicket)
