"""Arguments and options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from invoker.cli import arguments

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of a request or a run, shortened, or @latest.")]
DataArgument = Annotated[
    str | None, typer.Argument(metavar="DATA|@FILE|-", help="Text, a file, or - for standard input.")
]
FunctionOption = Annotated[
    str | None, typer.Option("--function", metavar="NAME", help="Of a request with several runs, only this function's.")
]
WaitOption = Annotated[
    float | None,
    typer.Option("--wait", metavar="SECONDS", parser=arguments.seconds, help="Wait for the outcome, at most so long."),
]
HeaderOption = Annotated[list[str] | None, typer.Option("--header", metavar="K=V", help="A header; repeatable.")]
ParamOption = Annotated[
    list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter that the function declares; repeatable.")
]
RequestIdOption = Annotated[
    str | None,
    typer.Option("--request-id", metavar="ID", help="Your id for this event; publishing it again makes no second one."),
]
TypeOption = Annotated[
    str | None, typer.Option("--content-type", metavar="TYPE", help="Guessed from the data when left out.")
]
AsIsOption = Annotated[bool, typer.Option("--as-is", help="Take a topic that looks like a whole subject as it stands.")]

KubeconfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Kubeconfig of the cluster; INVOKER_KUBECONFIG, or kubectl's own.")
]
KubeContextOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="A context of the kubeconfig; INVOKER_KUBE_CONTEXT, or its current.")
]
NamespaceOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Namespace of the Jobs; INVOKER_KUBE_NAMESPACE, or the context's.")
]


def cluster_settings(kubeconfig: Path | None, context: str | None, namespace: str | None) -> dict[str, Any]:
    """The options about the cluster that were given, under the names of the settings that they win over."""
    given = {"kubeconfig": kubeconfig, "kube_context": context, "kube_namespace": namespace}
    return {name: value for name, value in given.items() if value is not None}


def plain_id(given: str) -> str:
    """The id as it was typed or copied: the dots in front of a shortened one are ours."""
    return given.removeprefix("…").removeprefix("...")


def pairs(given: list[str] | None, option: str) -> dict[str, str]:
    """`K=V` texts as a mapping; a usage error for one that is none."""
    try:
        return arguments.pairs(given or (), option)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
