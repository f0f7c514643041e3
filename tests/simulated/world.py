"""A simulated world for state machines: one seed is one schedule of messages, disks, clocks and crashes.

Nothing here is realistic but what can go wrong: messages are lost, doubled, late and overtaken; a crash loses of each
log what was not synced, wholly or from some write on; clocks run at different speeds, and processes stand still.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from testbed.consensus.outputs import Write
from testbed.consensus.storage import Stored

T = 1.0


class StateMachine(Protocol):
    """What is simulated: it wants to be told the time then."""

    def next_deadline(self) -> float: ...


Running = TypeVar("Running", bound=StateMachine)


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
class Host(Generic[Running]):
    name: str
    disks: dict[int | None, Disk]
    """By the number of the log; the log of a consensus has none."""
    clock_rate: float = 1.0
    clock_offset_s: float = 0.0
    running: Running | None = None
    life: int = 0
    timer_s: float | None = None
    disk_free_s: float = 0.0
    paused_until_s: float = 0.0


H = TypeVar("H", bound=Host[Any])


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


class World(ABC, Generic[H]):
    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now_s = 0.0
        self.chances = Chances()
        self.hosts: dict[str, H] = {}
        self.cut: set[tuple[str, str]] = set()
        """Directed: from, to."""
        self.seen: Counter[str] = Counter()
        """What was wanted done, by kind: nothing is proved about what never happens."""
        self._queue: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = 0

    # --- what a kind of hosts does ----------------------------------------------------------------------------

    @abstractmethod
    def start(self, host: H) -> None: ...

    @abstractmethod
    def receive(self, host: H, message: Any) -> None: ...

    @abstractmethod
    def persisted(self, host: H, log: int | None, number: int) -> None: ...

    @abstractmethod
    def tick(self, host: H) -> None: ...

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

    def clock(self, host: H) -> float:
        return self.now_s * host.clock_rate + host.clock_offset_s

    def set_timer(self, host: H) -> None:
        """To be called as well when its clock has been changed."""
        if not host.running or (deadline_s := host.running.next_deadline()) == float("inf"):
            return
        time_s = max((deadline_s - host.clock_offset_s) / host.clock_rate + 1e-9, self.now_s, host.paused_until_s)
        if time_s != host.timer_s:
            host.timer_s = time_s
            self.at(time_s, self._tick, host, host.life, time_s)

    def _tick(self, host: H, life: int, time_s: float) -> None:
        if host.life != life or not host.running or host.timer_s != time_s:
            return
        host.timer_s = None
        if host.paused_until_s > self.now_s:
            self.set_timer(host)
        else:
            self.tick(host)

    # --- messages ---------------------------------------------------------------------------------------------

    def send(self, sender: str, to: str, message: object) -> None:
        random, chances = self.random.random, self.chances
        if (sender, to) in self.cut or random() < chances.lost:
            return
        for _ in range(2 if random() < chances.doubled else 1):
            delay_s = chances.delay_s * (0.1 + 0.9 * random())
            if random() < chances.late:
                delay_s += 2 * T * random()
            self.at(self.now_s + delay_s, self._deliver, sender, to, message)

    def _deliver(self, sender: str, name: str, message: object) -> None:
        host = self.hosts[name]
        if not host.running or (sender, name) in self.cut:
            return
        if host.paused_until_s > self.now_s:
            self.at(host.paused_until_s, self._deliver, sender, name, message)
        else:
            self.receive(host, message)

    # --- disks ------------------------------------------------------------------------------------------------

    def write(self, host: H, log: int | None, write: Write) -> None:
        host.disks[log].unsynced.append(write)
        delay_s = self.chances.sync_s * self.random.random()
        host.disk_free_s = max(host.disk_free_s, self.now_s) + delay_s
        self.at(host.disk_free_s, self._sync, host, host.life, log, write.number)

    def _sync(self, host: H, life: int, log: int | None, number: int) -> None:
        if host.life != life or not host.running:
            return
        host.disks[log].sync(number)
        if host.paused_until_s > self.now_s:
            self.at(host.paused_until_s, self._sync, host, life, log, number)
        else:
            self.persisted(host, log, number)

    def crash(self, host: H) -> None:
        """With any number of writes on each disk that were under way."""
        host.running = None
        host.life += 1
        for disk in host.disks.values():
            if disk.unsynced:
                disk.sync(disk.unsynced[0].number - 1 + self.random.randint(0, len(disk.unsynced)))
                disk.unsynced.clear()
