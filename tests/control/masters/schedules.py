"""One seed, one schedule: masters are killed, cut off and paused while users apply; healed, all must agree."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from testbed.control.masters.messages import Answered
from testbed.control.waiting import Waiting
from testbed.objects.core import Pod, Service
from testbed.objects.timings import Timings
from testbed.objects.workloads import Deployment
from tests.control.masters.simulation import TIMINGS, Host, Simulation, content
from tests.control.world import CLUSTER, WEB
from tests.simulated.nemesis import Nemesis as SimulatedNemesis
from tests.simulated.world import Chances, T

UP_WITHIN_S, AGREED_WITHIN_S = 30 * T, 40 * T


class Violation(Exception):
    pass


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
        self.asked: dict[int, tuple[str, str]] = {}
        """Services that were applied, with the master that was asked."""
        self.acknowledged: set[str] = set()
        self.scaled = 3
        random = self._random
        ways: list[Callable[[Host], None]] = [self._crash, self._kill, self._restart, self._isolate, self._pause]
        ways += [self._lose_zone, self._deafen, self._mute]
        self._ways = random.sample(ways, random.randint(1, 4))
        simulation.chances = Chances(
            lost=random.choice((0.0, 0.0, 0.0, 0.02)),
            doubled=random.choice((0.0, 0.0, 0.05)),
            late=random.choice((0.0, 0.0, 0.05)),
            delay_s=random.choice((0.01, 0.05)) * T,
            sync_s=0.02 * T,
        )
        self._round()
        self._soon(self._apply)

    def _leader(self) -> Host | None:
        return self._simulation.leader()

    def _ask_now(self, host: Host, write: bool) -> None:
        name = f"extra-{len(self.asked)}"
        number = self._simulation.ask(host, "apply", (Service(name),))
        self.asked[number] = host.name, name

    def _apply(self) -> None:
        self._note()
        host = (
            self._leader() if self._random.random() < 0.8 else self._random.choice([*self._simulation.hosts.values()])
        )
        if host is not None:
            self._ask(host, write=True)
        self._soon(self._apply)

    def _note(self) -> None:
        for number, (name, service) in self.asked.items():
            answered = self._simulation.hosts[name].answers.get(number)
            if isinstance(answered, Answered) and answered.error is None:
                self.acknowledged.add(service)

    def end(self) -> None:
        self._note()
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
    check_nothing_stopped(simulation)
    check_agreed(simulation)
    check_kept(simulation, nemesis.acknowledged)
    check_acts(simulation)
    return simulation


def check_nothing_stopped(simulation: Simulation) -> None:
    stopped = {node.name: node.stopped for node in simulation.nodes.values() if node.stopped}
    if stopped:
        raise Violation(f"stopped though nobody wanted it: {stopped}")


def check_agreed(simulation: Simulation) -> None:
    first, *others = (content(store) for store in simulation.stores())
    if any(other != first for other in others):
        raise Violation("masters differ in what is committed")
    running = {name for node in simulation.nodes.values() for name, pod in node.pods.items() if pod.ready}
    known = {pod.name for pod in simulation.stores()[0].list(Pod) if pod.ready}
    if running != known:
        raise Violation(f"{running ^ known} run, or are believed to, but not both")
    if len(simulation.leads_log()) != 1:
        raise Violation(f"{simulation.leads_log()} lead")


def check_kept(simulation: Simulation, acknowledged: set[str]) -> None:
    there = {service.name for service in simulation.stores()[0].list(Service)}
    simulation.seen["acknowledged"] += len(acknowledged)
    if acknowledged - there:
        raise Violation(f"acknowledged and forgotten: {acknowledged - there}")


def check_acts(simulation: Simulation) -> None:
    """The one that leads in the end carries out what is declared."""
    leader = simulation.leader()
    assert leader is not None
    simulation.ask(leader, "apply", (Deployment("web", 5, replace(WEB, max_skew=2)),))
    wait_until_ready(simulation, AGREED_WITHIN_S)
    if sum(name.startswith("web-") for node in simulation.nodes.values() for name in node.pods) != 5:
        raise Violation("web was not scaled")
