"""Every setting of the cluster's programs: configuration files and command lines, decided from one layout. Pure.

A setting that differs from a default says why. The flags of the control plane are printed beside every measurement.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.network import SERVICES, Bridge

NODE = "127.0.0.1"
"""The node's name is its address: the API server then finds the kubelet without DNS (logs, exec)."""
SANDBOX_IMAGE = "localhost/pause:1"
STORAGE_CLASS = "invoker-test"
FEATURE_GATES = "PodLogsQuerySplitStreams=true"
AUDITED = (
    {"group": "", "resources": ["pods", "pods/*", "configmaps", "persistentvolumeclaims", "secrets"]},
    {"group": "batch", "resources": ["jobs", "jobs/*"]},
)


@dataclass(frozen=True, slots=True)
class Ports:
    """Chosen when the cluster starts; on the loopback, but for the API server's, which is on `Layout.api_host`."""

    api: int
    etcd: int
    etcd_peer: int
    kubelet: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What the settings are decided from. `run` is the folder of this one start, gone when it ends."""

    programs: Path
    run: Path
    logs: Path
    ports: Ports
    bridge: Bridge
    cgroup: str
    runc: str
    snapshotter: str = "overlayfs"
    api_host: str = "127.0.0.1"
    """The bridge's address where pods are to reach the API server, too."""

    @property
    def pki(self) -> Path:
        return self.run / "pki"

    @property
    def api_url(self) -> str:
        return f"https://{self.api_host}:{self.ports.api}"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def audit_log(self) -> Path:
        return self.logs / "audit.jsonl"


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the cluster, as it is started."""

    name: str
    arguments: tuple[str, ...]
    within: tuple[str, ...] = ()
    """The command that puts it where it runs, before its own."""

    @property
    def flags(self) -> tuple[str, ...]:
        return self.arguments[1:]


def programs(layout: Layout) -> tuple[Program, ...]:
    """In the order of their start; none waits for another, each asks until the others are there."""
    return (
        _etcd(layout),
        _containerd(layout),
        _api_server(layout),
        _controllers(layout),
        _scheduler(layout),
        _kubelet(layout),
    )


def files(layout: Layout) -> dict[str, str]:
    """The configuration files, by their path in `run`. JSON is YAML."""
    return {
        "audit-policy.json": json.dumps(audit_policy(), indent=1),
        "kubelet.json": json.dumps(kubelet_configuration(layout), indent=1),
        "containerd.toml": containerd_configuration(layout),
        "cni/10-bridge.conflist": json.dumps(cni_configuration(layout), indent=1),
    }


def _etcd(layout: Layout) -> Program:
    client, peer = (f"http://127.0.0.1:{port}" for port in (layout.ports.etcd, layout.ports.etcd_peer))
    flags = {
        "name": "test",
        "data-dir": layout.run / "etcd",
        "unsafe-no-fsync": "true",  # nothing here outlives the machine
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"test={peer}",
        "log-level": "warn",
    }
    return _program(layout, "etcd", flags)


def _api_server(layout: Layout) -> Program:
    pki = layout.pki
    flags = {
        "bind-address": layout.api_host,
        "advertise-address": layout.bridge.address,  # a loopback address is refused here
        "secure-port": layout.ports.api,
        "etcd-servers": f"http://127.0.0.1:{layout.ports.etcd}",
        "cert-dir": pki,
        "client-ca-file": pki / "ca.crt",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "kubelet-certificate-authority": pki / "ca.crt",
        "kubelet-client-certificate": pki / "apiserver-to-kubelet.crt",
        "kubelet-client-key": pki / "apiserver-to-kubelet.key",
        "kubelet-preferred-address-types": "Hostname",
        "allow-privileged": "true",  # or it would refuse what policies are tested to refuse
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "sa.pub",
        "service-account-signing-key-file": pki / "sa.key",
        "service-cluster-ip-range": SERVICES,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction,ResourceQuota,PodSecurity",
        "feature-gates": FEATURE_GATES,
        "audit-policy-file": layout.run / "audit-policy.json",
        "audit-log-path": layout.audit_log,
        "audit-log-maxsize": 100_000,  # never rotated: tests count its lines
    }
    return _program(layout, "kube-apiserver", flags)


def _controllers(layout: Layout) -> Program:
    flags = {
        "kubeconfig": layout.run / "controller-manager.kubeconfig",
        "leader-elect": "false",
        "secure-port": 0,
        "root-ca-file": layout.pki / "ca.crt",
        "service-account-private-key-file": layout.pki / "sa.key",
        "enable-hostpath-provisioner": "true",
        # The default of 20 requests a second allows 3.6 Jobs a second, whoever creates them.
        "kube-api-qps": 1000,
        "kube-api-burst": 2000,
        "concurrent-job-syncs": 20,
    }
    return _program(layout, "kube-controller-manager", flags)


def _scheduler(layout: Layout) -> Program:
    flags = {
        "kubeconfig": layout.run / "scheduler.kubeconfig",
        "leader-elect": "false",
        "secure-port": 0,
        "kube-api-qps": 1000,
        "kube-api-burst": 2000,
    }
    return _program(layout, "kube-scheduler", flags)


def _kubelet(layout: Layout) -> Program:
    flags = {
        "config": layout.run / "kubelet.json",
        "kubeconfig": layout.run / "kubelet.kubeconfig",
        "hostname-override": NODE,
        "root-dir": layout.run / "kubelet",
        "cert-dir": layout.pki,
    }
    return _program(layout, "kubelet", flags)


def _containerd(layout: Layout) -> Program:
    return _program(layout, "containerd", {"config": layout.run / "containerd.toml"})


def _program(layout: Layout, name: str, flags: dict[str, object]) -> Program:
    return Program(name, (str(layout.programs / name), *(f"--{flag}={value}" for flag, value in flags.items())))


def audit_policy() -> dict[str, object]:
    """One line for every finished request on what Invoker touches.

    A created Job is logged whole, since nothing less has its UID.
    """
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": True,
        "rules": [
            {"level": "RequestResponse", "verbs": ["create"], "resources": [{"group": "batch", "resources": ["jobs"]}]},
            {"level": "Metadata", "resources": list(AUDITED)},
            {"level": "None"},
        ],
    }


def kubelet_configuration(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "127.0.0.1",
        "port": layout.ports.kubelet,
        "readOnlyPort": 0,
        "healthzPort": 0,
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "podLogsDir": str(layout.run / "pod-logs"),
        "volumePluginDir": str(layout.run / "volume-plugins"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{layout.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,  # nothing of the host's firewall is touched
        "clusterDNS": [layout.bridge.router],
        "clusterDomain": "cluster.local",
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,  # an image that was removed could not be pulled again
        "featureGates": {"PodLogsQuerySplitStreams": True},
        "kubeAPIQPS": 1000,
        "kubeAPIBurst": 2000,
        "eventRecordQPS": 0,
    }


def containerd_configuration(layout: Layout) -> str:
    run = layout.run
    return f"""\
version = 3
root = "{run}/containerd-root"
state = "{run}/containerd-state"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]

[grpc]
  address = "{layout.containerd_socket}"

[ttrpc]
  address = "{run}/containerd-ttrpc.sock"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{layout.snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{SANDBOX_IMAGE}"

[plugins."io.containerd.cri.v1.runtime"]
  # Without CAP_SYS_RESOURCE every sandbox dies with "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{layout.programs}"]
    conf_dir = "{run}/cni"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    runtime_path = "{layout.programs}/containerd-shim-runc-v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
      BinaryName = "{layout.runc}"
      Root = "{run}/runc"
      SystemdCgroup = false
"""


def cni_configuration(layout: Layout) -> dict[str, object]:
    """Pods on the bridge that is there already. Not as its gateway: that would turn on forwarding on this machine."""
    address_management = {
        "type": "host-local",
        "dataDir": str(layout.run / "cni-addresses"),
        "ranges": [
            [
                {
                    "subnet": layout.bridge.network,
                    "gateway": layout.bridge.address,
                    "rangeStart": layout.bridge.first_pod,
                }
            ]
        ],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": str(SERVICES), "gw": layout.bridge.router}],
    }
    bridge = {
        "type": "bridge",
        "bridge": layout.bridge.name,
        "isGateway": False,
        "ipMasq": False,
        "ipam": address_management,
    }
    return {"cniVersion": "1.0.0", "name": layout.bridge.name, "plugins": [bridge]}


def storage_class() -> dict[str, object]:
    """The default class; a claim is bound at once, without waiting for a pod."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "kubernetes.io/host-path",
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }
