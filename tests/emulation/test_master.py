"""The master as a shell around the control plane, called in this process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from testbed.control.messages import Event, LeaseRenewed, NodeRegistered
from testbed.control.objects import ClusterSpec, Node, Timings
from testbed.control.topology import Locality, Place, Topology
from testbed.emulation.actors import handle_of
from testbed.emulation.master import Master
from testbed.emulation.reports import NodeCommand, Reported

LOCALITY = Locality("east", "east-a")
NODES = ("east-a-1", "east-a-2")
GRACE_S = 0.4
CLUSTER = ClusterSpec(
    objects=tuple(Node(name, LOCALITY) for name in NODES),
    timings=Timings(lease_renew_s=0.1, lease_grace_s=GRACE_S, node_monitor_s=0.05),
)
TOPOLOGY = Topology((*(Place(name, LOCALITY) for name in NODES), Place("control-plane", LOCALITY, "control-plane")))
AHEAD_S = {"east-a-1": 0.0, "east-a-2": 1000.0}
"""The clocks of the nodes' machines."""


class Deaf:
    """A node that is told things and does nothing."""

    async def take_commands(self, commands: list[NodeCommand]) -> None: ...


async def connected_master() -> Master:
    master = Master(CLUSTER, TOPOLOGY, "control-plane")
    await master.connect({name: handle_of(Deaf()) for name in NODES}, [], AHEAD_S)
    for name in NODES:
        await report(master, NodeRegistered(name), time.monotonic())
    return master


async def report(master: Master, event: Any, delivered_s: float) -> None:
    reported: Event = event
    ahead_s = AHEAD_S[event.node]
    await master.report(event.node, delivered_s + ahead_s, [Reported(reported, delivered_s + ahead_s)])


async def lost_nodes(master: Master) -> list[str]:
    events, _ = await master.records()
    return [event.object for event in events if event.reason == "NodeNotReady"]


async def test_a_busy_master_gives_no_node_up_whose_lease_it_has_not_read_yet() -> None:
    master = await connected_master()
    began_s = time.monotonic()
    time.sleep(2 * GRACE_S)  # as a long push does
    for tenths in range(1, 9):
        for name in NODES:
            await report(master, LeaseRenewed(name), began_s + tenths / 10)
    await asyncio.sleep(0.1)
    assert await lost_nodes(master) == []


async def test_a_node_that_is_silent_is_given_up_all_the_same() -> None:
    master = await connected_master()
    deadline_s = time.monotonic() + 5
    lost: list[str] = []
    while not lost and time.monotonic() < deadline_s:
        await report(master, LeaseRenewed("east-a-2"), time.monotonic())
        await asyncio.sleep(0.05)
        lost += await lost_nodes(master)
    assert lost == ["east-a-1"]
