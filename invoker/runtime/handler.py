"""Finding the handler, and how it wants to be called: (event, context), (event,), () or with typed data."""

from __future__ import annotations

import os
import sys

from .event import Event, Input
from .exits import NO_RETRY
from .note import AttemptFailedError, name_of, words_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_VARARGS = 0x04


class Parameter:
    """One positional parameter: its name, its annotation, whether it may be left out."""

    __slots__ = ("annotation", "name", "optional")

    def __init__(self, name: str, annotation: Any, optional: bool) -> None:
        self.name = name
        self.annotation = annotation
        self.optional = optional


def load(spec: str, code_dir: str | None) -> Callable[..., Any]:
    """The callable behind `module.function`, imported with the code folder first on the path.

    Raises `AttemptFailedError` (file and line in its message) when there is none; what the module itself raises while
    it is imported passes through.
    """
    module_name, dot, function = spec.rpartition(".")
    if not dot or not module_name or not function:
        raise _wrong(f"the handler {spec!r} must be written module.function")
    if code_dir:
        sys.path.insert(0, code_dir)
    try:
        __import__(module_name)
    except ModuleNotFoundError as error:
        if error.name and (error.name == module_name or module_name.startswith(f"{error.name}.")):
            raise _wrong(f"there is no module {error.name!r} {_where(code_dir)}", "ModuleNotFoundError") from None
        raise
    except SyntaxError as error:
        where = f"{os.path.basename(error.filename or '?')}, line {error.lineno}"
        raise _wrong(f"{error.msg} ({where})", name_of(error)) from error
    module = sys.modules[module_name]
    handler = getattr(module, function, None)
    if not callable(handler):
        what = "is not callable" if hasattr(module, function) else "does not exist"
        raise _wrong(f"{function!r} {what} in {os.path.basename(module.__file__ or module_name)}{_others(module)}")
    return handler  # type: ignore[no-any-return]  # a module's attribute


def arguments(parameters: list[Parameter] | None, event: Event, context: Any, given: Input) -> list[Any]:
    """The positional arguments for a handler of those parameters.

    Raises `AttemptFailedError` when it wants what nobody has, and `InvalidInputError` when the data does not fit its
    annotation: before the handler has run.
    """
    if parameters is None:
        return [event, context]
    typed = typed_parameter(parameters)
    left = {"event": event, "context": context}
    if typed == 0 and parameters[0].name != "event":
        # (order: Order, context): the data stands in the event's place.
        left = {"context": context, "event": event}
    found: list[Any] = []
    for position, parameter in enumerate(parameters):
        if position == typed:
            from .typed import validated

            found.append(validated(parameter.annotation, given))
        elif parameter.name in left:
            found.append(left.pop(parameter.name))
        elif left and not (parameter.optional and position >= 2):
            found.append(left.pop(next(iter(left))))
        elif parameter.optional:
            break
        else:
            raise _wrong(f"the handler wants {parameter.name!r}; there are an event, a context and typed data only")
    return found


def typed_parameter(parameters: list[Parameter]) -> int | None:
    """The place of the parameter that takes validated data: named `data`, or the first, annotated with a pydantic
    model or a dataclass. None when the handler takes the event as it is."""
    for position, parameter in enumerate(parameters):
        if (position == 0 or parameter.name == "data") and is_model(parameter.annotation):
            return position
    return None


def is_model(annotation: Any) -> bool:
    """Whether the annotation is a pydantic model or a dataclass (known by what they have, so nothing is imported)."""
    return isinstance(annotation, type) and (
        hasattr(annotation, "model_validate_json") or hasattr(annotation, "__dataclass_fields__")
    )


def parameters_of(handler: Callable[..., Any]) -> list[Parameter] | None:
    """The positional parameters, None when it takes any number of them. Plain functions need no import of `inspect`."""
    code = getattr(handler, "__code__", None)
    if code is None or hasattr(handler, "__wrapped__") or type(handler).__name__ != "function":
        return _inspected(handler)
    if code.co_flags & _VARARGS:
        return None
    names = code.co_varnames[: code.co_argcount]
    required = code.co_argcount - len(handler.__defaults__ or ())
    return [Parameter(name, _annotation(handler, name), place >= required) for place, name in enumerate(names)]


def _inspected(handler: Callable[..., Any]) -> list[Parameter] | None:
    import inspect

    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return None
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            return None
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            annotation = _resolved(parameter.annotation, _function_behind(inspect.unwrap(handler)))
            found.append(Parameter(parameter.name, annotation, parameter.default is not parameter.empty))
    return found


def _function_behind(handler: Any) -> Any:
    """The function whose module the annotations were written in: behind a partial, or an object that can be called."""
    while hasattr(handler, "func"):
        handler = handler.func
    return handler if hasattr(handler, "__globals__") else type(handler).__call__


def _annotation(handler: Any, name: str) -> Any:
    try:
        return _resolved(handler.__annotations__.get(name), handler)
    except NameError:
        return None  # 3.14 evaluates annotations when they are asked for


def _resolved(annotation: Any, handler: Any) -> Any:
    """The annotation as an object; a text (`from __future__ import annotations`) is looked up in the module."""
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, getattr(handler, "__globals__", {}))  # the function's own source, by its own module
    except Exception:  # names that exist for type checkers only: such a handler is simply not typed
        return None


def import_failure(error: BaseException) -> str:
    """What happened while the function's module was imported, with file and line."""
    from .note import own_frames

    place, trace = "", own_frames(error.__traceback__)
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if not filename.startswith("<frozen"):
            place = f" ({os.path.basename(filename)}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return words_of(error) + place


def _wrong(message: str, kind: str = "HandlerError") -> AttemptFailedError:
    return AttemptFailedError(kind, message, exit_code=NO_RETRY)


def _where(code_dir: str | None) -> str:
    try:
        files = sorted(name for name in os.listdir(code_dir or "") if name.endswith(".py"))
    except OSError:
        return "on the path"
    return f"in the function's code ({', '.join(files[:8]) or 'no .py file'})"


def _others(module: Any) -> str:
    own = [
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and type(value).__name__ == "function" and value.__module__ == module.__name__
    ]
    return f"; it has {', '.join(sorted(own)[:8])}" if own else ""
