"""`invoker result`: what became of a request, a run, or the whole chain that began with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from invoker.cli.examples import examples
from invoker.cli.options import FunctionOption, IdArgument, WaitOption, plain_id
from invoker.cli.output import Form, FormOption, rendered_item
from invoker.cli.session import Session, detaching, run, session_of
from invoker.errors import WaitExpiredError

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.views import Chain

EXAMPLES = examples(
    "invoker result @latest",
    "invoker result @latest --wait 30",
    "invoker result @latest --function hello -o json",
    "invoker result @latest --chain --wait 1m",
)


def register(app: typer.Typer) -> None:
    app.command("result", epilog=EXAMPLES, short_help="Print what became of a request.")(result)


def result(
    context: typer.Context,
    identifier: IdArgument,
    wait: WaitOption = None,
    chain: Annotated[bool, typer.Option("--chain", help="The whole chain, as a tree.")] = False,
    function: FunctionOption = None,
    output: FormOption = Form.TABLE,
) -> None:
    """Print a request's output, and nothing else, on standard output; how its runs went on standard error.

    Ends with 3 when a run failed, 4 for an unknown or expired id, 5 while a run is unfinished.
    """
    session = session_of(context)
    given = plain_id(identifier)

    async def work() -> None:
        async with session.connected() as client:
            if chain:
                await _chain(session, client, given, wait, output)
                return
            await _one(session, client, given, wait, output, function)

    run(work())


async def _one(
    session: Session, client: Connected, given: str, wait: float | None, output: Form, function: str | None
) -> None:
    from invoker.cli.waiting import show_request, wait_for_request

    if wait is not None:
        await wait_for_request(session, client, given, wait, output, function)
    else:
        await show_request(session, client, await client.result(given), output, function)


async def _chain(session: Session, client: Connected, given: str, wait: float | None, output: Form) -> None:
    with detaching(session, f"invoker result {given} --chain --wait 60"):
        try:
            found = await client.chain(given, wait=wait or 0)
        except WaitExpiredError as error:
            if error.partial is None:
                raise
            found = error.partial
    _show_chain(session, found, output)
    if not found.settled:
        root = found.root.view.request_id
        after = f" after {wait:g} s" if wait else ""
        raise WaitExpiredError(
            f"the chain of {root} is not finished{after}", try_command=f"invoker result {root} --chain --wait 60"
        )
    from invoker.cli.waiting import failure_of

    failure = failure_of(list(found.runs))
    if failure is not None:
        raise failure


def _show_chain(session: Session, chain: Chain, output: Form) -> None:
    from invoker.cli.documents import chain_document, run_document

    if output.for_people:
        from invoker.cli import screen

        screen.show(session, screen.chain_tree(chain))
    elif output is Form.JSONL:
        session.data("".join(rendered_item(run_document(one), output, "run_id") for one in chain.runs))
    elif output is Form.NAME:
        session.data("".join(f"{one.run_id}\n" for one in chain.runs))
    else:
        session.data(rendered_item(chain_document(chain), output, "request_id"))
