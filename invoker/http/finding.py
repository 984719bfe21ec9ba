"""From an id that somebody typed to what the gateway knows of it, as it is now."""

from __future__ import annotations

from urllib.parse import quote

from invoker import wire
from invoker.errors import AmbiguousIdError, ExpiredError, InvokerError, UnknownIdError
from invoker.http.calls import Calls
from invoker.http.documents import request_of, unreadable
from invoker.lookup import LATEST, MIN_SHORTENED, Found, the_one_fitting
from invoker.views import DeadLetter, RequestView
from invoker.waiting import narrowed

_PAGE = 500
_DEAD_LOOKED_AT = 5_000


class Finder:
    """Finds requests, runs and dead letters at one gateway."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def view(self, given: str) -> tuple[Found, RequestView]:
        """What the id stands for, and its request as it is now. Raises as `Client.result`."""
        if not given:
            raise UnknownIdError("an empty id stands for nothing", hint="invoker runs list")
        request_id = wire.canonical_id(given)
        if given != LATEST:
            try:
                return Found(request_id), await self.request(request_id)
            except UnknownIdError as error:
                if _is_final(error):
                    raise _in_our_words(error, given) from error
                unknown = error
            if request_id != given or len(given) < MIN_SHORTENED:
                raise _in_our_words(unknown, given) from unknown
        found = await self._meant(given)
        return found, await self.request(found.request_id)

    async def request(self, request_id: str) -> RequestView:
        """The request of exactly that id."""
        return request_of((await self._calls.get(f"/v1/requests/{quoted(request_id)}")).document)

    async def narrowed(self, found: Found) -> RequestView:
        """The request, with the one run that is meant."""
        return narrowed(await self.request(found.request_id), found.function)

    async def _meant(self, given: str) -> Found:
        try:
            document = (await self._calls.get(f"/v1/ids/{quoted(given)}")).document
            return Found(document["request_id"], document.get("function"))
        except (KeyError, TypeError, AttributeError) as error:
            raise unreadable("id") from error
        except (UnknownIdError, AmbiguousIdError) as error:
            raise _in_our_words(error, given) from error

    async def dead_letter(self, given: str) -> DeadLetter:
        """The dead letter of that id, which may be shortened. Raises `UnknownIdError` or `AmbiguousIdError`."""
        path = "/v1/dead-letters"
        try:
            return DeadLetter.model_validate((await self._calls.get(f"{path}/{quoted(given)}")).document)
        except UnknownIdError:
            fitting = the_one_fitting(given, [letter.id for letter in await self.dead_letters(_DEAD_LOOKED_AT)])
        if fitting is None:
            raise UnknownIdError(f"no dead letter {given}", hint="invoker dead list")
        return DeadLetter.model_validate((await self._calls.get(f"{path}/{quoted(fitting)}")).document)

    async def dead_letters(self, limit: int) -> list[DeadLetter]:
        """The newest dead letters, without their bytes."""
        found: list[DeadLetter] = []
        query: dict[str, str | int | float] = {}
        while len(found) < limit:
            query["limit"] = min(_PAGE, limit - len(found))
            page = (await self._calls.get("/v1/dead-letters", query)).document
            found += [DeadLetter.model_validate(one) for one in page["items"]]
            if page["next"] is None:
                break
            query["cursor"] = page["next"]
        return found


def quoted(segment: str) -> str:
    """A segment of a path, whatever stands in it. Pure."""
    return quote(segment, safe="@")


def _is_final(error: UnknownIdError) -> bool:
    """Whether looking further is of no use: it was there, or it became a dead letter. Pure."""
    return isinstance(error, ExpiredError) or "dead_id" in error.fields


def _in_our_words(error: InvokerError, given: str) -> InvokerError:
    """The error as it is told over NATS. Pure."""
    if isinstance(error, UnknownIdError) and not _is_final(error):
        if given == LATEST:
            return UnknownIdError("no request has been accepted yet", hint="invoker publish TOPIC DATA")
        return UnknownIdError(f"nothing is known of the id {given!r}", hint="invoker runs list")
    return error
