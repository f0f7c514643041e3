"""Addresses of a run on several machines: the loopback blocks of one, each place's on the machine where it lives.

Nothing of a pod listens on a machine's own address, so nothing of it can be reached from the network: what crosses
machines goes through the ingress of the destination's machine, which lets only this run in.
"""

from __future__ import annotations

from collections.abc import Mapping

from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.network.wire.tunnel import Tunnel


class HostNetwork(LoopbackNetwork):
    """The NetworkBackend of several machines; `machines` says where each place lives, `tunnels` how to get there.

    Picklable and a function of its arguments, as LoopbackNetwork.
    """

    def __init__(self, second_octet: int, machines: Mapping[str, str], tunnels: Mapping[str, Tunnel]) -> None:
        super().__init__(second_octet, machines)
        self._machines = dict(machines)
        self._tunnels = dict(tunnels)

    def tunnel(self, source: str, destination: str) -> Tunnel | None:
        there = self._machines[destination]
        return None if self._machines[source] == there else self._tunnels[there]
