"""`invoker publish`: an event goes out; with `--wait` its outputs come back."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli import arguments
from invoker.cli.examples import examples
from invoker.cli.function_names import note_if_kept
from invoker.cli.options import (
    AsIsOption,
    DataArgument,
    HeaderOption,
    ParamOption,
    RequestIdOption,
    TypeOption,
    WaitOption,
    pairs,
)
from invoker.cli.output import Form, FormOption, rendered_item
from invoker.cli.session import Session, run, session_of
from invoker.errors import (
    InputRefusedError,
    InvokerError,
    NoSubscriptionError,
    PayloadTooLargeError,
    ServerUnreachableError,
)

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.views import Explanation, Receipt

EXAMPLES = examples(
    """invoker publish hello '{"name": "Ada"}'""",
    """invoker publish hello @functions/hello/event.json --wait 30""",
    """echo '{"name": "Ada"}' | invoker publish hello - --wait 30 -o json""",
    """invoker publish hello '{}' --request-id order-17 --header ce-type=greeting""",
)


def register(app: typer.Typer) -> None:
    app.command("publish", epilog=EXAMPLES, short_help="Publish an event; with --wait get the output.")(publish)


def publish(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The event's topic, such as orders.created.")],
    data: DataArgument = None,
    wait: WaitOption = None,
    request_id: RequestIdOption = None,
    header: HeaderOption = None,
    param: ParamOption = None,
    content_type: TypeOption = None,
    reply_to: Annotated[str | None, typer.Option(metavar="SUBJECT", help="Where replies go.")] = None,
    as_is: AsIsOption = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Publish an event; print its request id, or with --wait the functions' output.

    Ends with 3 when a run failed, 5 when the wait was in vain, 6 when the input was refused or nothing matched.
    """
    session = session_of(context)
    headers = pairs(header, "--header")
    params = pairs(param, "--param")
    topic = topic if as_is else meant_topic(topic)
    payload = arguments.read_data(data)
    check_size(payload)
    kind = arguments.type_of(payload, content_type, headers)

    async def work() -> None:
        async with session.connected() as client:
            receipt = await client.publish(
                topic, payload.data, content_type=kind, request_id=request_id, reply_to=reply_to,
                headers=headers, params=params,
            )  # fmt: skip
            if wait is None:
                await _acknowledged(session, client, receipt, kind, headers, output)
            else:
                session.detail(f"request {receipt.request_id}")
                await note_if_kept(session, client, receipt.topic, kind, headers)
                await _answered(session, client, receipt, wait, kind, headers, output)

    run(work())


def check_size(payload: arguments.Payload) -> None:
    """Refuse what is too large before a gigabyte of it has been sent."""
    from invoker.publish import DEFAULT_MAX_EVENT_BYTES

    if payload.size_bytes > DEFAULT_MAX_EVENT_BYTES:
        raise PayloadTooLargeError(
            f"the event has {payload.size_bytes} bytes, at most {DEFAULT_MAX_EVENT_BYTES} are allowed",
            limit_bytes=DEFAULT_MAX_EVENT_BYTES,
        )


def meant_topic(topic: str, command: str = "publish") -> str:
    """The topic; for a whole subject such as `events.orders`, what it probably means, after asking on a terminal.

    Raises `InputRefusedError` where nobody can be asked.
    """
    from invoker.settings import instance_names

    prefix = f"{instance_names().topic_prefix}."
    if not topic.startswith(prefix):
        return topic
    meant = topic.removeprefix(prefix)
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise InputRefusedError(
            f"topics are written without {prefix!r}: {topic!r} would be the subject {prefix}{topic}",
            hint=f"did you mean {meant!r}? --as-is takes it as it stands",
            try_command=f"invoker {command} {meant}",
        )
    return meant if typer.confirm(f"Did you mean the topic {meant!r}?", default=True, err=True) else topic


async def _acknowledged(
    session: Session, client: Connected, receipt: Receipt, kind: str | None, headers: dict[str, str], output: Form
) -> None:
    """The id as data at once, then for people what it will run."""
    if output.for_people or output is Form.NAME:
        session.data(f"{receipt.request_id}\n")
    else:
        from invoker.cli.documents import receipt_document

        session.data(rendered_item(receipt_document(receipt), output, "request_id"))
    if session.quiet:
        return
    if receipt.duplicate:
        session.note("the request was there already; nothing new was started")
    try:
        session.note(_destination(await client.explain(receipt.topic, content_type=kind, headers=headers), receipt))
    except ServerUnreachableError:
        session.note("stored; no controller answers, so it waits until one runs (invoker dev)")
    except InvokerError as error:
        session.detail(f"explain: {error.message}")
    else:
        await note_if_kept(session, client, receipt.topic, kind, headers)


async def _answered(
    session: Session,
    client: Connected,
    receipt: Receipt,
    wait: float,
    kind: str | None,
    headers: dict[str, str],
    output: Form,
) -> None:
    """What the event led to. For an event that led to nothing, the nearest topics beside the refusal."""
    from invoker.cli.waiting import wait_for_published

    try:
        await wait_for_published(session, client, receipt.request_id, wait, output)
    except NoSubscriptionError as error:
        explanation = await client.explain(receipt.topic, content_type=kind, headers=headers)
        near = " or ".join(f"{one.pattern} ({one.function})" for one in explanation.nearest)
        hint = f"did you mean {near}?" if near else None
        raise NoSubscriptionError(error.message, hint=hint, topic=receipt.topic) from error


def _destination(explanation: Explanation, receipt: Receipt) -> str:
    if explanation.matched:
        names = ", ".join(explanation.matched)
        return f"→ {names}    invoker result {receipt.request_id} --wait 60"
    return f"→ nothing matches {receipt.topic!r}{_closest(explanation)}    why: invoker explain {receipt.topic}"


def _closest(explanation: Explanation) -> str:
    near = ", ".join(f"{one.pattern} ({one.function})" for one in explanation.nearest)
    return f"; closest: {near}" if near else ""
