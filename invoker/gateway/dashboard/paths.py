"""The addresses of the dashboard's pages: one place that makes them, so that every name is quoted. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, urlencode

HOME = "/ui"
LOGIN = f"{HOME}/login"
ASSETS = f"{HOME}/assets"
RUNS = f"{HOME}/runs"
SELECTION = f"{HOME}/selection"
OPEN = f"{HOME}/open"
FUNCTIONS = f"{HOME}/functions"
RELOAD = f"{HOME}/reload"
PUBLISH = f"{HOME}/publish"
DEAD_LETTERS = f"{HOME}/dead-letters"
TOPICS = f"{HOME}/topics"
UNMATCHED = f"{HOME}/unmatched"
EXPLAIN = f"{HOME}/explain"

_PATHS = {
    "run": f"{HOME}/runs/{{}}",
    "request": f"{HOME}/requests/{{}}",
    "function": f"{HOME}/functions/{{}}",
    "topic": f"{HOME}/topics/{{}}",
    "dead-letter": f"{HOME}/dead-letters/{{}}",
}


def url_for(what: str, name: str, *more: str) -> str:
    """The page of a run, request, function, topic or dead letter, or with `more` one below it."""
    return "/".join([_PATHS[what].format(quote(name, safe="")), *(quote(one, safe="") for one in more)])


def query_of(path: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The path with these fields as its query; a name may come several times."""
    given = list(pairs)
    return f"{path}?{urlencode(given)}" if given else path


def live_url(**wanted: str | None) -> str:
    """The stream of changes: of everything, or of one request, function or topic."""
    given = {name: value for name, value in wanted.items() if value is not None}
    return f"{HOME}/live?{urlencode(given)}" if given else f"{HOME}/live"


def is_ours(path: str) -> bool:
    """Whether an address is one of the dashboard's."""
    return path == HOME or path.startswith(f"{HOME}/")


def is_open(path: str) -> bool:
    """Whether it is for everybody: what one sees before one is known. The gateway's bare address only leads here."""
    return path in ("/", LOGIN) or path.startswith(f"{ASSETS}/")


def safe_return(address: str | None) -> str:
    """Where to go after signing in: one of our own pages, whatever was asked for."""
    if not address or len(address) > 2_000 or not is_ours(address.partition("?")[0]):
        return HOME
    if any(ord(one) < 33 or one == "\\" for one in address) or is_open(address.partition("?")[0]):
        return HOME
    return address
