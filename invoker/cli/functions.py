"""`invoker functions`: what the controllers have; a function's folder checked or begun without any server."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from invoker.cli.examples import examples
from invoker.cli.function_names import NameArgument, known_function
from invoker.cli.group import command_group
from invoker.cli.options import KubeconfigOption, KubeContextOption, NamespaceOption, cluster_settings, pairs
from invoker.cli.output import Form, FormOption, rendered_item, rendered_items
from invoker.cli.rendering import ManifestForm, rendered_function, settings_for, written
from invoker.cli.rendering import server_dry_run as ask_server
from invoker.cli.session import Session, run, session_of
from invoker.errors import CatalogError, InvokerError
from invoker.quantities import count

if TYPE_CHECKING:
    from invoker.connected import Connected
    from invoker.views import FunctionInfo

app = command_group("functions", "List, describe, check, begin, render, pause and reload functions.")


@app.command(
    "list",
    epilog=examples("invoker functions list", "invoker functions list -o json", "invoker functions list -o name"),
)
def list_functions(context: typer.Context, output: FormOption = Form.TABLE) -> None:
    """List the functions that the controllers have, broken ones with the reason."""
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            found = await client.functions()
        if not output.for_people:
            from invoker.cli.documents import plain

            session.data(rendered_items(map(plain, found.functions), output, "name"))
            return
        from invoker.cli import screen

        if found.functions:
            screen.show(session, screen.function_rows(found.functions))
        else:
            session.note("the catalog is empty; begin one with: invoker functions new hello")
        _tell_problems(session, found.functions)

    run(work())


async def _listed(client: Connected) -> Iterable[FunctionInfo]:
    try:
        return (await client.functions()).functions
    except InvokerError:
        return ()  # how many are broken is told all the same


def _tell_problems(session: Session, functions: Iterable[FunctionInfo]) -> None:
    for one in functions:
        if one.problem is not None:
            is_what = "runs its last good version" if one.status == "kept" else f"is {one.status}"
            session.note(f"{one.name} {is_what}: {one.problem.message}")


@app.command(
    "describe", epilog=examples("invoker functions describe hello", "invoker functions describe hello -o yaml")
)
def describe(context: typer.Context, name: NameArgument, output: FormOption = Form.TABLE) -> None:
    """Show one function: what it subscribes to, runs and allows."""
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            catalog = await client.functions()
        found = known_function(catalog, name)
        if not output.for_people:
            from invoker.cli.documents import plain

            session.data(rendered_item(plain(found), output, "name"))
            return
        from invoker.cli import screen

        screen.show(session, screen.function_screen(found))

    run(work())


@app.command(
    "check",
    epilog=examples("invoker functions check functions", "invoker functions check functions/hello/function.yaml"),
)
def check(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A catalog, a function's folder, or its file.")],
    output: FormOption = Form.TABLE,
) -> None:
    """Check function files without any server; every problem as file:line: field: what is wrong. Ends with 6 on one."""
    from invoker.cli.checking import check_path

    session = session_of(context)
    checked = check_path(path)
    if output.for_people:
        session.data("".join(f"{one.message}\n" for one in checked.problems))
        session.note(checked.summary)
    elif output is Form.JSON or output is Form.YAML:
        session.data(rendered_item(checked.document(), output, "path"))
    elif output is Form.JSONL:
        session.data(rendered_items(checked.document()["problems"], output, "file"))
    else:
        session.data("".join(f"{name}\n" for name in checked.functions))
    if checked.problems:
        raise typer.Exit(CatalogError.exit_code)


@app.command(
    "new",
    epilog=examples(
        "invoker functions new hello",
        "invoker functions new resize --catalog functions",
        "invoker functions new words --command",
    ),
)
def new(
    context: typer.Context,
    name: NameArgument,
    catalog: Annotated[Path, typer.Option(metavar="DIR", help="The catalog's folder.")] = Path("functions"),
    command: Annotated[
        bool, typer.Option("--command", help="A program of any kind: run.sh in the place of main.py.")
    ] = False,
    output: FormOption = Form.TABLE,
) -> None:
    """Begin a function that runs at once: function.yaml with every field explained, main.py, event.json."""
    from invoker.cli.scaffold import write_function

    session = session_of(context)
    folder = catalog / name
    written = [str(folder / file) for file in write_function(name, catalog, is_program=command)]
    if output.for_people or output is Form.NAME:
        session.data("".join(f"{file}\n" for file in written))
    else:
        session.data(rendered_item({"name": name, "files": written}, output, "name"))
    session.note(f"next:  invoker dev --catalog {catalog}")
    session.note(f"then:  invoker publish {name} @{folder / 'event.json'} --wait 30")


@app.command(
    "render",
    epilog=examples(
        "INVOKER_RUNTIME_IMAGES=python=invoker-python:1 invoker functions render hello",
        "INVOKER_RUNTIME_IMAGES=python=invoker-python:1 invoker functions render hello --namespace jobs -o json",
    ),
)
def render(
    context: typer.Context,
    name: NameArgument,
    catalog: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the functions; ./functions when left out.")
    ] = None,
    parameters: Annotated[
        list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="A parameter of the request; repeatable.")
    ] = None,
    namespace: NamespaceOption = None,
    kubeconfig: KubeconfigOption = None,
    kube_context: KubeContextOption = None,
    server_dry_run: Annotated[
        bool, typer.Option("--server-dry-run", help="Ask the API server what it would store, and print that.")
    ] = False,
    output: Annotated[
        ManifestForm, typer.Option("-o", "--output", metavar="FORM", help="yaml or json.")
    ] = ManifestForm.YAML,
) -> None:
    """Print the Job of a run, and the ConfigMap of its code, as a controller would create them. Touches no cluster.

    Ids, instants, address and token are examples; images and what is allowed come from INVOKER_… as for a controller.
    A refusal ends with 6. What is printed can be given to `kubectl create --dry-run=server -f -`.
    """
    session = session_of(context)
    settings = settings_for(catalog, cluster_settings(kubeconfig, kube_context, namespace))
    objects = rendered_function(name, settings, pairs(parameters, "--param"), settings.kube_namespace)
    if server_dry_run:
        objects = [ask_server(settings, objects[-1])]
    session.data(written(objects, output))


@app.command(
    "schema",
    epilog=examples(
        "invoker functions schema order --catalog shop", "invoker functions schema order --catalog shop -o json"
    ),
)
def schema(
    context: typer.Context,
    name: NameArgument,
    catalog: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder with the functions; ./functions when left out.")
    ] = None,
    output: Annotated[
        ManifestForm, typer.Option("-o", "--output", metavar="FORM", help="yaml or json.")
    ] = ManifestForm.YAML,
) -> None:
    """Print the JSON Schemas of a Python handler's input and output, taken from its types, as they stand in a spec.

    The typed parameter is the one the runtime validates: a pydantic model or a dataclass. With the schemas in its spec
    the function refuses what does not fit before it is started, whichever way it came. Imports the handler's module.
    """
    from invoker.cli.output import manifest_documents
    from invoker.cli.rendering import catalog_function
    from invoker.cli.schemas import handler_schemas

    session = session_of(context)
    parts = handler_schemas(catalog_function(name, settings_for(catalog, {}).catalog))
    if output is ManifestForm.JSON:
        import json

        session.data(json.dumps(parts, indent=2) + "\n")
    else:
        session.data(manifest_documents([parts]))
    session.note(f"these belong below spec: of {name}")


@app.command("pause", epilog=examples("invoker functions pause hello"))
def pause(context: typer.Context, name: NameArgument, output: FormOption = Form.TABLE) -> None:
    """Start no further runs of a function; its events queue."""
    _set_paused(context, name, output, paused=True)


@app.command("resume", epilog=examples("invoker functions resume hello"))
def resume(context: typer.Context, name: NameArgument, output: FormOption = Form.TABLE) -> None:
    """Let a paused function go on with what has queued."""
    _set_paused(context, name, output, paused=False)


def _set_paused(context: typer.Context, name: str, output: Form, *, paused: bool) -> None:
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            known_function(await client.functions(), name)
            await (client.pause(name) if paused else client.resume(name))
        document: dict[str, Any] = {"function": name, "paused": paused}
        if output.for_people:
            session.note(f"{name} is {'paused; its events queue' if paused else 'running again'}")
        else:
            session.data(rendered_item(document, output, "function"))

    run(work())


@app.command("reload", epilog=examples("invoker functions reload"))
def reload(context: typer.Context, output: FormOption = Form.TABLE) -> None:
    """Let the controllers read the catalog now, instead of within two seconds. Ends with 6 when a file is refused.

    As `functions check` does; what could be read is in use all the same, a refused function in its last good version.
    """
    session = session_of(context)

    async def work() -> None:
        async with session.connected() as client:
            found = await client.reload()
            listed = await _listed(client) if found.broken and output.for_people else ()
        if output.for_people:
            broken = f", {found.broken} broken" if found.broken else ""
            session.note(f"catalog {found.catalog}: {count(found.functions, 'function')}{broken}")
            _tell_problems(session, listed)
        else:
            from invoker.cli.documents import plain

            session.data(rendered_item(plain(found), output, "catalog"))
        if found.broken:
            raise typer.Exit(CatalogError.exit_code)

    run(work())
