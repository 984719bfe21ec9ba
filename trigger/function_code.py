"""What a function executes, checked against the files beside its spec before any event asks for it.

Pure. The handler is looked for in the syntax tree and never imported: loading a catalog runs nobody's code.
"""

from __future__ import annotations

import ast
import difflib
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from trigger.function_fields import SpecFields
from trigger.plan import Code

DEFAULT_HANDLER = "main.handle"
REQUIREMENTS = "requirements.txt"


class SpecError(Exception):
    """Something in a spec that only its surroundings show to be wrong. `path` leads to it from the document's root."""

    def __init__(self, message: str, *path: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


@dataclass(frozen=True, slots=True)
class FileContent:
    """One file beside a spec: `data` is None when it is too large to be source or schema."""

    sha256: str
    data: bytes | None = None
    executable: bool = False


@dataclass(frozen=True, slots=True)
class FunctionFolder:
    """The files beside a spec, by their path relative to `path`; `problem` is why they cannot be used at all."""

    path: Path
    files: Mapping[str, FileContent] = field(default_factory=dict)
    problem: str | None = None

    def read(self, name: str, *where: str | int) -> bytes:
        """The bytes of the file. Raises `SpecError` for a name that leads out, is not there, or is too large."""
        content = self.files.get(self.inside(name, *where))
        if content is None:
            near = difflib.get_close_matches(name, self.files, n=1)
            raise SpecError(f"there is no file {name!r} beside the spec{_meant(near)}", *where)
        if content.data is None:
            raise SpecError(f"the file {name!r} is too large to be read", *where)
        return content.data

    def inside(self, name: str, *where: str | int) -> str:
        """The name without `./`. Raises `SpecError` when it could lead out of the folder."""
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise SpecError(f"{name[:80]!a} leads out of the function's folder; name a file beside the spec", *where)
        return str(path)


def code_of(spec: SpecFields, folder: FunctionFolder) -> Code:
    """The function's code. Raises `SpecError` when it is contradictory, incomplete, or not there."""
    _check_ways(spec)
    command = _command(spec, folder)
    args = tuple(spec.args)
    if spec.image is not None:
        return Code(
            runtime=spec.runtime, handler=_handler(spec), inline=spec.code, image=spec.image, command=command, args=args
        )
    if command is not None:
        return Code(command=command, args=args, folder=folder.path if uses_folder(spec) else None)
    if spec.runtime is None:
        return Code()
    if folder.problem is not None and spec.code is None:
        raise SpecError(folder.problem, "spec", "handler")
    handler = spec.handler or DEFAULT_HANDLER
    _check_handler(spec, handler, folder)
    requirements = folder.path / REQUIREMENTS if REQUIREMENTS in folder.files else None
    if spec.code is not None:
        return Code(runtime=spec.runtime, handler=handler, inline=spec.code, requirements=requirements)
    return Code(runtime=spec.runtime, handler=handler, folder=folder.path, requirements=requirements)


def uses_folder(spec: SpecFields) -> bool:
    """Whether what runs depends on the files beside the spec."""
    if spec.image is not None:
        return False
    if spec.runtime is not None:
        return spec.code is None
    return _is_relative_path(command_words(spec)[0]) if spec.command else False


def handler_file(spec: SpecFields, folder: FunctionFolder) -> tuple[str | None, str | None]:
    """The file beside the spec that holds the handler, and its text; two None for code that is anywhere else."""
    if spec.runtime is None or spec.image is not None or spec.code is not None:
        return None, None
    name = _handler_module(spec.handler or DEFAULT_HANDLER)
    content = folder.files.get(name)
    return name, None if content is None or content.data is None else content.data.decode("utf-8", "replace")


def _handler_module(handler: str) -> str:
    return "/".join(handler.split(".")[:-1]) + ".py"


def _check_ways(spec: SpecFields) -> None:
    if spec.runtime is None and spec.image is None and spec.command is None and spec.job is None:
        wanted = "runtime: python" if spec.handler or spec.code else "runtime and handler, or command, or image, or job"
        raise SpecError(f"nothing says what to run; give {wanted}", "spec")
    if spec.command is not None and spec.runtime is not None and spec.image is None:
        raise SpecError(
            "runtime and command exclude each other; the runtime starts the handler itself", "spec", "command"
        )
    for key, value in (("handler", spec.handler), ("code", spec.code)):
        if value is not None and spec.runtime is None and spec.image is None:
            raise SpecError(f"{key} needs runtime: python", "spec", key)
    if spec.args and spec.command is None and spec.image is None:
        raise SpecError("args go with command or image only", "spec", "args")


def command_words(spec: SpecFields) -> list[str]:
    """The command as a list of words; text is split as a shell would, without being run by one."""
    if not isinstance(spec.command, str):
        return list(spec.command or [])
    try:
        return shlex.split(spec.command)
    except ValueError as error:
        raise SpecError(f"the command cannot be split into words: {error}", "spec", "command") from error


def _is_relative_path(word: str) -> bool:
    return "/" in word and not word.startswith("/")


def _command(spec: SpecFields, folder: FunctionFolder) -> tuple[str, ...] | None:
    if spec.command is None:
        return None
    words = command_words(spec)
    if not words or not words[0]:
        raise SpecError("the command is empty", "spec", "command")
    if any("\0" in word for word in [*words, *spec.args]):
        raise SpecError("the command has a NUL character", "spec", "command")
    if spec.image is None and _is_relative_path(words[0]):
        words[0] = _program(words[0], folder)
    return tuple(words)


def _program(name: str, folder: FunctionFolder) -> str:
    if folder.problem is not None:
        raise SpecError(folder.problem, "spec", "command")
    inside = folder.inside(name, "spec", "command")
    content = folder.files.get(inside)
    if content is None:
        near = difflib.get_close_matches(inside, folder.files, n=1)
        raise SpecError(f"there is no file {name!r} beside the spec{_meant(near)}", "spec", "command")
    if not content.executable:
        raise SpecError(f"{name} is not executable; run chmod +x on it", "spec", "command")
    return str(folder.path / inside)


def _handler(spec: SpecFields) -> str | None:
    return spec.handler or (DEFAULT_HANDLER if spec.runtime else None)


def _check_handler(spec: SpecFields, handler: str, folder: FunctionFolder) -> None:
    *modules, name = handler.split(".")
    if not modules or not all(part.isidentifier() for part in (*modules, name)):
        raise SpecError(f"{handler[:80]!a} is no handler; write module.function, as main.handle", "spec", "handler")
    if spec.code is not None:
        if len(modules) > 1:
            raise SpecError("with inline code the handler is module.function, as main.handle", "spec", "handler")
        _find_handler(spec.code, "code", name, "spec", "code")
        return
    file = _handler_module(handler)
    _find_handler(folder.read(file, "spec", "handler"), file, name, "spec", "handler")


def _find_handler(source: str | bytes, file: str, name: str, *where: str | int) -> None:
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        line = f" line {error.lineno}" if error.lineno else ""
        raise SpecError(f"{file}{line}: {error.msg}", *where) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise SpecError(f"{file} cannot be parsed: {error}"[:200], *where) from error
    names = list(_names(tree.body))
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        raise SpecError(f"{file} defines no {name!r}{_meant(near)}", *where)
    _check_signature(tree.body, file, name, *where)


def _check_signature(body: list[ast.stmt], file: str, name: str, *where: str | int) -> None:
    """Refuse a handler that wants what the runtime never gives. Only where the module says it beyond doubt: one plain
    `def`, without decorators."""
    match [statement for statement in body if name in _names([statement])]:
        case [ast.FunctionDef() | ast.AsyncFunctionDef() as found] if not found.decorator_list:
            pass
        case _:
            return
    given = "a handler is given event, context, and data of a declared type"
    own = found.args
    by_name = [one.arg for one, default in zip(own.kwonlyargs, own.kw_defaults, strict=True) if default is None]
    if by_name:
        raise SpecError(f"{file}: {name!r} wants {by_name[0]!r} by its name; {given}", *where)
    positional = [*own.posonlyargs, *own.args]
    wanted = positional[: len(positional) - len(own.defaults)]
    typed = any(one.annotation is not None for one in wanted)
    if len(wanted) > (3 if typed else 2):
        words = ", ".join(one.arg for one in wanted)
        raise SpecError(f"{file}: {name!r} wants {len(wanted)} values ({words}); {given}", *where)


def _names(body: list[ast.stmt]) -> Iterator[str]:
    """What a module's top level defines, also under `if`, `try` and `with`."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name
            case ast.Import() | ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in statement.names)
            case ast.Assign():
                yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.Try() | ast.With():
                for part in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(statement, part, []))
                for handler in getattr(statement, "handlers", []):
                    yield from _names(handler.body)


def _meant(near: list[str]) -> str:
    return f"; did you mean {near[0]!r}?" if near else ""
