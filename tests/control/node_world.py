"""The world around a node in tests of its life: pods, and a machine that does what the node asks in any order."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from testbed.control.kubelet.messages import (
    Answered,
    End,
    Ended,
    Failed,
    Forget,
    Killed,
    NodeAction,
    NodeEvent,
    OfPod,
    PowerBack,
    PowerCut,
    Probe,
    Register,
    Start,
)
from testbed.control.kubelet.node import NodeLifecycle
from testbed.control.kubelet.pod_lifecycle import ProbeFinished, ProxyReady
from testbed.control.kubelet.process import Process
from testbed.control.messages import StartPod, StopPod
from testbed.objects import workloads
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Pod
from testbed.objects.timings import Timings
from testbed.objects.workloads import BuiltinWorkload, PodTemplate, StoreReplica, StoreWorkload

ADDRESS = PodAddress(*(SocketAddress("127.20.1.3", port) for port in (8080, 15006, 15001)))
MESHED = PodTemplate("web", BuiltinWorkload())
BARE = replace(MESHED, mesh_mode="none")
PROBED = replace(MESHED, liveness=workloads.Probe(period_s=2.0, failure_threshold=1))
REPLICA = PodTemplate("ledger", StoreWorkload("r1", (StoreReplica("r1", "a", 0),)), mesh_mode="none")
TIMINGS = Timings()


def pod(name: str, template: PodTemplate = BARE) -> Pod:
    return Pod(name, "web", template, node="a")


Key = tuple[str, Process]


@dataclass
class Machine:
    """The world around a node: what it is asked to do takes its time, in any order, and may go wrong."""

    node: NodeLifecycle = field(default_factory=lambda: NodeLifecycle("a", TIMINGS, Random(1)))
    now_s: float = 0.0
    wanted: dict[str, Pod] = field(default_factory=dict)
    unwanted: set[str] = field(default_factory=set)
    asked: list[tuple[Start, set[Process]]] = field(default_factory=list)
    """Starts that are not answered yet, with those of their processes that nobody has started yet."""
    alive: dict[Key, int] = field(default_factory=dict)
    """The life of what runs."""
    ends: list[Ended] = field(default_factory=list)
    """Those that the node has not heard of yet."""
    probes: list[Probe] = field(default_factory=list)
    power: set[str] = field(default_factory=set)

    def say(self, event: NodeEvent | None) -> None:
        for action in self.node.handle(event, self.now_s):
            self.carry_out(action)
        deadline_s = self.node.next_deadline()
        assert deadline_s is None or deadline_s > self.now_s
        unheard = {(end.pod, end.process) for end in self.ends}
        for each, up in self.node.up():
            assert all((each.name, process) in {*self.alive, *unheard} for process in up)

    def carry_out(self, action: NodeAction) -> None:
        assert not isinstance(action, Failed), action
        assert self.node.at_work or isinstance(action, End), "without power it is silent"
        match action:
            case Start(of, lives):
                names = {process for process, _ in lives}
                for process in names:
                    assert (of.name, process) not in self.alive, "started twice"
                    assert not [1 for asked, waits in self.asked if asked.pod.name == of.name and process in waits]
                if of.template is REPLICA:
                    others = {name for name, _ in self.alive} | {asked.pod.name for asked, waits in self.asked if waits}
                    assert not (others & REPLICAS) - {of.name}, "another pod has its disk"
                self.asked.append((action, names))
            case End(name, process, _):
                self.die((name, process))
            case Probe():
                self.probes.append(action)
            case Register():
                for each in self.wanted.values():
                    self.say(StartPod("a", each))
                for name in sorted(self.unwanted):
                    self.say(StopPod("a", name))
            case Forget(name):
                assert not [key for key in self.alive if key[0] == name], "forgotten while it runs"
                assert not [1 for asked, waits in self.asked if asked.pod.name == name and waits]

    def die(self, key: Key) -> None:
        if key in self.alive:
            self.ends.append(Ended(*key, self.alive.pop(key), -9))

    def spawn(self, asked: tuple[Start, set[Process]]) -> None:
        for process, life in asked[0].lives:
            if process in asked[1]:
                self.alive[asked[0].pod.name, process] = life
        asked[1].clear()

    def answer(self, asked: tuple[Start, set[Process]], *, fails: bool) -> None:
        self.asked.remove(asked)
        failures: dict[Process, str] = dict.fromkeys(sorted(asked[1]), "cannot") if fails else {}
        if not fails:
            self.spawn(asked)
        self.say(Answered(asked[0], ADDRESS, failures))

    def one_step(self, what: str, number: int) -> None:
        """One thing happens, if it can."""
        name = NAMES[number % 5]
        match what:
            case "start" if name not in self.unwanted:
                self.wanted[name] = pod(name, (BARE, MESHED, PROBED, REPLICA, REPLICA)[number % 5])
                self.say(StartPod("a", self.wanted[name]))
            case "stop" if name in self.wanted:
                del self.wanted[name]
                self.unwanted.add(name)
                self.say(StopPod("a", name))
            case "kill":
                self.say(Killed(name))
            case "cut":
                fault = f"fault-{number % 2}"
                self.power.add(fault)
                self.say(PowerCut(fault))
            case "restore" if self.power:
                fault = sorted(self.power)[number % len(self.power)]
                self.power.discard(fault)
                self.say(PowerBack(fault))
            case "spawn" if self.asked:
                self.spawn(self.asked[number % len(self.asked)])
            case "answer" | "fail" if self.asked:
                self.answer(self.asked[number % len(self.asked)], fails=what == "fail")
            case "crash" if self.alive:
                self.die(sorted(self.alive)[number % len(self.alive)])
            case "hear" if self.ends:
                self.say(self.ends.pop(number % len(self.ends)))
            case "probed" if self.probes:
                probe = self.probes.pop(number % len(self.probes))
                self.say(OfPod(probe.pod.name, ProbeFinished(probe.kind, number % 3 > 0)))
            case "ready":
                self.say(OfPod(name, ProxyReady(True)))
            case "wait":
                self.now_s += number / 7
                self.say(None)

    def settle(self) -> None:
        """Everything under way comes to its end."""
        while self.asked or self.ends:
            if self.asked:
                self.answer(self.asked[0], fails=False)
            if self.ends:
                self.say(self.ends.pop(0))


NAMES = ("web-0", "web-1", "web-2", "ledger-r1-1", "ledger-r1-2")
REPLICAS = frozenset(NAMES[3:])
