"""`python3 -m invoker.ready URL`: asks a controller or a gateway whether it is ready, for health checks in containers.

Standard library only: it is started every few seconds, in images that have no curl.
"""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 4.0
NOT_READY, USAGE = 1, 2


def main(arguments: Sequence[str]) -> int:
    """0 when it is ready; 1 when it is not, with what is missing, or when nobody answers; 2 when `URL` is none."""
    url = urlsplit(arguments[0] if len(arguments) == 1 else "")
    if url.scheme != "http" or not url.hostname:
        print("usage: python3 -m invoker.ready http://HOST:PORT", file=sys.stderr)
        return USAGE
    try:
        status, body = _asked(url.hostname, url.port or 80)
    except (OSError, http.client.HTTPException) as error:
        print(f"no answer at {url.netloc}: {error or type(error).__name__}")
        return NOT_READY
    print(_words(status, body))
    return 0 if status == 200 else NOT_READY


def _asked(host: str, port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, answer.read(65_536)
    finally:
        connection.close()


def _words(status: int, body: bytes) -> str:
    """What the answer says, for people. Pure."""
    try:
        answer = json.loads(body)
        missing, degraded = answer["missing"], answer.get("degraded", [])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"the answer was {status}"
    if missing:
        return "not ready: " + "; ".join(map(str, missing))
    return "; ".join(["ready", *map(str, degraded)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
