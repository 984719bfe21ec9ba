"""For every value of the chart: another value than the default one, and the place where that is seen.

Cases of one group are rendered together, which costs one call of helm; a case is in a group of its own when what it
shows would be hidden by others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.chart.rendering import NAME, Document
from tests.chart.value_places import ABSENT, Place, container, env, meta, pod, policy, volume

SECRET = "a-secret-of-mine"
EXTERNAL = {"nats": {"url": "nats://nats.example.org:4222", "evaluation": {"enabled": False}}}
"""The values of a release that has its NATS elsewhere."""


@dataclass(frozen=True)
class Case:
    """`path` set to `value` is seen as `shown` at `place`, and nothing else is seen there by default."""

    path: str
    value: Any
    place: Place
    shown: Any
    group: str = "all"

    @property
    def values(self) -> Document:
        """The values that set it."""
        document: Any = self.value
        for part in reversed(self.path.split(".")):
            document = {part: document}
        return document  # type: ignore[no-any-return]  # a path has at least one part


def _of_pods(component: str) -> list[Case]:
    """The values that controller and gateway have alike."""
    template = ("Deployment", f"{NAME}-{component}")
    account = ("ServiceAccount", f"{component}-account")
    budget = ("PodDisruptionBudget", f"{NAME}-{component}")
    peer = [{"name": "beside", "image": "images.test/beside:1"}]
    spread = {"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
    return [
        Case(f"{component}.replicas", 7, (*template, ("spec", "replicas")), 7),
        Case(
            f"{component}.serviceAccount.name",
            f"{component}-account",
            pod(component, "serviceAccountName"),
            f"{component}-account",
        ),
        Case(
            f"{component}.serviceAccount.annotations",
            {"cloud": component},
            (*account, ("metadata", "annotations", "cloud")),
            component,
        ),
        Case(
            f"{component}.serviceAccount.create",
            False,
            pod(component, "serviceAccountName"),
            "mine" if component == "controller" else "default",
            f"{component}-no-account",
        ),
        Case(
            f"{component}.resources",
            {"limits": {"memory": "3Gi"}},
            container(component, "resources", "limits", "memory"),
            "3Gi",
        ),
        Case(f"{component}.podDisruptionBudget.enabled", False, (*budget, ()), ABSENT, f"{component}-no-budget"),
        Case(f"{component}.podDisruptionBudget.minAvailable", "60%", (*budget, ("spec", "minAvailable")), "60%"),
        Case(f"{component}.podDisruptionBudget.maxUnavailable", "", (*budget, ("spec", "maxUnavailable")), ABSENT),
        Case(
            f"{component}.topologySpreadConstraints",
            [spread],
            pod(component, "topologySpreadConstraints", 0, "topologyKey"),
            "rack",
        ),
        Case(f"{component}.nodeSelector", {"disk": "fast"}, pod(component, "nodeSelector"), {"disk": "fast"}),
        Case(f"{component}.tolerations", [{"key": "busy"}], pod(component, "tolerations"), [{"key": "busy"}]),
        Case(f"{component}.affinity", {"podAffinity": {}}, pod(component, "affinity"), {"podAffinity": {}}),
        Case(f"{component}.priorityClassName", "high", pod(component, "priorityClassName"), "high"),
        Case(f"{component}.terminationGracePeriodSeconds", 77, pod(component, "terminationGracePeriodSeconds"), 77),
        Case(f"{component}.preStopSeconds", 9, container(component, "lifecycle", "preStop", "sleep", "seconds"), 9),
        Case(
            f"{component}.podLabels",
            {"team": "a"},
            (*template, ("spec", "template", "metadata", "labels", "team")),
            "a",
        ),
        Case(
            f"{component}.podAnnotations",
            {"note": "b"},
            (*template, ("spec", "template", "metadata", "annotations", "note")),
            "b",
        ),
        Case(
            f"{component}.extraEnv",
            [{"name": "OTEL_SDK_DISABLED", "value": "true"}],
            env(component, "OTEL_SDK_DISABLED"),
            "true",
        ),
        Case(
            f"{component}.extraVolumes", [{"name": "more", "emptyDir": {}}], volume(component, "more", "emptyDir"), {}
        ),
        Case(
            f"{component}.extraVolumeMounts",
            [{"name": "more", "mountPath": "/more"}],
            container(component, "volumeMounts", ("name", "more"), "mountPath"),
            "/more",
        ),
        Case(
            f"{component}.extraContainers",
            peer,
            pod(component, "containers", ("name", "beside"), "image"),
            "images.test/beside:1",
        ),
    ]


def _settings(path: str, component: str, prefix: str, given: Mapping[str, tuple[Any, str]]) -> list[Case]:
    return [
        Case(f"{path}.{key}", value, env(component, f"{prefix}{_snake(key)}"), shown)
        for key, (value, shown) in given.items()
    ]


def _snake(key: str) -> str:
    return "".join(f"_{letter}" if letter.isupper() else letter for letter in key).upper()


def _identities() -> list[Case]:
    """Who controller and gateway are at a NATS elsewhere: one group per way of showing it."""
    cases = []
    for component in ("controller", "gateway"):
        cases += [
            Case(
                f"nats.{component}.method",
                "creds",
                env(component, "INVOKER_NATS_CREDS"),
                "/etc/invoker/nats/creds",
                "external",
            ),
            Case(
                f"nats.{component}.existingSecret",
                SECRET,
                volume(component, "nats", "secret", "secretName"),
                SECRET,
                "external",
            ),
            Case(
                f"nats.{component}.inboxPrefix",
                f"_INBOX.{component}-1",
                env(component, "INVOKER_NATS_INBOX_PREFIX"),
                f"_INBOX.{component}-1",
                "external",
            ),
        ]
    return cases


_HOST = {"host": "invoker.example.org", "path": "/v1"}
_PEER = [{"podSelector": {"matchLabels": {"app": "mine"}}}]
_RULE = [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}]}]
_RULES = ("rules", 0, "http", "paths", 0)
_NATS = "nats.evaluation"

CASES: tuple[Case, ...] = (
    Case(
        "nameOverride",
        "robot",
        meta("Deployment", "rel-robot-controller", "labels", "app.kubernetes.io/name"),
        "robot",
        "name",
    ),
    Case("fullnameOverride", "engine", ("Deployment", "engine-controller", ("spec", "replicas")), 2, "fullname"),
    Case("commonLabels", {"owner": "me"}, meta("Role", f"{NAME}-controller", "labels", "owner"), "me"),
    Case("commonAnnotations", {"page": "here"}, meta("Role", f"{NAME}-controller", "annotations", "page"), "here"),
    Case(
        "image.repository",
        "images.test/team/invoker",
        container("controller", "image"),
        "images.test/team/invoker:0.1.0",
    ),
    Case("image.tag", "9.9", container("gateway", "image"), "invoker:9.9", "tag"),
    Case(
        "image.digest", f"sha256:{'a' * 64}", container("controller", "image"), f"invoker@sha256:{'a' * 64}", "digest"
    ),
    Case("image.pullPolicy", "Always", container("gateway", "imagePullPolicy"), "Always"),
    Case("imagePullSecrets", [{"name": "pull"}], pod("gateway", "imagePullSecrets"), [{"name": "pull"}]),
    Case(
        "runtimeImages",
        {
            "python": {"repository": "images.test/python", "tag": "3"},
            "command": {"repository": "images.test/c", "tag": "1"},
        },
        env("controller", "INVOKER_RUNTIME_IMAGES"),
        "command=images.test/c:1,python=images.test/python:3",
    ),
    Case("listenAddress", "::", env("gateway", "INVOKER_GATEWAY_HOST"), "::"),
    *_settings(
        "settings",
        "controller",
        "INVOKER_",
        {
            "instance": ("acme", "acme"),
            "topicPrefix": ("in", "in"),
            "maxEventBytes": (2097152000, "2097152000"),
            "maxOutputBytes": (3000, "3000"),
            "logFormat": ("console", "console"),
            "logLevel": ("debug", "debug"),
        },
    ),
    Case("jobs.namespace", "work", env("controller", "INVOKER_KUBE_NAMESPACE"), "work", "jobs"),
    Case("jobs.networkPolicy.dns", _PEER, policy("functions", "egress", 1, "to"), _PEER),
    Case("jobs.networkPolicy.egress", _RULE, policy("functions", "egress", 2), _RULE[0]),
    Case("jobs.networkPolicy.ingress", [{"from": _PEER}], policy("functions", "ingress"), [{"from": _PEER}]),
    Case(
        "catalog.functions",
        {"hello": {"function.yaml": "kind: Function", "lib/more.py": "pass"}},
        volume("controller", "catalog", "configMap", "items", ("key", "hello.lib.more.py"), "path"),
        "hello/lib/more.py",
    ),
    Case(
        "catalog.configMaps",
        [{"name": "team.functions", "optional": True, "items": [{"key": "a", "path": "a/function.yaml"}]}],
        volume("controller", "catalog-team-functions", "configMap"),
        {"name": "team.functions", "optional": True, "items": [{"key": "a", "path": "a/function.yaml"}]},
    ),
    Case(
        "catalog.volume",
        {"persistentVolumeClaim": {"claimName": "functions"}},
        volume("controller", "catalog", "persistentVolumeClaim", "claimName"),
        "functions",
        "volume",
    ),
    Case(
        "nats.url",
        "nats://nats.example.org:4222",
        env("controller", "INVOKER_NATS_URL"),
        "nats://nats.example.org:4222",
        "external",
    ),
    Case("nats.tls.existingSecret", SECRET, volume("gateway", "nats-tls", "secret", "secretName"), SECRET, "external"),
    Case("nats.tls.ca", False, env("gateway", "INVOKER_NATS_CA"), ABSENT, "external-no-ca"),
    Case(
        "nats.tls.clientCertificate",
        True,
        env("gateway", "INVOKER_NATS_CERT"),
        "/etc/invoker/nats-tls/tls.crt",
        "external",
    ),
    *_identities(),
    Case(f"{_NATS}.enabled", False, ("StatefulSet", f"{NAME}-nats", ()), ABSENT, "external"),
    Case(f"{_NATS}.image.repository", "images.test/nats", container("nats", "image"), "images.test/nats:2.15-alpine"),
    Case(f"{_NATS}.image.tag", "2.99", container("nats", "image"), "nats:2.99", "tag"),
    Case(
        f"{_NATS}.image.digest", f"sha256:{'b' * 64}", container("nats", "image"), f"nats@sha256:{'b' * 64}", "digest"
    ),
    Case(f"{_NATS}.image.pullPolicy", "Never", container("nats", "imagePullPolicy"), "Never"),
    Case(
        f"{_NATS}.storage.size",
        "9Gi",
        (
            "StatefulSet",
            f"{NAME}-nats",
            ("spec", "volumeClaimTemplates", 0, "spec", "resources", "requests", "storage"),
        ),
        "9Gi",
    ),
    Case(
        f"{_NATS}.storage.className",
        "fast",
        ("StatefulSet", f"{NAME}-nats", ("spec", "volumeClaimTemplates", 0, "spec", "storageClassName")),
        "fast",
    ),
    Case(
        f"{_NATS}.keepVolume",
        False,
        ("StatefulSet", f"{NAME}-nats", ("spec", "persistentVolumeClaimRetentionPolicy", "whenDeleted")),
        "Delete",
    ),
    Case(
        f"{_NATS}.resources", {"limits": {"memory": "5Gi"}}, container("nats", "resources", "limits", "memory"), "5Gi"
    ),
    Case(f"{_NATS}.nodeSelector", {"disk": "fast"}, pod("nats", "nodeSelector"), {"disk": "fast"}),
    Case(f"{_NATS}.tolerations", [{"key": "busy"}], pod("nats", "tolerations"), [{"key": "busy"}]),
    Case("redis.enabled", True, env("gateway", "INVOKER_RESULTS_FILE"), "/etc/invoker/redis/url"),
    Case("redis.existingSecret", SECRET, volume("gateway", "redis", "secret", "secretName"), SECRET),
    Case("redis.ca", True, env("gateway", "INVOKER_RESULTS_CA"), "/etc/invoker/redis/ca.crt"),
    Case("redis.prefix", "inv:", env("gateway", "INVOKER_RESULTS_PREFIX"), "inv:"),
    Case("runToken.existingSecret", SECRET, volume("controller", "run-token", "secret", "secretName"), SECRET),
    Case(
        "runApi.url",
        "http://runs.example.org:80",
        env("controller", "INVOKER_RUN_API_URL"),
        "http://runs.example.org:80",
    ),
    Case("rbac.create", False, ("Role", f"{NAME}-controller", ()), ABSENT, "no-rights"),
    Case("podSecurityContext", {"runAsUser": 4711}, pod("nats", "securityContext", "runAsUser"), 4711),
    Case("securityContext", {"runAsGroup": 4712}, container("gateway", "securityContext", "runAsGroup"), 4712),
    *_of_pods("controller"),
    *_settings(
        "controller.settings",
        "controller",
        "INVOKER_",
        {
            "retentionSeconds": (3600, "3600"),
            "maxRunning": (5, "5"),
            "ackWaitSeconds": (20, "20"),
            "heartbeatSeconds": (1.5, "1.5"),
            "auditSeconds": (7, "7"),
            "catalogIntervalSeconds": (2, "2"),
            "replySubjects": (["_INBOX.>", "r.>"], "_INBOX.>,r.>"),
            "eventsBytes": (10737418240, "10737418240"),
            "resultsBytes": (5000, "5000"),
            "replicas": (3, "3"),
            "kubeConnections": (8, "8"),
            "imagePullPolicy": ("Always", "Always"),
            "allowedImages": (["images.test/*"], "images.test/*"),
            "allowedServiceAccounts": (["fn"], "fn"),
            "allowedPriorityClasses": (["low"], "low"),
            "allowedSecrets": (["fn-*"], "fn-*"),
            "allowedVolumeClaims": (["data"], "data"),
            "allowedStorageClasses": (["fast"], "fast"),
            "maxVolumeBytes": (4096, "4096"),
            "podUser": ("none", "none"),
        },
    ),
    *_of_pods("gateway"),
    *_settings(
        "gateway.settings",
        "gateway",
        "INVOKER_GATEWAY_",
        {
            "dashboard": (False, "false"),
            "gitfaas": (True, "true"),
            "anonymous": (["publish", "read"], "publish,read"),
            "corsOrigins": (["https://a.example.org"], "https://a.example.org"),
            "trustedProxies": (["10.0.0.0/8"], "10.0.0.0/8"),
            "keyCallsPerSecond": (5.5, "5.5"),
            "addressCallsPerSecond": (6, "6"),
            "maxConnections": (77, "77"),
            "headerSeconds": (3, "3"),
            "bodySeconds": (4, "4"),
            "bodyBytesPerSecond": (99, "99"),
            "maxHeldBytes": (1073741825, "1073741825"),
            "addressConnections": (12, "12"),
            "streamSeconds": (600, "600"),
            "acceptSeconds": (0.5, "0.5"),
            "waitSeconds": (60, "60"),
        },
    ),
    Case("gateway.keys.existingSecret", SECRET, volume("gateway", "keys", "secret", "secretName"), SECRET),
    Case(
        "gateway.keys.adminKeySecret",
        "admin",
        ("Pod", f"{NAME}-test", ("spec", "volumes", ("name", "key"), "secret", "secretName")),
        "admin",
    ),
    Case("gateway.jwt.existingConfigMap", "jwks", volume("gateway", "jwt", "configMap", "name"), "jwks"),
    Case(
        "gateway.jwt.issuer",
        "https://login.example.org",
        env("gateway", "INVOKER_GATEWAY_JWT_ISSUER"),
        "https://login.example.org",
    ),
    Case("gateway.jwt.audience", "invoker", env("gateway", "INVOKER_GATEWAY_JWT_AUDIENCE"), "invoker"),
    Case("gateway.service.type", "LoadBalancer", ("Service", f"{NAME}-gateway", ("spec", "type")), "LoadBalancer"),
    Case("gateway.service.port", 8443, ("Service", f"{NAME}-gateway", ("spec", "ports", 0, "port")), 8443),
    Case("gateway.service.annotations", {"lb": "x"}, meta("Service", f"{NAME}-gateway", "annotations", "lb"), "x"),
    Case("gateway.ingress.enabled", True, ("Ingress", f"{NAME}-gateway", ("kind",)), "Ingress"),
    Case("gateway.ingress.className", "nginx", ("Ingress", f"{NAME}-gateway", ("spec", "ingressClassName")), "nginx"),
    Case("gateway.ingress.annotations", {"a": "b"}, meta("Ingress", f"{NAME}-gateway", "annotations", "a"), "b"),
    Case("gateway.ingress.hosts", [_HOST], ("Ingress", f"{NAME}-gateway", ("spec", *_RULES, "path")), "/v1"),
    Case(
        "gateway.ingress.tls",
        [{"secretName": "tls"}],
        ("Ingress", f"{NAME}-gateway", ("spec", "tls", 0, "secretName")),
        "tls",
    ),
    *[
        Case(
            f"gateway.autoscaling.{key}",
            value,
            ("HorizontalPodAutoscaler", f"{NAME}-gateway", steps),
            shown,
            "autoscaling",
        )
        for key, value, steps, shown in (
            ("enabled", True, ("spec", "scaleTargetRef", "name"), f"{NAME}-gateway"),
            ("minReplicas", 3, ("spec", "minReplicas"), 3),
            ("maxReplicas", 9, ("spec", "maxReplicas"), 9),
            (
                "targetCPUUtilizationPercentage",
                55,
                ("spec", "metrics", 0, "resource", "target", "averageUtilization"),
                55,
            ),
            ("metrics", [{"type": "Pods"}], ("spec", "metrics", 1), {"type": "Pods"}),
            (
                "behavior",
                {"scaleDown": {"stabilizationWindowSeconds": 9}},
                ("spec", "behavior", "scaleDown", "stabilizationWindowSeconds"),
                9,
            ),
        )
    ],
    Case("networkPolicy.enabled", False, ("NetworkPolicy", f"{NAME}-functions", ()), ABSENT, "no-policies"),
    Case("networkPolicy.gatewayFrom", _PEER, policy("gateway", "ingress", 0, "from", 0), _PEER[0]),
    Case("networkPolicy.metricsFrom", _PEER, policy("gateway", "ingress", 1, "from"), _PEER),
    Case("networkPolicy.natsFrom", _PEER, policy("nats", "ingress", 0, "from", 1), _PEER[0]),
    Case("metrics.serviceMonitor.enabled", True, ("ServiceMonitor", f"{NAME}-gateway", ("kind",)), "ServiceMonitor"),
    Case(
        "metrics.serviceMonitor.interval",
        "7s",
        ("ServiceMonitor", f"{NAME}-controller", ("spec", "endpoints", 0, "interval")),
        "7s",
    ),
    Case(
        "metrics.serviceMonitor.labels",
        {"prometheus": "one"},
        meta("ServiceMonitor", f"{NAME}-controller", "labels", "prometheus"),
        "one",
    ),
    Case("metrics.prometheusRule.enabled", True, ("PrometheusRule", NAME, ("kind",)), "PrometheusRule"),
    Case(
        "metrics.prometheusRule.labels",
        {"prometheus": "two"},
        meta("PrometheusRule", NAME, "labels", "prometheus"),
        "two",
    ),
    Case("metrics.dashboards.enabled", True, ("ConfigMap", f"{NAME}-dashboard", ("kind",)), "ConfigMap"),
    Case("metrics.dashboards.labels", {"folder": "f"}, meta("ConfigMap", f"{NAME}-dashboard", "labels", "folder"), "f"),
    Case(
        "metrics.dashboards.annotations",
        {"place": "p"},
        meta("ConfigMap", f"{NAME}-dashboard", "annotations", "place"),
        "p",
    ),
    Case("test.enabled", False, ("Pod", f"{NAME}-test", ()), ABSENT, "no-test"),
    Case("test.topic", "mine.own", ("Pod", f"{NAME}-test", ("spec", "containers", 0, "args", 1)), "mine.own"),
    Case("test.data", "words", ("Pod", f"{NAME}-test", ("spec", "containers", 0, "args", 2)), "words"),
    Case("test.waitSeconds", 33, ("Pod", f"{NAME}-test", ("spec", "containers", 0, "args", 4)), "33"),
    Case(
        "tenants",
        {"blue": {"jobs": {"namespace": "blue"}}},
        ("Role", f"{NAME}-blue-20dc9053-controller", ("metadata", "namespace")),
        "blue",
        "jobs",
    ),
    Case(
        "admissionPolicy.enabled",
        True,
        ("ValidatingAdmissionPolicy", f"apps-{NAME}-jobs", ("spec", "failurePolicy")),
        "Fail",
    ),
    Case("flowSchema.enabled", True, ("FlowSchema", f"apps-{NAME}-controllers", ("kind",)), "FlowSchema"),
    Case(
        "flowSchema.priorityLevel",
        "mine",
        ("FlowSchema", f"apps-{NAME}-controllers", ("spec", "priorityLevelConfiguration", "name")),
        "mine",
    ),
    Case(
        "flowSchema.matchingPrecedence",
        77,
        ("FlowSchema", f"apps-{NAME}-controllers", ("spec", "matchingPrecedence")),
        77,
    ),
)

SHOWN_ELSEWHERE = {
    "catalog.restartOnChange": "test_a_change_of_functions_replaces_pods_only_when_asked_to",
    f"{_NATS}.maxPayload": "test_the_evaluation_server_takes_its_configuration",
    "gateway.keys.more": "test_further_keys_stand_beside_it",
    "admissionPolicy.images": "test_the_admission_policy_says_what_the_settings_say",
}
"""Values whose effect is no single place: the test that shows it."""
