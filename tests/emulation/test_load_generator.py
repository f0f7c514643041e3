"""The clients of a zone, called in this process: what they learn of gateways, and a Locust that gets to no sending."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import orjson
import pytest

from testbed.control.messages import ConfigAcked, Event, ProxyConnected
from testbed.control.views.kube_proxy import ENDPOINT_SLICE, told_endpoints
from testbed.emulation.actors import load_generator
from testbed.emulation.actors.load_generator import LoadGenerator
from testbed.emulation.actors.reports import EncodedPush, MachineFolders, Reported
from testbed.emulation.actors.seam import handle_of
from testbed.emulation.processes.relay import Relays
from testbed.faults.effects import LinkEffect
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork, candidates
from testbed.objects.addresses import SocketAddress
from testbed.objects.core import Endpoint
from testbed.objects.workloads import GATEWAY
from testbed.scenario import load_scenario
from tests.emulation.loopback import DEADLINE_S, eventually

SCENARIO = Path(__file__).parent / "scenarios" / "outage.yaml"
SMALL = SCENARIO.with_name("small.yaml")
CLIENTS = "clients/east-a"


class Listening:
    """A master that writes down what clients report."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    async def report(self, place: str, delivered_s: float, reports: list[Reported]) -> None:
        assert place == CLIENTS
        self.heard += [report.event for report in reports]


async def answer_of(address: SocketAddress) -> bytes:
    reader, writer = await asyncio.open_connection(address.ip, address.port)
    answer = await reader.read()
    writer.close()
    return answer


async def _gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    address = writer.get_extra_info("sockname")[0]
    writer.write(address.encode())
    writer.close()


def small_generator(folder: Path) -> LoadGenerator:
    users = "spec.load.sources=[{zone: east-a, users: 1}]"
    scenario = load_scenario(SMALL, [users])
    network = LoopbackNetwork(250, [place.name for place in scenario.topology.places])
    folders = MachineFolders(folder, folder, "test")
    return LoadGenerator(
        "east-a",
        scenario.topology,
        scenario.control_plane_place,
        scenario.cluster.timings,
        network,
        handle_of(Listening()),
        scenario.load,
        folders,
        1,
    )


async def test_clients_follow_a_gateway_that_moves_and_acknowledge_it_unless_they_are_cut_off(tmp_path: Path) -> None:
    scenario = load_scenario(SCENARIO, [])
    topology, place = scenario.topology, scenario.control_plane_place
    block = next(block for octet in candidates() if (block := LoopbackBlock.take(octet)) is not None)
    network = LoopbackNetwork(block.second_octet, [each.name for each in topology.places])
    master = Listening()
    clients = LoadGenerator(
        "east-a",
        topology,
        place,
        scenario.cluster.timings,
        network,
        handle_of(master),
        scenario.load,
        MachineFolders(tmp_path, tmp_path, "test"),
        0,
    )
    locality = topology.place("east-b-1").locality
    gateways = [network.allocate_pod("east-b-1", 8080).app for _ in range(2)]

    async def told(version: str, *addresses: SocketAddress) -> None:
        found = (Endpoint("gateway-east-b-1", "east-b-1", locality, address) for address in addresses)
        resource = orjson.dumps(told_endpoints(GATEWAY, found))
        await clients.take_commands([EncodedPush(CLIENTS, ENDPOINT_SLICE, version, (resource,))])

    lost: list[str] = []
    relays = Relays("the link relay", tmp_path / "relay.log", lost.append)
    await relays.start(tmp_path, os.environ, topology)
    servers = [await asyncio.start_server(_gateway, address.ip, address.port) for address in gateways]
    entry = network.client_entry(CLIENTS, 1)
    await clients.boot()
    try:
        await eventually(lambda: master.heard == [ProxyConnected(CLIENTS)])
        await told("1", gateways[0])
        assert await answer_of(entry) == gateways[0].ip.encode()
        await told("2", gateways[1])
        assert await answer_of(entry) == gateways[1].ip.encode()
        await told("3")
        assert await answer_of(entry) == gateways[1].ip.encode(), "nobody says where it is now"
        acked = [ConfigAcked(CLIENTS, ENDPOINT_SLICE, version) for version in ("1", "2", "3", "4")]
        await eventually(lambda: master.heard[1:] == acked[:3])
        await clients.impose("cut", [(place, CLIENTS)], LinkEffect(cut=True), time.monotonic())
        await told("4", *reversed(gateways))
        assert await answer_of(entry) == gateways[0].ip.encode(), "the newest pod of a zone is its gateway"
        await asyncio.sleep(0.1)
        assert master.heard[1:] == acked[:3]
        await clients.lift("cut", time.monotonic())
        await eventually(lambda: master.heard[1:] == acked)
        assert lost == []
    finally:
        await clients.shut_down()
        await relays.stop()
        for server in servers:
            server.close()
        block.release()


async def test_what_goes_wrong_while_gateways_are_checked_is_told_to_who_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> int:
        raise KeyError("a defect")

    monkeypatch.setattr(load_generator, "http_status", broken)
    locustfile = tmp_path / "mine.py"
    locustfile.write_text("import no_such_module\n")
    generator = small_generator(tmp_path)
    await generator.boot()
    try:
        assert await generator.prepare(locustfile) is not None
        defect, *_ = await generator.vigil(DEADLINE_S)
    finally:
        await generator.shut_down()
    assert defect.startswith("a defect of the load generator of zone east-a: KeyError: 'a defect'")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("import no_such_module\n", ":1: ModuleNotFoundError: No module named 'no_such_module'"),
        ("import os\nos._exit(3)\n", None),
    ],
)
async def test_why_there_is_no_load_is_one_line_for_the_user(tmp_path: Path, text: str, why: str | None) -> None:
    locustfile = tmp_path / "mine.py"
    locustfile.write_text(text)
    generator = small_generator(tmp_path)
    await generator.boot()
    try:
        answer = await generator.prepare(locustfile)
    finally:
        await generator.shut_down()
    assert answer is not None
    assert len(answer.splitlines()) == 1
    if why is None:
        assert answer.startswith("the load generator of east-a ended with exit code 3")
    else:
        assert answer == f"{locustfile}{why}"
