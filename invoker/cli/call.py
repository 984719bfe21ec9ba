"""`invoker call`: one function, named, whatever it subscribes to; its output comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli import arguments
from invoker.cli.examples import examples
from invoker.cli.function_names import NameArgument, refuse_unusable, tell_if_kept
from invoker.cli.options import DataArgument, HeaderOption, ParamOption, RequestIdOption, TypeOption, pairs
from invoker.cli.output import Form, FormOption
from invoker.cli.publish import check_size
from invoker.cli.session import Session, run, session_of
from invoker.errors import NoSubscriptionError

if TYPE_CHECKING:
    from invoker.connected import Connected

EXAMPLES = examples(
    """invoker call hello '{"name": "Ada"}'""",
    """invoker call hello @functions/hello/event.json --wait 5m -o json""",
)


def register(app: typer.Typer) -> None:
    app.command("call", epilog=EXAMPLES, short_help="Run one function by its name and get its output.")(call)


def call(
    context: typer.Context,
    name: NameArgument,
    data: DataArgument = None,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", parser=arguments.seconds, help="Wait for the outcome, at most so long.")
    ] = 60.0,
    request_id: RequestIdOption = None,
    header: HeaderOption = None,
    param: ParamOption = None,
    content_type: TypeOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Run one function by its name, whatever it subscribes to, and print its output.

    Ends with 3 when the run failed, 4 when there is no such function, 5 when the wait was in vain, 6 when the input was
    refused.
    """
    from invoker import wire
    from invoker.settings import instance_names

    session = session_of(context)
    headers, params = pairs(header, "--header"), pairs(param, "--param")
    topic = instance_names().direct_topic(wire.check_function_name(name))
    payload = arguments.read_data(data)
    check_size(payload)

    async def work() -> None:
        async with session.connected() as client:
            # Before it is stored: beside a broken file it might be that one's, and would wait as a dead letter.
            tell_if_kept(session, await refuse_unusable(client, name))
            receipt = await client.publish(
                topic, payload.data, content_type=arguments.type_of(payload, content_type, headers),
                request_id=request_id, headers=headers, params=params,
            )  # fmt: skip
            session.detail(f"request {receipt.request_id}")
            await _answered(session, client, name, receipt.request_id, wait, output)

    run(work())


async def _answered(session: Session, client: Connected, name: str, request_id: str, wait: float, output: Form) -> None:
    from invoker.cli.waiting import wait_for_published

    try:
        await wait_for_published(session, client, request_id, wait, output)
    except NoSubscriptionError:
        await refuse_unusable(client, name)
        raise
