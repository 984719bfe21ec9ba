"""Every subject, stream, header and size that travels: nowhere else may one be spelled.

Pure: no I/O, no clock, no environment. `Names` builds subjects for one instance of Invoker, so two instances can share
a NATS account. The functions check what comes from outside and raise `TopicError` or `ReplySubjectError` with the rule
that was broken; checking twice is harmless.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from invoker.errors import ReplySubjectError, TopicError

VERSION = "1"
"""The version of the stored documents, sent as `Invoker-Version`."""

# Headers. NATS headers are case-sensitive: written exactly so, read case-insensitively (`header`).
H_VERSION = "Invoker-Version"
H_REQUEST_ID = "Invoker-Request-Id"
H_RUN_ID = "Invoker-Run-Id"
H_FUNCTION = "Invoker-Function"
H_STATE = "Invoker-State"
H_REASON = "Invoker-Reason"
H_RUNS = "Invoker-Runs"
H_FUNCTIONS = "Invoker-Functions"
H_TOPIC = "Invoker-Topic"
H_REPLY_TO = "Invoker-Reply-To"
H_ROOT_REQUEST_ID = "Invoker-Root-Request-Id"
H_PARENT_RUN_ID = "Invoker-Parent-Run-Id"
H_HOPS = "Invoker-Hops"
H_CLAIM = "Invoker-Claim"
H_REPLAY_OF = "Invoker-Replay-Of"
H_ATTEMPT = "Invoker-Attempt"
H_POSITION = "Invoker-Position"
H_POD_UID = "Invoker-Pod-Uid"
H_QUEUED_AT = "Invoker-Queued-At"
H_STARTED_AT = "Invoker-Started-At"
H_FINISHED_AT = "Invoker-Finished-At"
H_PARAM_PREFIX = "Invoker-Param-"
H_RESULTS_FROM = "Invoker-Results-From"
H_CALL_ID = "X-Request-Id"
H_TRACEPARENT = "traceparent"
H_TRACESTATE = "tracestate"
H_CONTENT_TYPE = "Content-Type"
H_MESSAGE_ID = "Nats-Msg-Id"
H_EXPECTED_LAST_SUBJECT_SEQUENCE = "Nats-Expected-Last-Subject-Sequence"
H_SERVICE_ERROR = "Nats-Service-Error"
H_SERVICE_ERROR_CODE = "Nats-Service-Error-Code"

CONTENT_TYPE_JSON = "application/json"
CONTENT_TYPE_PROBLEM = "application/problem+json"
CONTENT_TYPE_CLAIM = "application/vnd.invoker.claim+json"
CONTENT_TYPE_BYTES = "application/octet-stream"
CONTENT_TYPE_TEXT = "text/plain; charset=utf-8"

MAX_TOPIC_BYTES = 255
MAX_TOPIC_TOKENS = 32
MAX_REPLY_SUBJECT_BYTES = 255
MAX_COPIED_HEADER_BYTES = 16 * 1024
MAX_HOPS = 32
MAX_FUNCTIONS_HEADER_BYTES = 4 * 1024
"""Names of a request's functions in its record's headers; a longer list is in the record alone."""
MAX_ENV_INPUT_BYTES = 96 * 1024 - 64
"""One environment variable, name and NUL included, may have 128 KiB on Linux (MAX_ARG_STRLEN): base64 of 96 KiB alone
is exactly that, so the name's room is left."""
CLAIM_THRESHOLD_BYTES = 512 * 1024
"""Bytes above this travel by claim check, in either direction."""
INLINE_OUTPUT_BYTES = 16 * 1024
"""Outputs and log tails above this are claim checks in the stored result."""
WIRE_MARGIN_BYTES = 64 * 1024
"""Room kept below the server's max_payload for our own headers: a message above max_payload closes the connection."""
DEFAULT_REPLY_SUBJECTS = ("_INBOX.>", "replies.>")

_CALL_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")
_USABLE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_FUNCTION_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_STAGE_HEADERS = {
    name.lower()
    for name in (
        H_CONTENT_TYPE, H_MESSAGE_ID, H_REPLY_TO, H_CLAIM, H_ROOT_REQUEST_ID, H_PARENT_RUN_ID, H_HOPS, H_REPLAY_OF,
    )
}  # fmt: skip
"""Each is short and bounded by its own rule, so together they stay far below `WIRE_MARGIN_BYTES`."""
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_INSTANCE = re.compile(r"[a-z][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class Names:
    """The streams, subjects and buckets of one instance.

    `instance` is a lower-case token (`invoker`), `topic_prefix` the subject prefix of events (`events`, may have dots).
    """

    instance: str = "invoker"
    topic_prefix: str = "events"

    def __post_init__(self) -> None:
        if not _INSTANCE.fullmatch(self.instance):
            raise TopicError(f"instance name {self.instance!r} must match {_INSTANCE.pattern}")
        check_topic(self.topic_prefix)
        if self.topic_prefix.split(".")[0] == self.instance:
            raise TopicError(f"the topic prefix {self.topic_prefix!r} may not begin with the instance's own name")

    # streams
    @property
    def events_stream(self) -> str:
        return f"{self._upper}_EVENTS"

    @property
    def runs_stream(self) -> str:
        return f"{self._upper}_RUNS"

    @property
    def results_stream(self) -> str:
        return f"{self._upper}_RESULTS"

    @property
    def status_stream(self) -> str:
        return f"{self._upper}_STATUS"

    @property
    def dead_stream(self) -> str:
        return f"{self._upper}_DEAD"

    @property
    def payloads_bucket(self) -> str:
        return f"{self._upper}_PAYLOADS"

    @property
    def _upper(self) -> str:
        return self.instance.upper().replace("-", "_")

    # subjects
    def event(self, topic: str) -> str:
        return f"{self.topic_prefix}.{topic}"

    def topic_of(self, subject: str) -> str:
        """The topic of an event's subject, unchecked: the caller checks it (`check_topic`)."""
        return subject.removeprefix(f"{self.topic_prefix}.")

    def run(self, function: str, run_id: str) -> str:
        return f"{self.instance}.run.{function}.{run_id}"

    def accepted(self, request_id: str) -> str:
        return f"{self.instance}.accepted.{request_id}"

    def result(self, request_id: str, function: str) -> str:
        return f"{self.instance}.result.{request_id}.{function}"

    def status(self, run_id: str) -> str:
        return f"{self.instance}.status.{run_id}"

    def dead(self, dead_id: str) -> str:
        return f"{self.instance}.dead.{dead_id}"

    def control(self, verb: str) -> str:
        """A control service's subject, such as `functions`, `explain`, `cancel`, `logs.<run>`, `dead.redrive`."""
        return f"{self.instance}.ctl.{verb}"

    def call_topic(self, topic: str) -> str:
        """Where a plain `nats.request` asks for an event to be published and answered."""
        return f"{self.instance}.call.topic.{topic}"

    def call_function(self, function: str) -> str:
        """Where a plain `nats.request` asks for one function, whatever its subscriptions."""
        return f"{self.instance}.call.function.{function}"

    def direct_topic(self, function: str) -> str:
        """The reserved topic behind `call_function`: an event on it is for that one function."""
        return f"{self.instance}.call.{function}"

    def function_of_direct_topic(self, topic: str) -> str | None:
        """The function a reserved topic calls, or None when the topic is an ordinary one."""
        prefix = f"{self.instance}.call."
        return topic[len(prefix) :] if topic.startswith(prefix) else None

    def is_reserved(self, topic: str) -> bool:
        return topic == self.instance or topic.startswith(f"{self.instance}.")

    def run_consumer(self, function: str) -> str:
        return f"run-{function}"

    intake_consumer = "intake"


def check_topic(topic: str) -> str:
    """Return the topic if it is legal, else raise `TopicError` naming the rule.

    Legal: 1 to 32 non-empty tokens between dots, at most 255 bytes of UTF-8, no white space or control characters, no
    wildcards, first character not `$` (those subjects are the server's).
    """
    _check_subject(topic, "topic")
    if "*" in topic or ">" in topic:
        raise TopicError(f"topic {_shown(topic)} has a wildcard; only a subscription's pattern may", topic=topic[:255])
    return topic


def check_pattern(pattern: str) -> str:
    """Return the topic pattern if it is legal, else raise `TopicError`: `*` is a whole token, `>` the last one."""
    _check_subject(pattern, "topic pattern")
    tokens = pattern.split(".")
    for position, token in enumerate(tokens):
        if token == "*" or (token == ">" and position == len(tokens) - 1):
            continue
        if token == ">":
            raise TopicError(f"topic pattern {_shown(pattern)}: '>' is allowed as the last token only")
        if "*" in token or ">" in token:
            raise TopicError(
                f"topic pattern {_shown(pattern)}: a wildcard must be a whole token, not part of {token!r}"
            )
    return pattern


def check_reply_subject(subject: str, allowed: Iterable[str] = DEFAULT_REPLY_SUBJECTS) -> str:
    """Return the reply subject if Invoker may publish to it, else raise `ReplySubjectError`.

    Why an allow-list: an empty output sent to a `$JS.ACK…` subject would acknowledge somebody else's run, one sent to
    `$JS.API.STREAM.DELETE…` would delete a stream, one sent to `events.…` would make a loop that no filter sees.
    """
    allowed = tuple(allowed)
    try:
        if len(subject.encode("utf-8", "surrogatepass")) > MAX_REPLY_SUBJECT_BYTES:
            raise TopicError(f"reply subject {_shown(subject)} is longer than {MAX_REPLY_SUBJECT_BYTES} bytes")
        _check_subject(subject, "reply subject", max_tokens=128, system=True)
    except TopicError as error:
        raise ReplySubjectError(error.message) from error
    if "*" in subject or ">" in subject:
        raise ReplySubjectError(f"reply subject {_shown(subject)} has a wildcard")
    if not any(subject_matches(pattern, subject) for pattern in allowed):
        raise ReplySubjectError(
            f"reply subject {_shown(subject)} is not among the allowed ones ({', '.join(allowed)})",
            hint="use an inbox, or let the operator extend INVOKER_REPLY_SUBJECTS",
        )
    return subject


def check_function_name(name: str) -> str:
    """Return the function name if it is a DNS label (a-z, 0-9, inner hyphens, 1-63), else raise `TopicError`."""
    if not _FUNCTION_NAME.fullmatch(name):
        raise TopicError(f"function name {_shown(name)} must be 1 to 63 of a-z, 0-9 and inner '-'")
    return name


def subject_matches(pattern: str, subject: str) -> bool:
    """NATS' own matching of one pattern, token by token; the naive one that the trie is tested against."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return len(given) > position
        if position >= len(given) or (token != "*" and token != given[position]):
            return False
    return len(wanted) == len(given)


def pattern_covers(wide: str, narrow: str) -> bool:
    """Whether every subject that the second pattern matches is matched by the first one."""
    wanted, given = wide.split("."), narrow.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return len(given) > position
        if position >= len(given) or given[position] == ">" or (token != "*" and token != given[position]):
            return False
    return len(wanted) == len(given)


def header(headers: Mapping[str, str] | None, name: str) -> str | None:
    """The header's value, whatever the case it was written in; exact spelling wins."""
    if not headers:
        return None
    if name in headers:
        return headers[name]
    lowered = name.lower()
    return next((value for key, value in headers.items() if key.lower() == lowered), None)


def copied_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers of an event that travel on: all but NATS' own.

    Why not NATS' own: a copied `Nats-Msg-Id` makes the server drop a request's second run message as a duplicate, a
    copied `Nats-Expected-Stream` makes it refuse all of them.
    """
    return {key: value for key, value in (headers or {}).items() if not key.lower().startswith("nats-")}


def callers_header_bytes(headers: Mapping[str, str]) -> int:
    """The size of the headers that callers choose: all but those that every stage of a chain adds anew.

    The limit is about these: what fits once must fit at every further stage, with its own lineage.
    """
    return header_bytes(
        {
            key: value
            for key, value in headers.items()
            if key.lower() not in _STAGE_HEADERS and not (key.lower() == H_TRACEPARENT and usable_traceparent(value))
        }
    )


def usable_call_id(text: str | None) -> str | None:
    """The name that a caller gave its call, when it can stand in logs and answers as it is; else None."""
    return text if text is not None and _CALL_ID.fullmatch(text) else None


def usable_traceparent(text: str | None) -> str | None:
    """A W3C trace context's `traceparent`, when it is one; else None."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else None


def trace_headers(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers by which a caller finds its call again, through every stage and in every reply: those that hold."""
    call_id = usable_call_id(header(headers, H_CALL_ID))
    traceparent = usable_traceparent(header(headers, H_TRACEPARENT))
    found = {H_CALL_ID: call_id, H_TRACEPARENT: traceparent}
    tracestate = header(headers, H_TRACESTATE)
    if traceparent is not None and tracestate is not None and _TRACESTATE.fullmatch(tracestate):
        found[H_TRACESTATE] = tracestate
    return {name: value for name, value in found.items() if value is not None}


def trace_ids(traceparent: str | None) -> dict[str, str]:
    """For log lines: `trace_id` and `span_id` of a `traceparent`, when it is one."""
    if (text := usable_traceparent(traceparent)) is None:
        return {}
    _, trace_id, span_id, _ = text.split("-")
    return {"trace_id": trace_id, "span_id": span_id}


def trace_facts(headers: Mapping[str, str] | None) -> dict[str, str]:
    """The same for log lines: `call_id` and `trace_id`, where there are any."""
    found = trace_headers(headers)
    facts = {"call_id": found[H_CALL_ID]} if H_CALL_ID in found else {}
    if H_TRACEPARENT in found:
        facts["trace_id"] = found[H_TRACEPARENT].split("-")[1]
    return facts


def header_bytes(headers: Mapping[str, str]) -> int:
    """The size of headers on the wire, in bytes."""
    return sum(len(key.encode()) + len(value.encode()) + 4 for key, value in headers.items())


def is_plain_id(text: str) -> bool:
    """Whether the text is usable as an id and subject token as it is: `[A-Za-z0-9_-]{1,64}`."""
    return _USABLE_ID.fullmatch(text) is not None


def new_request_id(now: datetime, random_bytes: bytes) -> str:
    """A UUIDv7 of that instant as 26 lower-case Crockford base32 characters: sorts by time, legal everywhere.

    `random_bytes` are 10 bytes of randomness.
    """
    return _timed_id(now, random_bytes)


def request_id_of(message_id: str | None, *, stream: str, created: str, sequence: int, stored_at: datetime) -> str:
    """The request id of an event: the same for every delivery of it, legal as subject token.

    A `Nats-Msg-Id` of `[A-Za-z0-9_-]{1,64}` is the id itself; any other one is hashed, since raw text must never become
    a subject token. Without one it derives from the stream's name, creation time (RFC 3339) and the sequence (a stream
    that was deleted and made anew starts at sequence 1 again), with the instant it was stored in front.
    """
    if message_id is not None and _USABLE_ID.fullmatch(message_id):
        return message_id
    if message_id:
        return digest_id("message-id", message_id)
    return _timed_id(stored_at, _digest("sequence", stream, created, str(sequence))[:10])


def canonical_id(given: str) -> str:
    """The request id of a message id as its publisher wrote it: itself when it is usable, else its hash; nothing of
    nothing."""
    return digest_id("message-id", given) if given and not _USABLE_ID.fullmatch(given) else given


def time_of_id(request_id: str) -> datetime | None:
    """The instant in an id that `new_request_id` or `request_id_of` put there, None for ids without one.

    Hashed ids are never mistaken: their alphabet has no `0`, and every instant from 2005 to 2039 begins with `01`.
    """
    if len(request_id) != 26 or not request_id.startswith("01") or not set(request_id) <= set(_CROCKFORD):
        return None
    number = 0
    for character in request_id:
        number = number * 32 + _CROCKFORD.index(character)
    return datetime.fromtimestamp((number >> 80) / 1000, UTC)


def run_id_of(request_id: str, function: str) -> str:
    """The run id of a (request, function) pair: 26 characters, legal as subject token, label and Job name."""
    return digest_id("run", request_id, function)


def chained_id(parent_run_id: str, kind: str, position: int = 0) -> str:
    """The request id of an event that a run caused: the same when an attempt or a finish is repeated.

    `kind` is `onSuccess`, `onFailure` or `published`, `position` counts the published ones from 0.
    """
    return digest_id("chained", parent_run_id, kind, str(position))


def digest_id(*parts: str) -> str:
    """26 lower-case base32 characters of sha256 over the length-prefixed parts (130 bits)."""
    return base64.b32encode(_digest(*parts))[:26].decode().lower()


def timed_digest_id(at: datetime, *parts: str) -> str:
    """The same with an instant in front, of the form of `new_request_id` (74 bits of the digest)."""
    return _timed_id(at, _digest(*parts)[:10])


def log_object(run_id: str) -> str:
    """The object that holds the log tail of a run whose result was sealed before its process ended."""
    return f"log/{run_id}"


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _digest(*parts: str) -> bytes:
    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode()
        hasher.update(len(data).to_bytes(8, "big"))
        hasher.update(data)
    return hasher.digest()


def _timed_id(at: datetime, tail: bytes) -> str:
    """48 bits of milliseconds, then 80 bits with UUIDv7's version and variant in their places."""
    rest = int.from_bytes(tail[:10], "big") & ~(0xF << 76) & ~(0x3 << 62) | (0x7 << 76) | (0x2 << 62)
    number = (int(at.timestamp() * 1000) << 80) | rest
    return "".join(_CROCKFORD[(number >> shift) & 31] for shift in range(125, -1, -5))


def _check_subject(subject: str, what: str, *, max_tokens: int = MAX_TOPIC_TOKENS, system: bool = False) -> None:
    if not subject:
        raise TopicError(f"the {what} is empty")
    if " " in subject or not subject.isprintable():  # every other white space counts as not printable
        raise TopicError(f"{what} {_shown(subject)} has white space, a control character or bytes that are no UTF-8")
    if len(subject.encode("utf-8", "surrogatepass")) > MAX_TOPIC_BYTES:
        raise TopicError(f"{what} {_shown(subject)} is longer than {MAX_TOPIC_BYTES} bytes")
    tokens = subject.split(".")
    if "" in tokens:
        raise TopicError(f"{what} {_shown(subject)} has an empty token (two dots in a row, or a dot at an end)")
    if len(tokens) > max_tokens:
        raise TopicError(f"{what} {_shown(subject)} has {len(tokens)} tokens, at most {max_tokens} are allowed")
    if subject.startswith("$") and not system:
        raise TopicError(f"{what} {_shown(subject)} begins with '$', which is the NATS server's own")


def _shown(text: str) -> str:
    """The text quoted, made printable and shortened, so that no message carries a control character."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
