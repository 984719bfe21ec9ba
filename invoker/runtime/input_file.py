"""Fetching a run's input into a file, before a container starts that knows nothing of Invoker (`input.as: file`).

`main` is the whole life of the pod's init container; `fetch_input.py` starts it. The file appears whole or not at all:
it is written under another name beside it, checked against the length and the digest that the run API tells, and then
renamed.
"""

from __future__ import annotations

import os

from .api_client import RunApiClient
from .exits import ERROR, OK
from .fence import RunFinishedError, ask_input
from .note import AttemptFailedError, encode_note, name_of, words_of
from .report import say, write_note
from .settings import FetchSettings, environment
from .signals import Terminated, end, listen

NEWS_SECONDS = 2.0


def main() -> int:
    """Fetch the input that the environment describes; returns the exit code (`exits.py`). Never raises."""
    listen()
    client: RunApiClient | None = None
    try:
        settings = FetchSettings(environment())
        client = RunApiClient(settings.run_url, settings.headers(), settings.retry_seconds)
        fetch(client, settings.input_file)
        return OK
    except RunFinishedError as error:
        say(f"invoker: {error.message}\n")
        return error.exit_code
    except AttemptFailedError as error:
        return _failed(client, error.note(), error.exit_code)
    except (Terminated, KeyboardInterrupt):
        say("invoker: ended by a signal while the input was fetched\n")
        end()
        raise  # not reached
    except Exception as error:  # whatever it is, the engine wants words and not a traceback
        return _failed(client, {"type": name_of(error), "message": words_of(error)}, ERROR)
    finally:
        if client is not None:
            client.close()


def fetch(client: RunApiClient, target: str) -> None:
    """The input's bytes in `target`; may be repeated. Raises `AttemptFailedError`, and leaves nothing behind then."""
    partial = os.path.join(os.path.dirname(target), f".{os.path.basename(target)}.partial")
    try:
        answer = ask_input(client, spill=(partial, -1))
        _check(partial, answer.headers)
        os.replace(partial, target)
    except OSError as error:
        raise AttemptFailedError("InputUnavailable", f"{target} cannot be written: {words_of(error)}") from error
    finally:
        _remove(partial)


def _check(file: str, headers: dict[str, str]) -> None:
    """Raise `AttemptFailedError` when the file is not what the run API says that it sent."""
    length, digest = headers.get("content-length"), headers.get("invoker-sha256")
    size = os.stat(file).st_size
    if length is not None and size != int(length):
        raise _damaged(f"has {size} bytes instead of {length}")
    if digest and (found := _digest(file)) != digest:
        raise _damaged(f"has the sha256 {found} instead of {digest}")


def _digest(file: str) -> str:
    import hashlib

    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _damaged(what: str) -> AttemptFailedError:
    return AttemptFailedError("InputDamaged", f"the input that arrived {what}")


def _remove(file: str) -> None:
    try:  # noqa: SIM105 -- contextlib is an import more
        os.unlink(file)
    except OSError:
        pass  # renamed, or never made


def _failed(client: RunApiClient | None, note: dict[str, object], exit_code: int) -> int:
    say(f"invoker: {note['type']}: {note['message']}\n")
    data = encode_note(note)
    write_note(data)
    if client is not None:
        client.call_once("POST", "error", data, NEWS_SECONDS)
    return exit_code
