"""Dead letters: the list, one of them with its payload, sending one or many again."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from invoker import wire
from invoker.errors import ClaimCheckError, InvokerError
from invoker.gateway.access.scopes import Action
from invoker.gateway.content import content_answer, sha256_of
from invoker.gateway.dashboard import dead_letter_view as view
from invoker.gateway.dashboard.at_once import some_at_once
from invoker.gateway.dashboard.forms import Form, read_form
from invoker.gateway.dashboard.paths import DEAD_LETTERS, live_url, url_for
from invoker.gateway.dashboard.payload_editing import NOT_YOURS_TO_EDIT, editable_text, edited_payload
from invoker.gateway.dashboard.payload_view import PayloadView, gone
from invoker.gateway.dashboard.payloads import beginning, check_unveiled, view_of
from invoker.gateway.dashboard.rendering import Pages, query
from invoker.gateway.dashboard.secrets import Veil
from invoker.gateway.dashboard.veils import Sent, sent_veil
from invoker.gateway.dead_letters import letter_cursor, redriven, visible_letter, visible_letters
from invoker.gateway.door import audit, caller_of, count_as
from invoker.gateway.gateway import Gateway
from invoker.gateway.sight import ANY_FUNCTION, Sight, needs_nats
from invoker.quantities import short_id, size
from invoker.views import DeadLetter, RequestView

PAGE_LETTERS = 40
"""Fewer than are read at once, so that one reading tells whether there are more."""
FILTER_READINGS = 3
"""Readings of fifty letters for one page of a narrowed list: then it ends, and leads on."""
AT_ONCE = 8
_IDS_IN_ONE = 9
"""Ids in one field of an audit line, which is cut at 255 characters."""
_MANY = f"{DEAD_LETTERS}/redrive"


def router(gateway: Gateway, pages: Pages) -> APIRouter:
    """The routes of this group."""
    routes = APIRouter(include_in_schema=False, dependencies=[needs_nats(gateway)])

    @routes.get(DEAD_LETTERS)
    async def list_letters(request: Request) -> Response:
        """Dead letters, newest first."""
        sight = _reader(gateway, request)
        asked = request.query_params
        wanted = view.LettersFilter(asked.get("reason", "")[:64], asked.get("topic", "").strip()[:255])
        before = letter_cursor(asked.get("before") or None)
        problem = wanted.problem
        letters, following = ([], None) if problem else await _page(sight, wanted, before)
        return pages.page(
            request, "dead_letters.html", title="Dead letters", section="dead-letters",
            live=live_url() if before is None else None, wanted=wanted, problem=problem,
            lines=[_line(sight, one) for one in letters],
            is_first=before is None, path=DEAD_LETTERS, many=_MANY, reasons=view.REASONS,
            older=following and query(DEAD_LETTERS, reason=wanted.reason, topic=wanted.topic, before=following),
        )  # fmt: skip

    @routes.get(_MANY)
    async def ask_many(request: Request) -> Response:
        """Ask before many events are sent again, with how many they are."""
        sight = _reader(gateway, request)
        sight.caller.check(Action.OPERATE)
        ids = view.chosen_ids(Form(request.query_params.multi_items()).all("id"))
        found = await some_at_once(ids, lambda dead_id: _redrivable(sight, dead_id), AT_ONCE)
        chosen = tuple(one for one in found if one is not None)
        plan = view.RedrivePlan(chosen, len(ids) - len(chosen))
        return pages.question(
            request, plan.question, action=_MANY, yes=plan.question.rstrip("?"), back=DEAD_LETTERS,
            section="dead-letters", facts=plan.facts, fields=[("id", one.id) for one in chosen],
            nothing=None if plan.chosen else "Back to the dead letters",
        )  # fmt: skip

    @routes.post(_MANY)
    async def redrive_many(request: Request) -> Response:
        """Send the events of these letters again, as they are, and say what became of each. Safe to repeat."""
        sight = _reader(gateway, request)
        sight.caller.check(Action.OPERATE)
        form = await read_form(request)
        ids, _ = view.chosen_ids(form.all("id")), form.once
        count_as(request, len(ids))
        outcomes = await some_at_once(ids, lambda dead_id: _outcome(sight, request, dead_id), AT_ONCE)
        done = [one for one in outcomes if one.request_id is not None]
        parts = [ids[start : start + _IDS_IN_ONE] for start in range(0, len(ids), _IDS_IN_ONE)]
        named = {f"letters_{number}": " ".join(part) for number, part in enumerate(parts, 1)}
        audit(request, done=str(len(done)), refused=str(len(ids) - len(done)), **named)
        return pages.page(
            request, "dead_letters_done.html", title="Sent again", section="dead-letters", back=DEAD_LETTERS,
            done=done, refused=[one for one in outcomes if one.request_id is None],
        )  # fmt: skip

    @routes.get(DEAD_LETTERS + "/{dead_id}")
    async def one_letter(dead_id: str, request: Request) -> Response:
        """One dead letter: what was wrong and what to do, where it came from, its headers and its payload."""
        sight = _reader(gateway, request)
        letter = await visible_letter(sight, dead_id)
        return pages.page(
            request, "dead_letter.html", title=f"Dead letter {short_id(letter.id)}", section="dead-letters",
            live=live_url(), letter=letter, advice=view.advice_of(letter.reason),
            topic_page=_has_topic_page(sight, letter.topic), may_redrive=_may_redrive(sight, letter.topic),
            shown=await _shown(gateway, letter, await _veil(sight, letter)), again=await _again(sight, letter),
        )  # fmt: skip

    @routes.get(DEAD_LETTERS + "/{dead_id}/body")
    async def letter_bytes(dead_id: str, request: Request) -> Response:
        """The event's bytes, to be kept as a file."""
        sight = _reader(gateway, request)
        letter = await visible_letter(sight, dead_id)
        check_unveiled(await _veil(sight, letter))
        return await content_answer(request, gateway, letter.body, sha256_of(letter.body), letter.id)

    @routes.get(DEAD_LETTERS + "/{dead_id}/redrive")
    async def ask_redrive(dead_id: str, request: Request) -> Response:
        """Ask whether, and with what bytes, the event is to be sent again."""
        sight = _reader(gateway, request)
        letter = await visible_letter(sight, dead_id)
        sight.check_whole(Action.OPERATE, letter.topic, ())
        text, why = await _editable(sight, letter)
        return pages.question(
            request,
            "Send this event again?",
            action=url_for("dead-letter", letter.id, "redrive"),
            yes="Send it again",
            back=url_for("dead-letter", letter.id),
            section="dead-letters",
            facts=[
                ("Topic", letter.topic),
                ("Why it is here", view.advice_of(letter.reason).words),
                ("What to do", view.advice_of(letter.reason).next),
                ("Payload", f"{size(letter.body.size_bytes)}, {letter.body.content_type or 'no type'}"),
                ("What happens", "It becomes a new request that names the old one; the letter stays"),
            ],
            template="run_replay.html",
            text=text,
            why=why,
        )

    @routes.post(DEAD_LETTERS + "/{dead_id}/redrive")
    async def redrive(dead_id: str, request: Request) -> Response:
        """Send the event again, as it is or with other bytes; the new request's page follows. Sent twice it is one."""
        sight = _reader(gateway, request)
        letter = await visible_letter(sight, dead_id)
        sight.check_whole(Action.OPERATE, letter.topic, ())
        form = await read_form(request)
        once, data = form.once, edited_payload(form, gateway.settings.max_event_bytes)
        kind = letter.body.content_type if data is not None else None
        request_id = await redriven(sight, request, letter, data, kind, None if data is None else once)
        audit(request, request_id=request_id)
        return RedirectResponse(query(url_for("request", request_id), done="redriven"), 303)

    return routes


def _reader(gateway: Gateway, request: Request) -> Sight:
    sight = Sight(gateway, caller_of(request))
    sight.caller.check(Action.READ)
    return sight


def _line(sight: Sight, letter: DeadLetter) -> view.LetterLine:
    topic_page, may_redrive = _has_topic_page(sight, letter.topic), _may_redrive(sight, letter.topic)
    return view.line_of(letter, topic_page=topic_page, may_redrive=may_redrive)


def _has_topic_page(sight: Sight, topic: str) -> bool:
    return view.is_topic(topic) and not sight.gateway.client.names.is_reserved(topic)


def _may_redrive(sight: Sight, topic: str) -> bool:
    """Whether the caller may send an event of the topic again: it is not known what it will run."""
    called = sight.gateway.client.names.function_of_direct_topic(topic)
    return sight.may(Action.OPERATE, topic, called or ANY_FUNCTION)


async def _page(sight: Sight, wanted: view.LettersFilter, before: int | None) -> tuple[list[DeadLetter], str | None]:
    """The letters of a page, and the place of the next one where there may be more."""
    found, looked_to = await visible_letters(
        sight, PAGE_LETTERS + 1, before, wanted=wanted.fits, readings=FILTER_READINGS
    )
    more = len(found) > PAGE_LETTERS
    place = found[PAGE_LETTERS - 1][0] if more else looked_to
    return [letter for _, letter in found[:PAGE_LETTERS]], None if place is None else str(place)


async def _redrivable(sight: Sight, dead_id: str) -> DeadLetter | None:
    """The letter, when the caller may send it again."""
    try:
        letter = await visible_letter(sight, dead_id)
    except InvokerError:
        return None
    return letter if _may_redrive(sight, letter.topic) else None


async def _outcome(sight: Sight, request: Request, dead_id: str) -> view.RedriveOutcome:
    topic = None
    try:
        letter = await visible_letter(sight, dead_id)
        topic = letter.topic
        request_id = await redriven(sight, request, letter, None, None, None)
    except InvokerError as error:
        return view.RedriveOutcome(dead_id, topic, None, error.message)
    return view.RedriveOutcome(dead_id, topic, request_id, "published again")


async def _again(sight: Sight, letter: DeadLetter) -> RequestView | None:
    """The request that the letter became when it was sent again as it is; None while it was not."""
    try:
        return sight.part_of(await sight.gateway.requests(wire.digest_id("redrive", letter.id)))
    except InvokerError:
        return None


async def _veil(sight: Sight, letter: DeadLetter) -> Veil:
    """What of the event is kept from the caller."""
    return await sent_veil(sight, Sent.buried(letter))


async def _shown(gateway: Gateway, letter: DeadLetter, veil: Veil) -> PayloadView:
    body = letter.body
    try:
        data = await beginning(gateway, body)
    except ClaimCheckError:
        return gone(body.size_bytes, body.content_type)
    download = url_for("dead-letter", letter.id, "body")
    return await view_of(body, data, sha256_of(body), download=download, veil=veil)


async def _editable(sight: Sight, letter: DeadLetter) -> tuple[str | None, str]:
    """The payload as text to be edited, or None and why not."""
    if not sight.may(Action.PUBLISH, letter.topic):
        return None, NOT_YOURS_TO_EDIT
    if (await _veil(sight, letter)).hides:
        return None, "The payload may have fields that another function declares secret, so it is not shown here."
    return await editable_text(sight.gateway, letter.body)
