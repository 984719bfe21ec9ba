"""The cluster's own certificate authority, what it signs, and kubeconfigs. Made anew for every cluster."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.folders import write_whole

DAYS = "30"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a certificate speaks for: user name and groups, or the addresses of a server."""

    name: str
    common_name: str
    groups: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return "".join(f"/O={group}" for group in self.groups) + f"/CN={self.common_name}"

    @property
    def extensions(self) -> str:
        lines = ["basicConstraints=critical,CA:FALSE", "keyUsage=critical,digitalSignature"]
        lines.append("extendedKeyUsage=serverAuth,clientAuth")
        if self.addresses:
            lines.append("subjectAltName=" + ",".join(self.addresses))
        return "\n".join(lines)


def identities(node: str, api_addresses: tuple[str, ...]) -> tuple[Identity, ...]:
    """Everybody in the cluster who has a certificate."""
    names = ("DNS:localhost", "DNS:kubernetes.default.svc", "DNS:kubernetes.default.svc.cluster.local")
    return (
        Identity("apiserver", "kube-apiserver", addresses=(*names, *(f"IP:{a}" for a in api_addresses))),
        Identity("kubelet-server", node, addresses=(f"IP:{node}",)),
        Identity("apiserver-to-kubelet", "kube-apiserver-kubelet-client", ("system:masters",)),
        Identity("admin", "admin", ("system:masters",)),
        # Not the roles of a real cluster: the audit log then has one name for each, and starting needs no tokens.
        Identity("controller-manager", "system:kube-controller-manager", ("system:masters",)),
        Identity("scheduler", "system:kube-scheduler", ("system:masters",)),
        Identity("kube-proxy", "system:kube-proxy", ("system:masters",)),
        Identity("coredns", "system:coredns", ("system:masters",)),
        Identity("kubelet", f"system:node:{node}", ("system:nodes",)),
    )


def make_certificates(folder: Path, wanted: tuple[Identity, ...]) -> None:
    """Writes `ca.crt`, NAME.crt and NAME.key of every identity, and `sa.key`/`sa.pub` of the service accounts."""
    folder.mkdir(parents=True, mode=0o700)
    _openssl(folder, "req", "-x509", *_new_key("ca"), "-subj", "/CN=invoker-test-ca", "-days", DAYS, "-out", "ca.crt")
    for identity in wanted:
        _sign(folder, identity)
    _openssl(folder, "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key")
    _openssl(folder, "ec", "-in", "sa.key", "-pubout", "-out", "sa.pub")


def kubeconfig(folder: Path, name: str, server: str, namespace: str = "default") -> str:
    """A kubeconfig that stands alone, as JSON, which is YAML."""

    def inline(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    user = {"client-certificate-data": inline(f"{name}.crt"), "client-key-data": inline(f"{name}.key")}
    cluster = {"server": server, "certificate-authority-data": inline("ca.crt")}
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "invoker-test", "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [
            {"name": "invoker-test", "context": {"cluster": "invoker-test", "user": name, "namespace": namespace}}
        ],
        "current-context": "invoker-test",
    }
    return json.dumps(content, indent=1)


def _sign(folder: Path, identity: Identity) -> None:
    write_whole(folder / f"{identity.name}.ext", identity.extensions)
    request = _openssl(folder, "req", *_new_key(identity.name), "-subj", identity.subject)
    authority = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", f"{identity.name}.ext")
    _openssl(folder, "x509", "-req", *authority, "-days", DAYS, "-out", f"{identity.name}.crt", given=request)


def _new_key(name: str) -> tuple[str, ...]:
    # Elliptic curves: a key in a millisecond, where RSA takes a tenth of a second for each of them.
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}.key")


def _openssl(folder: Path, *arguments: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(["openssl", *arguments], cwd=folder, input=given, capture_output=True, check=False)
    if done.returncode != 0:
        raise OSError(f"openssl {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
