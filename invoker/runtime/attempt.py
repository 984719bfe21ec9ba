"""One attempt, from the first question to the last answer; `main` is the whole life of a function's process.

ask for the input (the fence) → import the handler → validate → call it → hand in the output → exit

Why the fence comes first: an attempt that is too late (cancelled, timed out, a pod left over) is refused before any of
the function's code has run. Why the output is handed in before the process ends: a run is finished by its output, not
by its exit.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C part of `signal`, which takes 4 ms to import
import os
import sys
import time

from . import lean_json
from .api_client import Answer, FileBody, RunApiClient
from .context import Context, RunFinishedError
from .event import INPUT_FILE_NAME, LARGE_BYTES, Event, Input
from .exits import ERROR, NO_RETRY, OK, TERMINATED
from .handler import Parameter, arguments, import_failure, load, parameters_of, typed_parameter
from .headers import decode_headers, decode_text
from .note import (
    AttemptFailedError,
    encode_note,
    lean_traceback,
    name_of,
    own_frames,
    traceback_of,
    words_of,
)
from .output import InvalidOutputError, encode
from .settings import Settings, environment, termination_file

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
_terminated: list[bool] = []


class Terminated(SystemExit):
    """SIGTERM or an interrupt, raised where the handler stands, so that its `finally` blocks run."""


def main() -> int:
    """Run the attempt that the environment describes; returns the exit code (`exits.py`). Never raises."""
    _reserve.append(bytes(RESERVE_BYTES))
    _signal.signal(_signal.SIGTERM, _terminate)
    attempt = Attempt(time.time())
    try:
        attempt.run()
        return OK
    except MemoryError as error:
        _reserve.clear()
        return _out_of_memory(attempt, error)
    except RunFinishedError as error:
        _say(f"invoker: {error.message}\n")
        return error.exit_code
    except AttemptFailedError as error:
        return attempt.failed(error.note(), None, error.exit_code, cause=error.__cause__)
    except (Terminated, KeyboardInterrupt) as error:
        attempt.failed(
            {"type": "Terminated", "message": "the attempt was ended by a signal"}, traceback_of(error), news=False
        )
        _flush()
        os._exit(TERMINATED)  # the function's own threads must not keep what was told to end
    except SystemExit as error:
        return attempt.exited(error)
    except BaseException as error:  # whatever the function raises is this attempt's error
        return attempt.failed({"type": name_of(error), "message": attempt.words(error)}, traceback_of(error))
    finally:
        attempt.close()


def _out_of_memory(attempt: Attempt, error: MemoryError) -> int:
    try:
        return attempt.failed({"type": "MemoryError", "message": words_of(error)}, lean_traceback(error))
    except MemoryError:
        _write_note(LAST_NOTE)  # made when there was memory
        return ERROR


class Attempt:
    """The state of the attempt, as far as it has come: what a report of its failure may use."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._client: RunApiClient | None = None
        self._importing = False

    def run(self) -> None:
        settings = Settings(environment())
        self._client = client = RunApiClient(settings.run_url, _own_headers(settings), settings.retry_seconds)
        answer = self._ask(client, settings)
        given = _input(settings, answer)
        event = _event(settings, answer, given)
        request_id = answer.headers.get("invoker-request-id") or settings.request_id
        context = Context(settings, client, _number(answer, settings), request_id, self._started)
        handler = self._handler(settings)
        parameters = parameters_of(handler)
        _load_early(parameters, event, given)
        value = _called(handler, arguments(parameters, event, context, given))
        _hand_in(settings, client, context, value)

    def _ask(self, client: RunApiClient, settings: Settings) -> Answer:
        """The input, or only its headers when its bytes came another way: the fence is asked in any case."""
        brought = settings.input_base64 is not None or settings.input_file is not None
        spill = (os.path.join(settings.workdir, INPUT_FILE_NAME), LARGE_BYTES)
        answer = client.call("HEAD" if brought else "GET", "input", spill=spill)
        if answer.status == 200:
            return answer
        problem = answer.problem()
        if answer.status in (409, 410) and problem.get("code") != "claim-check":
            raise RunFinishedError(f"this attempt is too late: {problem['detail']}")
        raise AttemptFailedError("InputUnavailable", str(problem["detail"]), exit_code=NO_RETRY)

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

    def failed(
        self,
        note: dict[str, Any],
        trace: str | None,
        exit_code: int = ERROR,
        *,
        cause: BaseException | None = None,
        news: bool = True,
    ) -> int:
        """Report the failure everywhere (stderr, termination file, run API) and return the exit code."""
        sentence = ""
        if trace is None:
            sentence = f"invoker: {note['type']}: {note['message']}\n"
            trace = _cause_of(cause)
        _say(trace + sentence)
        if trace:
            note = {**note, "traceback": trace}
        data = encode_note(note)
        _write_note(data)
        if news and self._client is not None:
            self._client.call_once("POST", "error", data, NOTE_PATIENCE_SECONDS)
        return exit_code


def _cause_of(cause: BaseException | None) -> str:
    """The traceback of what led to a failure, where it says something about the function's own code."""
    tells = cause is not None and (isinstance(cause, SyntaxError) or own_frames(cause.__traceback__) is not None)
    return traceback_of(cause) if cause is not None and tells else ""


def _own_headers(settings: Settings) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {settings.run_token}", "Invoker-Pod-Uid": settings.pod_uid}
    if settings.attempt_number:
        headers["Invoker-Attempt"] = settings.attempt_number
    return headers


def _input(settings: Settings, answer: Answer) -> Input:
    content_type = answer.headers.get("content-type", "application/octet-stream")
    if settings.input_base64 is not None:
        import binascii

        return Input(content_type, settings.workdir, data=binascii.a2b_base64(settings.input_base64))
    file = settings.input_file or answer.file
    if file is not None:
        return Input(content_type, settings.workdir, file=file)
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
        if _terminated:
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
    _write_note(data)


def _read(body: bytes | FileBody) -> Any:
    if isinstance(body, bytes):
        yield body
        return
    with open(body.path, "rb") as file:
        while piece := file.read(256 * 1024):
            yield piece


def _write_note(data: bytes) -> None:
    path = termination_file()
    if not path:
        return
    try:
        with open(path, "wb") as file:
            file.write(data)
    except OSError as error:
        _say(f"invoker: the termination file cannot be written: {error}\n")


def _say(text: str) -> None:
    _quietly(sys.stderr.write, text)
    _quietly(sys.stderr.flush)


def _quietly(act: Callable[..., Any], *arguments: Any) -> None:
    """Carry out what matters only when somebody listens (a closed pipe is no error of the function)."""
    try:  # noqa: SIM105 -- contextlib is an import more
        act(*arguments)
    except (OSError, ValueError, AttributeError):
        pass


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        _quietly(stream.flush)


def _terminate(signal_number: int, frame: object) -> None:
    # Once: a handler that catches it, or takes too long over it, is ended by the next one without being asked.
    _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
    _terminated.append(True)
    raise Terminated(TERMINATED)
