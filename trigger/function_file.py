"""One file of the catalog as functions and refusals: whatever is wrong in it becomes a sentence with file, line, field.

Pure. `read_functions` never raises for what stands in the file; a file may hold several documents, and one of them
that is wrong does not stop the others.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import ValidationError

from invoker.errors import CatalogError
from invoker.schema import Schema, SchemaError, parse_json
from trigger.catalog import BrokenFunction, LoadedFunctions
from trigger.field_types import parse_quantity, spoken
from trigger.filter import FilterError, compile_filter
from trigger.function import (
    EnvVar,
    Function,
    InputSpec,
    NextTopic,
    OutputSpec,
    Parameter,
    Resources,
    Source,
    Subscription,
    Volume,
)
from trigger.function_code import (
    REQUIREMENTS,
    FunctionFolder,
    SpecError,
    code_of,
    command_words,
    handler_file,
    uses_folder,
)
from trigger.function_fields import (
    API_VERSION,
    KIND,
    FunctionFields,
    NextFields,
    ParameterFields,
    SpecFields,
    SubscriptionFields,
)
from trigger.function_job import without_nothing
from trigger.function_pod import written
from trigger.function_refusal import refusal, refusal_of, shown
from trigger.placeholder import problem_of, problem_of_command
from trigger.plan import InputMode, OutputMode
from trigger.pod_check import check_pods
from trigger.yaml_document import Path, YamlDocument, YamlError, read_documents

MAX_FILE_BYTES = 1024 * 1024


def read_functions(data: bytes, file: str, folder: FunctionFolder) -> LoadedFunctions:
    """The functions of one file and what is wrong in it; `file` is the path relative to the catalog's root."""
    try:
        documents = read_documents(_text(data))
    except YamlError as error:
        return LoadedFunctions(broken=(_broken(refusal(file, error.message, error.line, error.path)),))
    functions: list[Function] = []
    broken: list[BrokenFunction] = []
    if not documents:
        broken.append(_broken(refusal(file, f"the file is empty; a function begins with apiVersion: {API_VERSION}")))
    for document in documents:
        try:
            functions.append(read_function(document, file, folder))
        except CatalogError as error:
            broken.append(_broken(error, _name_of(document.value)))
    return LoadedFunctions(tuple(functions), tuple(broken))


def read_function(document: YamlDocument, file: str, folder: FunctionFolder) -> Function:
    """The function of one document. Raises `CatalogError` with `fields` file, line, field and errors (all of them)."""
    try:
        _check_kind(document.value)
        fields = FunctionFields.model_validate(document.value)
        return _build(fields, document, file, folder)
    except ValidationError as error:
        raise refusal_of(error, document, file) from error
    except SpecError as error:
        raise refusal(file, error.message, document.line_of(error.path), error.path) from error


def _text(data: bytes) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise YamlError(f"larger than {MAX_FILE_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise YamlError("not UTF-8 text; save the file as UTF-8", line) from error


def _name_of(value: Any) -> str | None:
    metadata = value.get("metadata") if isinstance(value, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return name[:253] if isinstance(name, str) else None


def _check_kind(value: Any) -> None:
    if not isinstance(value, dict):
        raise SpecError(f"a function is a mapping with apiVersion, kind, metadata and spec, not {spoken(value)}")
    if value.get("apiVersion") not in (None, API_VERSION):
        raise SpecError(f"{shown(value['apiVersion'])} is not supported; write {API_VERSION}", "apiVersion")
    if value.get("kind") not in (None, KIND):
        raise SpecError(f"kind {shown(value['kind'])} is not supported; supported is {KIND}", "kind")


def _build(fields: FunctionFields, document: YamlDocument, file: str, folder: FunctionFolder) -> Function:
    spec, metadata = fields.spec, fields.metadata
    code = code_of(spec, folder)
    parameters = tuple(_parameter(one, index) for index, one in enumerate(spec.parameters))
    _check_parameter_names(parameters)
    _check_placeholders(spec, parameters)
    check_pods(spec, [parameter.name for parameter in parameters])
    input_schema = _schema(spec.input.schema_, folder, "spec", "input", "schema")
    output_schema = _schema(spec.output.schema_, folder, "spec", "output", "schema")
    return Function(
        name=metadata.name,
        file=file,
        spec_hash=_spec_hash(document.value, spec, folder),
        code=code,
        labels=metadata.labels,
        description=spec.description,
        subscriptions=tuple(_subscription(one, index) for index, one in enumerate(spec.subscriptions)),
        job=None if spec.job is None else without_nothing(document.value["spec"]["job"]),
        pod={} if spec.pod is None else written(spec.pod),
        parameters=parameters,
        input=InputSpec(InputMode(spec.input.as_), input_schema.document if input_schema else None),
        output=OutputSpec(OutputMode(spec.output.from_), output_schema.document if output_schema else None),
        env=_env(spec),
        resources=_resources(spec),
        volume=_volume(spec),
        backoff_limit=spec.backoff_limit,
        timeout_seconds=spec.timeout_seconds,
        pending_timeout_seconds=spec.pending_timeout_seconds,
        ttl_seconds_after_finished=spec.ttl_seconds_after_finished,
        concurrency=spec.concurrency,
        on_success=_next(spec.on_success),
        on_failure=_next(spec.on_failure),
        no_retry_exit_codes=frozenset(spec.no_retry_exit_codes),
        keep_log=spec.keep_log,
        keep_pod=spec.keep_pod,
        input_schema=input_schema,
        output_schema=output_schema,
        source=Source(document.text, document.first_line, *handler_file(spec, folder)),
    )


def _spec_hash(value: Any, spec: SpecFields, folder: FunctionFolder) -> str:
    hasher = hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass"))
    for name, content in sorted(folder.files.items()):
        if uses_folder(spec) or name in _named_files(spec):
            hasher.update(f"\0{name}\0{content.sha256}\0{content.executable}".encode("utf-8", "surrogatepass"))
    return hasher.hexdigest()[:16]


def _named_files(spec: SpecFields) -> set[str]:
    files = {
        schema.removeprefix("./") for schema in (spec.input.schema_, spec.output.schema_) if isinstance(schema, str)
    }
    return files | {REQUIREMENTS} if spec.runtime is not None and spec.image is None else files


def _subscription(fields: SubscriptionFields, index: int) -> Subscription:
    if fields.filter is None:
        return Subscription(fields.topic)
    try:
        return Subscription(fields.topic, compile_filter(fields.filter))
    except FilterError as error:
        raise SpecError(error.message, "spec", "subscriptions", index, "filter", *error.path) from error


def _parameter(fields: ParameterFields, index: int) -> Parameter:
    where = ("spec", "parameters", index)
    schema = _compiled(fields.schema_, *where, "schema")
    if fields.required and fields.default is not None:
        raise SpecError("is required, so its default is never used; drop one of both", *where, "default")
    if fields.default is not None and (problems := schema.problems(fields.default)):
        raise SpecError(f"does not fit the parameter's own schema: {problems[0]['detail']}", *where, "default")
    return Parameter(fields.name, schema, fields.default, fields.required, fields.description)


def _check_parameter_names(parameters: tuple[Parameter, ...]) -> None:
    seen: set[str] = set()
    for index, parameter in enumerate(parameters):
        if parameter.name.lower() in seen:
            raise SpecError(
                f"the parameter {parameter.name!r} is there twice (case does not count)",
                "spec",
                "parameters",
                index,
                "name",
            )
        seen.add(parameter.name.lower())


def _check_placeholders(spec: SpecFields, parameters: tuple[Parameter, ...]) -> None:
    names = [parameter.name for parameter in parameters]
    command = command_words(spec)
    problem = problem_of_command([*command, *spec.args])
    if problem is not None:
        index, sentence = problem
        place: Path = ("command", index) if index < len(command) else ("args", index - len(command))
        raise SpecError(sentence, "spec", *place)
    texts: list[tuple[Path, str | None]] = [(("env", i, "value"), one.value) for i, one in enumerate(spec.env)]
    texts += [(("command", i), word) for i, word in enumerate(command)]
    texts += [(("args", i), word) for i, word in enumerate(spec.args)]
    for path, text in texts:
        sentence_or_none = problem_of(text or "", names)
        if sentence_or_none is not None:
            raise SpecError(sentence_or_none, "spec", *path)


def _schema(given: dict[str, Any] | str | None, folder: FunctionFolder, *where: str) -> Schema | None:
    if given is None:
        return None
    if isinstance(given, str):
        try:
            return _compiled(parse_json(folder.read(given, *where)), *where)
        except ValueError as error:
            raise SpecError(f"the file {given!r} {error}", *where) from error
    return _compiled(given, *where)


def _compiled(document: Any, *where: str | int) -> Schema:
    try:
        return Schema(document)
    except SchemaError as error:
        raise SpecError(str(error), *where) from error


def _env(spec: SpecFields) -> tuple[EnvVar, ...]:
    names: set[str] = set()
    for index, one in enumerate(spec.env):
        if one.name in names:
            raise SpecError(f"the variable {one.name} is there twice", "spec", "env", index, "name")
        names.add(one.name)
    return tuple(
        EnvVar(one.name, one.value, None if one.value_from is None else written(one.value_from)) for one in spec.env
    )


def _resources(spec: SpecFields) -> Resources:
    memory = spec.resources.limits.get("memory")
    memory_bytes = int(parse_quantity(memory)) if memory is not None else None
    if memory_bytes is not None and memory_bytes < 1:
        raise SpecError("a memory limit is at least one byte", "spec", "resources", "limits", "memory")
    return Resources(
        {name: str(quantity) for name, quantity in spec.resources.requests.items()},
        {name: str(quantity) for name, quantity in spec.resources.limits.items()},
        memory_bytes,
    )


def _volume(spec: SpecFields) -> Volume | None:
    if spec.volume is None:
        return None
    volume = spec.volume
    return Volume(str(volume.size), volume.mount_path, volume.storage_class, volume.access_mode)


def _next(fields: NextFields | None) -> NextTopic | None:
    return None if fields is None else NextTopic(fields.publish, fields.forward_reply)


def _broken(error: CatalogError, name: str | None = None) -> BrokenFunction:
    listed = tuple((one["line"], one["field"], one["detail"]) for one in error.fields["errors"])
    return BrokenFunction(
        error.fields["file"], error.message, name, error.fields["line"], error.fields["field"] or None,
        errors=listed if len(listed) > 1 else (),
    )  # fmt: skip
