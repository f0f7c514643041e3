"""The master as a shell around the control plane, called in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
import uvloop

from testbed.control.api_server import Refused
from testbed.control.messages import (
    ConfigAcked,
    ConfigRejected,
    Event,
    LeaseRenewed,
    NodeRegistered,
    PodStarted,
    ProxyConnected,
)
from testbed.control.plane import ControlPlane
from testbed.control.views.kube_proxy import ENDPOINT_SLICE, read_endpoints
from testbed.emulation.actors.master import Master
from testbed.emulation.actors.network_card import NetworkCard
from testbed.emulation.actors.reports import EncodedPush, NodeCommand, Push, Reported
from testbed.emulation.actors.seam import handle_of
from testbed.faults.effects import LinkEffect
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cluster import ClusterSpec
from testbed.objects.core import Node, Service
from testbed.objects.places import Locality, Place, Topology
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment, PodTemplate

LOCALITY = Locality("east", "east-a")
NODES = ("east-a-1", "east-a-2")
GRACE_S = 1.0
CLUSTER = ClusterSpec(
    objects=tuple(Node(name, LOCALITY) for name in NODES),
    timings=Timings(lease_renew_s=0.1, lease_grace_s=600.0, node_monitor_s=0.05),
)
STRICT = replace(CLUSTER, timings=replace(CLUSTER.timings, lease_grace_s=GRACE_S))
"""Where leases are what a test is about: nobody renews them in the others."""
TOPOLOGY = Topology((*(Place(name, LOCALITY) for name in NODES), Place("control-plane", LOCALITY, "control-plane")))
WITHIN_S = 30.0
AHEAD_S = {"east-a-1": 0.0, "east-a-2": 1000.0}
"""The clocks of the nodes' machines."""


class Deaf:
    """A node that is told things and does nothing."""

    async def take_commands(self, commands: list[NodeCommand]) -> None: ...


def card(topology: Topology) -> NetworkCard:
    """Never plugged in: a control plane has no listener."""
    network = LoopbackNetwork(1, [place.name for place in topology.places])
    return NetworkCard("control-plane", topology, network, Path("nowhere"), 1)


async def connected_master(cluster: ClusterSpec = CLUSTER) -> Master:
    master = Master(cluster, TOPOLOGY, card(TOPOLOGY), [])
    await master.connect({name: handle_of(Deaf()) for name in NODES}, AHEAD_S)
    for name in NODES:
        await report(master, NodeRegistered(name), time.monotonic())
    return master


async def report(master: Master, event: Any, delivered_s: float) -> None:
    reported: Event = event
    ahead_s = AHEAD_S[event.node]
    await master.report(event.node, delivered_s + ahead_s, [Reported(reported, delivered_s + ahead_s)])


async def lost_nodes(master: Master) -> list[str]:
    events = await master.records()
    return [event.object for event in events if event.reason == "NodeNotReady"]


async def test_a_busy_master_gives_no_node_up_whose_lease_it_has_not_read_yet() -> None:
    master = await connected_master(STRICT)
    began_s = time.monotonic()
    time.sleep(2 * GRACE_S)  # as a long push does
    for tenths in range(1, round(20 * GRACE_S) + 1):
        for name in NODES:
            await report(master, LeaseRenewed(name), began_s + tenths / 10)
    await asyncio.sleep(0.1)
    assert await lost_nodes(master) == []


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "Ray's"])
def test_a_node_that_is_silent_is_given_up_all_the_same(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def given_up() -> list[str]:
        master = await connected_master(STRICT)
        deadline_s = time.monotonic() + WITHIN_S
        lost: list[str] = []
        while not lost and time.monotonic() < deadline_s:
            await report(master, LeaseRenewed("east-a-2"), time.monotonic())
            await asyncio.sleep(0.05)
            lost += await lost_nodes(master)
        return lost

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(given_up()) == ["east-a-1"]


CLIENTS = "clients/east-a"
WITH_CLIENTS = Topology((*TOPOLOGY.places, Place(CLIENTS, LOCALITY, "clients")))
GATEWAY = Deployment("gateway", 1, PodTemplate("gateway", None, role="gateway"))
ADDRESS = PodAddress(*(SocketAddress("127.20.1.3", port) for port in (8080, 15006, 15001)))


class Listening:
    """Clients that write down what reaches them."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str]]] = []

    async def take_commands(self, commands: list[NodeCommand]) -> None:
        for command in commands:
            assert isinstance(command, EncodedPush)
            (resource,) = map(orjson.loads, command.resources)
            self.told.append((command.version, [str(address) for _, address in read_endpoints(resource)[1]]))


async def until_true(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)


async def test_new_addresses_of_gateways_reach_clients_over_the_control_path_and_not_while_it_is_cut() -> None:
    clients = Listening()
    cluster = replace(CLUSTER, objects=(*CLUSTER.objects, GATEWAY))
    master = Master(cluster, WITH_CLIENTS, card(WITH_CLIENTS), [CLIENTS])
    actors = {name: handle_of(Deaf()) for name in NODES} | {CLIENTS: handle_of(clients)}
    ahead_s = AHEAD_S | {CLIENTS: 500.0}
    await master.connect(actors, ahead_s)

    async def say(place: str, event: Event) -> None:
        at_s = time.monotonic() + ahead_s[place]
        await master.report(place, at_s, [Reported(event, at_s)])

    await say(CLIENTS, ProxyConnected(CLIENTS))
    await until_true(lambda: clients.told == [("1", [])])
    for name in NODES:
        await say(name, NodeRegistered(name))
    await say("east-a-1", PodStarted("east-a-1", "gateway-1", ADDRESS))
    await until_true(lambda: clients.told[1:] == [("2", ["127.20.1.3:8080"])])
    await master.impose("cut", [(CLIENTS, "control-plane")], LinkEffect(cut=True), time.monotonic())
    moved = replace(ADDRESS, app=SocketAddress("127.20.1.4", 8080))
    await say("east-a-1", PodStarted("east-a-1", "gateway-1", moved))
    pushed = await pushes_to(master, CLIENTS, 3)
    assert [push.acked_s for push in pushed] == [None] * 3
    assert len(clients.told) == 2
    await master.lift("cut", time.monotonic())
    await until_true(lambda: clients.told[2:] == [("3", ["127.20.1.4:8080"])])
    await say(CLIENTS, ConfigAcked(CLIENTS, ENDPOINT_SLICE, "3"))
    assert (await pushes_to(master, CLIENTS, 3))[-1].acked_s is not None


async def pushes_to(master: Master, place: str, count: int) -> list[Push]:
    """Those to one place, once there are so many."""
    deadline_s = time.monotonic() + WITHIN_S
    while len(found := [push for push in await master.pushes() if push.place == place]) < count:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.01)
    return found


async def test_what_is_applied_and_deleted_later_is_carried_out_and_what_cannot_be_is_refused() -> None:
    master = await connected_master()
    with pytest.raises(Refused, match="Node 'elsewhere': the topology has no such place"):
        await master.apply([Service("web"), Node("elsewhere", LOCALITY)])
    await master.apply([GATEWAY])
    assert (await master.readiness()).total == 1
    await master.delete(Deployment, "gateway")
    assert (await master.readiness()).total == 0
    events = await master.records()
    assert [(e.kind, e.object) for e in events if e.reason == "Created"] == [
        ("Node", "east-a-1"),
        ("Node", "east-a-2"),
        ("Deployment", "gateway"),
    ]
    with pytest.raises(Refused, match="not found"):
        await master.delete(Deployment, "gateway")


async def test_what_a_proxy_refuses_is_kept_with_its_push(monkeypatch: pytest.MonkeyPatch) -> None:
    master = await connected_master()
    await master.apply([GATEWAY])
    await tell_of(master, "east-a-1", PodStarted("east-a-1", "gateway-1", ADDRESS), ProxyConnected("gateway-1"))
    (push, *_) = await pushes_to(master, "east-a-1", 1)
    await tell_of(master, "east-a-1", ConfigRejected("gateway-1", push.type_url, push.version, "no such filter"))
    (refused,) = [push for push in await master.pushes() if push.error is not None]
    assert (refused.proxy, refused.version, refused.error) == ("gateway-1", push.version, "no such filter")
    assert refused.acked_s is None


async def tell_of(master: Master, node: str, *events: Event) -> None:
    at_s = time.monotonic() + AHEAD_S[node]
    await master.report(node, at_s, [Reported(event, at_s) for event in events])


async def test_a_pod_that_ran_is_remembered_when_it_is_gone() -> None:
    master = await connected_master()
    await master.apply([GATEWAY])
    started_s = time.monotonic()
    await master.report("east-a-1", started_s, [Reported(PodStarted("east-a-1", "gateway-1", ADDRESS), started_s)])
    assert (await master.readiness()).started == 1
    await master.delete(Deployment, "gateway")
    assert [(pod.name, at_s) for pod, at_s in await master.pods_ever()] == [("gateway-1", started_s)]


async def test_a_fault_of_links_waits_for_its_time() -> None:
    master = await connected_master()
    due_s = time.monotonic() + 0.05
    assert await master.impose("cut", (("east-a-1", "control-plane"),), LinkEffect(cut=True), due_s) >= due_s
    assert await master.lift("cut", due_s) >= due_s


async def test_what_goes_wrong_where_nobody_waits_is_told_to_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    master = await connected_master()
    with pytest.raises(KeyError):
        await master.report("nowhere", 0.0, [])
    assert [defect.partition(" (")[0] for defect in await master.vigil(0.0)] == [
        "a defect of the control plane: KeyError: 'nowhere'"
    ]
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context["exception"]))

    def broken(*_: object) -> None:
        raise KeyError("web-9")

    monkeypatch.setattr(ControlPlane, "handle", broken)
    (defect,) = await master.vigil(WITHIN_S)
    assert defect.startswith("a defect of the control plane: KeyError: 'web-9'")
    assert [str(error) for error in unhandled] == ["'web-9'"]
