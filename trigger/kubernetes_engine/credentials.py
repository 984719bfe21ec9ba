"""Who we are for which API server: a kubeconfig's context or a pod's service account, read by the library's loaders.

With `access.py` the only place that imports the package `kubernetes`, and only when called: the import costs about
21 MB and 0.2 s more than aiohttp alone (it loads its synchronous half as well).
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from invoker.errors import EngineUnavailableError, SettingsError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token, the cluster's CA and its namespace."""

USUAL = "~/.kube/config"
KUBECONFIG = "INVOKER_KUBECONFIG"
CONTEXT = "INVOKER_KUBE_CONTEXT"
IN_CLUSTER = "INVOKER_IN_CLUSTER"


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """Which API server, and as whom. Nothing set: the service account where there is one, else the usual kubeconfig."""

    kubeconfig: Path | None = None
    """The file, or several joined by `:` as in KUBECONFIG; wins over a service account."""
    context: str | None = None
    """A context of the kubeconfig; by default its current one."""
    in_cluster: bool | None = None
    """True: the pod's service account; False: never that; None: when there is one and no kubeconfig is named."""
    namespace: str | None = None
    """By default that of the context or of the service account, else `default`."""
    connections: int = 64
    """Calls under way at once; further ones wait. Watches and logs are not counted."""
    look_again_seconds: float = 10.0
    """How often the files of certificates and tokens are looked at for a change."""
    service_account: Path = SERVICE_ACCOUNT


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a connection is made of, as it was read. `identity` differs when a new connection is needed; a changed
    `authorization` alone needs none."""

    server: str
    namespace: str
    authorization: str | None
    tls: ssl.SSLContext = field(compare=False)
    identity: str
    server_hostname: str | None = None
    proxy: str | None = None
    proxy_headers: Mapping[str, str] | None = field(default=None, compare=False)
    files: tuple[Path, ...] = ()
    """What it was read from: looked at for changes."""
    expires_at: datetime | None = None
    """When an exec plugin's credentials end."""


async def read_credentials(access: ClusterAccess) -> Credentials:
    """The credentials as they are now; may be called again at any time, and then reads everything anew.

    Raises `SettingsError` for a file, context or program that cannot be used, `EngineUnavailableError` when an exec
    plugin failed.
    """
    if uses_service_account(access):
        return _service_account(access)
    return await _kubeconfig(access)


def uses_service_account(access: ClusterAccess) -> bool:
    """Whether the pod's service account is used, and not a kubeconfig."""
    if access.in_cluster is not None:
        return access.in_cluster
    named = access.kubeconfig is not None or access.context is not None
    return not named and (access.service_account / "token").is_file()


def _service_account(access: ClusterAccess) -> Credentials:
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.incluster_config import InClusterConfigLoader

    token, ca = access.service_account / "token", access.service_account / "ca.crt"
    configuration = _empty_configuration()
    try:
        InClusterConfigLoader(str(token), str(ca), try_refresh_token=False).load_and_set(configuration)
    except (ConfigException, OSError, UnicodeError) as error:
        raise SettingsError(
            f"{IN_CLUSTER}: the service account in {access.service_account} cannot be used: {_words(error)}",
            hint=f"outside of a pod set {KUBECONFIG}; in a pod set automountServiceAccountToken: true",
        ) from error
    namespace = access.namespace or _namespace_file(access.service_account) or "default"
    return _credentials(configuration, namespace, (token, ca), f"{IN_CLUSTER}: {access.service_account}")


def _namespace_file(folder: Path) -> str:
    try:
        return (folder / "namespace").read_text().strip()
    except OSError:
        return ""


async def _kubeconfig(access: ClusterAccess) -> Credentials:
    from kubernetes.aio.config import KUBE_CONFIG_DEFAULT_LOCATION, kube_config

    paths = str(access.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION or USUAL)  # an empty KUBECONFIG is none
    files = tuple(Path(one).expanduser() for one in paths.split(":") if one)
    if not any(one.is_file() for one in files):
        raise SettingsError(
            f"{KUBECONFIG}: there is no file {paths}",
            hint=f"name a kubeconfig in {KUBECONFIG} or KUBECONFIG, or run in a pod that has a service account",
        )
    label = f"{KUBECONFIG}: {paths}"
    configuration = _empty_configuration()
    try:
        merged = kube_config.KubeConfigMerger(paths).config
        _check_context(merged, access.context, label)
        loader = kube_config.KubeConfigLoader(merged, active_context=access.context, config_base_path=None)
        user = _part(merged, "users", loader.current_context["context"].get("user"), "user")
        await loader.load_and_set(configuration)
    except SettingsError:
        raise
    except Exception as error:  # the loader lets YAML's, base64's and its own errors through: all are about the file
        is_shape = isinstance(error, (TypeError, AttributeError, KeyError, IndexError))
        words = "it is no kubeconfig, or a part is missing in it" if is_shape else _words(error)
        raise SettingsError(
            f"{label}: cannot be used: {words}", hint=f"try it with: kubectl config view{_of(access)}"
        ) from error
    if user is not None and user.safe_get("exec") and not (configuration.api_key or configuration.cert_file):
        await _tell_exec_trouble(user["exec"], label)
    context = loader.current_context["context"]
    cluster = _part(merged, "clusters", context["cluster"], "cluster")
    return _credentials(
        configuration,
        access.namespace or context.get("namespace") or "default",
        (*files, *_referred(cluster, "certificate-authority"), *_referred(user, *_USER_FILES)),
        label,
        expires_at=getattr(loader, "exec_plugin_expiry", None),
    )


def _of(access: ClusterAccess) -> str:
    return f" --kubeconfig {access.kubeconfig}" if access.kubeconfig else ""


_USER_FILES = ("tokenFile", "client-certificate", "client-key")


def _check_context(merged: Any, context: str | None, label: str) -> None:
    """Refuses a context that is not there before the loader does, whose words name its own parts only."""
    names = [one["name"] for one in merged.safe_get("contexts") or ()]
    wanted = context or merged.safe_get("current-context")
    known = f"it has: {', '.join(names)}" if names else "it has none"
    if not wanted:
        raise SettingsError(f"{label}: has no current context", hint=f"set {CONTEXT}; {known}")
    if wanted not in names:
        raise SettingsError(f"{label}: has no context {wanted!r}", hint=f"set {CONTEXT}; {known}")


async def _tell_exec_trouble(plugin: Any, label: str) -> None:
    """Raises what went wrong with an exec plugin: the loader only logs it, and goes on as nobody."""
    from kubernetes.aio.config import ConfigException
    from kubernetes.aio.config.exec_provider import ExecProvider

    command = plugin.safe_get("command")
    try:
        await ExecProvider(plugin).run()
    except OSError as error:
        raise SettingsError(
            f"{label}: its credentials come from the program {command!r}, which cannot be started: {error.strerror}",
            hint="install it, or use a context with other credentials",
        ) from error
    except ConfigException as error:
        raise EngineUnavailableError(
            f"{label}: the program {command!r} gave no credentials: {_words(error)}"
        ) from error
    raise EngineUnavailableError(
        f"{label}: the program {command!r} gave neither a token nor a certificate with its key"
    )


def _part(merged: Any, kind: str, name: str | None, inner: str) -> Any:
    """A user or cluster by its name, with the path of the file it stands in; None when it is not there."""
    found = merged[kind].get_with_name(name, safe=True) if name and merged.safe_get(kind) else None
    return found[inner] if found is not None and found.safe_get(inner) else None


def _referred(node: Any, *keys: str) -> Iterator[Path]:
    """The files that a user or a cluster names, relative ones seen from their kubeconfig."""
    for key in keys:
        if node is not None and node.safe_get(key):
            yield Path(node.path).absolute().parent / node[key]


def _empty_configuration() -> Any:
    from kubernetes.aio.client.configuration import Configuration

    return Configuration()


def _credentials(
    configuration: Any, namespace: str, files: tuple[Path, ...], label: str, expires_at: datetime | None = None
) -> Credentials:
    from kubernetes.aio.client.rest import RESTClientObject

    try:
        tls = RESTClientObject(configuration).ssl_context
        identity = _identity(configuration)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise SettingsError(f"{label}: its certificates cannot be used: {_words(error)}") from error
    token = configuration.api_key.get("BearerToken")
    return Credentials(
        server=configuration.host.rstrip("/"),
        namespace=namespace,
        authorization=token.strip() if token else None,
        tls=tls,
        identity=identity,
        server_hostname=configuration.tls_server_name,
        proxy=configuration.proxy,
        proxy_headers=configuration.proxy_headers,
        files=files,
        expires_at=expires_at.astimezone(UTC) if expires_at else None,
    )


def _identity(configuration: Any) -> str:
    """A digest of everything that a connection is bound to: server, CA, our certificate, how it is checked."""
    digest = hashlib.sha256()
    for value in (configuration.host, configuration.verify_ssl, configuration.tls_server_name, configuration.proxy):
        digest.update(repr(value).encode() + b"\0")
    for path in (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file):
        digest.update(hashlib.sha256(Path(path).read_bytes() if path else b"").digest())
    return digest.hexdigest()


def _words(error: BaseException) -> str:
    """An error of the library or the system on one line, of bounded length."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((text or type(error).__name__).split())[:300]
