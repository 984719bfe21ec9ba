"""The controller's settings: read once from file and environment, checked across fields, then handed out in parts.

Order: environment (`INVOKER_…`, or `INVOKER_…_FILE` naming a file that holds the value) over the file named by
`INVOKER_CONFIG` (TOML, keys without the prefix) over the defaults here. A value that cannot be used ends the start
with the setting's name.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from invoker import wire
from invoker.connection import ConnectionOptions
from invoker.errors import InvokerError, SettingsError
from invoker.setting_values import explained, setting_values
from invoker.settings import connection_options
from invoker.streams import StreamLimits
from trigger.kubernetes_settings import KubernetesSettings, split
from trigger.moments import Moments

ENVIRON = os.environ  # noqa: TID251 - this is the settings module of the controller
LOOPBACK = ("localhost", "localhost.localdomain", "ip6-localhost")
ANY_ADDRESS = ("",)


class ControllerSettings(KubernetesSettings):
    """Everything an operator may choose. Units are in the names: seconds, bytes."""

    instance: str = "invoker"
    """Name of this installation: prefix of its streams and subjects. Two may share a NATS account."""
    topic_prefix: str = "events"
    """Subject prefix of events."""
    catalog: Path = Path("functions")
    """Folder with the functions."""
    catalog_interval_seconds: Annotated[float, Field(gt=0)] = 0.5
    """How often the folder is looked at. Longer saves little, shorter is felt when editing."""
    engine: Literal["local", "kubernetes"] = "local"
    """What executes runs: child processes of the controller, or Jobs."""
    state_dir: Path = Path("/var/lib/invoker")
    """Work folders, code snapshots and cached environments of the local engine."""
    secrets_dir: Path | None = None
    """Secrets and ConfigMaps for the local engine: what `valueFrom` of a variable refers to as NAME and KEY is the file
    NAME/KEY in here, without its last line break."""
    http_host: str = "127.0.0.1"
    """Address that the run API, the probes and the metrics listen on."""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 7222
    """Run API, and probes and metrics as well unless they have a port of their own; 0 takes a free port."""
    probe_port: Annotated[int, Field(ge=0, le=65535)] | None = None
    """Probes and metrics on a port of their own, which functions need not reach; 0 takes a free port."""
    run_api_url: str | None = None
    """The run API's address as functions see it; by default the one it listens on."""
    run_token_key: str | None = Field(default=None, repr=False)
    """Key of the runs' tokens, shared by all controllers, and needed for Jobs, which outlive a controller; without one
    a random key, good for this process only."""
    retention_seconds: Annotated[float, Field(ge=1)] = 172_800.0
    """How long records, results and payloads stay readable (R). A run unfinished at 0.9 R is given up."""
    max_running: Annotated[int, Field(ge=1, default_factory=lambda given: _most_running(given.get("engine")))]
    """Runs this controller has active at once, over all functions; by default four for every processor, or 10,000
    Jobs."""
    ack_wait_seconds: Annotated[float, Field(ge=1)] = 10.0
    """A dead controller's runs come back after this. Shorter means more heartbeats, and stalls count as deaths."""
    heartbeat_seconds: Annotated[float, Field(gt=0)] = 3.0
    """How often a held run says that it is held; at most half of the ack wait."""
    audit_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How often what is stored is compared with what is looked after: missing consumers, expired and orphaned runs."""
    reply_subjects: tuple[str, ...] = wire.DEFAULT_REPLY_SUBJECTS
    """Topic patterns of the reply subjects Invoker may publish to, comma-separated."""
    events_bytes: int = -1
    """Size at which EVENTS refuses publishers; -1 is unbounded."""
    results_bytes: int = -1
    """Size at which RESULTS takes no more requests; -1 is unbounded. Plan about 0.75 KB a run besides its output."""
    replicas: Literal[1, 3, 5] = 1
    """Copies of every stream in a NATS cluster. A single server that is killed may lose its last acks."""
    max_event_bytes: Annotated[int, Field(ge=1)] = 1024**3
    """Largest event that functions, replays and calls may publish, in bytes."""
    max_output_bytes: Annotated[int, Field(ge=1)] = 1024**3
    """Largest output of a run, in bytes; a larger one ends it as output-too-large."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object a line, or lines for people."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""
    sole_controller: bool = False
    """This controller is known to be the only one: unfinished work is handed out again at its start, at once."""
    test_crash_at: str | None = None
    """For tests of custody: the moment (`name` or `name:nth`) at which the process kills itself."""
    test_crash_proof: Path | None = None

    @field_validator("test_crash_at")
    @classmethod
    def _moment(cls, value: str | None) -> str | None:
        Moments.parse(value, None)
        return value

    @field_validator("replicas", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """A choice among numbers is no number to pydantic, so the environment's text is not taken for one."""
        return int(value) if value in ("1", "3", "5") else value

    @field_validator("reply_subjects", mode="before")
    @classmethod
    def _split_subjects(cls, value: Any) -> Any:
        return split(value)

    @field_validator("reply_subjects")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            _as_value_error(lambda pattern=pattern: wire.check_pattern(pattern))
            if pattern.startswith(("$", ">", "*")):
                raise ValueError(f"{pattern!r} would let replies reach the server's own subjects")
        return value

    @model_validator(mode="after")
    def _across(self) -> ControllerSettings:
        if self.heartbeat_seconds * 2 > self.ack_wait_seconds:
            raise ValueError(
                f"INVOKER_HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}) must be at most half of "
                f"INVOKER_ACK_WAIT_SECONDS ({self.ack_wait_seconds:g}), or one late heartbeat hands runs out twice"
            )
        names = _as_value_error(lambda: self.names)
        if self.engine == "kubernetes":
            self._check_kubernetes()
        for pattern in self.reply_subjects:
            if pattern.split(".")[0] in (names.instance, names.topic_prefix.split(".")[0]):
                raise ValueError(f"INVOKER_REPLY_SUBJECTS: {pattern!r} would let replies become events or results")
        return self

    def _check_kubernetes(self) -> None:
        if self.run_api_url is None and _is_ones_own(self.http_host):
            raise ValueError(
                f"INVOKER_RUN_API_URL is missing: no pod reaches the run API at {self.http_host or 'no address'}; set "
                "it, or set INVOKER_HTTP_HOST to an address that pods reach"
            )
        if self.run_api_url is not None:
            self._check_run_api_url(self.run_api_url)
        if self.cluster_instance.endswith("-"):
            raise ValueError(
                f"INVOKER_KUBE_INSTANCE is missing: {self.instance!r} is no label; set one without '-' last"
            )
        if self.run_token_key is None:
            raise ValueError(
                "INVOKER_RUN_TOKEN_KEY is missing: Jobs outlive a controller, so their tokens must outlive it as well; "
                "give all controllers the same key (INVOKER_RUN_TOKEN_KEY_FILE names a file that holds it)"
            )

    @staticmethod
    def _check_run_api_url(url: str) -> None:
        try:
            parts = urlsplit(url)
            host = parts.hostname or ""
            is_whole = (
                parts.port != 0 and not parts.query and not parts.fragment and url.isprintable() and " " not in url
            )
        except ValueError:
            parts, host, is_whole = urlsplit(""), "", False
        if not is_whole or parts.scheme not in ("http", "https") or not host:
            raise ValueError(f"INVOKER_RUN_API_URL: {url!r} is no address; it looks like http://10.0.0.5:7222")
        if _is_ones_own(host):
            raise ValueError(f"INVOKER_RUN_API_URL: {url!r} is each pod itself, not this machine")

    @property
    def cluster_instance(self) -> str:
        """The name of this installation in its namespace."""
        return self.kube_instance or self.instance

    @property
    def kubernetes(self) -> KubernetesSettings:
        """The part that the Kubernetes engine is given."""
        return KubernetesSettings(**{name: getattr(self, name) for name in KubernetesSettings.model_fields})

    @property
    def names(self) -> wire.Names:
        return wire.Names(self.instance, self.topic_prefix)

    @property
    def stream_limits(self) -> StreamLimits:
        return StreamLimits(self.retention_seconds, self.events_bytes, self.results_bytes, self.replicas)

    def token_key(self) -> bytes:
        return self.run_token_key.encode() if self.run_token_key else secrets.token_bytes(32)


def _most_running(engine: str | None) -> int:
    return 10_000 if engine == "kubernetes" else 4 * (os.cpu_count() or 2)


def _is_ones_own(host: str) -> bool:
    """Whether whoever asks this host asks itself, so that it is no address for others."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.lower() in (*LOOPBACK, *ANY_ADDRESS)
    return address.is_loopback or address.is_unspecified


def load_settings(environ: Mapping[str, str] = ENVIRON, **given: Any) -> ControllerSettings:
    """The settings from environment, file and defaults; `given` wins over all. Raises `SettingsError` with the name."""
    values = setting_values(ControllerSettings, environ) | given
    try:
        return ControllerSettings(**values)
    except ValidationError as error:
        raise SettingsError(explained(error, secrets=("run_token_key",))) from error


def nats_options(environ: Mapping[str, str] = ENVIRON, **given: Any) -> ConnectionOptions:
    """Where NATS is and who we are there, as the client side finds it too (`invoker.settings`)."""
    return connection_options(environ=environ, **given)


def _as_value_error(check: Any) -> Any:
    try:
        return check()
    except InvokerError as error:
        raise ValueError(error.message) from error
