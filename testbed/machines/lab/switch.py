"""The lab's network: a bridge in a namespace of its own, a cable to every machine and one to the host.

The calling process must be in the bridge's namespace. Being there, and not on the host, no firewall of the host sees
what machines send each other, and the kernel removes all of it with the last process: the host has one link.

Addresses are never asked for (ARP): every machine knows its neighbours for good. So a machine that is gone, or cut
off, is silence, where an unanswered question would become "no route to host" after three seconds.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence

from testbed.machines.lab.plan import LabPlan, MachinePlan, mac_of

NOWHERE = "02:00:00:00:00:00"
"""A hardware address that nobody has."""
_BRIDGE = "switch"
_HOST_PORT = "host"


class Switch:
    """`host_netns` is an open file of the host's network namespace."""

    def __init__(self, plan: LabPlan, host_netns: int) -> None:
        self._plan = plan
        self._host_netns = host_netns

    def open(self) -> None:
        """Make the bridge and the host's link, which is named as the lab is."""
        link, host = self._plan.name, self._plan.host_address
        self._ip(
            [
                "link set lo up",
                f"link add {_BRIDGE} type bridge",
                f"link set {_BRIDGE} addrgenmode none up",
                f"link add {_HOST_PORT} type veth "
                f"peer name {link} address {mac_of(host)} netns /proc/self/fd/{self._host_netns}",
                f"link set {_HOST_PORT} master {_BRIDGE} addrgenmode none up",
            ]
        )
        self._ip(
            [
                f"link set {link} addrgenmode none up",
                f"address add {host}/24 dev {link}",
                *(_neighbour(machine.address, machine.mac, link) for machine in self._plan.machines),
            ],
            inside=["nsenter", f"--net=/proc/self/fd/{self._host_netns}"],
        )

    def plug(self, machine: MachinePlan, pid: int, cut_from: Iterable[str]) -> None:
        """Give the namespace of `pid` the machine's network card."""
        self._ip(
            [
                f"link add {machine.name} type veth peer name eth0 address {machine.mac} netns {pid}",
                f"link set {machine.name} master {_BRIDGE} addrgenmode none up",
            ]
        )
        self._ip(
            ["link set lo up", "link set eth0 addrgenmode none up", f"address add {machine.address}/24 dev eth0"],
            inside=_network_of(pid),
        )
        self.address_neighbours(machine, pid, cut_from)

    def unplug(self, machine: MachinePlan) -> None:
        """Pull the cable: from now on nothing of the machine reaches anyone, not even a reset."""
        subprocess.run(["ip", "link", "delete", machine.name], check=False, stderr=subprocess.DEVNULL)

    def address_neighbours(self, machine: MachinePlan, pid: int, cut_from: Iterable[str]) -> None:
        """Where frames to the others go from now on; those to `cut_from` (names) go nowhere. No error tells."""
        cut = set(cut_from)
        neighbours = [_neighbour(self._plan.host_address, mac_of(self._plan.host_address), "eth0")]
        neighbours += [
            _neighbour(other.address, NOWHERE if other.name in cut else other.mac, "eth0")
            for other in self._plan.machines
            if other.name != machine.name
        ]
        self._ip(neighbours, inside=_network_of(pid))

    def _ip(self, commands: Sequence[str], inside: Sequence[str] = ()) -> None:
        subprocess.run(
            [*inside, "ip", "-batch", "-"],
            input="\n".join(commands).encode(),
            check=True,
            pass_fds=[self._host_netns],
        )


def _network_of(pid: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def _neighbour(address: str, mac: str, device: str) -> str:
    return f"neighbor replace {address} lladdr {mac} nud permanent dev {device}"
