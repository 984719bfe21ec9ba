"""What the commands need of whoever answers them: `invoker.client.Client` over NATS, `HttpClient` over a gateway.

Both keep the promises that stand at the methods of `Client`; where HTTP differs, `HttpClient` says so.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from invoker.feed import FeedItem
from invoker.payload import Payload
from invoker.replies import Reply
from invoker.request import RequestRecord
from invoker.result import Reason, Result, RunStatusDocument, State
from invoker.views import (
    Cancelled,
    CatalogInfo,
    Chain,
    DeadLetter,
    Explanation,
    LogLine,
    Receipt,
    ReloadInfo,
    RequestView,
    RunRow,
    RunView,
)


class Connected(Protocol):
    """One instance of Invoker, whichever door leads to it."""

    @property
    def is_connected(self) -> bool: ...

    async def close(self) -> None: ...

    def new_request_id(self) -> str: ...

    async def publish(
        self,
        topic: str,
        data: Payload | Any = b"",
        *,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        reply_to: str | None = None,
        is_new: bool = False,
    ) -> Receipt: ...

    async def request(
        self,
        topic: str,
        data: Payload | Any = b"",
        *,
        timeout: float = ...,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
        is_new: bool = False,
    ) -> list[Reply]: ...

    async def call(
        self,
        function: str,
        data: Payload | Any = b"",
        *,
        timeout: float = ...,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, Any] | None = None,
        request_id: str | None = None,
    ) -> Reply: ...

    async def replay(
        self,
        id: str,
        *,
        function: str | None = None,
        data: Payload | Any = None,
        content_type: str | None = None,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> Receipt: ...

    async def result(self, id: str, *, wait: float = 0.0) -> RequestView: ...

    def results(self, id: str, *, wait: float | None = None) -> AsyncGenerator[Result, None]: ...

    async def chain(self, id: str, *, wait: float = 0.0) -> Chain: ...

    def follow_chain(self, id: str) -> AsyncGenerator[Chain, None]: ...

    async def run(self, id: str, *, function: str | None = None) -> RunView: ...

    async def runs(
        self,
        *,
        function: str | None = None,
        state: State | str | None = None,
        reason: Reason | str | None = None,
        request: str | None = None,
        since: datetime | timedelta | None = None,
        until: datetime | timedelta | None = None,
        topic: str | None = None,
        text: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> list[RunRow]: ...

    async def output(self, result: Result) -> bytes: ...

    def open_output(self, result: Result) -> AsyncGenerator[bytes, None]: ...

    async def input(self, request_id: str) -> bytes: ...

    def open_input(self, request_id: str) -> AsyncGenerator[bytes, None]: ...

    async def cancel(self, id: str, *, function: str | None = None, message: str | None = None) -> Cancelled: ...

    async def cancel_chain(self, id: str, *, message: str | None = None) -> Cancelled: ...

    async def functions(self, name: str | None = None) -> CatalogInfo: ...

    async def explain(
        self,
        topic: str,
        data: Payload | Any = None,
        *,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Explanation: ...

    async def reload(self) -> ReloadInfo: ...

    async def pause(self, function: str) -> bool: ...

    async def resume(self, function: str) -> bool: ...

    async def dead(self, limit: int = 50) -> list[DeadLetter]: ...

    async def dead_letter(self, id: str) -> DeadLetter: ...

    async def redrive(
        self,
        id: str,
        *,
        data: Payload | Any = None,
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
    ) -> str: ...

    def logs(self, id: str, *, function: str | None = None, follow: bool = False) -> AsyncGenerator[LogLine, None]: ...

    def follow_all(self) -> AsyncGenerator[FeedItem | RunStatusDocument, None]: ...

    def watch_runs(self) -> AsyncGenerator[RunStatusDocument | RequestRecord, None]: ...
