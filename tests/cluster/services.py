"""Services and cluster DNS: a router in a network namespace of its own, plugged into the bridge beside the pods.

Pods send what is for a Service to the router, where kube-proxy's rules choose a pod; CoreDNS answers on its address.
So no rule and no setting of this machine's own network is touched, clusters beside each other know nothing of each
other's Services, and with the first process's mounts the namespace goes, and everything in it. NetworkPolicies are not
enforced: neither the bridge nor kube-proxy does that.
"""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.components import Layout, Program
from tests.cluster.network import router_link

DNS_DOMAIN = "cluster.local"
DNS_PORT = 53
DNS_READY_PORT = 8181
PROXY_READY_PORT = 10256
_CONFIGURE = """\
set -e
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
# It sends back what comes from where it came from, and would tell every pod of a shorter way: one past its rules.
echo 0 > /proc/sys/net/ipv4/conf/all/send_redirects
echo 0 > /proc/sys/net/ipv4/conf/default/send_redirects
ip link set lo up
ip link set {link} name eth0
echo 0 > /proc/sys/net/ipv4/conf/eth0/send_redirects
ip addr add {address} dev eth0
ip link set eth0 up
echo 1 > /proc/sys/net/ipv4/ip_forward
"""


def namespace_file(layout: Layout) -> Path:
    """Where the router's network namespace is mounted, seen by the cluster's processes only."""
    return layout.run / "services.netns"


def preparation(layout: Layout) -> tuple[tuple[str, ...], ...]:
    """The commands that make the router, in their order. The link has gone when the last cluster process has."""
    inside = f"--net={namespace_file(layout)}"
    near, far = router_link(layout.bridge.name), f"{layout.bridge.name}p"
    script = _CONFIGURE.format(link=far, address=layout.bridge.router_with_prefix)
    return (
        ("touch", str(namespace_file(layout))),
        ("unshare", inside, "true"),
        ("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", str(namespace_file(layout))),
        ("ip", "link", "set", near, "master", layout.bridge.name, "up"),
        ("nsenter", inside, "sh", "-c", script),
    )


def programs(layout: Layout) -> tuple[Program, ...]:
    inside = ("nsenter", f"--net={namespace_file(layout)}")
    proxy = (str(layout.programs / "kube-proxy"), f"--config={layout.run}/kube-proxy.json")
    dns = (str(layout.programs / "coredns"), f"-conf={layout.run}/Corefile")
    return Program("kube-proxy", proxy, inside), Program("coredns", dns, inside)


def files(layout: Layout) -> dict[str, str]:
    """Their configuration files, by their path in `run`."""
    return {"kube-proxy.json": json.dumps(proxy_configuration(layout), indent=1), "Corefile": corefile(layout)}


def ready_urls(layout: Layout) -> dict[str, str]:
    """What answers 200 once Services, and names of Services, work."""
    return {
        "kube-proxy": f"http://{layout.bridge.router}:{PROXY_READY_PORT}/healthz",
        "CoreDNS": f"http://{layout.bridge.router}:{DNS_READY_PORT}/ready",
    }


def proxy_configuration(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "bindAddress": layout.bridge.router,
        "healthzBindAddress": f"{layout.bridge.router}:{PROXY_READY_PORT}",
        "metricsBindAddress": "127.0.0.1:10249",
        "hostnameOverride": "127.0.0.1",
        "clientConnection": {"kubeconfig": str(layout.run / "kube-proxy.kubeconfig")},
        # A pod would answer the asking pod over the bridge, past the router, which alone knows whom was asked.
        "nftables": {"masqueradeAll": True, "minSyncPeriod": "0s"},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def corefile(layout: Layout) -> str:
    """Names of the cluster; there are no others, said at once, or pods would wait for an answer."""
    return f"""\
{DNS_DOMAIN}:{DNS_PORT} {{
  bind {layout.bridge.router}
  errors
  ready {layout.bridge.router}:{DNS_READY_PORT}
  kubernetes {DNS_DOMAIN} {{
    kubeconfig {layout.run}/coredns.kubeconfig
    ttl 1
  }}
}}
.:{DNS_PORT} {{
  bind {layout.bridge.router}
  errors
  template ANY ANY . {{
    rcode NXDOMAIN
  }}
}}
"""
