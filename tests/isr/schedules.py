"""One seed, one schedule: brokers, some of all faults for a while, then a healed network in which they must recover."""

from __future__ import annotations

from tests.isr.invariants import Violation
from tests.isr.simulation import Host, Setting, Simulation
from tests.simulated.nemesis import Nemesis as SimulatedNemesis
from tests.simulated.world import Chances, T

RECOVERY_S = 60 * T
"""Within that time after all is healed, all must be in sync, and a write must be acknowledged."""


def run_schedule(seed: int, setting: Setting) -> Simulation:
    """Raises Violation, or AssertionError of the replicas, if something is wrong."""
    simulation = Simulation(seed, setting)
    nemesis = Nemesis(simulation)
    simulation.run_until((8 + 8 * simulation.random.random()) * T)
    nemesis.end()
    recover(simulation)
    leader = simulation.leader()
    assert leader
    assert leader.broker
    simulation.invariants.check_acknowledged(leader.broker.replicas[0])
    return simulation


def recover(simulation: Simulation) -> None:
    end_s = simulation.now_s + RECOVERY_S

    def all_in_sync() -> bool:
        leader = simulation.leader()
        if not leader or not leader.broker:
            return False
        partition = leader.broker.replicas[0].partition
        return partition.leader == leader.name and set(partition.isr) == set(partition.replicas)

    while simulation.now_s < end_s:
        if not simulation.run_until(end_s, all_in_sync):
            raise Violation(f"liveness: not all in sync in {RECOVERY_S:g} s after all was healed")
        leader = simulation.leader()
        assert leader
        if write(simulation, leader):
            return read_everywhere(simulation)
    raise Violation(f"liveness: nothing acknowledged in {RECOVERY_S:g} s after all was healed")


def read_everywhere(simulation: Simulation) -> None:
    """All are in sync, so each learns what all have, and shows it."""
    hosts, last = [simulation.hosts[name] for name in simulation.replicas], simulation.invariants.last_acknowledged()
    if not simulation.run_until(
        simulation.now_s + 3 * T, lambda: all(simulation.shown_by(host) >= last for host in hosts)
    ):
        raise Violation("liveness: what was acknowledged is not shown everywhere 3 s later")


def write(simulation: Simulation, leader: Host) -> bool:
    """True if it is acknowledged soon."""
    request = simulation.produce(leader)
    acknowledged = simulation.invariants.acknowledged
    return simulation.run_until(simulation.now_s + 3 * T, lambda: request in acknowledged.values())


class Nemesis(SimulatedNemesis[Simulation, Host]):
    healed = Chances(delay_s=0.05 * T)
    soon = (0.0, 0.03, 0.1, 0.3)
    leader_away = 0.5

    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        random = self._random
        ways = (
            self._crash,
            self._restart,
            self._isolate,
            self._deafen,
            self._mute,
            self._part,
            self._part,
            self._pause,
        )
        self._ways = random.sample(ways, k=3)
        self._round_s = random.choice((0.5, 1.0, 2.0)) * T
        self._client_pause_s = random.choice((0.1, 0.3)) * T
        self._eager = random.choice((0.0, 0.5, 1.0))
        self._power = random.choice((0.0, 0.05, 0.2))
        simulation.chances = Chances(
            lost=random.choice((0.0, 0.0, 0.05, 0.2)),
            doubled=random.choice((0.0, 0.1)),
            late=random.choice((0.0, 0.0, 0.1, 0.3)),
            delay_s=random.choice((0.03, 0.1)) * T,
            sync_s=random.choice((0.01, 0.1, 0.3)) * T,
        )
        if random.random() < 0.5:
            for host in simulation.hosts.values():
                host.clock_rate = random.choice((0.5, 1.0, 1.0, 1.5))
        simulation.on_changed = self._after_change
        simulation.on_acknowledged = self._after_acknowledgement
        simulation.at(3 * T, self._round)
        simulation.at(random.random() * 2 * T, self._client)

    # --- clients ----------------------------------------------------------------------------------------------

    def _client(self) -> None:
        leaders = self._leaders()
        host = self._random.choice(leaders or list(self._simulation.hosts.values()))
        self._ask(host, write=self._random.random() < 0.7)
        self._later(self._random.expovariate(1 / self._client_pause_s), self._client)

    def _ask_now(self, host: Host, write: bool) -> None:
        (self._simulation.produce if write else self._simulation.read)(host)

    def _leaders(self) -> list[Host]:
        return [
            host
            for host in self._simulation.hosts.values()
            if host.broker and any(replica.leads for replica in host.broker.replicas.values())
        ]

    def _leader(self) -> Host | None:
        return self._simulation.leader()

    # --- rounds -----------------------------------------------------------------------------------------------

    def _round(self) -> None:
        self._bring_back(0.7)
        if self._random.random() < self._power:
            self._power_failure()
        for host in self._away():
            self._random.choice(self._ways)(host)
        self._later(self._round_s * (0.5 + self._random.random()), self._round)

    def _after_change(self, host: Host) -> None:
        """The first moments of a leader are those in which most can go wrong."""
        if not self.ended and self._random.random() < 0.4 * self._eager:
            self._soon(self._ask, host, True)
            self._soon(self._random.choice(self._ways), host)

    def _after_acknowledgement(self, host: Host) -> None:
        """What is acknowledged must survive even if its leader is gone at once."""
        if not self.ended and self._random.random() < 0.1 * self._eager:
            self._random.choice((self._isolate, self._crash, self._restart))(host)

    # --- faults -----------------------------------------------------------------------------------------------

    def _part(self, host: Host) -> None:
        """From one other only: its controllers may still reach both."""
        other = self._random.choice([name for name in self._simulation.hosts if name != host.name])
        self._simulation.cut |= {(host.name, other), (other, host.name)}
