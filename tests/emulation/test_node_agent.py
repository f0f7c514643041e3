"""A node in this process, with real processes and sockets, and no Ray."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from testbed.control.kubelet import node
from testbed.control.kubelet.pod_lifecycle import KubeletCommand, PodLifecycle
from testbed.control.masters.messages import Tell
from testbed.control.messages import (
    Event,
    Hello,
    NodeRegistered,
    Ping,
    PodReadinessChanged,
    PodStarted,
    PodStopped,
    ProxyConnected,
    StartPod,
    StopPod,
)
from testbed.emulation.actors import node_agent
from testbed.emulation.actors.node_agent import NodeAgent
from testbed.emulation.actors.reports import Letter, MachineFolders
from testbed.emulation.actors.seam import handle_of
from testbed.emulation.processes.janitor import RUN_VARIABLE
from testbed.emulation.processes.master_messages import Leads
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.objects.addresses import PodAddress
from testbed.objects.core import Pod
from testbed.objects.places import Locality, Place, Topology
from testbed.objects.timings import Timings
from testbed.objects.workloads import CommandWorkload, PodTemplate, Probe
from tests.emulation.loopback import DEADLINE_S, eventually

pytestmark = pytest.mark.usefixtures("fork_server")
NODE = "east-a-1"
SLEEP = CommandWorkload((sys.executable, "-c", "import time; time.sleep(600)"))
TEMPLATE = PodTemplate("web", SLEEP, mesh_mode="none")
SERVER = CommandWorkload(
    (sys.executable, "-m", "http.server", "--bind", "$(POD_IP)", "$(PORT)"),
)
LISTEN_AND_SLEEP = (
    "import socket, sys, time; s = socket.create_server((sys.argv[1], int(sys.argv[2]))); time.sleep(600)"
)
HUNG = CommandWorkload((sys.executable, "-c", LISTEN_AND_SLEEP, "$(POD_IP)", "$(PORT)"))

E = TypeVar("E", bound=Event)


class Master:
    """Takes down what the node reports."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.registered: list[tuple[int, list[str], bool]] = []
        """In which session, with which pods, and whether the node had booted."""

    async def report(self, letters: list[Letter]) -> None:
        self.events += [
            report.event
            for letter in letters
            for report in letter.reports
            if not isinstance(report.event, Hello | Ping)
        ]
        self.registered += [
            (report.session, [pod.name for pod in report.event.pods], report.event.booted)
            for letter in letters
            for report in letter.reports
            if isinstance(report.event, NodeRegistered)
        ]

    def of(self, kind: type[E], pod: str) -> list[E]:
        return [event for event in self.events if isinstance(event, kind) and getattr(event, "pod", None) == pod]


def pod(name: str, template: PodTemplate = TEMPLATE) -> Pod:
    return Pod(name, name.rpartition("-")[0], template, node=NODE)


@asynccontextmanager
async def running(tmp_path: Path) -> AsyncIterator[tuple[NodeAgent, Master]]:
    topology = Topology(
        (Place(NODE, Locality("east", "east-a")), Place("control-plane", Locality("east", ""), "control-plane"))
    )
    folders = MachineFolders(logs=tmp_path, sockets=tmp_path, run_id="testbed-none")
    with LoopbackBlock.reserve() as block:
        network = LoopbackNetwork(block.second_octet, [NODE, "control-plane"])
        master = Master()
        agent = NodeAgent(
            NODE, topology, {"control-plane": handle_of(master)}, Timings(), network, folders, 1, [], {}, "node", ""
        )
        await agent.boot()
        try:
            yield agent, master
        finally:
            await agent.shut_down()


async def start(agent: NodeAgent, master: Master, *pods: Pod) -> None:
    await agent.take_commands([Tell(NODE, 1, StartPod(NODE, each)) for each in pods])
    await eventually(lambda: all(master.of(PodStarted, each.name) for each in pods))


async def test_a_master_that_leads_is_told_again_what_is_there_and_in_its_own_term(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1"))
        await agent.proxy_reported("web-1", "connected", 1.0, ())
        master.events.clear()
        await agent.take_commands([Leads("control-plane", 2)])
        await eventually(lambda: ProxyConnected("web-1") in master.events)
        await agent.cut_power("crash")
        master.events.clear()
        await agent.take_commands([Leads("control-plane", 3)])
        await agent.restore_power("crash")
        await eventually(lambda: master.of(PodStarted, "web-1"))
        assert master.registered == [(1, [], True), (2, ["web-1"], False), (3, [], True)]
        assert not [event for event in master.events if isinstance(event, ProxyConnected)]


async def test_a_pod_that_is_stopped_while_its_node_boots_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "BOOT_SPACING_S", 0.5)
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1"), pod("web-2"), pod("web-3"))
        await agent.cut_power("outage")
        master.events.clear()
        await agent.restore_power("outage")
        await agent.take_commands([Tell(NODE, agent._control._connection.session, StopPod(NODE, "web-2"))])
        await eventually(lambda: master.of(PodStarted, "web-1") and master.of(PodStarted, "web-3"))
        assert len(master.of(PodStopped, "web-2")) == 1
        assert not master.of(PodStarted, "web-2")
        assert await agent.vigil(0.0) == []


async def test_a_node_that_loses_power_while_it_boots_starts_each_pod_once_when_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node, "BOOT_SPACING_S", 0.05)
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1"), pod("web-2"))
        for _ in range(2):
            await agent.cut_power("outage")
            master.events.clear()
            await agent.restore_power("outage")
        await eventually(lambda: master.of(PodStarted, "web-1") and master.of(PodStarted, "web-2"))
        assert [event.restarts for event in master.of(PodStarted, "web-2")] == [1]


async def test_a_pod_that_cannot_be_handled_leaves_no_sibling_unstarted_and_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = LoopbackNetwork.allocate_pod

    def defective(network: LoopbackNetwork, node: str, port: int) -> PodAddress:
        if port == 9999:
            raise KeyError("a defect")
        return allocate(network, node, port)

    monkeypatch.setattr(LoopbackNetwork, "allocate_pod", defective)
    broken = PodTemplate("web", SLEEP, mesh_mode="none", port=9999)
    async with running(tmp_path) as (agent, master):
        await agent.take_commands(
            [Tell(NODE, 1, StartPod(NODE, each)) for each in (pod("web-1", broken), pod("web-2"))]
        )
        await eventually(lambda: master.of(PodStarted, "web-2"))
        defect, *_ = await agent.vigil(DEADLINE_S)
        assert defect.startswith(f"a defect of the agent of node {NODE} (pod web-1): KeyError: 'a defect'")


async def test_a_defect_in_one_pods_life_holds_up_no_other_when_something_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def healthy(*_: object) -> tuple[bool, str]:
        return True, ""

    probe_due = PodLifecycle._probe_due

    def defective(life: PodLifecycle, now: float) -> list[KubeletCommand]:
        if life._pod.name == "web-1" and life._address is not None:
            raise KeyError("a defect")
        return probe_due(life, now)

    monkeypatch.setattr(node_agent, "run_probe", healthy)
    monkeypatch.setattr(PodLifecycle, "_probe_due", defective)
    probed = PodTemplate("web", SLEEP, mesh_mode="none", readiness=Probe("tcpSocket", initial_delay_s=0.2))
    async with running(tmp_path) as (agent, master):
        await agent.take_commands([Tell(NODE, 1, StartPod(NODE, pod(name, probed))) for name in ("web-1", "web-2")])
        await eventually(lambda: any(change.ready for change in master.of(PodReadinessChanged, "web-2")))
        (defect,) = await agent.vigil(DEADLINE_S)
        assert defect.startswith(f"a defect of the agent of node {NODE} (pod web-1): KeyError: 'a defect'")


async def test_a_process_that_was_starting_when_the_power_went_does_not_run_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(node_agent.Pod):
        async def start(self, life: int) -> None:
            await asyncio.sleep(0.1)
            await super().start(life)

    # The program names a folder of this test in its command line, by which it is found wherever it has got to.
    program = CommandWorkload(("/bin/sh", "-c", f": {tmp_path}; sleep 600; exit"))

    def runs() -> bool:
        commands = (process.info["cmdline"] for process in psutil.process_iter(["cmdline"]))
        return any(str(tmp_path) in " ".join(command or ()) for command in commands)

    monkeypatch.setattr(node_agent, "Pod", Slow)
    async with running(tmp_path) as (agent, master):
        await agent.take_commands(
            [Tell(NODE, 1, StartPod(NODE, pod("web-1", PodTemplate("web", program, mesh_mode="none"))))]
        )
        await agent.cut_power("outage")
        await asyncio.wait_for(asyncio.gather(*agent._under_way), DEADLINE_S)
        await eventually(lambda: not runs())
        assert await agent.running_pods() == []
        assert not master.of(PodStarted, "web-1")
        await agent.restore_power("outage")
        await eventually(lambda: master.of(PodStarted, "web-1"))
        assert runs()


async def test_what_goes_wrong_in_a_task_that_nobody_waits_for_is_told_to_who_watches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> tuple[bool, str]:
        raise KeyError("a defect")

    async with running(tmp_path) as (agent, master):
        monkeypatch.setattr(node_agent, "run_probe", broken)
        probed = PodTemplate("web", SLEEP, mesh_mode="none", readiness=Probe("tcpSocket"))
        await start(agent, master, pod("web-1", probed))

        (defect,) = await agent.vigil(DEADLINE_S)
        assert defect.startswith(f"a defect of the agent of node {NODE} (pod web-1): KeyError: 'a defect'")


async def test_a_pod_that_is_killed_once_has_one_restart(tmp_path: Path) -> None:
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1"))
        await agent.kill_pod("web-1", time.monotonic())
        await eventually(lambda: len(master.of(PodStarted, "web-1")) == 2)
        assert master.of(PodStarted, "web-1")[-1].restarts == 1


async def test_a_pod_that_its_liveness_probe_ends_is_restarted_at_once_and_once(tmp_path: Path) -> None:
    probed = tmp_path / "probed"
    once = ("/bin/sh", "-c", f"echo >> {probed}; [ $(wc -l < {probed}) -gt 1 ]")
    fails_once = Probe("exec", period_s=0.5, timeout_s=DEADLINE_S, failure_threshold=1, command=once)
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1", PodTemplate("web", SLEEP, mesh_mode="none", liveness=fails_once)))
        await eventually(lambda: probed.exists() and probed.read_text().count("\n") > 2)
        assert [each.restarts for each in master.of(PodStarted, "web-1")] == [0, 1]
        assert not [change for change in master.of(PodReadinessChanged, "web-1") if "BackOff" in change.reason]


async def test_the_end_of_a_process_is_recorded_with_who_ended_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    noted = CommandWorkload(("/bin/sh", "-c", f"echo $$$$ > {pid_file}; exec sleep 600"))
    dying = Probe("exec", period_s=0.1, failure_threshold=1, command=("/bin/false",))
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("killed-1"), pod("nobody-1", PodTemplate("web", noted, mesh_mode="none")))
        await start(agent, master, pod("unhealthy-1", PodTemplate("web", SLEEP, mesh_mode="none", liveness=dying)))
        await eventually(lambda: bool(pid_file.exists() and pid_file.read_text()))
        await agent.kill_pod("killed-1", time.monotonic())
        os.kill(int(pid_file.read_text()), signal.SIGKILL)
        for name in ("killed-1", "nobody-1", "unhealthy-1"):
            await eventually(lambda name=name: len(master.of(PodStarted, name)) >= 2)
        events = await agent.records()
        exits = {event.object: event.details for event in reversed(events) if event.reason == "ProcessExited"}
        assert {pod: details["by"] for pod, details in exits.items()} == {
            "killed-1": "fault",
            "nobody-1": None,
            "unhealthy-1": "kubelet",
        }
        assert (exits["nobody-1"]["program"], exits["nobody-1"]["code"]) == ("command", -signal.SIGKILL)


async def test_sixteen_hung_pods_of_a_node_do_not_disturb_the_probes_of_another(tmp_path: Path) -> None:
    def probed(workload: CommandWorkload, timeout_s: float) -> PodTemplate:
        probe = Probe(period_s=0.2, timeout_s=timeout_s, failure_threshold=1)
        return PodTemplate("web", workload, mesh_mode="none", readiness=probe)

    hung = [pod(f"hung-{number}", probed(HUNG, 2 * DEADLINE_S)) for number in range(16)]
    async with running(tmp_path) as (agent, master):
        await start(agent, master, *hung)
        await start(agent, master, pod("web-1", probed(SERVER, 10.0)))
        log = tmp_path / "web-1.log"
        await eventually(lambda: log.exists() and log.read_text().count("GET / ") >= 6)
        ready = [change.ready for change in master.of(PodReadinessChanged, "web-1")]
        assert (ready[-1], ready.count(True)) == (True, 1)


async def test_a_probe_whose_time_ran_out_while_the_agent_was_held_up_does_not_count_against_the_pod(
    tmp_path: Path,
) -> None:
    begun = tmp_path / "begun"
    command = ("/bin/sh", "-c", f"echo >> {begun}; sleep 0.3")
    probe = Probe("exec", period_s=0.1, timeout_s=2.0, failure_threshold=1, command=command)
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1", PodTemplate("web", SLEEP, mesh_mode="none", readiness=probe)))
        await eventually(begun.exists)
        time.sleep(2.2)
        await eventually(lambda: len(begun.read_text()) >= 3)
        assert not [change for change in master.of(PodReadinessChanged, "web-1") if "Unhealthy" in change.reason]


async def test_a_container_and_its_probes_get_a_chosen_part_of_the_callers_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = {"PATH": "/usr/bin:/bin", "HOME": "/home/somebody", "LANG": "C.UTF-8", "TZ": "Asia/Tokyo"}
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    for name in ("RAY_AUTH_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "NO_PROXY", "SOMETHING_ELSE"):
        monkeypatch.setenv(name, "of the caller")
    seen = {who: tmp_path / who for who in ("container", "probe")}
    tell = {who: f"env -0 > {file}.new; mv {file}.new {file}" for who, file in seen.items()}
    template = PodTemplate(
        "web",
        CommandWorkload(("/bin/sh", "-c", f"{tell['container']}; sleep 600"), (("OWN", "on $(PORT)"),)),
        mesh_mode="none",
        readiness=Probe("exec", command=("/bin/sh", "-c", tell["probe"])),
    )
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1", template))
        await eventually(lambda: any(event.ready for event in master.of(PodReadinessChanged, "web-1")))
        for file in seen.values():
            await eventually(file.exists)
            environment = dict(line.split("=", 1) for line in file.read_text().split("\0") if line)
            assert environment.items() >= {**chosen, "OWN": "on 8080", RUN_VARIABLE: "testbed-none"}.items()
            assert "of the caller" not in environment.values()


async def test_a_node_that_has_been_shut_down_takes_no_more_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    woken: list[float] = []
    wake_up = NodeAgent._advance

    def counted(agent: NodeAgent) -> None:
        woken.append(time.monotonic())
        wake_up(agent)

    async def at_once(*_: object) -> tuple[bool, str]:
        return False, "it does not listen"

    monkeypatch.setattr(NodeAgent, "_advance", counted)
    monkeypatch.setattr(node_agent, "run_probe", at_once)
    probed = PodTemplate("web", SLEEP, mesh_mode="none", readiness=Probe("tcpSocket", period_s=0.3))
    async with running(tmp_path) as (agent, master):
        await start(agent, master, pod("web-1", probed))
        # From one probe to the next the node waits, and so it does when it is shut down.
        await eventually(lambda: len(woken) > 1)
    woken.clear()
    await asyncio.sleep(0.6)
    assert woken == []
