"""The address of one run: what its URL says, and the token that proves who may use it.

Pure: no I/O, no clock, no environment. The path holds ids and facts for the result, nothing secret. A token is bound
to the whole of it: of a run that names another function, or another version of its own (whose output schema suits it
better), engine or Job than it was started with, the token is not.
"""

from __future__ import annotations

import base64
import hmac
import json
from dataclasses import astuple, dataclass

from invoker import wire
from invoker.errors import UnknownIdError

PATH_PREFIX = "/v1/run/"
MAX_ADDRESS_CHARACTERS = 4096


@dataclass(frozen=True, slots=True)
class RunAddress:
    """One run as its URL names it. `job` is the engine's name of it (`namespace/name`), None where there is none."""

    request_id: str
    function: str
    spec_hash: str = ""
    catalog: str = ""
    engine: str = ""
    job: str | None = None

    @property
    def run_id(self) -> str:
        return wire.run_id_of(self.request_id, self.function)

    def path_token(self) -> str:
        """The address as one path segment of `[A-Za-z0-9_-]`; `parse` reads it back."""
        text = json.dumps(astuple(self), separators=(",", ":"), ensure_ascii=False)
        return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def run_url(base_url: str, address: RunAddress) -> str:
    """The value of `INVOKER_RUN_URL`: `input`, `output`, `events`, `progress` and `error` are below it."""
    return f"{base_url.rstrip('/')}{PATH_PREFIX}{address.path_token()}"


def parse(path_token: str) -> RunAddress:
    """The address behind a path segment. Raises `UnknownIdError` when `path_token` did not come from `run_url`."""
    try:
        if len(path_token) > MAX_ADDRESS_CHARACTERS:
            raise ValueError
        data = base64.b64decode(path_token + "=" * (-len(path_token) % 4), altchars=b"-_", validate=True)
        return _address(json.loads(data))
    except (ValueError, RecursionError) as error:
        raise UnknownIdError("this is not the address of a run") from error


def run_token(key: bytes, address: RunAddress) -> str:
    """The value of `INVOKER_RUN_TOKEN`: whoever shows it may read the input of the run at this address, and give its
    output.

    52 lower-case base32 characters of HMAC-SHA256; the same key gives the same token, so every controller that shares
    the key accepts it.
    """
    digest = hmac.digest(key, b"run:" + address.path_token().encode(), "sha256")
    return base64.b32encode(digest).decode().rstrip("=").lower()


def check_token(key: bytes, address: RunAddress, token: str) -> bool:
    """Whether the token is that address's; takes the same time whatever the token is."""
    return hmac.compare_digest(run_token(key, address).encode(), token.encode("utf-8", "surrogatepass"))


def function_uid(run_url: str, token: str) -> str:
    """The value of gitfaas' `FUNCTION_UID`: the run's address and its token as one path segment.

    All that an answer posted to `/response/<uid>` needs, since nothing else comes with it; as secret as the token.
    """
    return f"{run_url.rstrip('/').rpartition('/')[2]}.{token}"


def parse_uid(uid: str) -> tuple[RunAddress, str]:
    """Address and token of a `function_uid`, the token unchecked. Raises `UnknownIdError` when it is none."""
    path_token, dot, token = uid.partition(".")
    if not dot or not token:
        raise UnknownIdError("this is not the uid of a function")
    return parse(path_token), token


def _address(fields: object) -> RunAddress:
    if not isinstance(fields, list) or len(fields) != 6:
        raise ValueError
    if not all(isinstance(field, str) for field in fields[:5]) or not isinstance(fields[5], str | None):
        raise ValueError
    "".join(field for field in fields if field).encode()  # a lone half of a pair has no UTF-8: `UnicodeEncodeError`
    return RunAddress(*fields)
