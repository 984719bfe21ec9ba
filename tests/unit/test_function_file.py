"""Function files: what every key becomes, and every refusal with its exact file, line and field."""

# ruff: noqa: E501 -- one row of a table per line
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trigger.catalog import BrokenFunction
from trigger.field_types import unknown
from trigger.filter import EventAttributes
from trigger.function import EnvVar, Function, NextTopic, Volume
from trigger.function_code import FileContent, FunctionFolder
from trigger.function_file import MAX_FILE_BYTES, read_functions
from trigger.plan import InputMode, OutputMode

FILE = "etl/hello/function.yaml"
FOLDER = Path("/catalog/etl/hello")
HEAD = "apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: hello}\nspec:\n"
MAIN = b"def handle(event, context):\n    return event['data']\n"


def content(data: bytes, *, executable: bool = False) -> FileContent:
    return FileContent(hashlib.sha256(data).hexdigest(), data, executable)


def folder(problem: str | None = None, **files: bytes) -> FunctionFolder:
    """A folder with `main.py` and the given files; `__` in a name is a dot, `_slash_` a slash."""
    named = {name.replace("_slash_", "/").replace("__", "."): content(data) for name, data in files.items()}
    return FunctionFolder(FOLDER, {"main.py": content(MAIN)} | named, problem)


def read(spec: str, beside: FunctionFolder | None = None) -> Function:
    """The function of a spec that is right; `spec` begins in line 5 of the file."""
    found = read_functions((HEAD + spec).encode(), FILE, beside or folder())
    assert found.broken == ()
    return found.functions[0]


def refusal(text: str | bytes, beside: FunctionFolder | None = None) -> BrokenFunction:
    """The one refusal of a file that is wrong."""
    found = read_functions(text if isinstance(text, bytes) else text.encode(), FILE, beside or folder())
    assert found.functions == ()
    [broken] = found.broken
    return broken


def refused_spec(spec: str, beside: FunctionFolder | None = None) -> BrokenFunction:
    return refusal(HEAD + spec, beside)


RUN = "  runtime: python\n"


def test_the_shortest_function() -> None:
    function = read(RUN)
    assert function.name == "hello"
    assert function.file == FILE
    assert (function.code.runtime, function.code.handler, function.code.folder) == ("python", "main.handle", FOLDER)
    assert (function.backoff_limit, function.pending_timeout_seconds, function.ttl_seconds_after_finished) == (
        0,
        600,
        60,
    )
    assert (function.timeout_seconds, function.concurrency, function.keep_log) == (None, None, False)
    assert (function.input.mode, function.output.mode) == (InputMode.API, OutputMode.API)
    assert function.check_input(b"anything \xff") == []


def test_every_key() -> None:
    text = """
apiVersion: invoker.dev/v1alpha1
kind: Function
metadata: {name: uncompress, labels: {team: etl, example.org/tier: ""}, annotations: {note: x}}
spec:
  description: Unpacks one archive
  subscriptions:
    - topic: collected.*
      filter: {suffix: {topic: .gz}}
    - topic: other.>
  runtime: python
  handler: main.handle
  parameters:
    - {name: level, schema: {type: integer, minimum: 1, maximum: 9}, default: 6, description: How hard}
    - {name: mode, required: true}
  input: {schema: input.schema.json, as: file}
  output: {from: stdout, schema: {type: object}}
  env:
    - {name: LEVEL, value: "{{params.level}}"}
    - {name: KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}
  resources: {requests: {cpu: 100m}, limits: {memory: 256Mi, cpu: 2}}
  volume: {size: 1Gi, mountPath: /scratch, storageClass: fast}
  backoffLimit: 2
  timeoutSeconds: 600
  pendingTimeoutSeconds: 30.5
  ttlSecondsAfterFinished: 0
  concurrency: 20
  onSuccess: {publish: uncompressed, forwardReply: true}
  onFailure: {publish: failures}
  noRetryExitCodes: [64, 65]
  keepLog: true
"""
    beside = folder(input__schema__json=b'{"required": ["a"]}', requirements__txt=b"x\n")
    [function] = read_functions(text.encode(), FILE, beside).functions
    assert function.labels == {"team": "etl", "example.org/tier": ""}
    assert function.description == "Unpacks one archive"
    assert [one.topic for one in function.subscriptions] == ["collected.*", "other.>"]
    gz = function.subscriptions[0].filter
    assert gz is not None
    assert (gz.matches(EventAttributes("a.gz")), gz.matches(EventAttributes("a.zip"))) == (True, False)
    assert function.code.requirements == FOLDER / "requirements.txt"
    assert [(one.name, one.default, one.required) for one in function.parameters] == [
        ("level", 6, False),
        ("mode", None, True),
    ]
    assert (function.input.mode, function.input.schema) == (InputMode.FILE, {"required": ["a"]})
    assert (function.output.mode, function.output.schema) == (OutputMode.STDOUT, {"type": "object"})
    assert function.env == (
        EnvVar("LEVEL", "{{params.level}}"),
        EnvVar("KEY", value_from={"secretKeyRef": {"name": "s", "key": "k"}}),
    )
    assert function.resources.memory_bytes == 256 * 2**20
    assert function.resources.limits == {"memory": "256Mi", "cpu": "2"}
    assert function.volume == Volume("1Gi", "/scratch", "fast")
    assert (function.backoff_limit, function.timeout_seconds, function.pending_timeout_seconds) == (2, 600, 30.5)
    assert (function.ttl_seconds_after_finished, function.concurrency) == (0, 20)
    assert function.on_success == NextTopic("uncompressed", forward_reply=True)
    assert function.on_failure == NextTopic("failures")
    assert function.no_retry_exit_codes == {64, 65}
    assert function.keep_log is True
    assert function.check_input(b"{}") == [{"pointer": "", "detail": '"a" is a required property'}]
    assert function.check_output(b"[]") != []


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("  command: [/usr/bin/tr, a, b]\n", ("/usr/bin/tr", "a", "b")),
        ("  command: tr 'a b' c\n", ("tr", "a b", "c")),
        ("  command: cat\n  args: ['{{topic}}']\n", ("cat",)),
        ("  command: bin/run x\n", (str(FOLDER / "bin/run"), "x")),
        ("  command: [./bin/run]\n", (str(FOLDER / "bin/run"),)),
        ("  image: busybox\n  command: [bin/run]\n", ("bin/run",)),
    ],
)
def test_commands(spec: str, expected: tuple[str, ...]) -> None:
    beside = FunctionFolder(FOLDER, {"bin/run": content(b"#!/bin/sh\n", executable=True)})
    assert read(spec, beside).code.command == expected


def test_an_image_needs_no_file_beside_the_spec() -> None:
    code = read("  image: ghcr.io/me/it:1\n  runtime: python\n  handler: app.run\n", FunctionFolder(FOLDER)).code
    assert (code.image, code.handler, code.folder) == ("ghcr.io/me/it:1", "app.run", None)


def test_inline_code_is_looked_into() -> None:
    code = read(
        "  runtime: python\n  code: |\n    async def handle(event, context): ...\n", FunctionFolder(FOLDER)
    ).code
    assert (code.handler, code.folder, code.inline) == ("main.handle", None, "async def handle(event, context): ...\n")


@pytest.mark.parametrize(
    "source",
    [
        "from other import handle",
        "import handle",
        "handle = lambda event, context: 1",
        "handle: object = print",
        "class handle: ...",
        "try:\n    import fast as handle\nexcept ImportError:\n    def handle(e, c): ...",
        "if True:\n    def handle(e, c): ...",
    ],
)
def test_handlers_are_found_wherever_the_module_defines_them(source: str) -> None:
    assert read(RUN, FunctionFolder(FOLDER, {"main.py": content(source.encode())})).code.handler == "main.handle"


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("def handle(a, b, c, d): ...", "'handle' wants 4 values (a, b, c, d)"),
        ("async def handle(event, context, extra): ...", "'handle' wants 3 values (event, context, extra)"),
        ("def handle(a, b, /, c): ...", "'handle' wants 3 values (a, b, c)"),
        ("def handle(event, *, key): ...", "'handle' wants 'key' by its name"),
        ("if True:\n    def handle(a, b, c, d): ...", None),  # another branch may define it otherwise
        ("def handle(a, b, c, d): ...\nhandle = print", None),
        ("@given\ndef handle(a, b, c, d): ...", None),
        ("def handle(order: Order, event, context): ...", None),
        ("def handle(event, context, data: Order): ...", None),
        ("def handle(event, context, more=1, *, key=2): ...", None),
        ("def handle(): ...", None),
        ("def handle(*values, **more): ...", None),
    ],
)
def test_a_handler_that_wants_what_nobody_gives_is_refused(source: str, wanted: str | None) -> None:
    beside = FunctionFolder(FOLDER, {"main.py": content(source.encode())})
    if wanted is None:
        assert read(RUN, beside).code.handler == "main.handle"
        return
    problem = refused_spec(RUN, beside)
    assert problem.field == "spec.handler"
    assert wanted in problem.message
    assert "event, context" in problem.message


def test_a_handler_in_a_package() -> None:
    beside = FunctionFolder(FOLDER, {"pkg/mod.py": content(b"def go(e, c): ...")})
    assert read("  runtime: python\n  handler: pkg.mod.go\n", beside).code.handler == "pkg.mod.go"


def test_loading_runs_nobodys_code(tmp_path: Path) -> None:
    source = f"open({str(tmp_path / 'ran')!r}, 'w')\ndef handle(e, c): ...\n"
    read(RUN, FunctionFolder(FOLDER, {"main.py": content(source.encode())}))
    assert not (tmp_path / "ran").exists()


YAML_REFUSALS: list[tuple[str | bytes, int | None, str | None, str]] = [
    (b"", None, None, "the file is empty"),
    (b"# only a comment\n", None, None, "the file is empty"),
    (b"\xff\xfe\x00", 1, None, "not UTF-8 text"),
    ("a: 1\nb: [", 3, None, "not YAML"),
    ("a: 1\n\tb: 2\n", 2, None, "indent with spaces, not with tabs"),
    (HEAD + "  runtime: python\n  runtime: python\n", 6, "spec.runtime", "the key 'runtime' is there twice, first in line 5"),
    (HEAD + "  on: x\n", 5, "spec", "the key 'on' is read as true/false; put it in quotes"),
    (HEAD + "  1: x\n", 5, "spec", "the key '1' is read as a number"),
    (HEAD + "  ~: x\n", 5, "spec", "the key '~' is read as null"),
    (HEAD + "  [a]: x\n", 5, "spec", "a key must be text"),
    (HEAD + "  description: !!python/object:os.system x\n", 5, "spec.description", "tag"),
    (HEAD + "  job: !!set {a}\n", 5, "spec.job", "tag '!!set' is not allowed"),
    (HEAD + "  description: !!binary aGk=\n", 5, "spec.description", "tag '!!binary' is not allowed"),
    (HEAD + "  job: &a {x: 1}\n  volume: {<<: *a}\n", 6, "spec.volume", "merge keys (<<) are not supported"),
    (HEAD + "  job: &a [*a]\n", 5, "spec.job[0]", "nested more than"),
    (HEAD + "  description: *nowhere\n", 5, None, "not YAML: found undefined alias"),
    ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join(['*' + p] * 9)}]\n" for p, c in zip("abcdefg", "bcdefgh", strict=True)), 5, None, "more than 20000 values (aliases count every time they are used)"),
    ("[" * 5000, None, None, ""),
    ("a: " + "[" * 100 + "]" * 100, 1, None, "nested more than"),
    (b"a" * (MAX_FILE_BYTES + 1), None, None, f"larger than {MAX_FILE_BYTES} bytes"),
    ("just text\n", 1, None, "a function is a mapping with apiVersion, kind, metadata and spec, not text"),
    ("- a\n", 1, None, "not a list"),
    ("apiVersion: apps/v1\nkind: Deployment\n", 1, "apiVersion", "'apps/v1' is not supported; write invoker.dev/v1alpha1"),
    ("apiVersion: invoker.dev/v1alpha1\nkind: Preset\n", 2, "kind", "kind 'Preset' is not supported; supported is Function"),
    ("apiVersion: invoker.dev/v1alpha1\nkind: function\n", 2, "kind", "kind 'function' is not supported"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "field", "words"), YAML_REFUSALS)
def test_refused_files(text: str | bytes, line: int | None, field: str | None, words: str) -> None:
    broken = refusal(text)
    assert words in broken.message
    if line is not None:
        assert broken.line == line
        assert broken.message.startswith(f"{FILE}:{line}: ")
    if field is not None:
        assert broken.field == field
    assert len(broken.message) < 700
    assert broken.message.isprintable()


def test_an_unknown_key_is_answered_by_the_nearest_one_or_by_all() -> None:
    known = ["runtime", "backoffLimit"]
    assert unknown("runtim", known) == "unknown key 'runtim'; did you mean 'runtime'?"
    assert unknown("zzz", known) == "unknown key 'zzz'. Allowed here: runtime, backoffLimit"


SPEC_REFUSALS: list[tuple[str, int, str, str]] = [
    ("  runtim: python\n", 5, "spec.runtim", "unknown key 'runtim'; did you mean 'runtime'?"),
    ("  runtime: python\n  backofflimit: 1\n", 6, "spec.backofflimit", "did you mean 'backoffLimit'?"),
    ("  runtime: python\n  zzz: 1\n", 6, "spec.zzz", "unknown key 'zzz'. Allowed here:"),
    ("  runtime: ruby\n", 5, "spec.runtime", "must be 'python', not 'ruby'"),
    ("  runtime: python\n  backoffLimit: '2'\n", 6, "spec.backoffLimit", "must be a whole number, not text"),
    ("  runtime: python\n  backoffLimit: 1.5\n", 6, "spec.backoffLimit", "must be a whole number, not a number"),
    ("  runtime: python\n  backoffLimit: true\n", 6, "spec.backoffLimit", "must be a whole number, not true/false"),
    ("  runtime: python\n  backoffLimit: -1\n", 6, "spec.backoffLimit", "must be at least 0, not -1"),
    ("  runtime: python\n  backoffLimit: 101\n", 6, "spec.backoffLimit", "must be at most 100, not 101"),
    ("  runtime: python\n  timeoutSeconds: 0\n", 6, "spec.timeoutSeconds", "must be more than 0, not 0"),
    ("  runtime: python\n  timeoutSeconds: .inf\n", 6, "spec.timeoutSeconds", ""),
    ("  runtime: python\n  timeoutSeconds: .nan\n", 6, "spec.timeoutSeconds", ""),
    ("  runtime: python\n  timeoutSeconds: 5m\n", 6, "spec.timeoutSeconds", "must be a number, not text"),
    ("  runtime: python\n  concurrency: 0\n", 6, "spec.concurrency", "must be at least 1, not 0"),
    ("  runtime: python\n  keepLog: yes please\n", 6, "spec.keepLog", "must be true or false, not text"),
    ("  runtime: python\n  description: 5\n", 6, "spec.description", "must be text, not a number; put it in quotes"),
    ("  runtime: python\n  subscriptions: {topic: a}\n", 6, "spec.subscriptions", "must be a list, not a mapping"),
    ("  runtime: python\n  subscriptions:\n", 6, "spec.subscriptions", "must be a list, not nothing"),
    ("  runtime: python\n  subscriptions:\n    - orders\n", 7, "spec.subscriptions[0]", "must be a mapping of keys, not text"),
    ("  runtime: python\n  subscriptions:\n    - filter: {}\n", 7, "spec.subscriptions[0].topic", "is missing"),
    ("  runtime: python\n  subscriptions:\n    - topic: a\n    - topic: a..b\n", 8, "spec.subscriptions[1].topic", "topic pattern 'a..b' has an empty token"),
    ("  runtime: python\n  subscriptions:\n    - topic: a.>.b\n", 7, "spec.subscriptions[0].topic", "'>' is allowed as the last token only"),
    ("  runtime: python\n  subscriptions:\n    - topic: a.b*\n", 7, "spec.subscriptions[0].topic", "a wildcard must be a whole token, not part of 'b*'"),
    ("  runtime: python\n  subscriptions:\n    - topic: a b\n", 7, "spec.subscriptions[0].topic", "white space"),
    ("  runtime: python\n  subscriptions:\n    - topic: $SYS.x\n", 7, "spec.subscriptions[0].topic", "begins with '$'"),
    ("  runtime: python\n  subscriptions:\n    - topic: ''\n", 7, "spec.subscriptions[0].topic", "the topic pattern is empty"),
    ("  runtime: python\n  subscriptions:\n    - topic: a\n      filter:\n        all:\n          - sufix: {topic: x}\n", 10, "spec.subscriptions[0].filter.all[0].sufix", "unknown filter dialect 'sufix'"),
    ("  description: nothing to run\n", 4, "spec", "nothing says what to run; give runtime and handler, or command, or image, or job"),
    ("  handler: main.handle\n", 4, "spec", "nothing says what to run; give runtime: python"),
    ("  runtime: python\n  command: x\n", 6, "spec.command", "runtime and command exclude each other"),
    ("  command: x\n  handler: main.handle\n", 6, "spec.handler", "handler needs runtime: python"),
    ("  command: ''\n", 5, "spec.command", "the command is empty"),
    ("  command: []\n", 5, "spec.command", "the command is empty"),
    ("  command: \"a 'b\"\n", 5, "spec.command", "cannot be split into words: No closing quotation"),
    ("  command: 5\n", 5, "spec.command", "must be text or a list, not a number"),
    ("  command: [tr, 5]\n", 5, "spec.command[1]", "must be text, not a number; put it in quotes"),
    ("  command: [\"a\\0b\"]\n", 5, "spec.command", "NUL"),
    ("  command: ['{{params.x}}']\n", 5, "spec.command[0]", "may not name the program"),
    ("  command: [sh, -c, 'echo {{topic}}']\n", 5, "spec.command[2]", "may not be part of a shell's text"),
    ("  command: /bin/bash\n  args: [-c, 'echo {{topic}}']\n", 6, "spec.args[1]", "may not be part of a shell's text"),
    ("  command: bin/nothing\n", 5, "spec.command", "there is no file 'bin/nothing' beside the spec"),
    ("  command: ./main.py\n", 5, "spec.command", "./main.py is not executable; run chmod +x on it"),
    ("  runtime: python\n  args: [a]\n", 6, "spec.args", "args go with command or image only"),
    ("  runtime: python\n  handler: main\n", 6, "spec.handler", "'main' is no handler; write module.function"),
    ("  runtime: python\n  handler: main.2x\n", 6, "spec.handler", "is no handler"),
    ("  runtime: python\n  handler: ../main.handle\n", 6, "spec.handler", "is no handler"),
    ("  runtime: python\n  handler: mian.handle\n", 6, "spec.handler", "there is no file 'mian.py' beside the spec; did you mean 'main.py'?"),
    ("  runtime: python\n  handler: main.handel\n", 6, "spec.handler", "main.py defines no 'handel'; did you mean 'handle'?"),
    ("  runtime: python\n  handler: bad.handle\n", 6, "spec.handler", "bad.py line 2: "),
    ("  runtime: python\n  handler: nul.handle\n", 6, "spec.handler", "nul.py"),
    ("  runtime: python\n  code: 'x ='\n", 6, "spec.code", "code line 1: invalid syntax"),
    ("  runtime: python\n  code: 'def other(): ...'\n", 6, "spec.code", "code defines no 'handle'"),
    ("  runtime: python\n  code: 'def c(): ...'\n  handler: a.b.c\n", 7, "spec.handler", "with inline code the handler is module.function"),
    ("  runtime: python\n  input: {schema: nothing.json}\n", 6, "spec.input.schema", "there is no file 'nothing.json' beside the spec"),
    ("  runtime: python\n  input: {schema: main.py}\n", 6, "spec.input.schema", "the file 'main.py' is not JSON"),
    ("  runtime: python\n  input: {schema: {type: strin}}\n", 6, "spec.input.schema", "not a JSON Schema"),
    ("  runtime: python\n  input: {schema: {$ref: 'http://127.0.0.1:9/x'}}\n", 6, "spec.input.schema", "the reference 'http://127.0.0.1:9/x' is refused"),
    ("  runtime: python\n  input: {schema: {$ref: 'file:///etc/passwd'}}\n", 6, "spec.input.schema", "is refused"),
    ("  runtime: python\n  output: {schema: {pattern: '(?=a)b'}}\n", 6, "spec.output.schema", "patterns run in linear time"),
    ("  runtime: python\n  input: {as: body}\n", 6, "spec.input.as", "must be 'api', 'env' or 'file', not 'body'"),
    ("  runtime: python\n  output: {from: file}\n", 6, "spec.output.from", "must be 'api', 'stdout' or 'termination'"),
    ("  runtime: python\n  parameters: [{name: 1x}]\n", 6, "spec.parameters[0].name", "'1x' is no legal parameter name"),
    ("  runtime: python\n  parameters: [{name: a}, {name: A}]\n", 6, "spec.parameters[1].name", "is there twice (case does not count)"),
    ("  runtime: python\n  parameters: [{name: a, schema: {type: integer}, default: x}]\n", 6, "spec.parameters[0].default", "does not fit the parameter's own schema"),
    ("  runtime: python\n  parameters: [{name: a, required: true, default: x}]\n", 6, "spec.parameters[0].default", "drop one of both"),
    ("  runtime: python\n  env: [{name: A=B, value: x}]\n", 6, "spec.env[0].name", "'A=B' is no legal environment variable name"),
    ("  runtime: python\n  env: [{name: invoker_RUN_ID, value: x}]\n", 6, "spec.env[0].name", "Invoker's own"),
    ("  runtime: python\n  env: [{name: A, value: 1}]\n", 6, "spec.env[0].value", "put it in quotes"),
    ("  runtime: python\n  env: [{name: A, value: \"a\\0b\"}]\n", 6, "spec.env[0].value", "NUL"),
    ("  runtime: python\n  env: [{name: A, value: " + "ü" * 40_000 + "}]\n", 6, "spec.env[0].value", "is longer than 65536 bytes"),
    ("  runtime: python\n  env: [{name: A, value: x}, {name: A, value: y}]\n", 6, "spec.env[1].name", "the variable A is there twice"),
    ("  runtime: python\n  env: [{name: A, value: x, valueFrom: {}}]\n", 6, "spec.env[0]", "has both value and valueFrom"),
    ("  runtime: python\n  env: [{name: A, value: '{{params.levl}}'}]\n  parameters: [{name: level}]\n", 6, "spec.env[0].value", "unknown placeholder 'params.levl'; did you mean 'params.level'?"),
    ("  runtime: python\n  env: [{name: A, value: '{{env.HOME}}'}]\n", 6, "spec.env[0].value", "unknown placeholder 'env.HOME'"),
    ("  runtime: python\n  env: [{name: A, value: '{{topic'}]\n", 6, "spec.env[0].value", "'{{' without its '}}'"),
    ("  runtime: python\n  resources: {limits: {memory: 256mb}}\n", 6, "spec.resources.limits.memory", "'256mb' is no quantity such as"),
    ("  runtime: python\n  resources: {limits: {memory: 0}}\n", 6, "spec.resources.limits.memory", "at least one byte"),
    ("  runtime: python\n  resources: {limit: {}}\n", 6, "spec.resources.limit", "did you mean 'limits'?"),
    ("  runtime: python\n  volume: {size: 1Gi, mountPath: scratch}\n", 6, "spec.volume.mountPath", "must be an absolute path"),
    ("  runtime: python\n  volume: {mountPath: /x}\n", 6, "spec.volume.size", "is missing"),
    ("  runtime: python\n  onSuccess: {publish: a.*}\n", 6, "spec.onSuccess.publish", "has a wildcard"),
    ("  runtime: python\n  onSuccess: next\n", 6, "spec.onSuccess", "must be a mapping of keys, not text"),
    ("  runtime: python\n  noRetryExitCodes: [0]\n", 6, "spec.noRetryExitCodes[0]", "must be at least 1, not 0"),
    ("  runtime: python\n  job: [a]\n", 6, "spec.job", "must be a mapping of keys, not a list"),
    ("  image: a b\n", 5, "spec.image", "does not have the form"),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "line", "field", "words"), SPEC_REFUSALS)
def test_refused_specs(spec: str, line: int, field: str, words: str) -> None:
    broken = refused_spec(spec, folder(bad__py=b"x = 1\ndef handle(:\n", nul__py=b"x = '\0'"))
    assert words in broken.message
    assert (broken.file, broken.line, broken.field, broken.name) == (FILE, line, field, "hello")
    assert broken.message.startswith(f"{FILE}:{line}: {field}: ")
    assert broken.message.isprintable()
    assert len(broken.message) < 700


@pytest.mark.parametrize(
    ("head", "line", "field", "words"),
    [
        ("kind: Function\nmetadata: {name: x}\nspec: {}\n", 1, "apiVersion", "is missing"),
        ("apiVersion: invoker.dev/v1alpha1\nmetadata: {name: x}\nspec: {}\n", 1, "kind", "is missing"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nspec: {}\n", 1, "metadata", "is missing"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: x}\n", 1, "spec", "is missing"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {}\nspec: {}\n", 3, "metadata.name", "is missing"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: Big}\nspec: {}\n", 3, "metadata.name", "function name 'Big' must be"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: ../x}\nspec: {}\n", 3, "metadata.name", "must be 1 to 63 of"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: " + "a" * 64 + "}\nspec: {}\n", 3, "metadata.name", "must be 1 to 63 of"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: x, labels: {'a b': c}}\nspec: {}\n", 3, "metadata.labels.a b", "'a b' is no legal label key"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {name: x, labels: {a: 'b c'}}\nspec: {}\n", 3, "metadata.labels.a", "'b c' is no legal label value"),
        ("apiVersion: invoker.dev/v1alpha1\nkind: Function\nmetadata: {nmae: x}\nspec: {}\n", 3, "metadata.nmae", "did you mean 'name'?"),
    ],
)  # fmt: skip
def test_refused_heads(head: str, line: int, field: str, words: str) -> None:
    broken = refusal(head)
    assert words in broken.message
    assert (broken.line, broken.field) == (line, field)


PATHS_THAT_LEAD_OUT = [
    "../x.json",
    "a/../../x.json",
    "/etc/passwd",
    "..",
    "a\\..\\..\\x.json",
    "a/\0/x",
    "./../hello/x.json",
]


@pytest.mark.parametrize("name", PATHS_THAT_LEAD_OUT)
def test_paths_that_lead_out_are_refused_before_anything_is_opened(name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace("\0", "\\0")
    broken = refused_spec(f'  runtime: python\n  input: {{schema: "{quoted}"}}\n')
    assert "leads out of the function's folder; name a file beside the spec" in broken.message
    assert (broken.line, broken.field) == (6, "spec.input.schema")


@pytest.mark.parametrize("name", ["../run", "bin/../../run", "./../run"])
def test_commands_that_lead_out_are_refused(name: str) -> None:
    broken = refused_spec(f"  command: [{name}]\n")
    assert "leads out of the function's folder" in broken.message


def test_a_folder_with_a_problem_stops_only_what_needs_it() -> None:
    trouble = folder("hello/data is a link that leads out of the catalog's folder, so it is not followed")
    assert "hello/data is a link that leads out" in refused_spec(RUN, trouble).message
    assert read("  command: /bin/cat\n", trouble).code.command == ("/bin/cat",)
    assert read("  runtime: python\n  code: 'def handle(e, c): ...'\n", trouble).code.inline


def test_several_errors_are_counted_and_listed() -> None:
    broken = refused_spec("  runtime: python\n  backoffLimit: x\n  concurrency: 0\n  keepLog: 3\n")
    assert broken.message == f"{FILE}:6: spec.backoffLimit: must be a whole number, not text (and 2 more)"


def test_documents_stand_alone() -> None:
    good = "---\n" + HEAD.replace("hello", "one") + "  command: cat\n"
    bad = "---\n" + HEAD.replace("hello", "two") + "  comand: cat\n"
    last = "---\n" + HEAD.replace("hello", "three") + "  command: tac\n"
    found = read_functions((good + bad + "---\n" + last).encode(), FILE, folder())
    assert [function.name for function in found.functions] == ["one", "three"]
    [broken] = found.broken
    assert (broken.name, broken.line, broken.field) == ("two", 12, "spec.comand")


def test_windows_line_ends_and_a_byte_order_mark_are_fine() -> None:
    text = "\ufeff" + (HEAD + RUN).replace("\n", "\r\n")
    assert [one.name for one in read_functions(text.encode(), FILE, folder()).functions] == ["hello"]


def test_dates_and_the_like_stay_text() -> None:
    assert read("  runtime: python\n  description: 2026-11-21\n").description == "2026-11-21"


# the hash


def test_the_hash_is_of_the_meaning_not_of_the_spelling() -> None:
    one = read("  runtime: python\n  backoffLimit: 1\n")
    other = read("  # a comment\n  backoffLimit:   1\n  runtime: 'python'\n")
    assert one.spec_hash == other.spec_hash
    assert len(one.spec_hash) == 16
    assert one == other


@pytest.mark.parametrize(
    "spec",
    [
        "  runtime: python\n  backoffLimit: 1\n",
        "  runtime: python\n  description: x\n",
        "  runtime: python\n  parameters: [{name: a}]\n",
    ],
)
def test_the_hash_changes_with_the_spec(spec: str) -> None:
    assert read(spec).spec_hash != read(RUN).spec_hash


def test_the_hash_changes_with_the_code_beside_the_spec() -> None:
    before = read(RUN)
    assert read(RUN, folder(main__py=MAIN + b"\n")).spec_hash != before.spec_hash
    assert read(RUN, folder(data_slash_table__csv=b"1")).spec_hash != before.spec_hash
    renamed = FunctionFolder(FOLDER, {"main.py": content(MAIN), "b": content(b"1")})
    other = FunctionFolder(FOLDER, {"main.py": content(MAIN), "c": content(b"1")})
    assert read(RUN, renamed).spec_hash != read(RUN, other).spec_hash


def test_the_hash_of_a_command_on_the_host_is_not_of_what_lies_beside() -> None:
    spec = "  command: /bin/cat\n"
    assert read(spec).spec_hash == read(spec, folder(other__txt=b"x")).spec_hash


def test_the_hash_changes_with_a_schema_file() -> None:
    spec = "  command: /bin/cat\n  input: {schema: ./in.json}\n"
    assert read(spec, folder(in__json=b"{}")).spec_hash != read(spec, folder(in__json=b"true")).spec_hash


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["spec", "metadata", "name", "runtime", "env", "topic", "subscriptions", "filter", "all", "x"]), inner, max_size=4),
    max_leaves=12,
))  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_whatever_a_document_holds_it_becomes_a_function_or_a_sentence(value: Any) -> None:
    import yaml

    text = HEAD.split("spec")[0] + yaml.safe_dump({"spec": value}, allow_unicode=True)
    found = read_functions(text.encode(), FILE, folder())
    assert len(found.functions) + len(found.broken) == 1
    for broken in found.broken:
        assert broken.message.startswith(FILE)
        assert broken.message.isprintable()


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")))
@settings(max_examples=300, deadline=None)
def test_whatever_a_file_holds_it_is_refused_with_a_sentence(data: bytes) -> None:
    found = read_functions(data, FILE, folder())
    assert found.functions == ()
    assert all(broken.message.startswith(FILE) and broken.message.isprintable() for broken in found.broken)
