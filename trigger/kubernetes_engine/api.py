"""The calls that the engine makes: jobs, pods, their logs, config maps. Raw bytes out, parsed JSON back.

Every call may be repeated without harm, and is (`calls.py`): names are deterministic, patches are level-like, deletes
carry the uid where a name could be another's by now.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from enum import Enum
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

from pydantic_core import from_json

from invoker.version import __version__
from trigger.kubernetes_engine.access import ClusterAccess, OpenAccess
from trigger.kubernetes_engine.calls import STRATEGIC_MERGE, Call, Caller, CallLimits, OnRequest
from trigger.kubernetes_engine.failures import ApiFailure, is_already_there, is_gone, no_answer
from trigger.kubernetes_engine.watching import Lines, WatchEvent, event_of

__all__ = ["Api", "CallLimits", "Kind", "Listing", "WatchEvent"]

MAX_ROUNDS = 5
"""How often a list is begun again because its pages became too old."""
WATCH_SECONDS = 290
"""After so long the API server ends a watch, which then goes on with a new one."""

Object = dict[str, Any]


class Kind(Enum):
    """What is listed and watched: API path and resource."""

    JOB = ("/apis/batch/v1", "jobs")
    POD = ("/api/v1", "pods")
    CONFIG_MAP = ("/api/v1", "configmaps")
    EVENT = ("/api/v1", "events")


class Listing:
    """All objects of a kind that fit a selector: `async for` gives them, page by page, once.

    Afterwards `resource_version` is where a watch has to begin. `rounds` grows when the pages became too old and the
    list begins again: what was given before may then come twice, or be gone.
    """

    def __init__(self, caller: Caller, path: str, selector: str, page_objects: int) -> None:
        self._caller = caller
        self._page_objects = page_objects
        self._path = path
        self._selector = selector
        self.resource_version = ""
        self.rounds = 1

    async def __aiter__(self) -> AsyncIterator[Object]:
        token = ""
        while True:
            page = await self._page(token)
            for item in page.get("items") or ():
                yield item
            token = page["metadata"].get("continue") or ""
            if not token:
                self.resource_version = page["metadata"]["resourceVersion"]
                return

    async def _page(self, token: str) -> Object:
        try:
            return await self._ask(token)
        except ApiFailure as failure:
            if not is_gone(failure) or self.rounds >= MAX_ROUNDS:
                raise
        self.rounds += 1
        return await self._page("")

    async def _ask(self, token: str) -> Object:
        query = {"limit": str(self._page_objects), "labelSelector": self._selector, "continue": token}
        return _parsed(await self._caller.send(Call("list", "GET", _with(self._path, query))))


class Api:
    """Calls to one namespace of one API server; an async context manager, for any number of tasks at once.

    Entering raises `SettingsError` or `EngineUnavailableError` when the credentials cannot be read; it does not call
    the API server. All calls raise `ApiFailure`, after having been repeated for a bounded time where that may help.
    `on_request(verb, status)` is told of every attempt.
    """

    namespace: str

    def __init__(
        self,
        access: ClusterAccess | None = None,
        *,
        limits: CallLimits | None = None,
        user_agent: str = f"invoker/{__version__}",
        on_request: OnRequest | None = None,
    ) -> None:
        self._settings = access or ClusterAccess()
        self._limits = limits or CallLimits()
        self._user_agent = user_agent
        self._on_request = on_request
        self._stack = AsyncExitStack()
        self._caller: Caller
        self.server = ""
        self.splits_streams: bool | None = None

    async def __aenter__(self) -> Self:
        access = await self._stack.enter_async_context(OpenAccess(self._settings, self._user_agent))
        self.namespace, self.server = access.namespace, access.server
        self._caller = Caller(access, self._limits, self._on_request)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    # Jobs

    async def create_job(self, body: bytes, is_wanted: Callable[[], bool] = lambda: True) -> Object:
        """The Job as the API server made it. A lost answer is asked for again: "already exists" may mean our own.
        Nothing is asked for again once `is_wanted` says no."""
        path = _with(self._path(Kind.JOB), {"fieldValidation": "Strict"})
        return _parsed(await self._caller.send(Call("create", "POST", path, body, is_wanted=is_wanted)))

    async def dry_run_job(self, body: bytes) -> Object:
        """The Job as the API server would make it, after its defaults and policies; nothing is kept."""
        return await self._create(Kind.JOB, body, fieldValidation="Strict", dryRun="All")

    async def get_job(self, name: str) -> Object | None:
        return await self._get(Kind.JOB, name)

    async def patch_job(self, name: str, patch: bytes) -> Object | None:
        """The Job after a strategic merge patch, None when it is not there."""
        return await self._patch(Kind.JOB, name, patch)

    async def delete_job(self, name: str, *, uid: str | None = None) -> bool:
        """Ask for the Job's deletion, its pods after it; False when it (or that very one) is not there."""
        return await self._delete(Kind.JOB, name, uid, {"propagationPolicy": "Background"})

    # Pods

    async def get_pod(self, name: str) -> Object | None:
        return await self._get(Kind.POD, name)

    async def patch_pod(self, name: str, patch: bytes) -> Object | None:
        """The pod after a strategic merge patch, None when it is not there."""
        return await self._patch(Kind.POD, name, patch)

    async def delete_pod(self, name: str, *, uid: str | None = None, grace_seconds: int | None = None) -> bool:
        """Ask for the pod's deletion; False when it (or that very one) is not there."""
        grace = {} if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        return await self._delete(Kind.POD, name, uid, grace)

    # Config maps

    async def create_config_map(self, body: bytes) -> bool:
        """False when one of that name existed, with whatever content."""
        try:
            await self._create(Kind.CONFIG_MAP, body, fieldValidation="Strict")
        except ApiFailure as failure:
            if is_already_there(failure):
                return False
            raise
        return True

    async def find_config_map(self, name: str) -> Object | None:
        """The ConfigMap of that name; asked as a list, since an account that may list them needs no further verb."""
        path = _with(self._path(Kind.CONFIG_MAP), {"fieldSelector": f"metadata.name={name}"})
        found = _parsed(await self._caller.send(Call("list", "GET", path))).get("items") or ()
        return next(iter(found), None)

    async def delete_config_map(self, name: str, *, uid: str | None = None) -> bool:
        """False when it (or that very one) is not there."""
        return await self._delete(Kind.CONFIG_MAP, name, uid, {})

    # Events

    async def messages_of(self, uid: str, reason: str) -> list[str]:
        """What events of that reason say about an object. They are kept for an hour, and lossy."""
        query = {"fieldSelector": f"involvedObject.uid={uid},reason={reason}", "limit": "20"}
        found = _parsed(await self._caller.send(Call("list", "GET", _with(self._path(Kind.EVENT), query))))
        return [str(one.get("message") or "") for one in found.get("items") or ()]

    # Many

    def list(self, kind: Kind, selector: str) -> Listing:
        """The objects that fit the label selector; see `Listing`."""
        return Listing(self._caller, self._path(kind), selector, self._limits.page_objects)

    async def watch(
        self, kind: Kind, selector: str, resource_version: str, opened: Callable[[], None] = lambda: None
    ) -> AsyncIterator[WatchEvent]:
        """What happens after `resource_version`, bookmarks included; `opened` is told when the API server has agreed.

        Ends when the API server ends it, as it does every few minutes: go on from the last version seen. Raises
        `ApiFailure` of status 410 when that version is too old (list again), of status 0 when the stream was cut or
        silent.
        """
        query = {
            "watch": "1", "allowWatchBookmarks": "true", "labelSelector": selector,
            "resourceVersion": resource_version, "timeoutSeconds": str(WATCH_SECONDS),
        }  # fmt: skip
        lines = Lines()
        call = Call("watch", "GET", _with(self._path(kind), query))
        async with self._caller.stream(call, self._limits.silent_watch_seconds) as chunks:
            opened()
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    yield event_of(line)
        if lines.unfinished:
            raise no_answer("the watch was cut within an event")

    async def pod_log(
        self, pod: str, container: str, *, follow: bool = False, tail_lines: int | None = None,
        timestamps: bool = False, only_stdout: bool = False,
    ) -> AsyncIterator[bytes]:  # fmt: skip
        """A container's log in chunks, with `follow` until it ends. Raises `ApiFailure`; `failures.log_trouble` tells
        why a log is not there.

        With `only_stdout` the standard error is left out where the cluster can do that, which is known afterwards in
        `splits_streams`; where it cannot, both streams come as one. `tail_lines` then counts for the second case only:
        the API server refuses the two together.
        """
        query = {"container": container, "follow": str(follow).lower(), "timestamps": str(timestamps).lower()}
        tail = {} if tail_lines is None else {"tailLines": str(tail_lines)}
        if only_stdout and await self._can_split():
            try:
                async for chunk in self._log(pod, query | {"stream": "Stdout"}, follow):
                    yield chunk
                return
            except ApiFailure as failure:
                if not _is_split_refused(failure):
                    raise
                self.splits_streams = False
        async for chunk in self._log(pod, query | tail, follow):
            yield chunk

    async def _log(self, pod: str, query: Mapping[str, str], follow: bool) -> AsyncIterator[bytes]:
        # A node that does not answer gives 500 at once and for long: for the caller to judge, not to wait for.
        call = Call("log", "GET", _with(f"{self._path(Kind.POD, pod)}/log", query), final=frozenset({500}))
        async with self._caller.stream(call, None if follow else self._limits.answer_seconds) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _can_split(self) -> bool:
        """Whether the API server knows the parameter `stream` of logs, asked once.

        It checks parameters before it looks for the pod: one that has the feature refuses `stream` together with
        `tailLines`, one that has it switched off refuses `stream`, and an older one, which would silently give both
        streams, misses the pod.
        """
        if self.splits_streams is None:
            query = {"stream": "Stdout", "tailLines": "1"}
            call = Call("log", "GET", _with(f"{self._path(Kind.POD, _NO_POD)}/log", query))
            try:
                await self._caller.send(call)
            except ApiFailure as failure:
                if failure.status not in (404, 422):
                    raise
                self.splits_streams = failure.status == 422 and not _is_split_refused(failure)
        return bool(self.splits_streams)

    # One object

    async def _create(self, kind: Kind, body: bytes, **query: str) -> Object:
        return _parsed(await self._caller.send(Call("create", "POST", _with(self._path(kind), query), body)))

    async def _get(self, kind: Kind, name: str) -> Object | None:
        return await self._unless_missing(Call("get", "GET", self._path(kind, name)))

    async def _patch(self, kind: Kind, name: str, patch: bytes) -> Object | None:
        return await self._unless_missing(Call("patch", "PATCH", self._path(kind, name), patch, STRATEGIC_MERGE))

    async def _delete(self, kind: Kind, name: str, uid: str | None, options: Mapping[str, Any]) -> bool:
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        # With a precondition 409 is the answer: another object has that name by now.
        final = frozenset({409}) if uid is not None else frozenset()
        call = Call("delete", "DELETE", self._path(kind, name), json.dumps(body).encode(), final=final)
        try:
            return await self._unless_missing(call) is not None
        except ApiFailure as failure:
            if failure.status in final:
                return False
            raise

    async def _unless_missing(self, call: Call) -> Object | None:
        try:
            return _parsed(await self._caller.send(call))
        except ApiFailure as failure:
            if failure.status == 404:
                return None
            raise

    def _path(self, kind: Kind, name: str | None = None) -> str:
        group, resource = kind.value
        path = f"{group}/namespaces/{quote(self.namespace, safe='')}/{resource}"
        return path if name is None else f"{path}/{quote(name, safe='')}"


_NO_POD = "_"
"""A name that no pod can have."""


def _is_split_refused(failure: ApiFailure) -> bool:
    """API server or kubelet say that they have not switched on the splitting of logs into their streams."""
    refused = failure.status == 422 and "stream: Forbidden: may not be specified" in failure.message
    return refused or (failure.status == 400 and "PodLogsQuerySplitStreams" in failure.message)


def _with(path: str, query: Mapping[str, str]) -> str:
    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _parsed(body: bytes) -> Object:
    """The object of an answer. An answer that is no JSON object did not come from an API server, or not whole."""
    try:
        document = from_json(body)
    except ValueError as error:
        raise no_answer("the answer is no JSON") from error
    if not isinstance(document, dict):
        raise no_answer("the answer is no object")
    return document
