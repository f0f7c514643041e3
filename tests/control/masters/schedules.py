"""One seed, one schedule: masters are killed, cut off and paused while users apply; healed, all must agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from testbed.control.masters.messages import Answered
from testbed.control.waiting import Waiting
from testbed.objects.core import Pod, Service
from testbed.objects.metadata import DEFAULT_NAMESPACE
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment
from tests.control.masters.invariants import Wanted, check
from tests.control.masters.simulation import TIMINGS, Host, PlayedNode, Simulation, Violation
from tests.control.world import CLUSTER, ORDERS, WEB
from tests.simulated.nemesis import Nemesis as SimulatedNemesis
from tests.simulated.world import Chances, T

UP_WITHIN_S, AGREED_WITHIN_S = 30 * T, 40 * T
LEADS_WITHIN_S = 10 * T
"""When one of two is left to vote for, and chance is coarse."""
SCALED, SCALED_MAX = "orders", 6


def begun(seed: int, timings: Timings = TIMINGS) -> Simulation:
    """A cluster that is up."""
    simulation = Simulation(seed, timings)
    if not simulation.run_until(UP_WITHIN_S, lambda: simulation.leader() is not None):
        raise Violation("nobody leads")
    leader = simulation.leader()
    assert leader is not None
    simulation.ask(leader, "apply", CLUSTER.objects)
    wait_until_ready(simulation, UP_WITHIN_S)
    return simulation


def wait_until_ready(simulation: Simulation, within_s: float) -> None:
    end_s, why = simulation.now_s + within_s, None
    while simulation.now_s < end_s:
        simulation.run_until(simulation.now_s + 0.5)
        why = not_ready(simulation)
        if not why:
            return
    raise Violation(f"after {within_s:g} s not all is as declared: {why}")


def not_ready(simulation: Simulation) -> object:
    """Why, as the leader says; None where all is."""
    leader = simulation.leader()
    if leader is None:
        return "nobody leads"
    streams = [answer(simulation, host, "streams") for host in simulation.hosts.values() if host is not leader]
    if None in streams:
        return "a master is down"
    found = answer(simulation, leader, "readiness", streams)
    if found is None:
        return f"{leader.name} has not answered"
    _, _, waiting = found
    return [str(each) for each in waiting if isinstance(each, Waiting)]


def answer(simulation: Simulation, host: Host, method: str, *arguments: object) -> Any:
    if host.running is None or host.paused_until_s > simulation.now_s:
        return None
    number = simulation.ask(host, method, *arguments)
    simulation.run_until(simulation.now_s + 0.4, lambda: number in host.answers)
    found = host.answers.get(number)
    return None if found is None or found.error is not None else found.answer


class Nemesis(SimulatedNemesis[Simulation, Host]):
    """Of masters. Nodes run on; those that are cut off with a master reach no other."""

    healed = Chances(delay_s=0.01 * T, sync_s=0.01 * T)
    soon = (0.1, 0.3, 0.5, 1.0)
    leader_away = 0.7

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self.wanted = Wanted()
        self._asked: dict[int, tuple[str, Callable[[], None]]] = {}
        """The master that was asked, and what is wanted for sure once it has said yes."""
        self._services, self._replicas = 0, 3
        random = self._random
        ways: list[Callable[[Host], None]] = [self._crash, self._kill, self._restart, self._isolate, self._pause]
        ways += [self._lose_zone, self._deafen, self._mute, lambda _: self._power_failure()]
        self._ways = random.sample(ways, random.randint(1, 4))
        simulation.chances = Chances(
            lost=random.choice((0.0, 0.0, 0.0, 0.02)),
            doubled=random.choice((0.0, 0.0, 0.05)),
            late=random.choice((0.0, 0.05, 0.2)),
            delay_s=random.choice((0.01, 0.05)) * T,
            sync_s=random.choice((0.02, 0.02, 0.2)) * T,
        )
        simulation.slow = random.choice((0.0, 0.3))
        self._chores = random.sample([self._add_service, self._scale, self._delete], random.randint(1, 3))
        self._round()
        self._soon(self._apply)
        self._soon(self._fail_pod)

    def _leader(self) -> Host | None:
        return self._simulation.leader()

    def _ask_now(self, host: Host, write: bool) -> None:
        self._random.choice(self._chores)(host)

    def _add_service(self, host: Host) -> None:
        self._services += 1
        name = f"extra-{self._services}"
        self._want(host, lambda: self.wanted.services.add(name), "apply", (Service(name),))

    def _scale(self, host: Host) -> None:
        if self._replicas == SCALED_MAX:
            return
        self._replicas += 1
        replicas = self._replicas

        def sure() -> None:
            self.wanted.replicas = max(self.wanted.replicas, replicas)

        self._want(host, sure, "apply", (Deployment(SCALED, replicas, ORDERS),))

    def _delete(self, host: Host) -> None:
        pods = self._running()
        if pods:
            _, name = self._random.choice(pods)
            self.wanted.deleted.add(name)
            self._want(host, lambda: self.wanted.deleted_for_sure.add(name), "delete", Pod, name, DEFAULT_NAMESPACE)

    def _want(self, host: Host, sure: Callable[[], None], method: str, *arguments: object) -> None:
        self._asked[self._simulation.ask(host, method, *arguments)] = host.name, sure

    def _running(self) -> list[tuple[PlayedNode, str]]:
        return [(node, name) for node in self._simulation.nodes.values() for name in node.pods]

    def _fail_pod(self) -> None:
        """Some never fail: of these it can be seen who takes them for not ready."""
        pods = [(node, name) for node, name in self._running() if not name.startswith("web-")]
        if pods:
            node, name = self._random.choice(pods)
            if self._random.random() < 0.3:
                self._simulation.crash_pod(node, name)
            else:
                self._simulation.fail_probe(node, name, self._random.choice((0.05, 0.3, 1.0)) * T)
        self._soon(self._fail_pod)

    def _apply(self) -> None:
        self._note()
        host = (
            self._leader() if self._random.random() < 0.8 else self._random.choice([*self._simulation.hosts.values()])
        )
        if host is not None:
            self._ask(host, write=True)
        self._soon(self._apply)

    def _note(self) -> None:
        for number, (name, sure) in list(self._asked.items()):
            answered = self._simulation.hosts[name].answers.get(number)
            if isinstance(answered, Answered):
                del self._asked[number]
                if answered.error is None:
                    self._simulation.seen["acknowledged"] += 1
                    sure()

    def end(self) -> None:
        self._note()
        self._simulation.slow = 0.0
        super().end()

    def _round(self) -> None:
        self._note()
        self._bring_back(0.7)
        for host in self._away():
            self._random.choice(self._ways)(host)
        self._later((0.5 + 4 * self._random.random()) * T, self._round)

    def _kill(self, host: Host) -> None:
        if host.running:
            self._note()
            self._simulation.crash(host, reset=True)

    def _crash(self, host: Host) -> None:
        self._note()
        super()._crash(host)

    def _isolate(self, host: Host) -> None:
        """From all others, nodes too."""
        super()._isolate(host)
        self._simulation.cut |= {(host.name, node) for node in self._simulation.nodes}

    def _lose_zone(self, host: Host) -> None:
        """A master and two nodes reach each other, and nobody else."""
        inside = {host.name, *list(self._simulation.nodes)[:2]}
        everybody = [*self._simulation.hosts, *self._simulation.nodes]
        self._simulation.cut |= {(a, b) for a in everybody for b in everybody if (a in inside) != (b in inside)}


def run_schedule(seed: int) -> Simulation:
    """Raises Violation, or AssertionError, if something is wrong."""
    simulation = begun(seed)
    nemesis = Nemesis(simulation)
    simulation.run_until(simulation.now_s + (8 + 12 * simulation.random.random()) * T)
    nemesis.end()
    wait_until_ready(simulation, AGREED_WITHIN_S)
    simulation.run_until(simulation.now_s + T)  # what is about to end, does
    check(simulation, nemesis.wanted, SCALED)
    check_takeover(simulation)
    check_acts(simulation)
    check(simulation, nemesis.wanted, SCALED)
    return simulation


def check_takeover(simulation: Simulation) -> None:
    """When nothing else goes wrong but that the leader is killed and a node falls silent, another leads, which notices
    that one, and nothing else."""
    leader, before = simulation.leader(), len(simulation.events)
    assert leader is not None
    silent = simulation.random.choice([*simulation.nodes])
    simulation.cut = {(a, b) for master in simulation.hosts for a, b in ((master, silent), (silent, master))}
    simulation.crash(leader, reset=simulation.random.random() < 0.5)
    if not simulation.run_until(simulation.now_s + LEADS_WITHIN_S, lambda: simulation.leader() is not None):
        raise Violation(f"nobody leads after {LEADS_WITHIN_S:g} s")
    grace_s = simulation.setup.timings.lease_grace_s

    def noticed() -> set[tuple[str, str]]:
        events = simulation.events[before:]
        return {(event.object, event.reason) for _, _, event in events if event.kind == "Node"}

    simulation.run_until(simulation.now_s + 2.0 * grace_s, lambda: (silent, "NodeNotReady") in noticed())
    simulation.run_until(simulation.now_s + grace_s / 4)
    if noticed() != {(silent, "NodeNotReady")}:
        raise Violation(f"{silent} is silent since another leads, and noticed is {noticed()}")
    its_own = simulation.nodes[silent].pods
    suffered = {
        (event.object, event.reason)
        for _, _, event in simulation.events[before:]
        if event.kind == "Pod" and event.object not in its_own
    }
    if suffered:
        raise Violation(f"a takeover is no reason for {suffered}")
    simulation.cut.clear()
    simulation.start(leader)
    wait_until_ready(simulation, AGREED_WITHIN_S)


def check_acts(simulation: Simulation) -> None:
    """The one that leads in the end carries out what is declared."""
    leader = simulation.leader()
    assert leader is not None
    simulation.ask(leader, "apply", (Deployment("web", 5, replace(WEB, max_skew=2)),))
    wait_until_ready(simulation, AGREED_WITHIN_S)
    if sum(name.startswith("web-") for node in simulation.nodes.values() for name in node.pods) != 5:
        raise Violation("web was not scaled")
