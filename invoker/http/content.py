"""Bytes from a gateway: read in chunks, gone on with behind the last one when a connection breaks, and verified."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Mapping

from invoker.errors import ClaimCheckError, ExpiredError
from invoker.http.calls import PAUSES_SECONDS, Call, Calls, CutError


async def content_of(calls: Calls, path: str, size: int, sha256: str) -> AsyncGenerator[bytes, None]:
    """The bytes at that path; act on them only after the iteration has ended.

    Raises `ClaimCheckError` when they are gone, or are not what was promised, and `CutError` when the connection breaks
    again and again without anything new.
    """
    hasher, got, pauses = hashlib.sha256(), 0, list(PAUSES_SECONDS)
    while True:
        before = got
        try:
            async with calls.opened(Call("GET", path, headers=_behind(got, sha256))) as (answer, chunks):
                skip = got if answer.status == 200 else 0
                async for whole in chunks:
                    chunk = whole[skip:]
                    skip -= min(skip, len(whole))
                    if chunk:
                        hasher.update(chunk)
                        got += len(chunk)
                        yield chunk
            break
        except ExpiredError as error:
            raise ClaimCheckError(f"the bytes of {path} are gone", object=path) from error
        except CutError:
            pauses = list(PAUSES_SECONDS) if got > before else pauses
            if got == size:
                break  # all of them came; what broke was the end
            if not pauses:
                raise
            await asyncio.sleep(pauses.pop(0))
    if got != size or hasher.hexdigest() != sha256:
        raise ClaimCheckError(
            f"the bytes of {path} differ from what was promised "
            f"({got} bytes for {size}, sha256 {hasher.hexdigest()[:12]}… for {sha256[:12]}…)",
            object=path,
        )


def _behind(got: int, sha256: str) -> Mapping[str, str]:
    """The headers that ask for what lies behind so many bytes. Pure."""
    whole = {"Accept-Encoding": "identity"}
    return whole | {"Range": f"bytes={got}-", "If-Range": f'"{sha256}"'} if got else whole
