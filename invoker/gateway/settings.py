"""The gateway's settings: read once from file and environment, checked across fields, then handed out in parts.

Those named `gateway_…` are the gateway's alone (in the file: the table `[gateway]`, without that prefix); the others
are shared with the controller and must be the same there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from invoker import wire
from invoker.errors import SettingsError, TopicError
from invoker.setting_values import explained, setting_values

ENVIRON = os.environ  # noqa: TID251 - this is the settings module of the gateway
_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")
SECRETS = ("run_token_key", "results")


class GatewaySettings(BaseModel):
    """Everything an operator may choose about a gateway. Units are in the names: seconds, bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance: str = "invoker"
    """Name of the installation, as the controllers have it."""
    topic_prefix: str = "events"
    """Subject prefix of events, as the controllers have it."""
    run_token_key: str | None = Field(default=None, repr=False)
    """Key of the runs' tokens, as the controllers have it; without one this gateway serves no run API."""
    max_event_bytes: Annotated[int, Field(ge=1)] = 1024**3
    """Largest event that is taken, in bytes."""
    max_output_bytes: Annotated[int, Field(ge=1)] = 1024**3
    """Largest output of a run, in bytes; a larger one ends it as output-too-large."""
    results: str = Field(default="nats", repr=False)
    """Where polls are answered from: `nats`, or a Redis (`redis://[user:password@]host[:port][/number]`, `rediss://`
    with TLS) that is filled from NATS and may be emptied at any time."""
    results_ca: Path | None = None
    """File with the certificates that a Redis with TLS is checked with; by default those of the system."""
    results_prefix: str | None = None
    """What the keys in Redis begin with; by default the instance and a colon."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object a line, or lines for people."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important lines that are written."""

    gateway_host: str = "127.0.0.1"
    """Address that the public side listens on."""
    gateway_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """The public side; 0 takes a free port."""
    gateway_probe_host: str = "127.0.0.1"
    """Address that health, readiness and metrics listen on."""
    gateway_probe_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """Health, readiness and metrics; 0 takes a free port."""
    gateway_keys: Path | None = None
    """File with the API keys (hashed) and what each may do; read again when it changes."""
    gateway_jwks: Path | None = None
    """File with the public keys (JWKS) that JWT bearer tokens are checked with; read again when it changes."""
    gateway_jwt_issuer: str | None = None
    """The `iss` that tokens must have; needed with `gateway_jwks`."""
    gateway_jwt_audience: str | None = None
    """The `aud` that tokens must have; needed with `gateway_jwks`."""
    gateway_anonymous: tuple[str, ...] = ()
    """What calls without key or token may do, of `publish`, `read`, `operate`, `admin`; nothing unless set."""
    gateway_dashboard: bool = True
    """Whether the dashboard (`/ui`) is served."""
    gateway_gitfaas: bool = False
    """Whether the paths of gitfaas (`/publish/…`, `/response/…`, `/refresh`) are served."""
    gateway_cors_origins: tuple[str, ...] = ()
    """Origins (such as https://console.example.org) whose pages may call; none unless set."""
    gateway_trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks of proxies whose X-Forwarded-For is believed."""
    gateway_key_calls_per_second: Annotated[float, Field(ge=0)] = 0.0
    """Calls that each key or token may make in a second, with a burst of ten seconds' worth; 0 is unbounded."""
    gateway_address_calls_per_second: Annotated[float, Field(ge=0)] = 0.0
    """Calls that each address may make in a second, with a burst of ten seconds' worth; 0 is unbounded."""
    gateway_max_connections: Annotated[int, Field(ge=1)] = 4096
    """Connections at once; more are answered 503."""
    gateway_header_seconds: Annotated[float, Field(gt=0)] = 10.0
    """How long a connection may take for the head of a request."""
    gateway_body_seconds: Annotated[float, Field(gt=0)] = 30.0
    """How long a body may pause while it is being received, and an answer while it is being read."""
    gateway_body_bytes_per_second: Annotated[float, Field(ge=0)] = 256.0
    """What a body must bring on average, once it has been waited for as long as it may pause; 0 is no bound."""
    gateway_max_held_bytes: Annotated[int, Field(ge=32 * 1024**2)] = 256 * 1024**2
    """Bytes of bodies in memory at once, over all connections; more are answered 503."""
    gateway_address_connections: Annotated[int, Field(ge=0)] = 0
    """Connections of each address at once, of which proxies that are trusted have any number; 0 is unbounded."""
    gateway_accept_seconds: Annotated[float, Field(ge=0)] = 1.0
    """How long a publish waits for the list of its runs before it answers without it."""
    gateway_wait_seconds: Annotated[float, Field(ge=1)] = 300.0
    """The longest that a caller may wait for a result within one call."""

    gateway_stream_seconds: Annotated[float, Field(ge=0)] = 0.0
    """After this an event stream ends, and its reader comes again; 0 is never."""

    @field_validator("gateway_anonymous", "gateway_cors_origins", "gateway_trusted_proxies", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("gateway_cors_origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is no origin such as https://console.example.org")
        return value

    @field_validator("gateway_trusted_proxies")
    @classmethod
    def _proxies(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            try:
                ip_network(address, strict=False)
            except ValueError as error:
                raise ValueError(f"{address!r} is no IP address or network") from error
        return value

    @field_validator("gateway_anonymous")
    @classmethod
    def _actions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = ("publish", "read", "operate", "admin")
        for action in value:
            if action not in known:
                raise ValueError(f"{action!r} is none of {', '.join(known)}")
        return value

    @model_validator(mode="after")
    def _across(self) -> GatewaySettings:
        try:
            wire.Names(self.instance, self.topic_prefix)
        except TopicError as error:
            raise ValueError(error.message) from error
        if self.gateway_jwks is not None and not (self.gateway_jwt_issuer and self.gateway_jwt_audience):
            raise ValueError(
                "INVOKER_GATEWAY_JWT_ISSUER and INVOKER_GATEWAY_JWT_AUDIENCE are needed with INVOKER_GATEWAY_JWKS: "
                "tokens made for others would be taken otherwise"
            )
        if self.results != "nats" and not self.results.startswith(("redis://", "rediss://")):
            raise ValueError("INVOKER_RESULTS must be nats, or an address that begins with redis:// or rediss://")
        return self

    @property
    def names(self) -> wire.Names:
        return wire.Names(self.instance, self.topic_prefix)


def load_gateway_settings(environ: Mapping[str, str] = ENVIRON, **given: Any) -> GatewaySettings:
    """The settings from environment, file and defaults; `given` wins over all. Raises `SettingsError` with the name."""
    values = setting_values(GatewaySettings, environ, table="gateway") | given
    try:
        return GatewaySettings(**values)
    except ValidationError as error:
        raise SettingsError(explained(error, secrets=SECRETS)) from error
