"""The cluster's bridge: a network of its own beside whatever this machine has."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tests.cluster.folders import digest_of

SERVICES = IPv4Network("10.244.0.0/24")
"""Addresses of Services: the same in every cluster, since only its own router knows them."""
API_SERVICE = str(SERVICES[1])
"""The API server's address for pods."""
CANDIDATES = tuple(IPv4Network("10.245.0.0/16").subnets(new_prefix=22))


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge that pods are plugged into. Its address is this host as pods see it, before the first pod, too."""

    name: str
    network: str

    @property
    def address(self) -> str:
        return str(IPv4Network(self.network)[1])

    @property
    def address_with_prefix(self) -> str:
        return f"{self.address}/{IPv4Network(self.network).prefixlen}"

    @property
    def router(self) -> str:
        """Where pods send what is for Services, and ask for names."""
        return str(IPv4Network(self.network)[2])

    @property
    def router_with_prefix(self) -> str:
        return f"{self.router}/{IPv4Network(self.network).prefixlen}"

    @property
    def first_pod(self) -> str:
        return str(IPv4Network(self.network)[16])


def bridge_name(state: Path) -> str:
    """Fixed by the state folder, so that the next start finds what the previous one left. At most 15 characters."""
    return f"invk-{digest_of(str(state))[:8]}"


def create_bridge(state: Path) -> Bridge:
    """Makes the bridge in a network that nothing on this machine uses.

    With a hardware address of its own: without one a bridge takes the lowest of its ports', and every pod that comes or
    goes may change it. The pods that are there then send to an address that nobody has, for up to a minute.
    """
    bridge = Bridge(bridge_name(state), str(free_network(_taken_networks())))
    _ip("link", "add", bridge.name, "address", _hardware_address(bridge), "type", "bridge")
    _ip("addr", "add", bridge.address_with_prefix, "dev", bridge.name)
    _ip("link", "set", bridge.name, "up")
    return bridge


def delete_bridge(state: Path) -> None:
    """Takes the bridge away, and the router's link, which the kernel itself removes at its leisure. Safe to repeat."""
    name = bridge_name(state)
    for link in (router_link(name), name):
        try:
            if _is_link(link):
                _ip("link", "del", link)
        except OSError:
            if _is_link(link):  # else the kernel was faster
                raise


def _is_link(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def router_link(bridge: str) -> str:
    """The end of the router's link that is plugged into the bridge of that name."""
    return f"{bridge}r"


def free_network(taken: list[IPv4Network]) -> IPv4Network:
    """The first candidate that overlaps none of the taken networks."""
    for candidate in CANDIDATES:
        if not any(candidate.overlaps(network) for network in taken):
            return candidate
    raise OSError(f"every network of {CANDIDATES[0]} to {CANDIDATES[-1]} is in use on this machine")


def _hardware_address(bridge: Bridge) -> str:
    """Local and single (0a), and the network address behind it, so that two bridges have two."""
    return "0a:58:" + ":".join(f"{byte:02x}" for byte in IPv4Address(bridge.address).packed)


def _taken_networks() -> list[IPv4Network]:
    addresses = [
        IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False)
        for link in json.loads(_ip("-json", "-4", "addr"))
        for info in link.get("addr_info", [])
        if "local" in info
    ]
    routes = [route["dst"] for route in json.loads(_ip("-json", "-4", "route"))]
    return addresses + [IPv4Network(route, strict=False) for route in routes if route != "default"]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
