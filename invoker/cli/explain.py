"""`invoker explain`: which functions an event would run, and the clause that decided for each subscription."""

from __future__ import annotations

from typing import Annotated

import typer

from invoker.cli import arguments
from invoker.cli.examples import examples
from invoker.cli.options import AsIsOption, DataArgument, HeaderOption, TypeOption, pairs
from invoker.cli.output import Form, FormOption, rendered_item, rendered_items
from invoker.cli.publish import meant_topic
from invoker.cli.session import run, session_of

EXAMPLES = examples(
    "invoker explain hello",
    "invoker explain helo",
    """invoker explain orders.created '{"total": 12}' --header ce-type=order -o json""",
)


def register(app: typer.Typer) -> None:
    app.command("explain", epilog=EXAMPLES, short_help="Say what an event would run, and why.")(explain)


def explain(
    context: typer.Context,
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="The topic of a made-up event; nothing is published.")],
    data: DataArgument = None,
    header: HeaderOption = None,
    content_type: TypeOption = None,
    as_is: AsIsOption = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Show for every subscription whether the event matches it, and why or why not. Nothing is published."""
    session = session_of(context)
    headers = pairs(header, "--header")
    topic = topic if as_is else meant_topic(topic, "explain")
    payload = arguments.read_data(data)

    async def work() -> None:
        async with session.connected() as client:
            found = await client.explain(
                topic, payload.data, content_type=content_type or payload.content_type, headers=headers
            )
        if not output.for_people:
            from invoker.cli.documents import plain

            document = plain(found)
            if output in (Form.NAME, Form.JSONL):
                chosen = [one for one in document["subscriptions"] if one["matched"] or output is Form.JSONL]
                session.data(rendered_items(chosen, output, "function"))
            else:
                session.data(rendered_item(document, output, "topic"))
            return
        from invoker.cli import screen

        screen.show(session, screen.explanation(found))
        if not found.matched:
            near = ", ".join(f"{one.pattern} ({one.function})" for one in found.nearest)
            session.note(f"nothing matches {topic!r}" + (f"; closest: {near}" if near else ""))

    run(work())
