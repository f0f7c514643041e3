"""The clients of a zone, called in this process: what they learn of gateways, and a Locust that gets to no sending."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest

from testbed.control.messages import ConfigAcked, Event, Hello, Ping, ProxyConnected
from testbed.control.views.kube_proxy import ENDPOINT_SLICE, told_endpoints
from testbed.emulation.actors import entry_points, locust_process
from testbed.emulation.actors.load_generator import LoadGenerator
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.actors.reports import Letter, MachineFolders, Recorded
from testbed.emulation.actors.seam import handle_of
from testbed.emulation.processes.lateness import HELD_UP_S
from testbed.emulation.processes.master_messages import EncodedPush, Leads
from testbed.emulation.processes.relay import Relays
from testbed.faults.effects import LinkEffect
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork, candidates
from testbed.objects.addresses import SocketAddress
from testbed.objects.core import Endpoint
from testbed.objects.places import CONTROL_PLANE
from testbed.objects.workloads import GATEWAY
from testbed.results.tables.facts import LocustCount
from testbed.scenario import load_scenario
from tests.emulation.loopback import DEADLINE_S, eventually

SCENARIO = Path(__file__).parent / "scenarios" / "outage.yaml"
SMALL = SCENARIO.with_name("small.yaml")
CLIENTS = "clients/east-a"


class Listening:
    """A master that writes down what clients report."""

    def __init__(self) -> None:
        self.heard: list[Event] = []

    async def report(self, letters: list[Letter]) -> None:
        assert {letter.place for letter in letters} == {CLIENTS}
        reported = (report.event for letter in letters for report in letter.reports)
        self.heard += [event for event in reported if not isinstance(event, Hello | Ping)]


async def answer_of(address: SocketAddress) -> bytes:
    reader, writer = await asyncio.open_connection(address.ip, address.port)
    answer = await reader.read()
    writer.close()
    return answer


async def _gateway(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    address = writer.get_extra_info("sockname")[0]
    writer.write(address.encode())
    writer.close()


def small_generator(folder: Path, file: Path = SMALL) -> LoadGenerator:
    users = "spec.load.sources=[{zone: east-a, users: 1}]"
    scenario = load_scenario(file, [users])
    network = LoopbackNetwork(250, [place.name for place in scenario.topology.places])
    folders = MachineFolders(folder, folder, "test")
    return LoadGenerator(
        "east-a",
        scenario.topology,
        {CONTROL_PLANE: handle_of(Listening())},
        scenario.cluster.timings,
        network,
        scenario.load,
        folders,
        1,
    )


async def test_clients_follow_a_gateway_that_moves_and_acknowledge_it_unless_they_are_cut_off(tmp_path: Path) -> None:
    scenario = load_scenario(SCENARIO, [])
    topology, place = scenario.topology, CONTROL_PLANE
    block = next(block for octet in candidates() if (block := LoopbackBlock.take(octet)) is not None)
    network = LoopbackNetwork(block.second_octet, [each.name for each in topology.places])
    master = Listening()
    clients = LoadGenerator(
        "east-a",
        topology,
        {place: handle_of(master)},
        scenario.cluster.timings,
        network,
        scenario.load,
        MachineFolders(tmp_path, tmp_path, "test"),
        0,
    )
    locality = topology.place("east-b-1").locality
    gateways = [network.allocate_pod("east-b-1", 8080).app for _ in range(2)]

    async def told(version: str, *addresses: SocketAddress) -> None:
        found = (Endpoint("gateway-east-b-1", "east-b-1", locality, address) for address in addresses)
        resource = orjson.dumps(told_endpoints(GATEWAY, found))
        await clients.take_commands([EncodedPush(CLIENTS, CLIENTS, ENDPOINT_SLICE, version, (resource,), session=1)])

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
        await clients.take_commands([Leads(place, 2)])
        await eventually(lambda: master.heard[-1] == ProxyConnected(CLIENTS, ((ENDPOINT_SLICE, 4),)))
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

    monkeypatch.setattr(entry_points, "http_status", broken)
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


async def test_a_check_whose_time_ran_out_while_this_process_was_held_up_does_not_count_against_a_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []

    async def answer(_address: SocketAddress, _path: str, timeout_s: float) -> int:
        begun.append(timeout_s)
        async with asyncio.timeout(timeout_s):
            await asyncio.sleep(timeout_s / 2)
        return 200

    monkeypatch.setattr(entry_points, "http_status", answer)
    locustfile = tmp_path / "mine.py"
    locustfile.write_text("import no_such_module\n")
    generator = small_generator(tmp_path, SCENARIO)
    await generator.boot()
    try:
        assert await generator.prepare(locustfile) is not None
        for _ in range(2 * load_scenario(SCENARIO, []).cluster.timings.entry_failure_threshold):
            count = len(begun)
            await eventually(lambda count=count: len(begun) > count)
            time.sleep(1.2 * begun[-1])
        count = len(begun)
        await eventually(lambda: len(begun) > count + 3)
        assert [event for event in await generator.records() if event.reason == "EntryChanged"] == []
    finally:
        await generator.shut_down()


async def test_a_gateway_that_is_gone_is_left_though_this_process_was_late_while_it_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(_address: SocketAddress, _path: str, timeout_s: float) -> int:
        generator.loop_watch.woke(time.monotonic() - HELD_UP_S)
        async with asyncio.timeout(timeout_s):
            await asyncio.Event().wait()
        raise AssertionError("nobody answers")

    monkeypatch.setattr(entry_points, "http_status", silence)
    locustfile = tmp_path / "mine.py"
    locustfile.write_text("import no_such_module\n")
    generator = small_generator(tmp_path, SCENARIO)
    changes: list[Recorded] = []
    await generator.boot()
    try:
        assert await generator.prepare(locustfile) is not None
        deadline_s = time.monotonic() + DEADLINE_S
        while not changes and time.monotonic() < deadline_s:
            await asyncio.sleep(0.05)
            changes += [event for event in await generator.records() if event.reason == "EntryChanged"]
    finally:
        await generator.shut_down()
    assert changes


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


SAYS = 'say() { printf "%s\\n" "$1"; }\n'
READY = "say '{\"ready\": true}'\n"
STATS = (
    'say \'{"stats": {"t": 1.0, "sent": 20.0, "p99_ms": 3.5, "total": {"failed": 1, "unknown": 2}}}\'\n'
    'say \'{"stats": {"t": 2.0, "sent": 21.0, "p99_ms": null, "total": {"failed": 1, "unknown": 3}}}\'\n'
)
DONE = 'say \'{"done": {"requests": 40, "failures": 4, "own_events": 0, "own_failures": 0}}\'\n'
UNTIL_STOP = 'while read line && [ "$line" != stop ]; do :; done\n'


@asynccontextmanager
async def supervising(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str) -> AsyncIterator[LoadGenerator]:
    """A generator whose load process is a shell script, as far as its end."""
    script = folder / "load.sh"
    script.write_text(SAYS + program)
    monkeypatch.setattr(locust_process, "command", lambda _: ["/bin/sh", str(script)])
    generator = small_generator(folder)
    await generator.boot()
    try:
        yield generator
    finally:
        await generator.shut_down()
        await eventually(lambda: not generator._spawned)


async def test_how_load_goes_is_known_from_second_to_second_and_at_its_end_by_the_processs_own_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = READY + 'read start; say "$start" >&2\n' + STATS + UNTIL_STOP + DONE
    async with supervising(tmp_path, monkeypatch, program) as generator:
        assert await generator.prepare(None) is None
        assert await generator.progress() == LoadProgress()
        await generator.start(1234.5)
        await progressed(generator, lambda progress: progress.t_s == 2.0)
        assert await generator.progress() == LoadProgress(2.0, 21.0, 0.0, failed=1, unknown=3)
        await generator.stop()
        done = LoadProgress(failed=1, unknown=3, done=LocustCount(requests=40, failures=4))
        assert await generator.progress() == done
        assert "start 1234.5" in (tmp_path / "east-a.locust.log").read_text()


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not share cores by session")
async def test_a_process_goes_last_while_it_starts_and_first_once_it_can_send(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = 'cut -d " " -f 41 /proc/$$/stat >&2\n'
    starting = "until grep -q 'nice [1-9]' /proc/$$/autogroup; do sleep 0.01; done\n" + policy
    program = (
        starting + READY + "read start\n" + policy + "grep -o 'nice .*' /proc/$$/autogroup >&2\n" + UNTIL_STOP + DONE
    )
    async with supervising(tmp_path, monkeypatch, program) as generator:
        assert await generator.prepare(None) is None
        await generator.start(0.0)
        log = tmp_path / "east-a.locust.log"
        await eventually(lambda: len(log.read_text().splitlines()) == 3)
        assert log.read_text().splitlines() == [str(os.SCHED_OTHER), await punctual_policy(), "nice 0"]


async def punctual_policy() -> str:
    """Real time only for who may have it."""
    text = "import os, testbed.network.wire.scheduling as s; s.ask_to_be_punctual(); print(os.sched_getscheduler(0))"
    asked = await asyncio.create_subprocess_exec(sys.executable, "-c", text, stdout=asyncio.subprocess.PIPE)
    printed, _ = await asked.communicate()
    return printed.decode().strip()


async def test_a_process_that_has_said_its_all_and_ends_as_it_is_told_to_stop_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = READY + "read start; exec 0<&-\n" + DONE + "exec sleep 60\n"
    async with supervising(tmp_path, monkeypatch, program) as generator:
        await generator.prepare(None)
        await generator.start(0.0)
        await progressed(generator, lambda progress: progress.done is not None)
        await generator.stop()
        assert (await generator.progress()).error is None


async def progressed(generator: LoadGenerator, condition: Callable[[LoadProgress], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition(await generator.progress()):
            await asyncio.sleep(0.005)


async def test_a_process_that_ends_before_all_is_sent_is_a_failure_with_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = READY + "read start\n" + "echo 'out of memory' >&2; exit 9\n"
    async with supervising(tmp_path, monkeypatch, program) as generator:
        assert await generator.prepare(None) is None
        await generator.start(0.0)
        await progressed(generator, lambda progress: progress.error is not None)
        error = (await generator.progress()).error or ""
        assert error.startswith("the load generator of east-a ended with exit code 9: out of memory (log: ")
        await asyncio.wait_for(generator.stop(), DEADLINE_S)


@pytest.mark.parametrize(
    ("program", "how"),
    [("exec sleep 60\n", "did not become ready"), (READY + "exec sleep 60\n", "did not stop")],
)
async def test_a_process_that_hangs_is_waited_for_no_longer_than_it_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, how: str
) -> None:
    if how == "did not become ready":
        monkeypatch.setattr(locust_process, "STARTUP_DEADLINE_S", 0.5)
    monkeypatch.setattr(locust_process, "DRAIN_MARGIN_S", 0.2 - load_scenario(SMALL).load.timeout_s)
    async with supervising(tmp_path, monkeypatch, program) as generator:
        why = await generator.prepare(None)
        await asyncio.wait_for(generator.stop(), DEADLINE_S)
        error = why or (await generator.progress()).error or ""
        assert error.startswith(f"the load generator of east-a {how}: ")
