"""The operator's settings of the Kubernetes engine, as its parts take them. Pure."""

from __future__ import annotations

from trigger.kubernetes_engine.credentials import ClusterAccess
from trigger.kubernetes_engine.engine import EngineOptions
from trigger.kubernetes_engine.manifest import ManifestOptions
from trigger.kubernetes_engine.policy import Policy
from trigger.kubernetes_settings import KubernetesSettings


def access_of(settings: KubernetesSettings) -> ClusterAccess:
    """Which API server, and as whom."""
    return ClusterAccess(
        kubeconfig=settings.kubeconfig,
        context=settings.kube_context,
        in_cluster=settings.in_cluster,
        namespace=settings.kube_namespace,
        connections=settings.kube_connections,
    )


def engine_options(instance: str, settings: KubernetesSettings) -> EngineOptions:
    """What Jobs are made of and what they may contain."""
    return EngineOptions(
        manifest=manifest_options(instance, settings), policy=lambda namespace: policy_of(namespace, settings)
    )


def manifest_options(instance: str, settings: KubernetesSettings) -> ManifestOptions:
    return ManifestOptions(instance, settings.runtime_images, settings.image_pull_policy, settings.user_id)


def policy_of(namespace: str, settings: KubernetesSettings) -> Policy:
    """What a Job in this namespace may contain."""
    return Policy(
        namespace,
        allowed_images=settings.allowed_images,
        allowed_service_accounts=settings.allowed_service_accounts,
        allowed_priority_classes=settings.allowed_priority_classes,
        allowed_secrets=settings.allowed_secrets,
        forbidden_secrets=settings.forbidden_secrets,
        allowed_volume_claims=settings.allowed_volume_claims,
        allowed_storage_classes=settings.allowed_storage_classes,
        max_volume_bytes=settings.max_volume_bytes,
    )
