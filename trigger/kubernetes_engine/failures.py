"""What an answer of the API server means, and how it is told. Pure.

An `ApiFailure` never leaves this package: the engine turns it into an error of the seam, or into a run's end.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any

from pydantic_core import from_json

MAX_SENTENCE = 500
"""Longest sentence, in characters; the rest of a longer one is cut."""
_MAX_FOREIGN_TEXT = 200
NOT_TRUSTED = "its certificate is not accepted"
"""How a failure of status 0 begins whose cause is who the other side is, or says to be."""

_DENIED_BY_WEBHOOK = re.compile(r'admission webhook "(?P<by>[^"]+)" denied the request(?:: (?P<why>.*)| without)', re.S)
_DENIED_BY_POLICY = re.compile(r"ValidatingAdmissionPolicy '(?P<by>[^']+)' .*?denied request: (?P<why>.*)", re.S)
_FAILED_WEBHOOK = re.compile(r'failed calling webhook "(?P<by>[^"]+)": (?P<why>.*)', re.S)
_NOT_ALLOWED = re.compile(
    r'User "(?P<who>[^"]*)" cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)"'
    r'(?: in API group "[^"]*")?(?: in the namespace "(?P<namespace>[^"]+)")?'
)
_QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<want>.+), used: (?P<used>.+), limited: (?P<most>.+)"
)
_POD_SECURITY = re.compile(r'violates PodSecurity "(?P<level>[^"]+)": (?P<why>.*)', re.S)
_STRICT = re.compile(r"strict decoding error: (?P<why>.*)", re.S)
_LOG_IS_GONE = (
    "is not valid for pod",
    "container not found",
    "unable to retrieve container logs",
    "failed to try resolving symlinks",
    "failed to open log file",
)
"""Of the kubelet: pod or container are not there, or the file of their log."""
_TERMINATING = re.compile(r"namespace (?P<namespace>\S+) because it is being terminated")


class ApiFailure(Exception):  # noqa: N818 - the engine speaks of failures; its errors are those of the seam
    """An answer that was no success, or none at all.

    `status` is the HTTP status, 0 when no answer came; `reason` the API server's word for it (`AlreadyExists`,
    `Forbidden`, …) or empty; `causes` are "field: what is wrong" where fields are named.
    """

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        *,
        retry_after_seconds: float | None = None,
        causes: tuple[str, ...] = (),
    ) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_seconds = retry_after_seconds
        self.causes = causes


class LogTrouble(Enum):
    """Why a log could not be read."""

    NOT_YET = auto()
    """The container has not started; it may have a log later."""
    GONE = auto()
    """Pod or container are not there, and will not come back."""
    NODE = auto()
    """The pod's node does not answer."""
    OTHER = auto()
    """The API server's own trouble, or a refusal."""


def no_answer(why: str) -> ApiFailure:
    """The failure of a call that was not answered: not connected, cut, or silent for too long."""
    return ApiFailure(0, "", why)


def failure_of(status: int, body: bytes, retry_after: str | None = None) -> ApiFailure:
    """The failure that an HTTP answer is. A body that is no `Status` (a proxy's page) is taken as its first words."""
    try:
        document = from_json(body)
    except ValueError:
        document = None
    if not isinstance(document, dict) or document.get("kind") != "Status":
        text = " ".join(body[: 4 * _MAX_FOREIGN_TEXT].decode("utf-8", "replace").split())
        return ApiFailure(status, "", text[:_MAX_FOREIGN_TEXT], retry_after_seconds=_seconds(retry_after))
    return failure_of_status(document, status, retry_after)


def failure_of_status(document: Mapping[str, Any], status: int = 0, retry_after: str | None = None) -> ApiFailure:
    """The failure that a `Status` object tells of: an answer's body, or the object of a watch's ERROR event."""
    details = document.get("details") or {}
    return ApiFailure(
        status or document.get("code") or 0,
        document.get("reason") or "",
        document.get("message") or "",
        retry_after_seconds=_seconds(retry_after) or _seconds(details.get("retryAfterSeconds")),
        causes=tuple(_cause(one) for one in details.get("causes") or ()),
    )


def is_transient(failure: ApiFailure) -> bool:
    """Whether the same call may succeed later though nobody changes it: nothing was decided about its content.

    A 401 counts: `Api` has by then renewed its credentials once, and new ones may appear later.
    """
    if failure.status == 409:
        return failure.reason != "AlreadyExists"
    return failure.status in (0, 401, 408, 429) or failure.status >= 500


def is_already_there(failure: ApiFailure) -> bool:
    """An object of that name exists, ours or not."""
    return failure.status == 409 and failure.reason == "AlreadyExists"


def is_quota(failure: ApiFailure) -> bool:
    """A ResourceQuota is used up: room appears when other work ends."""
    return failure.status == 403 and "exceeded quota" in failure.message


def refused_for_good(message: str) -> ApiFailure | None:
    """The refusal that a Job's controller met when it wanted to make a pod, from the words of its event; None for what
    may pass: a quota that is used up, a webhook that does not work, trouble of the API server."""
    failure = ApiFailure(403, "Forbidden", message)
    if is_quota(failure) or is_namespace_terminating(failure) or _FAILED_WEBHOOK.search(message):
        return None
    said_no = ("is forbidden: ", "denied the request", "denied request", " is invalid: ")
    return failure if any(words in message for words in said_no) else None


def is_namespace_terminating(failure: ApiFailure) -> bool:
    """The namespace is being deleted: nothing can be created in it any more."""
    return failure.status == 403 and "because it is being terminated" in failure.message


def is_gone(failure: ApiFailure) -> bool:
    """The version that was asked for is compacted away: list again."""
    return failure.status == 410


def log_trouble(failure: ApiFailure) -> LogTrouble:
    """Why a log could not be read, from the API server's and the kubelet's words."""
    text = failure.message
    if failure.status == 404 or (failure.status in (400, 500) and any(words in text for words in _LOG_IS_GONE)):
        return LogTrouble.GONE
    if failure.status == 400 and ("waiting to start" in text or "is not available" in text):
        return LogTrouble.NOT_YET
    if failure.status in (400, 500, 502, 503, 504) and ("/containerLogs/" in text or "dialing backend" in text):
        return LogTrouble.NODE
    return LogTrouble.OTHER


def sentence(failure: ApiFailure, what: str) -> str:
    """What it is about, who said no and why, for a function's owner: one sentence of bounded length.

    `what` begins it, as "the Job of convert" or "watching jobs".
    """
    text = f"{what}: {_why(failure)}"
    return text if len(text) <= MAX_SENTENCE else f"{text[: MAX_SENTENCE - 2].rstrip()} …"


def _why(failure: ApiFailure) -> str:
    match failure.status:
        case 0:
            return f"the API server does not answer ({failure.message or 'no connection'})"
        case 409 if is_already_there(failure):
            return "an object of that name exists"
        case 401:
            return "the API server does not accept Invoker's credentials; renew its kubeconfig or service account token"
        case 429:
            return f"the API server is busy{_later(failure)}"
        case status if status >= 500:
            return _broken(failure)
        case _:
            return _refused(failure)


def _broken(failure: ApiFailure) -> str:
    if found := _FAILED_WEBHOOK.search(failure.message):
        return f"the cluster's admission webhook {found['by']} does not work ({_plain(found['why'])})"
    return f"the API server failed with {failure.status}: {_plain(failure.message) or 'no reason given'}"


def _refused(failure: ApiFailure) -> str:
    text = failure.message
    if found := _DENIED_BY_WEBHOOK.search(text):
        return f"the cluster's admission webhook {found['by']} refused it: {_plain(found['why'] or 'no reason given')}"
    if found := _DENIED_BY_POLICY.search(text):
        return f"the cluster's policy {found['by']!r} refused it: {_plain(found['why'])}"
    if found := _TERMINATING.search(text):
        return f"the namespace {found['namespace']} is being deleted"
    if found := _QUOTA.search(text):
        return (
            f"the namespace's quota {found['name']!r} is used up: "
            f"it needs {found['want']}, {found['used']} of {found['most']} is in use"
        )
    if found := _POD_SECURITY.search(text):
        return f"the namespace's Pod Security level {found['level']} forbids it: {_plain(found['why'])}"
    if found := _NOT_ALLOWED.search(text):
        return _not_allowed(found)
    if found := _STRICT.search(text):
        return f"Kubernetes does not know it so: {_plain(found['why'])}"
    if failure.causes:
        return f"Kubernetes refused it: {_plain('; '.join(failure.causes))}"
    return f"Kubernetes refused it with {failure.status}: {_plain(text) or 'no reason given'}"


def _not_allowed(found: re.Match[str]) -> str:
    where = f" in namespace {found['namespace']}" if found["namespace"] else ""
    return f"{found['who']} may not {found['verb']} {found['resource']}{where}; its Role lacks that right"


def _later(failure: ApiFailure) -> str:
    return f"; it asks for a pause of {failure.retry_after_seconds:g} s" if failure.retry_after_seconds else ""


def _cause(cause: Mapping[str, Any]) -> str:
    field, message = cause.get("field"), cause.get("message") or cause.get("reason") or ""
    return f"{field}: {message}" if field else str(message)


def _plain(text: str) -> str:
    """One line without a validation's regular expression, which helps nobody who is not its author."""
    return " ".join(re.sub(r"(?:, )?regex used for validation is '.*?'(?=\))", "", text).split())


def _seconds(value: object) -> float | None:
    """Retry-After in seconds; the form with a date, and nonsense, count as none."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 < seconds < 86_400 else None
