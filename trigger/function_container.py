"""The containers of a function's pods as they are written in YAML: environment, mounts, security, probes.

Pure. An allow-list in Kubernetes' spelling: what is not here is refused, and what people will try has its own sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from trigger.field_types import (
    ConfigKey,
    EnvName,
    EnvValue,
    Fields,
    KubernetesFields,
    ObjectName,
    Quantity,
    ShortName,
    Text,
    clear_of,
    exactly_one,
    only,
)
from trigger.pod_names import problem_of_field_path, problem_of_mount_path, problem_of_profile, problem_of_sub_path

UserId = Annotated[int, Field(ge=1, le=2**31 - 1)]
GroupId = Annotated[int, Field(ge=0, le=2**31 - 1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Image = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^\S+$")]
PullPolicy = Literal["Always", "IfNotPresent", "Never"]
_COUNT = Annotated[int, Field(ge=1, le=100_000)]


class KeyReferenceFields(KubernetesFields):
    name: ObjectName
    key: ConfigKey
    optional: bool | None = None


class FieldReferenceFields(KubernetesFields):
    api_version: Annotated[Any, only("v1", "there is no other")] = None
    field_path: Annotated[str, clear_of(problem_of_field_path)]


class ResourceReferenceFields(KubernetesFields):
    resource: Annotated[str, Field(min_length=1, max_length=100)]
    container_name: ShortName | None = None
    divisor: Quantity | None = None


class EnvSourceFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {
        "fileKeyRef": "a value comes from secretKeyRef, configMapKeyRef, fieldRef or resourceFieldRef"
    }

    secret_key_ref: KeyReferenceFields | None = None
    config_map_key_ref: KeyReferenceFields | None = None
    field_ref: FieldReferenceFields | None = None
    resource_field_ref: ResourceReferenceFields | None = None

    @model_validator(mode="after")
    def _one(self) -> EnvSourceFields:
        exactly_one(self, "secret_key_ref", "config_map_key_ref", "field_ref", "resource_field_ref")
        return self


class EnvFields(Fields):
    """A Kubernetes EnvVar: a name with either a value or a reference."""

    name: EnvName
    value: EnvValue | None = None
    value_from: EnvSourceFields | None = None

    @model_validator(mode="before")
    @classmethod
    def _value_or_reference(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("value") is not None and given.get("valueFrom") is not None:
            raise ValueError("has both value and valueFrom; only one is allowed")
        return given


class ReferenceFields(KubernetesFields):
    name: ObjectName
    optional: bool | None = None


class EnvFromFields(KubernetesFields):
    prefix: EnvName | None = None
    secret_ref: ReferenceFields | None = None
    config_map_ref: ReferenceFields | None = None

    @model_validator(mode="after")
    def _one(self) -> EnvFromFields:
        exactly_one(self, "secret_ref", "config_map_ref")
        return self


class ResourceFields(Fields):
    requests: dict[str, Quantity] = Field(default_factory=dict)
    limits: dict[str, Quantity] = Field(default_factory=dict)


class MountFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {
        "subPathExpr": "a variable would choose the folder; write subPath",
        "mountPropagation": "mounts stay inside their container",
    }

    name: ShortName
    mount_path: Annotated[str, clear_of(problem_of_mount_path)]
    sub_path: Annotated[str, clear_of(problem_of_sub_path)] | None = None
    read_only: bool | None = None


class SeccompFields(KubernetesFields):
    type: Literal["RuntimeDefault", "Localhost"]
    localhost_profile: Annotated[str, clear_of(problem_of_profile)] | None = None

    @model_validator(mode="after")
    def _profile(self) -> SeccompFields:
        if (self.type == "Localhost") != (self.localhost_profile is not None):
            raise ValueError("localhostProfile goes with type Localhost, and is needed there")
        return self


class CapabilityFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {"add": "containers of functions have no capabilities"}

    drop: Annotated[list[str], only(["ALL"], "all capabilities are dropped, always")]


class ContainerSecurityFields(KubernetesFields):
    """What may be chosen below Pod Security `restricted`, which every container gets."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        "seLinuxOptions": "the node's own policy decides",
        "windowsOptions": "pods run on Linux",
        "appArmorProfile": "the runtime's default profile is used",
    }

    run_as_user: UserId | None = None
    run_as_group: GroupId | None = None
    run_as_non_root: Annotated[Any, only(True, "functions never run as root")] = None
    read_only_root_filesystem: bool | None = None
    privileged: Annotated[Any, only(False, "a privileged container owns its node")] = None
    allow_privilege_escalation: Annotated[Any, only(False, "no process gains more rights than it began with")] = None
    proc_mount: Annotated[Any, only("Default", "the rest of /proc belongs to the node")] = None
    capabilities: CapabilityFields | None = None
    seccomp_profile: SeccompFields | None = None


class PortFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {
        "hostPort": "it is a port of the node",
        "hostIP": "it is an address of the node",
    }

    container_port: Port
    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$")] | None = None
    protocol: Literal["TCP", "UDP", "SCTP"] | None = None


_OTHER_HOST = "the node would ask another host for the container"


class HttpGetFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {"host": _OTHER_HOST, "httpHeaders": "a probe needs none"}

    port: Port
    path: Annotated[str, Field(max_length=2000)] | None = None
    scheme: Literal["HTTP", "HTTPS"] | None = None


class TcpSocketFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {"host": _OTHER_HOST}

    port: Port


class GrpcFields(KubernetesFields):
    port: Port
    service: Annotated[str, Field(max_length=200)] | None = None


class ProbeFields(KubernetesFields):
    REFUSED: ClassVar[Mapping[str, str]] = {
        "exec": "a probe asks over the network: httpGet, tcpSocket or grpc",
        "terminationGracePeriodSeconds": "the pod has one",
    }

    http_get: HttpGetFields | None = None
    tcp_socket: TcpSocketFields | None = None
    grpc: GrpcFields | None = None
    initial_delay_seconds: Annotated[int, Field(ge=0, le=86_400)] | None = None
    timeout_seconds: _COUNT | None = None
    period_seconds: _COUNT | None = None
    success_threshold: _COUNT | None = None
    failure_threshold: _COUNT | None = None

    @model_validator(mode="after")
    def _one(self) -> ProbeFields:
        exactly_one(self, "http_get", "tcp_socket", "grpc")
        return self


_CONTAINER_REFUSED = {
    "lifecycle": "a hook runs programs that no run waits for",
    "volumeDevices": "it gives the container a raw disk; mount a volume",
    "stdin": "nobody is at the other end",
    "stdinOnce": "nobody is at the other end",
    "tty": "nobody is at the other end",
    "terminationMessagePath": "Invoker reads it, and sets it",
    "terminationMessagePolicy": "Invoker reads the message, and sets it",
    "restartPolicyRules": "the Job decides about further attempts",
    "resizePolicy": "a pod of a run is not resized",
}


class InitContainerFields(KubernetesFields):
    """A container that runs to its end before the function's begins."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **_CONTAINER_REFUSED,
        "restartPolicy": "what runs beside the function is a sidecar; write it under sidecars",
        "ports": "what serves others is a sidecar; write it under sidecars",
        **dict.fromkeys(("startupProbe", "livenessProbe", "readinessProbe"), "an init container is waited for anyway"),
    }

    name: ShortName
    image: Image
    image_pull_policy: PullPolicy | None = None
    command: list[Text] | None = None
    args: list[Text] | None = None
    working_dir: Annotated[str, Field(pattern=r"^/")] | None = None
    env: Annotated[list[EnvFields], Field(max_length=500)] | None = None
    env_from: list[EnvFromFields] | None = None
    resources: ResourceFields | None = None
    volume_mounts: list[MountFields] | None = None
    security_context: ContainerSecurityFields | None = None


class SidecarFields(InitContainerFields):
    """A container beside the function's: it starts before it, and never keeps the Job from ending."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **_CONTAINER_REFUSED,
        "restartPolicy": "a sidecar is started again whenever it ends; leave it out",
    }

    ports: list[PortFields] | None = None
    startup_probe: ProbeFields | None = None
    liveness_probe: ProbeFields | None = None
    readiness_probe: ProbeFields | None = None


class JobInitContainerFields(SidecarFields):
    """An init container inside `job:`; with `restartPolicy: Always` it is a sidecar."""

    REFUSED: ClassVar[Mapping[str, str]] = _CONTAINER_REFUSED

    restart_policy: Annotated[Any, only("Always", "init containers run once, or always beside the function")] = None


class JobContainerFields(SidecarFields):
    """A container inside `job:`. The function's may leave its image to the spec's `image` or `runtime`."""

    REFUSED: ClassVar[Mapping[str, str]] = {
        **_CONTAINER_REFUSED,
        "restartPolicy": "the Job decides about further attempts",
    }

    image: Image | None = None  # type: ignore[assignment]  # here it may be left out
