"""One seed, one schedule: a cluster, some of all faults for a while, then a healed network in which it must recover."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from testbed.consensus.membership import Membership
from testbed.consensus.storage import Stored
from tests.consensus.beginnings import divergent, equal
from tests.consensus.invariants import Violation
from tests.consensus.simulation import Host, Simulation
from tests.simulated.nemesis import Nemesis as SimulatedNemesis
from tests.simulated.world import Chances, T

RECOVERY_S = 40 * T
"""Within that time after all is healed there must be a leader, and its next entry must be applied everywhere."""


def run_schedule(seed: int) -> Simulation:
    """Raises Violation, or AssertionError of the replicas, if something is wrong."""
    simulation = Simulation(seed)
    random = simulation.random
    change_members = random.random() < 0.25
    sizes = (2, 4, 4) if change_members else (1, 2, 3, 3, 3, 4, 5, 5)
    voters = tuple(f"r{number}" for number in range(random.choice(sizes)))
    begin = equal(voters) if random.random() < 0.5 else divergent(voters, random)
    for name, stored in begin.items():
        simulation.add_host(name, stored, up=random.random() < 0.85)
    for number in range(random.choice((0, 0, 1, 2))):
        simulation.add_host(f"s{number}", Stored.nothing())
    nemesis = Nemesis(simulation, change_members)
    end_s = (6 + 8 * random.random()) * T
    simulation.run_until(end_s)
    nemesis.end()
    recover(simulation)
    return simulation


def recover(simulation: Simulation) -> None:
    """Liveness: with everything up and every message delivered, proposals are applied by all members."""
    end_s = simulation.now_s + RECOVERY_S
    while simulation.now_s < end_s:
        if not simulation.run_until(end_s, lambda: simulation.leader() is not None):
            raise Violation(f"liveness: no leader in {RECOVERY_S:g} s after all was healed")
        leader = simulation.leader()
        if leader and propose_to_all(simulation, leader, min(end_s, simulation.now_s + 3 * T)):
            return
    raise Violation(f"liveness: nothing applied by all in {RECOVERY_S:g} s after all was healed")


def propose_to_all(simulation: Simulation, leader: Host, end_s: float) -> bool:
    """True if it is applied by all members until then."""
    simulation.propose(leader)
    assert leader.replica
    index = leader.replica.log.last_index
    members = leader.replica.log.membership

    def applied() -> bool:
        return all(simulation.hosts[name].applied_index >= index for name in members.voters + members.learners)

    return simulation.run_until(end_s, applied)


class Nemesis(SimulatedNemesis[Simulation, Host]):
    """Each round can elect another leader by another majority."""

    soon = (0.0, 0.03, 0.1, 0.2)
    leader_away = 0.6

    def __init__(self, simulation: Simulation, change_members: bool) -> None:
        super().__init__(simulation)
        random = self._random
        ways: tuple[Callable[[Host], None], ...] = (self._crash, self._restart, self._isolate, self._deafen, self._mute)
        self._ways = random.sample((*ways, self._pause), k=3)
        chores: tuple[Callable[[], None], ...] = (self._compact, self._change_members, self._transfer)
        self._chores = [chore for chore in chores if random.random() < 0.6]
        self._round_s = random.choice((0.3, 1.0, 2.0)) * T
        self._client_pause_s = random.choice((0.1, 0.3)) * T
        self._eager = random.choice((0.0, 0.5, 1.0))
        if change_members:
            self._chores, self._eager = [self._change_members], 1.0
        simulation.chances = Chances(
            lost=random.choice((0.0, 0.0, 0.05, 0.2)),
            doubled=random.choice((0.0, 0.1)),
            late=random.choice((0.0, 0.0, 0.1, 0.3)),
            delay_s=random.choice((0.03, 0.1, 0.2)) * T,
            sync_s=random.choice((0.03, 0.1, 0.3)) * T,
        )
        if random.random() < 0.5:
            for host in simulation.hosts.values():
                host.clock_rate = random.choice((0.3, 1.0, 1.0, 1.5))
        simulation.on_elected = self._after_election
        simulation.on_voted = self._after_vote
        simulation.on_committed = self._after_commit
        simulation.at(random.random() * 2 * T, self._round)
        simulation.at(random.random() * 2 * T, self._client)

    # --- clients ----------------------------------------------------------------------------------------------

    def _client(self) -> None:
        leaders, write = self._leaders(), self._random.random() < 0.6
        if len(leaders) > 1:  # the newest writes, others should know better than to answer
            self._ask(leaders[-1] if write else leaders[0], write)
        elif leaders and self._random.random() < 0.9:
            self._ask(leaders[0], write)
        else:
            self._ask(self._any(), write)
        self._later(self._random.expovariate(1 / self._client_pause_s), self._client)

    def _ask_now(self, host: Host, write: bool) -> None:
        (self._simulation.propose if write else self._simulation.read)(host)

    def _leaders(self) -> list[Host]:
        """Those that believe to lead, by term."""
        leading = [
            (host.replica.term, host.name)
            for host in self._simulation.hosts.values()
            if host.replica and host.replica.leader == host.name
        ]
        return [self._simulation.hosts[name] for _, name in sorted(leading)]

    def _leader(self) -> Host | None:
        leaders = self._leaders()
        return self._random.choice(leaders) if leaders else None

    def _any(self) -> Host:
        return self._random.choice(list(self._simulation.hosts.values()))

    # --- rounds -----------------------------------------------------------------------------------------------

    def _round(self) -> None:
        self._bring_back(0.8)
        if self._random.random() < 0.05:
            self._power_failure()
        for host in self._away():
            self._random.choice(self._ways)(host)
        if self._random.random() < 0.6:
            self._jump_clocks()
        length_s = self._round_s * (0.5 + self._random.random())
        for chore in self._chores:
            self._later(length_s * self._random.random(), chore)
        self._later(length_s, self._round)

    def _after_vote(self, host: Host) -> None:
        if not self.ended and self._restart in self._ways and self._random.random() < 0.3 * self._eager:
            self._soon(self._restart, host)

    def _after_election(self, host: Host) -> None:
        """The first moments of a leader are those in which most can go wrong."""
        if not self.ended and self._random.random() < self._eager:
            if self._random.random() < 0.3:
                self._isolate(host)
            self._soon(self._use_leader, host, host.life)

    def _after_commit(self, host: Host) -> None:
        """What is committed must survive even if only a majority knows, and the leader is gone at once."""
        if not self.ended and self._random.random() < 0.4 * self._eager:
            self._random.choice((self._isolate, self._crash, self._restart))(host)
            self._soon(self._jump_clocks)

    def _use_leader(self, host: Host, life: int) -> None:
        if host.life == life and host.replica:
            if self._change_members in self._chores and self._random.random() < 0.7:
                self._change_members_of(host)
                if self._random.random() < 0.5:
                    self._change_members_of(host)
            else:
                self._simulation.propose(host)
            self._soon(self._lose_leader, host, life)

    def _lose_leader(self, host: Host, life: int) -> None:
        if host.life == life:
            self._random.choice(self._ways)(host)
            self._soon(self._jump_clocks)

    # --- faults -----------------------------------------------------------------------------------------------

    def _jump_clocks(self) -> None:
        """As if everything had stood still: many want to be elected at once."""
        leaders = self._leaders()
        for host in self._simulation.hosts.values():
            if self._random.random() < (0.4 if host in leaders else 0.8):
                host.clock_offset_s += self._random.uniform(1, 2) * T
                self._simulation.set_timer(host)
        if self._restart in self._ways and self._random.random() < 0.5:
            self._soon(self._restart, self._any())

    def _compact(self) -> None:
        for host in self._simulation.hosts.values():
            if host.replica and host.applied_index and self._random.random() < 0.7:
                index = self._random.randint(1, host.applied_index)
                state = self._simulation.invariants.state_at(index)
                self._simulation.do(host, host.replica.compact(index, state, self._simulation.clock(host)))

    def _transfer(self) -> None:
        if (host := self._leader()) and host.replica:
            successor = self._random.choice(host.replica.log.membership.voters)
            outputs = host.replica.transfer_leadership(None, successor, self._simulation.clock(host))
            self._simulation.do(host, outputs)

    def _change_members(self) -> None:
        if host := self._leader():
            self._change_members_of(host)

    def _change_members_of(self, host: Host) -> None:
        if host.replica:
            new = changed(host.replica.log.membership, list(self._simulation.hosts), self._random)
            self._simulation.do(host, host.replica.change_membership(None, new, self._simulation.clock(host)))


def changed(old: Membership, names: list[str], random: Random) -> Membership:
    """One goes, or comes: as a learner first, then as a voter."""
    if random.random() < 0.1:
        return Membership(tuple(name for name in names if random.random() < 0.5))
    name = random.choice(old.voters if random.random() < 0.5 else names)
    voters = tuple(voter for voter in old.voters if voter != name)
    learners = tuple(learner for learner in old.learners if learner != name)
    if name in old.learners and random.random() < 0.8:
        voters = tuple(sorted((*voters, name)))
    elif name not in old.voters and name not in old.learners:
        learners = tuple(sorted((*learners, name)))
    return Membership(voters, learners)
