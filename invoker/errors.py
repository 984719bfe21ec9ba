"""Every error a user of Invoker can meet, each with a stable code, an exit code and a next step.

InvokerError
├─ InputRefusedError          the caller's fault, repeating it unchanged cannot help            exit 6
│   ├─ TopicError               a topic, topic pattern or subject that breaks the rules
│   ├─ ReplySubjectError        a reply subject outside the allowed ones
│   ├─ RequestIdError           an id that cannot be used
│   ├─ IdempotencyMismatchError the same request id for another event
│   ├─ PayloadTooLargeError     larger than the named limit
│   ├─ SchemaViolationError     the input does not fit a function's schema
│   ├─ NoSubscriptionError      nothing matches, and the caller wanted an answer
│   ├─ ContentRefusedError      a content type or encoding that this door does not take
│   ├─ RangeRefusedError        a range of bytes that lies behind the end
│   ├─ NoSuchPathError          the gateway has nothing at that path
│   ├─ MethodRefusedError       what is at that path does not take that method
│   ├─ UnauthorizedError        who is asking is not known
│   ├─ ForbiddenError           who is asking is known, and may not
│   ├─ RateLimitedError         too many calls in too short a time
│   ├─ BodySilentError          a body that stopped in the middle
│   ├─ CatalogError             a function file that cannot be used; the last good version stays
│   └─ RunApiRefusedError       what a function asked of the run API
│       ├─ TokenMissingError      no token was shown
│       ├─ TokenRefusedError      the token is not this run's
│       ├─ OutputTooLargeError    the output is larger than the limit
│       ├─ OutputRefusedError     the output does not fit the function's schema
│       ├─ ReservedHeaderError    an event's header is one that only Invoker sets
│       └─ HopLimitError          the chain is too long to be continued
├─ SettingsError              a setting with an unusable value, named                            exit 2
├─ UnknownIdError             no request, run, function or dead letter of that id                exit 4
│   └─ ExpiredError             it was there, its retention is over
├─ NotReadyError              it has not come so far that this could be answered                 exit 5
├─ AmbiguousIdError           a shortened id that fits several                                   exit 4
├─ WaitExpiredError           waited in vain; the work goes on                                   exit 5
├─ RunFailedError             a run ended without success                                        exit 3
├─ ServerUnreachableError     NATS, JetStream or a controller does not answer                    exit 7
├─ StreamMismatchError        a stream or consumer exists with other settings than ours          exit 1
├─ BackPressureError          a stream is full: transient, try again later                       exit 7
│   └─ TooManyBytesError        the gateway receives too many bytes at once
├─ ClaimCheckError            bytes behind a claim check are missing or not what was promised    exit 1
├─ RunFinishedError           the run has its result: input and output are refused               exit 1
└─ EngineError
    ├─ StartRefusedError        permanent: the engine's side said no                             exit 1
    └─ EngineUnavailableError   transient: try the same call again                               exit 7
"""

from __future__ import annotations

from typing import Any, ClassVar


class InvokerError(Exception):
    """What happened, to what, and what to do about it.

    `code` is stable and documented (`docs/errors.md`), `exit_code` is what the command line ends with, `hint` is the
    next step when there is one, `fields` names what a program may want to read without parsing the sentence.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields = fields

    def problem(self) -> dict[str, Any]:
        """The error as an RFC 9457 problem document, without anything internal in it."""
        document: dict[str, Any] = {
            "type": f"https://invoker.dev/problems/{self.code}",
            "title": self.code.replace("-", " "),
            "status": self.http_status,
            "detail": self.message,
            "code": self.code,
        }
        if self.hint:
            document["hint"] = self.hint
        return document | self.fields


class InputRefusedError(InvokerError):
    """The caller's input cannot be used as it is; sending it again unchanged gives the same answer."""

    code = "invalid-request"
    exit_code = 6
    http_status = 400


class TopicError(InputRefusedError):
    """The topic, topic pattern or subject breaks a rule of `invoker.wire`; the message names the rule."""

    code = "invalid-topic"


class ReplySubjectError(InputRefusedError):
    """The reply subject is not one that Invoker may publish to (`INVOKER_REPLY_SUBJECTS`)."""

    code = "invalid-reply-subject"


class RequestIdError(InputRefusedError):
    """The request id cannot be used."""

    code = "invalid-request-id"


class IdempotencyMismatchError(InputRefusedError):
    """A request of that id exists with another topic, body, type or parameters; the first one stands."""

    code = "idempotency-mismatch"
    http_status = 422


class PayloadTooLargeError(InputRefusedError):
    """The payload is larger than a limit; the message names both."""

    code = "payload-too-large"
    http_status = 413


class SchemaViolationError(InputRefusedError):
    """The input does not fit a function's schema; `fields["errors"]` lists `{pointer, detail}`."""

    code = "invalid-input"
    http_status = 422


class NoSubscriptionError(InputRefusedError):
    """No subscription matches the event, and the caller asked for an answer."""

    code = "no-subscription"
    http_status = 404


class ContentRefusedError(InputRefusedError):
    """The body's content type or encoding is not one that is taken here."""

    code = "unsupported-content"
    http_status = 415


class RangeRefusedError(InputRefusedError):
    """The bytes asked for lie behind the end of what is stored; `fields["bytes"]` is how many there are."""

    code = "range-not-satisfiable"
    http_status = 416


class NoSuchPathError(InputRefusedError):
    """The gateway has nothing at that path."""

    code = "no-such-path"
    http_status = 404


class MethodRefusedError(InputRefusedError):
    """The gateway has something at that path, which does not take that method; `fields["allow"]` says what does."""

    code = "method-not-allowed"
    http_status = 405


LOGIN_FAULTS = ("missing", "malformed", "unknown", "expired", "invalid")
"""What may be wrong with the key or token of a call: `UnauthorizedError.fault`, which is counted and not told."""


class UnauthorizedError(InputRefusedError):
    """The call shows no API key or token, or one that is not valid (any more)."""

    code = "unauthorized"
    http_status = 401

    def __init__(self, message: str, *, fault: str = "invalid", hint: str | None = None, **fields: Any) -> None:
        super().__init__(message, hint=hint, **fields)
        self.fault = fault


class ForbiddenError(InputRefusedError):
    """The caller is known, and its scopes do not cover this."""

    code = "forbidden"
    http_status = 403


class RateLimitedError(InputRefusedError):
    """Too many calls of one key or address; `fields["retry_after_seconds"]` says when the next one is welcome."""

    code = "rate-limited"
    http_status = 429

    def __init__(self, message: str, *, policy: str = "address", hint: str | None = None, **fields: Any) -> None:
        super().__init__(message, hint=hint, **fields)
        self.policy = policy


class BodySilentError(InputRefusedError):
    """The caller began a body and did not go on; nothing was done with what had come."""

    code = "body-silent"
    http_status = 408


class RunApiRefusedError(InputRefusedError):
    """The run API cannot do what a function asked of it; the message says why."""

    code = "run-api-refused"


class TokenMissingError(RunApiRefusedError):
    """The request shows no token; `Authorization: Bearer $INVOKER_RUN_TOKEN` is wanted."""

    code = "token-missing"
    http_status = 401


class TokenRefusedError(RunApiRefusedError):
    """The token shown is not the one of this run."""

    code = "token-refused"
    http_status = 403


class OutputTooLargeError(RunApiRefusedError):
    """The output is larger than the limit; the message names both numbers, nothing is stored."""

    code = "output-too-large"
    http_status = 413


class OutputRefusedError(RunApiRefusedError):
    """The output does not fit the function's output schema; `fields["errors"]` lists `{pointer, detail}`."""

    code = "invalid-output"
    http_status = 422


class ReservedHeaderError(RunApiRefusedError):
    """A function gave its event a header that Invoker itself sets: `Invoker-…` (save parameters) or `Nats-…`."""

    code = "reserved-header"
    http_status = 422


class HopLimitError(RunApiRefusedError):
    """The event would be more stages away from its root request than is allowed: a chain that loops."""

    code = "hop-limit"
    http_status = 422


class CatalogError(InputRefusedError):
    """A function cannot be loaded. `fields` holds file, line and field where they are known."""

    code = "invalid-function"


class SettingsError(InvokerError):
    """A setting has an unusable value; the message starts with the setting's name."""

    code = "invalid-setting"
    exit_code = 2
    http_status = 500


class UnknownIdError(InvokerError):
    """Nothing of that id is known."""

    code = "unknown"
    exit_code = 4
    http_status = 404


class ExpiredError(UnknownIdError):
    """It was there, and its retention is over."""

    code = "expired"
    http_status = 410


class NotReadyError(InvokerError):
    """The request is not accepted yet, or the run not finished, so this cannot be answered; ask again later."""

    code = "not-ready"
    exit_code = 5
    http_status = 409


class AmbiguousIdError(InvokerError):
    """A shortened id fits more than one; `fields["candidates"]` lists some of them."""

    code = "ambiguous-id"
    exit_code = 4
    http_status = 409


class WaitExpiredError(InvokerError):
    """The wait ended before the answer came. Nothing was cancelled; ask again with the same id.

    `partial` is what had come until then: the replies of `Client.request`, the view of `Client.result` or `.chain`.
    """

    code = "wait-expired"
    exit_code = 5
    http_status = 504
    partial: Any = None


class RunFailedError(InvokerError):
    """A run ended without success; `fields` holds run_id, function, state and reason."""

    code = "run-failed"
    exit_code = 3
    http_status = 502


class ServerUnreachableError(InvokerError):
    """A server that is needed does not answer: NATS, its JetStream, or a controller."""

    code = "server-unreachable"
    exit_code = 7
    http_status = 503


class StreamMismatchError(InvokerError):
    """A stream or consumer of ours exists with other settings; it is left as it is."""

    code = "stream-mismatch"


class BackPressureError(InvokerError):
    """A stream is full. What was to be stored is not stored; the same call may succeed later."""

    code = "stream-full"
    exit_code = 7
    http_status = 503


class TooManyBytesError(BackPressureError):
    """The gateway receives so many bytes at once that it takes no more; nothing was done with these."""

    code = "too-many-bytes"


class ClaimCheckError(InvokerError):
    """The bytes behind a claim check are missing, or differ from their recorded size or sha256."""

    code = "claim-check"


class RunFinishedError(InvokerError):
    """The run has a result (or never was): it is given no input, and no output is taken from it."""

    code = "run-finished"
    http_status = 410


class EngineError(InvokerError):
    """An engine could not do what it was asked."""

    code = "engine"


class StartRefusedError(EngineError):
    """Permanent: this plan will never start here. The message says why, in words for the function's owner."""

    code = "refused"


class EngineUnavailableError(EngineError):
    """Transient: the engine cannot act now; the same call may succeed later."""

    code = "engine-unavailable"
    exit_code = 7
    http_status = 503
