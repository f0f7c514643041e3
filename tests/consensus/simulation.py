"""A cluster of replicas in a simulated world: one seed is one schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from testbed.consensus.log import Entry
from testbed.consensus.messages import Message, VoteReply
from testbed.consensus.outputs import Accepted, Apply, Output, ReadReady, Restore, Role, RoleChanged, Send, Write
from testbed.consensus.replica import Replica
from testbed.consensus.settings import Settings
from testbed.consensus.storage import Stored
from tests.consensus.invariants import Invariants, Violation
from tests.simulated.world import CoarseRandom, Disk, T, World
from tests.simulated.world import Host as SimulatedHost


@dataclass
class Host(SimulatedHost[Replica]):
    applied_index: int = 0
    commit_index: int = 0
    last_index: int = 0
    accepted: dict[tuple[int, int], int] = field(default_factory=dict)
    """By index and term of an entry: what was done when it was asked for."""

    @property
    def replica(self) -> Replica | None:
        return self.running


class Simulation(World[Host]):
    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        per_message = self.random.choice((1, 1, 3))
        self.settings = Settings(T, 0.4 * T, seed % 2 == 0, per_message, entries_in_flight=6)
        self.on_elected: Callable[[Host], None] = lambda host: None
        self.on_voted: Callable[[Host], None] = lambda host: None
        self.on_committed: Callable[[Host], None] = lambda host: None
        self.invariants = Invariants()
        self.steps = 0
        self._requests = 0
        self._reads: dict[int, int] = {}

    # --- hosts ------------------------------------------------------------------------------------------------

    def add_host(self, name: str, stored: Stored, up: bool = True) -> None:
        self.hosts[name] = Host(name, {None: Disk(stored)})
        self.invariants.check_entries(0, stored.entries)
        if up:
            self.start(self.hosts[name])

    def start(self, host: Host) -> None:
        assert host.running is None
        stored = host.disks[None].content()
        random = CoarseRandom(self.random.random())
        host.running = replica = Replica(host.name, stored, self.settings, random, self.clock(host))
        host.applied_index = host.commit_index = stored.snapshot.index
        host.last_index = replica.log.last_index
        host.timer_s, host.disk_free_s = None, self.now_s
        self.set_timer(host)

    def crash(self, host: Host) -> None:
        super().crash(host)
        host.accepted.clear()

    def leader(self) -> Host | None:
        """The one of the highest term."""
        leaders = [host for host in self.hosts.values() if host.replica and host.replica.role is Role.LEADER]
        return max(leaders, key=lambda host: host.replica.term if host.replica else 0, default=None)

    # --- what happens to a host -------------------------------------------------------------------------------

    def receive(self, host: Host, message: Message) -> None:
        assert host.replica
        self.do(host, host.replica.receive(message, self.clock(host)))

    def persisted(self, host: Host, log: int | None, number: int) -> None:
        assert host.replica
        self.do(host, host.replica.persisted(number, self.clock(host)))

    def tick(self, host: Host) -> None:
        assert host.replica
        self.do(host, host.replica.tick(self.clock(host)))

    # --- what replicas want done ------------------------------------------------------------------------------

    def do(self, host: Host, outputs: tuple[Output, ...]) -> None:
        replica = host.replica
        assert replica
        self.steps += 1
        for output in outputs:
            self.seen[type(output).__name__] += 1
            match output:
                case Send():
                    self.send(host.name, output.to, output.message)
                    if isinstance(output.message, VoteReply) and output.message.granted and not output.message.pre:
                        self.on_voted(host)
                case Write():
                    self._write(host, replica, output)
                case Apply():
                    self._apply(host, output.entries)
                case ReadReady():
                    begun = self._reads.pop(output.request)  # type: ignore[call-overload]
                    self.invariants.done(f"a read at {host.name}", begun, host.applied_index)
                case Accepted():
                    host.accepted[output.index, output.term] = self.invariants.begun()
                case Restore():
                    self.invariants.check_restored(host.name, host.applied_index, output.snapshot)
                    host.applied_index = output.snapshot.index
                case RoleChanged() if output.role is Role.LEADER:
                    self.invariants.check_leader(replica)
                    self.on_elected(host)
        if replica.commit_index != host.commit_index:
            if replica.commit_index < host.commit_index:
                raise Violation(f"{host.name} takes back what is committed after {replica.commit_index}")
            host.commit_index = replica.commit_index
            if replica.role is Role.LEADER:
                self.invariants.check_commit(replica)
                self.on_committed(host)
        self.set_timer(host)

    def _write(self, host: Host, replica: Replica, write: Write) -> None:
        self.invariants.check_write(replica, write, host.last_index)
        host.last_index = replica.log.last_index
        self.write(host, None, write)

    def _apply(self, host: Host, entries: tuple[Entry, ...]) -> None:
        self.invariants.check_applied(host.name, host.applied_index, entries)
        host.applied_index = entries[-1].index
        for entry in entries:
            begun = host.accepted.pop((entry.index, entry.term), None)
            if begun is not None:
                self.invariants.done(f"a write at {host.name}", begun, entry.index)

    # --- clients ----------------------------------------------------------------------------------------------

    def propose(self, host: Host) -> int:
        """The command that is proposed: no other is like it."""
        assert host.replica
        self._requests += 1
        self.do(host, host.replica.propose(None, self._requests, self.clock(host)))
        return self._requests

    def read(self, host: Host) -> None:
        assert host.replica
        self._requests += 1
        self._reads[self._requests] = self.invariants.begun()
        self.do(host, host.replica.read(self._requests, self.clock(host)))
