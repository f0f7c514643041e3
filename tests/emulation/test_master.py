"""The place of a master and its process, which is a real one: what goes in and out, and how it dies and comes back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import psutil
import pytest

from testbed.control.api_server import Refused
from testbed.control.masters.messages import Tell
from testbed.control.messages import (
    ConfigAcked,
    ConfigRejected,
    Event,
    Hello,
    NodeRegistered,
    PodListed,
    PodStarted,
    ProxyConnected,
    SessionEvent,
    StartPod,
)
from testbed.control.views.kube_proxy import ENDPOINT_SLICE, read_endpoints
from testbed.emulation.actors.master import Master
from testbed.emulation.actors.network_card import NetworkCard
from testbed.emulation.actors.reports import Letter, MachineFolders, Push, Reported
from testbed.emulation.actors.seam import handle_of
from testbed.emulation.processes.master import ControlPlaneDown
from testbed.emulation.processes.master_messages import EncodedPush, Leads, NodeCommand
from testbed.faults.effects import LinkEffect
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.cluster import ClusterSpec
from testbed.objects.core import Node
from testbed.objects.places import Locality, Place, Topology
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment, PodTemplate
from tests.emulation.loopback import eventually

LOCALITY = Locality("east", "east-a")
NODE, CLIENTS, PLACE = "east-a-1", "clients/east-a", "control-plane"
GATEWAY = Deployment("gateway", 1, PodTemplate("gateway", None, role="gateway"))
CLUSTER = ClusterSpec(
    (Node(NODE, LOCALITY), GATEWAY), Timings(lease_grace_s=600.0, node_monitor_s=0.05, master_restart_s=0.2)
)
TOPOLOGY = Topology(
    (Place(NODE, LOCALITY), Place(CLIENTS, LOCALITY, "clients"), Place(PLACE, LOCALITY, "control-plane"))
)
AHEAD_S = {NODE: 1000.0, CLIENTS: 500.0}
"""The clocks of the places' machines."""
ADDRESS = PodAddress(*(SocketAddress("127.20.1.3", port) for port in (8080, 15006, 15001)))
CUT = LinkEffect(cut=True)


class Told:
    """A place that writes down what reaches it."""

    def __init__(self) -> None:
        self.commands: list[NodeCommand] = []

    async def take_commands(self, commands: list[NodeCommand]) -> None:
        self.commands += commands

    @property
    def terms(self) -> list[int]:
        return [each.term for each in self.commands if isinstance(each, Leads)]

    @property
    def started(self) -> list[str]:
        orders = [each.what for each in self.commands if isinstance(each, Tell)]
        return [each.pod.name for each in orders if isinstance(each, StartPod)]

    def pushes(self) -> list[tuple[str, list[str]]]:
        """Version and addresses."""
        pushed = [each for each in self.commands if isinstance(each, EncodedPush) and each.type_url == ENDPOINT_SLICE]
        resources = [(each.version, orjson.loads(each.resources[0])) for each in pushed]
        return [(version, [str(at) for _, at in read_endpoints(resource)[1]]) for version, resource in resources]


class Cluster:
    def __init__(self, folder: Path) -> None:
        network = LoopbackNetwork(1, [place.name for place in TOPOLOGY.places])
        # Never plugged in: a control plane has no listener.
        card = NetworkCard(PLACE, TOPOLOGY, network, Path("nowhere"), 1)
        self.master = Master(CLUSTER, TOPOLOGY, card, [CLIENTS], MachineFolders(folder, folder, "test"), 1)
        self.places = {NODE: Told(), CLIENTS: Told()}

    async def say(self, place: str, *events: Event | SessionEvent) -> None:
        """In the session that began when it was last told who leads."""
        at_s, session = time.monotonic() + AHEAD_S[place], len(self.places[place].terms)
        await self.master.report([Letter(place, at_s, tuple(Reported(event, at_s, session) for event in events))])

    async def led(self, times: int) -> None:
        """All places know so many leaders."""
        await eventually(lambda: all(len(place.terms) >= times for place in self.places.values()))

    async def pushes_to(self, place: str, count: int) -> list[Push]:
        found: list[Push] = []
        deadline_s = time.monotonic() + 30
        while len(found) < count:
            assert time.monotonic() < deadline_s
            found = [push for push in await self.master.pushes() if push.place == place]
            await asyncio.sleep(0.01)
        return found

    async def reasons(self) -> list[str]:
        return [each.reason for each in await self.master.records() if each.kind == "Master"]

    @property
    def process(self) -> psutil.Process:
        """That of the master, once it leads."""
        mine = psutil.Process().children()
        (found,) = [each for each in mine if "testbed.emulation.processes.master_process" in each.cmdline()]
        return found


@asynccontextmanager
async def up(folder: Path) -> AsyncIterator[Cluster]:
    cluster = Cluster(folder)
    await cluster.master.connect({name: handle_of(place) for name, place in cluster.places.items()}, AHEAD_S)
    await cluster.master.declare()
    try:
        await cluster.led(1)
        await cluster.say(CLIENTS, Hello(), ProxyConnected(CLIENTS))
        await cluster.say(NODE, Hello(), NodeRegistered(NODE))
        await eventually(lambda: cluster.places[NODE].started)
        await cluster.say(NODE, PodStarted(NODE, "gateway-1", ADDRESS))
        await eventually(lambda: cluster.places[CLIENTS].pushes()[-1:] == [("2", ["127.20.1.3:8080"])])
        yield cluster
    finally:
        await cluster.master.shut_down()


async def test_a_start_is_kept_of_a_pod_that_another_master_has_ordered(tmp_path: Path) -> None:
    async with up(tmp_path) as cluster:
        listed = PodListed("web-8", ADDRESS, restarts=0, ready=True)
        await cluster.say(NODE, PodStarted(NODE, "web-7", ADDRESS), NodeRegistered(NODE, pods=(listed,), booted=False))
        ordered, starts = await cluster.master.pods_ever()
        assert (set(ordered), set(starts)) == ({"gateway-1"}, {"gateway-1", "web-7", "web-8"})


async def test_what_is_decided_takes_the_control_path_and_what_is_answered_is_kept(tmp_path: Path) -> None:
    async with up(tmp_path) as cluster:
        master, clients = cluster.master, cluster.places[CLIENTS]
        await master.impose("cut", [(CLIENTS, PLACE)], CUT, time.monotonic())
        moved = replace(ADDRESS, app=SocketAddress("127.20.1.4", 8080))
        await cluster.say(NODE, PodStarted(NODE, "gateway-1", moved))
        assert [push.acked_s for push in await cluster.pushes_to(CLIENTS, 3)] == [None] * 3
        assert len(clients.pushes()) == 2
        due_s = time.monotonic() + 0.05
        assert await master.lift("cut", due_s) >= due_s
        await eventually(lambda: clients.pushes()[2:] == [("3", ["127.20.1.4:8080"])])
        await cluster.say(CLIENTS, ConfigAcked(CLIENTS, ENDPOINT_SLICE, "3"))
        await cluster.say(CLIENTS, ConfigRejected(CLIENTS, ENDPOINT_SLICE, "2", "no such slice"))
        _, refused, acked = await cluster.pushes_to(CLIENTS, 3)
        assert (refused.acked_s, refused.error) == (None, "no such slice")
        assert acked.acked_s is not None
        with pytest.raises(Refused, match="Node 'elsewhere': the topology has no such place"):
            await master.apply([GATEWAY, Node("elsewhere", LOCALITY)])
        with pytest.raises(Refused, match="not found"):
            await master.delete(Deployment, "web")
        await master.delete(Deployment, "gateway")
        ordered, starts = await master.pods_ever()
        assert {name: pod.node for name, pod in ordered.items()} == {"gateway-1": NODE}
        assert {name: address for name, (address, _) in starts.items()} == {"gateway-1": ADDRESS}
        readiness = await master.readiness()
        assert (readiness.started, readiness.total) == (1, 0)
        with pytest.raises(KeyError):
            await master.report([Letter("nowhere", 0.0, ())])
        assert [defect.partition(" (")[0] for defect in await master.vigil(0.0)] == [
            "a defect of the supervisor of the control plane: KeyError: 'nowhere'"
        ]


async def test_a_master_that_is_killed_begins_again_with_its_disk_and_hears_only_who_has_connected_anew(
    tmp_path: Path,
) -> None:
    async with up(tmp_path) as cluster:
        master, node, clients = cluster.master, cluster.places[NODE], cluster.places[CLIENTS]
        before = await master.overview()
        killed, due_s = cluster.process, time.monotonic() + 0.05
        at_s = await master.kill(due_s)
        assert at_s is not None
        assert at_s >= due_s
        assert not killed.is_running()
        with pytest.raises(ControlPlaneDown, match="was killed, and is not back yet"):
            await master.overview()
        assert await master.kill(time.monotonic()) is None, "there is none"
        await cluster.say(NODE, PodStarted(NODE, "gateway-1", replace(ADDRESS, app=SocketAddress("127.20.1.9", 1))))
        await cluster.led(2)
        assert time.monotonic() >= at_s + CLUSTER.timings.master_restart_s
        assert node.terms[1] > node.terms[0]
        assert await master.overview() == before, "what was said while there was none is lost"
        await cluster.say(
            NODE, Hello(), NodeRegistered(NODE, pods=(PodListed("gateway-1", ADDRESS, 0, False),), booted=False)
        )
        await cluster.say(CLIENTS, Hello(), ProxyConnected(CLIENTS, ((ENDPOINT_SLICE, 2),)))
        await eventually(lambda: clients.pushes()[2:] == [("3", ["127.20.1.3:8080"])])
        await eventually(lambda: node.started == ["gateway-1"] * 2)
        assert await cluster.reasons() == ["Started", "Leading", "Killed", "Started", "Leading"]
        assert await master.vigil(0.0) == []


async def test_a_master_without_power_says_nothing_until_it_is_back(tmp_path: Path) -> None:
    async with up(tmp_path) as cluster:
        master = cluster.master
        await master.impose("crash", [(PLACE, NODE), (NODE, PLACE)], CUT, time.monotonic())
        await master.apply([replace(GATEWAY, replicas=2)])
        killed = cluster.process
        await master.cut_power("crash")
        await master.cut_power("zone")
        assert not killed.is_running()
        await master.restore_power("crash")
        with pytest.raises(ControlPlaneDown, match="has no power, by zone"):
            await master.readiness()
        await master.restore_power("zone")
        await master.lift("crash", time.monotonic())
        await cluster.led(2)
        assert cluster.places[NODE].started == ["gateway-1"], "what had not left is lost; who connects anew is told"
        assert (await master.readiness()).total == 2
        assert await cluster.reasons() == ["Started", "Leading", "PoweredOff", "Started", "Leading"]


async def test_a_master_has_a_share_of_the_cores_of_its_own(tmp_path: Path) -> None:
    async with up(tmp_path) as cluster:
        assert os.getsid(cluster.process.pid) == cluster.process.pid


async def test_a_master_that_is_paused_goes_on_and_is_not_taken_for_one_that_was_held_up(tmp_path: Path) -> None:
    async with up(tmp_path) as cluster:
        master = cluster.master
        assert await master.pause("still", time.monotonic()) is not None
        await eventually(lambda: cluster.process.status() == psutil.STATUS_STOPPED)
        with pytest.raises(ControlPlaneDown, match="is paused, by still"):
            await master.readiness()
        await asyncio.sleep(1.2)  # longer than its loop waits for anything
        await master.resume("still", time.monotonic())
        # What is said late is said between two answers.
        assert [(await master.readiness()).total for _ in range(2)] == [1, 1]
        records = await master.records()
        at_s = {each.reason: each.t_s for each in records if each.kind == "Master"}
        assert list(at_s) == ["Started", "Leading", "Paused", "Resumed"]
        # Before and after that a busy machine may well hold it up.
        late_s = [each.t_s for each in records if (each.object, each.reason) == ("the control plane", "Late")]
        assert not [due_s for due_s in late_s if at_s["Paused"] < due_s < at_s["Resumed"]]


async def test_a_master_that_nobody_killed_is_a_defect_and_what_it_was_asked_is_answered(tmp_path: Path) -> None:
    async with up(tmp_path) as cluster:
        os.kill(cluster.process.pid, signal.SIGKILL)
        (defect,) = await cluster.master.vigil(30.0)
        assert defect.startswith("the process of the master died (exit code -9)")
        with pytest.raises(ControlPlaneDown, match="died"):
            await cluster.master.readiness()


async def test_a_master_that_cannot_trust_its_disk_says_why_and_does_not_start(tmp_path: Path) -> None:
    volume = tmp_path / "volumes" / PLACE
    volume.mkdir(parents=True)
    (volume / "journal").write_bytes(b"not a journal")
    cluster = Cluster(tmp_path)
    with pytest.raises(ChildProcessError, match="the record at byte 0 is damaged"):
        await cluster.master.connect({}, {})
    await cluster.master.shut_down()
