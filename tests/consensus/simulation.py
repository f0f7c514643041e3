"""A cluster of replicas in a simulated world: one seed is one schedule of messages, disks, clocks, faults and clients.

Nothing here is realistic but what can go wrong: messages are lost, doubled, late and overtaken; a crash loses what was
not synced, wholly or from some write on; clocks run at different speeds, and processes stand still.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from testbed.consensus.log import Entry
from testbed.consensus.messages import Message, VoteReply
from testbed.consensus.outputs import Accepted, Apply, Output, ReadReady, Restore, Role, RoleChanged, Send, Write
from testbed.consensus.replica import Replica
from testbed.consensus.settings import Settings
from testbed.consensus.storage import Stored
from tests.consensus.invariants import Invariants, Violation

T = 1.0


@dataclass
class Disk:
    """What is synced survives. Of what is not, a crash leaves any number of the first writes."""

    stored: Stored
    synced: list[Write] = field(default_factory=list)
    unsynced: list[Write] = field(default_factory=list)

    def sync(self, number: int) -> None:
        while self.unsynced and self.unsynced[0].number <= number:
            self.synced.append(self.unsynced.pop(0))

    def content(self) -> Stored:
        for write in self.synced:
            self.stored = self.stored.after(write)
        self.synced.clear()
        return self.stored


@dataclass
class Host:
    name: str
    disk: Disk
    clock_rate: float = 1.0
    clock_offset_s: float = 0.0
    replica: Replica | None = None
    life: int = 0
    applied_index: int = 0
    commit_index: int = 0
    last_index: int = 0
    timer_s: float | None = None
    disk_free_s: float = 0.0
    paused_until_s: float = 0.0
    accepted: dict[tuple[int, int], int] = field(default_factory=dict)
    """By index and term of an entry: what was done when it was asked for."""


@dataclass
class Chances:
    """How the world behaves at the moment."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    delay_s: float = 0.1 * T
    sync_s: float = 0.03 * T


class CoarseRandom(Random):
    """Chooses one of few election time-outs, so that votes are split."""

    def random(self) -> float:
        return int(super().random() * 4) / 4


class Simulation:
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.chances = Chances()
        self.settings = Settings(T, 0.4 * T, self.random.choice((1, 1, 3)), entries_in_flight=6)
        self.on_elected: Callable[[Host], None] = lambda host: None
        self.on_voted: Callable[[Host], None] = lambda host: None
        self.on_committed: Callable[[Host], None] = lambda host: None
        self.invariants = Invariants()
        self.hosts: dict[str, Host] = {}
        self.cut: set[tuple[str, str]] = set()
        """Directed: from, to."""
        self.steps = 0
        self.seen: Counter[str] = Counter()
        """What the replicas wanted done, by kind: nothing is proved about what never happens."""
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0
        self._requests = 0
        self._reads: dict[int, int] = {}

    # --- time -------------------------------------------------------------------------------------------------

    def at(self, time_s: float, action: Callable[..., None], *arguments: object) -> None:
        self._number += 1
        heapq.heappush(self._queue, (time_s, self._number, action, arguments))

    def run_until(self, end_s: float, stop: Callable[[], bool] | None = None) -> bool:
        """True if `stop` says so after some step."""
        while self._queue and self._queue[0][0] <= end_s:
            self.now_s, _, action, arguments = heapq.heappop(self._queue)
            action(*arguments)
            if stop and stop():
                return True
        self.now_s = end_s
        return False

    def clock(self, host: Host) -> float:
        return self.now_s * host.clock_rate + host.clock_offset_s

    # --- hosts ------------------------------------------------------------------------------------------------

    def add_host(self, name: str, stored: Stored, up: bool = True) -> None:
        self.hosts[name] = Host(name, Disk(stored))
        self.invariants.check_entries(0, stored.entries)
        if up:
            self.start(self.hosts[name])

    def start(self, host: Host) -> None:
        assert host.replica is None
        stored = host.disk.content()
        random = CoarseRandom(self.random.random())
        host.replica = Replica(host.name, stored, self.settings, random, self.clock(host))
        host.applied_index = host.commit_index = stored.snapshot.index
        host.last_index = host.replica.log.last_index
        host.timer_s, host.disk_free_s = None, self.now_s
        self.set_timer(host)

    def crash(self, host: Host) -> None:
        """With any number of writes on the disk that were under way."""
        host.replica = None
        host.life += 1
        if host.disk.unsynced:
            host.disk.sync(host.disk.unsynced[0].number - 1 + self.random.randint(0, len(host.disk.unsynced)))
            host.disk.unsynced.clear()
        host.accepted.clear()

    def leader(self) -> Host | None:
        """The one of the highest term."""
        leaders = [host for host in self.hosts.values() if host.replica and host.replica.role is Role.LEADER]
        return max(leaders, key=lambda host: host.replica.term if host.replica else 0, default=None)

    # --- what happens to a host -------------------------------------------------------------------------------

    def _deliver(self, name: str, message: Message) -> None:
        host = self.hosts[name]
        if not host.replica or (message.sender, name) in self.cut:
            return
        if host.paused_until_s > self.now_s:
            self.at(host.paused_until_s, self._deliver, name, message)
        else:
            self.do(host, host.replica.receive(message, self.clock(host)))

    def _sync(self, host: Host, life: int, number: int) -> None:
        if host.life != life or not host.replica:
            return
        host.disk.sync(number)
        if host.paused_until_s > self.now_s:
            self.at(host.paused_until_s, self._sync, host, life, number)
        else:
            self.do(host, host.replica.persisted(number, self.clock(host)))

    def _tick(self, host: Host, life: int, time_s: float) -> None:
        if host.life != life or not host.replica or host.timer_s != time_s:
            return
        host.timer_s = None
        if host.paused_until_s > self.now_s:
            self.set_timer(host)
        else:
            self.do(host, host.replica.tick(self.clock(host)))

    def set_timer(self, host: Host) -> None:
        """To be called as well when its clock has been changed."""
        if not host.replica:
            return
        deadline_s = host.replica.next_deadline()
        if deadline_s == float("inf"):
            return
        time_s = max((deadline_s - host.clock_offset_s) / host.clock_rate + 1e-9, self.now_s, host.paused_until_s)
        if time_s != host.timer_s:
            host.timer_s = time_s
            self.at(time_s, self._tick, host, host.life, time_s)

    # --- what replicas want done ------------------------------------------------------------------------------

    def do(self, host: Host, outputs: tuple[Output, ...]) -> None:
        replica = host.replica
        assert replica
        self.steps += 1
        for output in outputs:
            self.seen[type(output).__name__] += 1
            match output:
                case Send():
                    self._send(host.name, output)
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

    def _send(self, sender: str, send: Send) -> None:
        random, chances = self.random.random, self.chances
        if (sender, send.to) in self.cut or random() < chances.lost:
            return
        for _ in range(2 if random() < chances.doubled else 1):
            delay_s = chances.delay_s * (0.1 + 0.9 * random())
            if random() < chances.late:
                delay_s += 2 * T * random()
            self.at(self.now_s + delay_s, self._deliver, send.to, send.message)

    def _write(self, host: Host, replica: Replica, write: Write) -> None:
        self.invariants.check_write(replica, write, host.last_index)
        host.last_index = replica.log.last_index
        host.disk.unsynced.append(write)
        delay_s = self.chances.sync_s * self.random.random()
        host.disk_free_s = max(host.disk_free_s, self.now_s) + delay_s
        self.at(host.disk_free_s, self._sync, host, host.life, write.number)

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
