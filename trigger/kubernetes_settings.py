"""The settings of the Kubernetes engine: which cluster, which images, and what functions may ask for. Pure.

They are part of the controller's settings (`trigger.settings`), under the same names, and read with them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from trigger.kubernetes_engine.images import parse_pattern
from trigger.pod_names import DNS_LABEL, USER_ID

ANY = ("*",)


class KubernetesSettings(BaseModel):
    """What an operator may choose for Jobs. Lists are comma-separated, with `*` and `?` as wildcards."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kubeconfig: Path | None = None
    """Kubeconfig to use; by default the pod's service account where there is one, else the usual kubeconfig."""
    kube_context: str | None = None
    """A context of the kubeconfig; by default its current one."""
    in_cluster: bool | None = None
    """Use the pod's service account (true) or never (false); by default where there is one."""
    kube_namespace: str | None = None
    """The namespace of all Jobs; by default that of the context or the service account."""
    kube_instance: Annotated[str, Field(pattern="^[a-z]([a-z0-9-]{0,29}[a-z0-9])?$")] | None = None
    """Name of this installation in the namespace: its Jobs begin with it, and carry it as a label. By default that of
    INVOKER_INSTANCE. Two installations that share a namespace need two names."""
    kube_connections: Annotated[int, Field(ge=1, le=1000)] = 64
    """Calls to the API server under way at once."""
    runtime_images: dict[str, str] = Field(default_factory=dict)
    """Images of the runtimes, `python=IMAGE,command=IMAGE`; `command` is for functions with a command and no image."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    """When images are pulled, where a function does not say so itself."""
    pod_user: Annotated[int, Field(ge=1)] | Literal["none"] = USER_ID
    """User, group and fsGroup of pods whose function names none; `none` leaves them to the image, or to a cluster that
    assigns them (OpenShift)."""
    allowed_images: tuple[str, ...] = ANY
    """Images functions may name: by name, host or digest."""
    allowed_service_accounts: tuple[str, ...] = ()
    """Service accounts functions may run as, besides `default`."""
    allowed_priority_classes: tuple[str, ...] = ANY
    """Priority classes functions may have; those of the system never."""
    allowed_secrets: tuple[str, ...] = ANY
    """Secrets functions may read."""
    forbidden_secrets: tuple[str, ...] = ()
    """Secrets functions may never read, whatever is allowed: those of Invoker itself where Jobs share its namespace."""
    allowed_volume_claims: tuple[str, ...] = ANY
    """Existing volume claims functions may mount."""
    allowed_storage_classes: tuple[str, ...] = ANY
    """Storage classes of ephemeral volumes."""
    max_volume_bytes: Annotated[int, Field(ge=1)] | None = None
    """Largest ephemeral volume, in bytes."""

    @field_validator(
        "allowed_images", "allowed_service_accounts", "allowed_priority_classes", "allowed_secrets",
        "forbidden_secrets", "allowed_volume_claims", "allowed_storage_classes", mode="before",
    )  # fmt: skip
    @classmethod
    def _split(cls, value: Any) -> Any:
        return split(value)

    @property
    def user_id(self) -> int | None:
        return None if self.pod_user == "none" else self.pod_user

    @field_validator("pod_user", mode="before")
    @classmethod
    def _one_user(cls, value: Any) -> Any:
        # One sentence for both: pydantic would tell two of what this is not.
        word = value.strip() if isinstance(value, str) else value
        if word == "none" or (str(word).isascii() and str(word).isdecimal() and int(word) > 0):
            return word if word == "none" else int(word)
        raise ValueError("must be the number of a user, not 0, or `none`")

    @field_validator("allowed_images")
    @classmethod
    def _image_patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in value:
            parse_pattern(pattern)  # its error is a ValueError that says what is wrong with which
        return value

    @field_validator("kube_namespace")
    @classmethod
    def _is_namespace(cls, value: str | None) -> str | None:
        if value and not DNS_LABEL.fullmatch(value):
            raise ValueError("is no name of a namespace: 1 to 63 of a-z, 0-9 and inner '-'")
        return value

    @field_validator("runtime_images", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [part.partition("=") for part in split(value)]
        if any(not name.strip() or not image.strip() for name, _, image in pairs):
            raise ValueError("must be pairs such as python=registry.example.com/invoker-python:1")
        return {name.strip(): image.strip() for name, _, image in pairs}


def split(value: Any) -> Any:
    """Comma-separated text as a tuple of words; anything else as it is."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
