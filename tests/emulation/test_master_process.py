"""What decides in a master's process: the control plane, with a clock and a log. In this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
import uvloop

from testbed.consensus.outputs import Write
from testbed.control.api_server import Refused
from testbed.control.masters import master
from testbed.control.masters.messages import Answered, Serves, Tell
from testbed.control.messages import Event, Hello, LeaseRenewed, NodeRegistered, PodStarted, RecordEvent, StartPod
from testbed.emulation.processes.lateness import NOTED_S
from testbed.emulation.processes.master_messages import Asked, Begin, FromMaster, Late, Said
from testbed.emulation.processes.master_process import MasterProcess, opened
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Node, Service
from testbed.objects.places import Locality
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment, PodTemplate
from tests.emulation.loopback import eventually

LOCALITY = Locality("east", "east-a")
NODES = ("east-a-1", "east-a-2")
OBJECTS = tuple(Node(name, LOCALITY) for name in NODES)
GATEWAY = Deployment("gateway", 1, PodTemplate("gateway", None, role="gateway"))
ADDRESS = PodAddress(*(SocketAddress("127.20.1.3", port) for port in (8080, 15006, 15001)))
GRACE_S = 1.0
PATIENT = Timings(lease_renew_s=0.1, lease_grace_s=600.0, node_monitor_s=0.05)
STRICT = replace(PATIENT, lease_grace_s=GRACE_S)
"""Where leases are what a test is about: nobody renews them in the others."""
WITHIN_S = 30.0


class Master(MasterProcess):
    def __init__(self, volume: Path, timings: Timings) -> None:
        self.told: list[FromMaster] = []
        self._count = count()
        self.begin = begin = Begin("control-plane", volume, timings, "sidecar", (), 1)
        self.journal = opened(begin)
        super().__init__(begin, self.journal, self.told.append)

    def say(self, *events: Event, arrived_s: float | None = None) -> None:
        """Each event by the node that it names."""
        for event in events:
            self.hear(Said(event.node, 1, time.monotonic() if arrived_s is None else arrived_s, (event,)))  # type: ignore[union-attr]

    def greet(self) -> None:
        for node in NODES:
            self.hear(Said(node, 1, time.monotonic(), (Hello(),)))

    def started(self) -> list[StartPod]:
        return [each.what for each in self.told if isinstance(each, Tell) and isinstance(each.what, StartPod)]

    async def ask(self, method: str, *arguments: object) -> Answered:
        number = next(self._count)
        self.hear(Asked(number, method, arguments))
        return await self.answered(number)

    async def answered(self, number: int) -> Answered:
        found: list[Answered] = []
        await eventually(lambda: found.extend(each for each in self.answers() if each.number == number) or found)
        return found[0]

    def answers(self) -> list[Answered]:
        return [each for each in self.told if isinstance(each, Answered)]

    def events(self, reason: str) -> list[str]:
        return [each.object for each in self.told if isinstance(each, RecordEvent) and each.reason == reason]


@asynccontextmanager
async def leading(volume: Path, timings: Timings = PATIENT) -> AsyncIterator[Master]:
    master = Master(volume, timings)
    running = asyncio.create_task(master.run())
    try:
        await eventually(lambda: Serves in map(type, master.told))
        yield master
    finally:
        running.cancel()


async def with_nodes(master: Master) -> None:
    await master.ask("apply", OBJECTS)
    master.greet()
    master.say(*map(NodeRegistered, NODES))


async def test_a_busy_master_gives_no_node_up_whose_lease_it_has_not_read_yet(tmp_path: Path) -> None:
    async with leading(tmp_path, STRICT) as master:
        await with_nodes(master)
        began_s = time.monotonic()
        time.sleep(2 * GRACE_S)  # as a long push does
        for tenths in range(1, round(20 * GRACE_S) + 1):
            master.say(*map(LeaseRenewed, NODES), arrived_s=began_s + tenths / 10)
        await asyncio.sleep(0.1)
        assert master.events("NodeNotReady") == []


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_node_that_is_silent_is_given_up_all_the_same(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    async def given_up() -> list[str]:
        async with leading(tmp_path, STRICT) as master:
            await with_nodes(master)
            deadline_s = time.monotonic() + WITHIN_S
            while not master.events("NodeNotReady") and time.monotonic() < deadline_s:
                master.say(LeaseRenewed("east-a-2"))
                await asyncio.sleep(0.05)
            return master.events("NodeNotReady")

    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(given_up()) == ["east-a-1"]


async def test_what_is_applied_and_deleted_later_is_carried_out_and_what_cannot_be_is_refused(tmp_path: Path) -> None:
    async with leading(tmp_path) as master:
        await with_nodes(master)
        assert (await master.ask("apply", (GATEWAY,))).error is None
        ready, total, waiting_for = (await master.ask("readiness", ())).answer  # type: ignore[misc]
        assert (ready, total, len(waiting_for) > 0) == (0, 1, True)
        await master.ask("delete", Deployment, "gateway", "default")
        assert (await master.ask("readiness", ())).answer[:2] == (0, 0)  # type: ignore[index]
        assert master.events("Created") == [*NODES, "gateway"]
        refused = await master.ask("delete", Deployment, "gateway", "default")
        assert isinstance(refused.error, Refused)


async def test_what_is_asked_before_it_leads_is_answered_when_it_does(tmp_path: Path) -> None:
    master = Master(tmp_path, PATIENT)
    master.hear(Asked(77, "apply", (OBJECTS,)))
    master.say(NodeRegistered("east-a-1"))
    running = asyncio.create_task(master.run())
    assert (await master.answered(77)).error is None
    assert type(master.told[0]) is Serves
    assert master.events("NodeReady") == [], "what was said to nobody is said again by who said it"
    running.cancel()


class SlowDisk:
    """Held up until it may write, as a disk is that others keep busy."""

    def __init__(self, master: Master) -> None:
        self._append = master.journal.append
        self.may = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        master.journal.append = self.append  # type: ignore[method-assign]

    def append(self, writes: Sequence[Write]) -> None:
        asyncio.run_coroutine_threadsafe(self.may.wait(), self._loop).result(WITHIN_S)
        self._append(writes)


async def test_nobody_hears_of_a_decision_that_is_not_on_the_disk(tmp_path: Path) -> None:
    async with leading(tmp_path) as master:
        await with_nodes(master)
        await master.ask("readiness", ())
        disk = SlowDisk(master)
        master.hear(Asked(77, "apply", ((GATEWAY,),)))
        master.say(LeaseRenewed("east-a-1"))
        await asyncio.sleep(0.1)
        assert not master.started()
        assert 77 not in [each.number for each in master.answers()]
        disk.may.set()
        await master.answered(77)
        await eventually(lambda: master.started())


async def test_who_begins_with_the_disk_of_another_knows_all_that_anybody_heard(tmp_path: Path) -> None:
    async with leading(tmp_path) as before:
        await with_nodes(before)
        await before.ask("apply", (GATEWAY, Service("gateway", selector=(("app", "gateway"),))))
        await eventually(lambda: before.started())
        (start,) = before.started()
        before.say(PodStarted(start.node, start.pod.name, ADDRESS))
        overview = (await before.ask("overview", ())).answer
    async with leading(tmp_path) as after:
        (first,) = [each for each in before.told if isinstance(each, Serves)]
        (second,) = [each for each in after.told if isinstance(each, Serves)]
        assert second.term > first.term, "what is said to the one is not taken for said to the other"
        assert (await after.ask("overview", ())).answer == overview
        assert [each.reason for each in after.told if isinstance(each, RecordEvent)] == ["Leading"]
        assert not after.started()
        await after.ask("apply", (replace(GATEWAY, replicas=2),))
        assert after.events("SuccessfulCreate") == ["gateway"]
        names = [pod.name for pod in (await after.ask("overview", ())).answer.pods]  # type: ignore[attr-defined]
        assert names == ["gateway-1", "gateway-2"]


async def test_a_log_that_grew_long_is_a_snapshot_from_which_a_master_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(master, "SNAPSHOT_ENTRIES", 10)
    async with leading(tmp_path) as before:
        await with_nodes(before)
        for port in range(1, 40):
            await before.ask("apply", (Service("web", port),))
    assert opened(before.begin).stored.snapshot.index >= 10
    async with leading(tmp_path) as after:
        (answer,) = [await after.ask("overview", ())]
        assert [node.name for node in answer.answer.nodes] == list(NODES)  # type: ignore[attr-defined]
        assert after.master._committed.get(Service, "web").port == 39


async def test_a_master_that_is_held_up_says_so(tmp_path: Path) -> None:
    async with leading(tmp_path) as master:
        await with_nodes(master)  # whose leases it looks at all the time
        time.sleep(5 * NOTED_S)
        await eventually(lambda: Late in map(type, master.told))
        (late, *_) = [each for each in master.told if isinstance(each, Late)]
        assert late.late_s >= NOTED_S
