"""Ids as people type them: whole, shortened, or `@latest`. The other routes take whole ids only."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from invoker import wire
from invoker.errors import ExpiredError, UnknownIdError
from invoker.gateway.access.scopes import Action
from invoker.gateway.answers import JsonResponse
from invoker.gateway.documents import Answer
from invoker.gateway.door import caller_of
from invoker.gateway.gateway import Gateway
from invoker.gateway.sight import Sight, unknown
from invoker.lookup import Found


class MeantId(Answer):
    """What an id stands for: a request, or one run of it."""

    request_id: str
    run_id: str | None = Field(None, description="Set when the id is a run's")
    function: str | None = Field(None, description="That run's function")


def router(gateway: Gateway) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(tags=["requests"])

    @routes.get("/v1/ids/{given}", response_model=MeantId)
    async def get_id(given: str, request: Request) -> Response:
        """What an id stands for that a person typed: a request's or a run's, shortened to at least 4 characters of its
        beginning or end among recent ones, or `@latest`: the newest request that no run caused, of those that the
        caller may see."""
        sight = Sight(gateway, caller_of(request))
        sight.caller.check(Action.READ)
        return JsonResponse(await meant_id(sight, given))

    return routes


async def meant_id(sight: Sight, given: str) -> MeantId:
    """What the id stands for among what the caller may see. Raises `UnknownIdError`, `ExpiredError` and
    `AmbiguousIdError`."""

    def sees(topic: str, function: str | None) -> bool:
        return sight.may(Action.READ, topic, function)

    try:
        # A whole run's id costs nothing while the run is remembered; else all results are looked through for it.
        recent = sight.gateway.runs.find(given) if wire.is_plain_id(given) else None
        everything = sight.caller.sees_everything()
        found = recent or await sight.gateway.client.stored.meant(given, None if everything else sees)
    except ExpiredError:
        raise  # told from the id alone
    except UnknownIdError as error:
        if "dead_id" in error.fields and sees(str(error.fields.get("topic")), None):
            raise
        raise unknown("id", given) from error
    try:
        return await _visible(sight, found)
    except ExpiredError:
        raise
    except UnknownIdError as error:
        raise unknown("id", given) from error  # in the words of what never was


async def _visible(sight: Sight, found: Found) -> MeantId:
    """What was found, if the caller may see it. Raises `UnknownIdError`."""
    if found.function is None:
        await sight.request(found.request_id)
        return MeantId(request_id=found.request_id)
    run_id = wire.run_id_of(found.request_id, found.function)
    await sight.run_of(found, run_id)
    return MeantId(request_id=found.request_id, run_id=run_id, function=found.function)
