"""The gateway's copy of the catalog, as the controllers tell it: for schemas, OpenAPI and what lists show.

A copy is a convenience: what is decided is decided by the controllers, so one that is some seconds old does no harm. It
is asked for anew every few seconds, and stays as it was while no controller answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import structlog

from invoker.client import Client
from invoker.errors import InvokerError
from invoker.parameters import Parameter, resolved
from invoker.schema import Schema, SchemaError
from invoker.views import CatalogInfo, FunctionInfo

REFRESH_SECONDS = 2.0
RENEWED_SECONDS = 0.5
KEPT_VERSIONS = 2_000
"""Versions of functions whose output schema is remembered: runs outlive the catalog that they began with."""

_log = structlog.get_logger(component="gateway")


class CatalogCopy:
    """The newest catalog that was heard of, with its schemas compiled."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.present = CatalogInfo()
        self.problem: str | None = "no controller has answered yet"
        self.is_known = False
        self._asked_at = 0.0
        self._asked = self._answered = 0
        self._renewing = asyncio.Lock()
        self._inputs: dict[str, Schema] = {}
        self._outputs: dict[str, Schema] = {}
        self._parameters: dict[str, tuple[Parameter, ...]] = {}
        self._versions: OrderedDict[tuple[str, str], Schema | None] = OrderedDict()

    async def run(self) -> None:
        """Follow the catalog, for ever."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH_SECONDS)

    async def refresh(self) -> None:
        """Ask once; when nobody answers the copy stays, and `problem` says why."""
        self._asked_at = time.monotonic()
        self._asked = own = self._asked + 1
        catalog, problem = None, None
        try:
            catalog = await self._client.functions()
        except InvokerError as error:
            problem = error.message
        if own < self._answered:
            return  # who asked later was answered sooner, by another controller, and knows what is newer
        self._answered, self.problem = own, problem
        if catalog is not None:
            self.is_known = True
            self.take(catalog)

    async def renewed(self) -> None:
        """See that the copy is younger than half a second, so that nothing is refused by what has just changed. However
        many ask, the controllers are asked twice a second at most."""
        async with self._renewing:
            if time.monotonic() - self._asked_at > RENEWED_SECONDS:
                await self.refresh()

    def take(self, catalog: CatalogInfo) -> None:
        """Use that catalog from here on. `present` stays the same object while nothing has changed, so that many who
        look for a change need not compare thousands of functions each."""
        if catalog.catalog != self.present.catalog or not self._is_compiled():
            self._inputs = _compiled({one.name: one.input_schema for one in catalog.functions})
            self._outputs = _compiled({one.name: one.output_schema for one in catalog.functions})
            self._parameters = {one.name: _parameters(one) for one in catalog.functions}
        for one in catalog.functions:
            if one.spec_hash is not None:
                self._versions[one.name, one.spec_hash] = self._outputs.get(one.name)
                self._versions.move_to_end((one.name, one.spec_hash))
        while len(self._versions) > max(KEPT_VERSIONS, len(catalog.functions)):
            self._versions.popitem(last=False)
        if catalog != self.present:
            self.present = catalog

    def _is_compiled(self) -> bool:
        return bool(self._inputs or self._outputs or not self.present.functions)

    def function(self, name: str) -> FunctionInfo | None:
        return self.present.function(name)

    def input_problems(self, function: str, data: bytes, content_type: str | None) -> list[dict[str, str]]:
        """Where an input does not fit the function's schema; empty for functions without one."""
        schema = self._inputs.get(function)
        return [dict(one) for one in schema.problems_of_bytes(data, content_type)] if schema is not None else []

    def parameter_problems(self, function: str, given: Mapping[str, str]) -> list[dict[str, str]]:
        """What is wrong with parameters of a call: undeclared, missing, not fitting."""
        declared = self._parameters.get(function)
        return [dict(one) for one in resolved(function, declared, given)[1]] if declared is not None else []

    async def learn(self, function: str, spec_hash: str) -> None:
        """See that this version of a function is known: a run may be younger than the copy. Asks at most once; the
        present schema holds for a version that nobody knows."""
        if (function, spec_hash) not in self._versions:
            await self.refresh()
            # The controllers do not know it any more, or never did: the hash is the caller's word, and a made-up one
            # must not be a way around the schema.
            self._versions.setdefault((function, spec_hash), self._outputs.get(function))

    def output_problems(
        self, function: str, spec_hash: str, data: bytes, content_type: str | None
    ) -> list[dict[str, str]]:
        """Where an output does not fit the schema of the version that its run began with."""
        schema = self._versions.get((function, spec_hash))
        return [dict(one) for one in schema.problems_of_bytes(data, content_type)] if schema is not None else []

    def output_schema_of(self, function: str, spec_hash: str) -> Any:
        """The document of the schema of a version that was heard of, None for one without, or that is forgotten."""
        schema = self._versions.get((function, spec_hash))
        return schema.document if schema is not None else None

    def has_input_schema(self, function: str) -> bool:
        return function in self._inputs

    def has_output_schema(self, function: str, spec_hash: str) -> bool:
        return self._versions.get((function, spec_hash)) is not None


def _compiled(documents: Mapping[str, object]) -> dict[str, Schema]:
    compiled = {}
    for name, document in documents.items():
        if document is None:
            continue
        try:
            compiled[name] = Schema(document)
        except SchemaError as error:
            _log.warning("schema cannot be used", function=name, error_message=str(error))
    return compiled


def _parameters(function: FunctionInfo) -> tuple[Parameter, ...]:
    schemas = _compiled({one.name: {} if one.schema_ is None else one.schema_ for one in function.parameters})
    return tuple(
        Parameter(one.name, schemas[one.name], one.default, one.required, one.description)
        for one in function.parameters
        if one.name in schemas
    )
