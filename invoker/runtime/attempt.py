"""One attempt, from the first question to the last answer; `main` is the whole life of a function's process.

ask for the input (the fence) → import the handler → validate → call it → hand in the output → exit

Why the fence comes first: an attempt that is too late (cancelled, timed out, a pod left over) is refused before any of
the function's code has run. Why the output is handed in before the process ends: a run is finished by its output, not
by its exit.
"""

from __future__ import annotations

import os
import sys
import time

from . import lean_json
from .api_client import Answer, FileBody, RunApiClient
from .context import Context
from .event import INPUT_FILE_NAME, LARGE_BYTES, Event, Input
from .exits import ERROR, NO_RETRY, OK, TERMINATED
from .fence import RunFinishedError, ask_input
from .handler import Parameter, arguments, import_failure, load, parameters_of, typed_parameter
from .headers import decode_headers, decode_text
from .note import (
    AttemptFailedError,
    encode_note,
    frames_of,
    is_final,
    lean_traceback,
    name_of,
    own_frames,
    stood_at,
    traceback_of,
    words_of,
)
from .output import InvalidOutputError, encode
from .report import say, write_note
from .settings import Settings, environment
from .signals import Terminated, arrived, end, listen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

RESERVE_BYTES = 8 * 1024 * 1024
"""Address space kept free for reporting a MemoryError; never written, so it takes no memory."""
NOTE_PATIENCE_SECONDS = 2.0
MAX_TERMINATION_BYTES = 4096
LAST_NOTE = b'{"type":"MemoryError","message":"there was no memory left to say more"}'

_reserve: list[bytes] = []


def main() -> int:
    """Run the attempt that the environment describes; returns the exit code (`exits.py`). Never raises."""
    _reserve.append(bytes(RESERVE_BYTES))
    listen()
    attempt = Attempt(time.time())
    try:
        attempt.run()
        return OK
    except MemoryError as error:
        _reserve.clear()
        return _out_of_memory(attempt, error)
    except RunFinishedError as error:
        say(f"invoker: {error.message}\n")
        return error.exit_code
    except AttemptFailedError as error:
        return attempt.failed(error.note(), None, error.exit_code, cause=error.__cause__)
    except (Terminated, KeyboardInterrupt) as error:
        attempt.ended(error)
        end()
        return TERMINATED  # not reached
    except SystemExit as error:
        return attempt.exited(error)
    except BaseException as error:  # whatever the function raises is this attempt's error
        note = {"type": name_of(error), "message": attempt.words(error)}
        return attempt.failed(note, traceback_of(error), NO_RETRY if is_final(error) else ERROR)
    finally:
        attempt.close()


def _out_of_memory(attempt: Attempt, error: MemoryError) -> int:
    try:
        return attempt.failed({"type": "MemoryError", "message": words_of(error)}, lean_traceback(error))
    except MemoryError:
        write_note(LAST_NOTE)  # made when there was memory
        return ERROR


class Attempt:
    """The state of the attempt, as far as it has come: what a report of its failure may use."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._client: RunApiClient | None = None
        self._importing = False

    def run(self) -> None:
        settings = Settings(environment())
        self._client = client = RunApiClient(settings.run_url, settings.headers(), settings.retry_seconds)
        answer = _ask(client, settings)
        given = _input(settings, answer)
        event = _event(settings, answer, given)
        request_id = answer.headers.get("invoker-request-id") or settings.request_id
        context = Context(settings, client, _number(answer, settings), request_id, self._started)
        handler = self._handler(settings)
        parameters = parameters_of(handler)
        _load_early(parameters, event, given)
        value = _called(handler, arguments(parameters, event, context, given))
        _hand_in(settings, client, context, value)

    def _handler(self, settings: Settings) -> Callable[..., Any]:
        self._importing = True
        handler = load(settings.handler, settings.code_dir)
        self._importing = False
        return handler

    def close(self) -> None:
        """Leave the run API; the process may have threads of the function's that live on for a while."""
        if self._client is not None:
            self._client.close()

    def words(self, error: BaseException) -> str:
        return import_failure(error) if self._importing else words_of(error)

    def exited(self, error: SystemExit) -> int:
        """A handler that called sys.exit: its code counts, but success without an output is none."""
        code = error.code
        if code is None or code == 0:
            message = "the handler called sys.exit and so gave no output; return instead"
            return self.failed({"type": "SystemExit", "message": message}, traceback_of(error))
        if not isinstance(code, int):
            return self.failed({"type": "SystemExit", "message": str(code)}, traceback_of(error))
        note = {"type": "SystemExit", "message": f"the handler called sys.exit({code})"}
        return self.failed(note, traceback_of(error), code & 0xFF)

    def ended(self, error: BaseException) -> None:
        """Report that a signal ended it: in the log one line, in the note where it stood. No news: whoever sent the
        signal knows, and waits for the end."""
        frames = stood_at(error)
        # Inside of a library says less than the line that called it.
        own = [frame for frame in frames if not frame[0].startswith(os.path.dirname(os.__file__))] or frames
        where = f" while at {os.path.basename(own[-1][0])}, line {own[-1][1]}" if own else ""
        say(f"invoker: the attempt was ended by a signal{where}\n")
        note = {"type": "Terminated", "message": "the attempt was ended by a signal"}
        write_note(encode_note({**note, "traceback": frames_of(frames)}))

    def failed(
        self,
        note: dict[str, Any],
        trace: str | None,
        exit_code: int = ERROR,
        *,
        cause: BaseException | None = None,
    ) -> int:
        """Report the failure everywhere (stderr, termination file, run API) and return the exit code."""
        sentence = ""
        if trace is None:
            sentence = f"invoker: {note['type']}: {note['message']}\n"
            trace = _cause_of(cause)
        say(trace + sentence)
        if trace:
            note = {**note, "traceback": trace}
        data = encode_note(note)
        write_note(data)
        if self._client is not None:
            self._client.call_once("POST", "error", data, NOTE_PATIENCE_SECONDS)
        return exit_code


def _cause_of(cause: BaseException | None) -> str:
    """The traceback of what led to a failure, where it says something about the function's own code."""
    tells = cause is not None and (isinstance(cause, SyntaxError) or own_frames(cause.__traceback__) is not None)
    return traceback_of(cause) if cause is not None and tells else ""


def _ask(client: RunApiClient, settings: Settings) -> Answer:
    """The input, or only its headers when its bytes came another way: the fence is asked in any case."""
    brought = settings.input_base64 is not None or settings.input_file is not None
    spill = (os.path.join(settings.workdir, INPUT_FILE_NAME), LARGE_BYTES)
    return ask_input(client, only_headers=brought, spill=spill)


def _input(settings: Settings, answer: Answer) -> Input:
    content_type = answer.headers.get("content-type", "application/octet-stream")
    if settings.input_base64 is not None:
        import binascii

        return Input(content_type, settings.workdir, data=binascii.a2b_base64(settings.input_base64))
    file = settings.input_file or answer.file
    if file is not None:
        try:
            return Input(content_type, settings.workdir, file=file)
        except OSError as error:
            raise AttemptFailedError("InputUnavailable", f"the input cannot be read: {words_of(error)}") from error
    return Input(content_type, settings.workdir, data=answer.body)


def _event(settings: Settings, answer: Answer, given: Input) -> Event:
    """Kubeless' keys, then ours. Topic and params as planning resolved them, if it did; else as they came."""
    headers = answer.headers
    return Event(
        given,
        {
            "event-id": headers.get("invoker-request-id", settings.request_id),
            "event-type": given.content_type,
            "event-time": headers.get("invoker-event-time", ""),
            "event-namespace": "invoker.dev",
            "extensions": {},
            "topic": settings.topic or decode_text(headers.get("invoker-topic", "")),
            "headers": decode_headers(headers.get("invoker-headers")),
            "params": lean_json.loads(settings.params or headers.get("invoker-params") or "{}"),
        },
    )


def _number(answer: Answer, settings: Settings) -> int:
    text = answer.headers.get("invoker-attempt") or settings.attempt_number or "1"
    return int(text) if text.isdigit() else 1


def _load_early(parameters: list[Parameter] | None, event: Event, given: Input) -> None:
    """Parse declared JSON before the handler runs, so that what is none is the caller's error, never a traceback."""
    typed = parameters is not None and typed_parameter(parameters) is not None
    if given.is_json and given.size <= LARGE_BYTES and not typed:
        event["data"]


def _called(handler: Callable[..., Any], found: list[Any]) -> Any:
    value = handler(*found)
    if hasattr(type(value), "__await__"):
        import asyncio

        return asyncio.run(_awaited(value))
    return value


async def _awaited(value: Any) -> Any:
    import asyncio

    try:
        return await value
    except asyncio.CancelledError as error:
        if arrived:
            # The signal came while the loop was idle, which says nothing; the await that was cancelled for it does.
            raise Terminated(TERMINATED).with_traceback(error.__traceback__) from None
        raise


def _hand_in(settings: Settings, client: RunApiClient, context: Context, value: Any) -> None:
    content_type, body = encode(value, "what the handler returned")
    if settings.output_mode == "stdout":
        # What was printed is the output already; a returned value follows it.
        sys.stdout.flush()
        for piece in _read(body):
            sys.stdout.buffer.write(piece)
        sys.stdout.flush()
    elif settings.output_mode == "termination":
        if value is not None:
            _terminate_with(b"".join(_read(body)))
    else:
        _put(client, context.content_type or content_type, body)


def _put(client: RunApiClient, content_type: str | None, body: bytes | FileBody) -> None:
    answer = client.call("PUT", "output", {"Content-Type": content_type} if content_type else None, body)
    if answer.status == 201:
        return
    problem = answer.problem()
    detail = str(problem["detail"])
    if answer.status in (409, 410):
        raise RunFinishedError(f"the output was not taken: {detail}")
    if answer.status == 413:
        raise AttemptFailedError("OutputTooLarge", detail, reason="output-too-large", exit_code=NO_RETRY)
    if answer.status == 422:
        errors = problem.get("errors")
        raise InvalidOutputError(detail, errors if isinstance(errors, list) else None)
    raise AttemptFailedError("OutputRefused", detail)


def _terminate_with(data: bytes) -> None:
    if len(data) > MAX_TERMINATION_BYTES:
        words = f"the output has {len(data)} bytes; 'output.from: termination' takes at most {MAX_TERMINATION_BYTES}"
        raise AttemptFailedError("OutputTooLarge", words, reason="output-too-large", exit_code=NO_RETRY)
    write_note(data)


def _read(body: bytes | FileBody) -> Any:
    if isinstance(body, bytes):
        yield body
        return
    with open(body.path, "rb") as file:
        while piece := file.read(256 * 1024):
            yield piece
