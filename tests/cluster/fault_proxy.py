"""A proxy before an API server that does wrong what a test asks for, and passes on everything else as it comes.

    async with FaultProxy(cluster.kubeconfig, tmp_path) as proxy:
        rule = proxy.inject(Rule(CutAfterWrite(), verb="create", resource="jobs"))
        ...                                     # a client with proxy.kubeconfig
        await rule.hit()
        proxy.requests["create", "jobs"]        # how many were made

Who shows the token of the proxy's own kubeconfig speaks upstream as the given kubeconfig's user; any other token is
passed on as it is. Streams (watches, logs) pass as they come, upgrades (exec, port-forward) do not.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import ssl
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml
from aiohttp import web

from tests.cluster.certificates import Identity, make_certificates
from tests.cluster.faults import (
    GONE,
    Answer,
    CutAfterWrite,
    CutBeforeForward,
    CutStream,
    Fault,
    GoneInStream,
    Rule,
    SilentStream,
    Slow,
    classify,
    status_body,
)  # fmt: skip
from tests.ports import lasting_port

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}


class FaultProxy:
    """An async context manager; listens on `host`, a port that stays its own while nobody listens, with a certificate
    of its own authority.

    `kubeconfig` points at it, with a token file and a CA file in `folder` that change when the proxy's do. `requests`
    counts what came, by (verb, resource), refused requests too.
    """

    def __init__(self, upstream: Path, folder: Path, *, host: str = "127.0.0.1", namespace: str | None = None) -> None:
        self.kubeconfig = folder / "kubeconfig"
        self.token_file, self.ca_file = folder / "token", folder / "ca.crt"
        self.requests: Counter[tuple[str, str]] = Counter()
        self._folder, self._host, self._port = folder, host, lasting_port(host)
        self._upstream = _Upstream(upstream, folder)
        self._namespace = namespace or self._upstream.namespace
        self._rules: list[Rule] = []
        self._tokens: set[str] = set()
        self._streams: set[asyncio.Transport] = set()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self.renew_token()
        self._tls = self._new_tls(publish=True)
        await self._upstream.open()
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.down()
        await self._upstream.close()

    @property
    def server(self) -> str:
        return f"https://{self._host}:{self._port}"

    @property
    def streams(self) -> int:
        """How many watches and logs are under way."""
        return len(self._streams)

    # What a test does

    def inject(self, rule: Rule) -> Rule:
        """From now on; where several rules fit, the first one given counts."""
        self._rules.append(rule)
        return rule

    def clear(self, rule: Rule | None = None) -> None:
        """Takes back one rule, or all. What is silent stays silent: cut it."""
        self._rules = [one for one in self._rules if rule is not None and one is not rule]

    def cut_streams(self) -> int:
        """Ends the connections of all watches and logs now under way; says how many."""
        for transport in list(self._streams):
            transport.abort()
        return len(self._streams)

    async def down(self) -> None:
        """Nobody listens any more, all connections are closed."""
        if self._runner is not None:
            self.cut_streams()
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def up(self) -> None:
        """Listens (again), on the same port as before."""
        app = web.Application(client_max_size=2**30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host, self._port, ssl_context=self._tls).start()
        self._write_kubeconfig()

    async def change_certificate(self, *, publish: bool = True) -> None:
        """Starts again with a certificate of another authority, which stands in the CA file at once or, without
        `publish`, after `publish_ca`."""
        await self.down()
        self._tls = self._new_tls(publish)
        await self.up()

    def publish_ca(self) -> None:
        """The CA file now holds the present authority."""
        _replace(self.ca_file, self._ca)

    def expire_token(self) -> None:
        """Every token given out so far is answered with 401."""
        self._tokens.clear()

    def expire_older_tokens(self) -> None:
        """Only the token that is in the token file now stays good."""
        self._tokens = {self.token_file.read_text()}

    def renew_token(self) -> str:
        """A new token in the token file; older ones stay as they are."""
        token = f"proxy-{secrets.token_hex(16)}"
        self._tokens.add(token)
        _replace(self.token_file, token.encode())
        return token

    # What it does

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        verb, resource = classify(request.method, request.path, request.query)
        self.requests[verb, resource] += 1
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if token.startswith("proxy-") and token not in self._tokens:
            return web.Response(status=401, body=status_body(401, "Unauthorized"), content_type="application/json")
        fault = next((one.fault for one in self._rules if one.takes(verb, resource, request.path_qs)), None)
        match fault:
            case Answer(status, body, headers):
                content = status_body(status) if body is None else body
                return web.Response(status=status, body=content, headers=headers, content_type="application/json")
            case CutBeforeForward():
                return _cut(request)
            case Slow(seconds):
                await asyncio.sleep(seconds)
        return await self._forward(request, fault, own=token in self._tokens)

    async def _forward(self, request: web.Request, fault: Fault | None, own: bool) -> web.StreamResponse:
        try:
            answer = await self._upstream.send(request, own)
        except aiohttp.ClientError:
            return _cut(request)
        try:
            if isinstance(fault, CutAfterWrite):
                await answer.read()
                return _cut(request)
            return await self._pass_on(request, answer, fault)
        finally:
            if answer.connection is not None and answer.connection.transport is not None:
                answer.connection.transport.abort()  # it goes on, but nobody listens
            answer.close()

    async def _pass_on(
        self, request: web.Request, answer: aiohttp.ClientResponse, fault: Fault | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(status=answer.status, headers=_end_to_end(answer.headers))
        assert isinstance(request.transport, asyncio.Transport)
        transport = request.transport
        if "Content-Length" not in answer.headers:
            response.enable_chunked_encoding()
            self._streams.add(transport)
        try:
            await response.prepare(request)
            await self._copy(request, answer, response, fault)
        except (aiohttp.ClientError, ConnectionError):
            transport.abort()
        finally:
            self._streams.discard(transport)
        return response

    async def _copy(
        self, request: web.Request, answer: aiohttp.ClientResponse, response: web.StreamResponse, fault: Fault | None
    ) -> None:
        """The answer's body, up to where a fault of streams begins."""
        left = fault.after_events if isinstance(fault, (CutStream, SilentStream, GoneInStream)) else None
        if left is None:
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return
        rest = b""
        while left > 0 or (_cuts_within(fault) and not rest):
            if answer.content.at_eof():
                return  # it ended by itself before the fault's moment
            *lines, rest = (rest + await answer.content.readany()).split(b"\n", left)
            left -= len(lines)
            await response.write(b"".join(line + b"\n" for line in lines))
        await self._break(request, response, fault, rest)

    async def _break(
        self, request: web.Request, response: web.StreamResponse, fault: Fault | None, rest: bytes
    ) -> None:
        match fault:
            case CutStream(within_line=within_line, politely=politely):
                if within_line:
                    await response.write(rest.split(b"\n")[0][:20])
                if politely:
                    await response.write_eof()
                else:
                    _cut(request)
            case SilentStream():
                await asyncio.Event().wait()  # ends with the client's connection, or the proxy
            case GoneInStream():
                await response.write(GONE)
                await response.write_eof()

    def _new_tls(self, publish: bool) -> ssl.SSLContext:
        folder = self._folder / f"authority-{len(list(self._folder.glob('authority-*')))}"
        names = ("DNS:localhost", f"IP:{self._host}")
        make_certificates(folder, (Identity("proxy", "fault-proxy", addresses=names),))
        self._ca = (folder / "ca.crt").read_bytes()
        if publish:
            self.publish_ca()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(folder / "proxy.crt", folder / "proxy.key")
        return context

    def _write_kubeconfig(self) -> None:
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {
                "server": self.server, "certificate-authority": str(self.ca_file)}}],
            "users": [{"name": "proxy", "user": {"tokenFile": str(self.token_file)}}],
            "contexts": [{"name": "proxy", "context": {
                "cluster": "proxy", "user": "proxy", "namespace": self._namespace}}],
        }  # fmt: skip
        _replace(self.kubeconfig, json.dumps(content, indent=1).encode())


class _Upstream:
    """The API server, as the user of a kubeconfig's current context, or with the token of whoever asks."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        self._folder = folder
        config = yaml.safe_load(kubeconfig.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        self._base = kubeconfig.absolute().parent
        self._cluster = _named(config["clusters"], context["cluster"])["cluster"]
        self._user = _named(config["users"], context["user"])["user"]
        self.namespace = context.get("namespace", "default")

    async def open(self) -> None:
        self._as_user = self._session(self._user)
        self._as_asker = self._session({})

    async def close(self) -> None:
        await self._as_user.close()
        await self._as_asker.close()

    async def send(self, request: web.Request, own: bool) -> aiohttp.ClientResponse:
        headers = _end_to_end(request.headers)
        if own:
            headers.pop("Authorization", None)
            headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
        session = self._as_user if own else self._as_asker
        return await session.request(
            request.method, self._cluster["server"].rstrip("/") + request.path_qs, headers=headers,
            data=request.content if request.can_read_body else None, allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None),
        )  # fmt: skip

    @property
    def _token(self) -> str | None:
        file = self._user.get("tokenFile")
        return (self._base / file).read_text().strip() if file else self._user.get("token")

    def _session(self, user: dict[str, Any]) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=self._file(self._cluster, "certificate-authority"))
        certificate = self._file(user, "client-certificate")
        if certificate:
            context.load_cert_chain(certificate, self._file(user, "client-key"))
        connector = aiohttp.TCPConnector(ssl=context, limit=0)
        return aiohttp.ClientSession(connector=connector, auto_decompress=False)

    def _file(self, section: dict[str, Any], key: str) -> str | None:
        if f"{key}-data" in section:
            file = self._folder / f"upstream-{key}"
            file.touch(mode=0o600)
            file.write_bytes(base64.b64decode(section[f"{key}-data"]))
            return str(file)
        return str(self._base / section[key]) if key in section else None


def _cuts_within(fault: Fault | None) -> bool:
    return isinstance(fault, CutStream) and fault.within_line


def _named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(one for one in items if one["name"] == name)


def _end_to_end(headers: Any) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP_BY_HOP}


def _cut(request: web.Request) -> web.Response:
    """Ends the connection without a goodbye; what is returned is never seen."""
    assert isinstance(request.transport, asyncio.Transport)
    request.transport.abort()
    return web.Response(status=500)


def _replace(file: Path, content: bytes) -> None:
    """At once: a reader sees the old or the new content."""
    beside = file.with_name(f".{file.name}.new")
    beside.write_bytes(content)
    beside.replace(file)
