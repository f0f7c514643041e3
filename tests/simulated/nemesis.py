"""What goes wrong in a simulated world, and what clients ask for meanwhile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from tests.simulated.world import Chances, Host, T, World

H = TypeVar("H", bound=Host[Any])
W = TypeVar("W", bound=World[Any])


class Nemesis(ABC, Generic[W, H]):
    """It goes on in rounds. In each, some hosts are away in one way or another, mostly so few that the others can go on
    without them, and often the leader among them. Each schedule has some kinds of faults only, for all of them together
    would let nothing happen."""

    healed = Chances()
    soon: tuple[float, ...] = ()
    """Delays among which chance chooses, in T."""
    leader_away = 0.0
    """How often the leader is among those that are away, at least."""

    def __init__(self, simulation: W) -> None:
        self._simulation = simulation
        self._random = simulation.random
        self._ways: list[Callable[[H], None]] = []
        self.ended = False

    @abstractmethod
    def _leader(self) -> H | None:
        """Who believes to lead."""

    @abstractmethod
    def _ask_now(self, host: H, write: bool) -> None:
        """Of one that runs."""

    def end(self) -> None:
        """All is up, every message is delivered soon, and clocks go about right."""
        self.ended = True
        simulation = self._simulation
        simulation.chances = self.healed
        self._bring_back(1.0)
        for host in simulation.hosts.values():
            now_s = simulation.clock(host)
            host.clock_rate = self._random.uniform(0.95, 1.05)
            host.clock_offset_s = now_s - simulation.now_s * host.clock_rate
            simulation.set_timer(host)

    def _ask(self, host: H, write: bool) -> None:
        """Who stands still finds what it was asked meanwhile when it goes on."""
        if host.paused_until_s > self._simulation.now_s:
            self._later(host.paused_until_s - self._simulation.now_s, self._ask, host, write)
        elif host.running:
            self._ask_now(host, write)

    def _later(self, delay_s: float, action: Callable[..., None], *arguments: object) -> None:
        def act() -> None:
            if not self.ended:
                action(*arguments)

        self._simulation.at(self._simulation.now_s + delay_s, act)

    def _soon(self, action: Callable[..., None], *arguments: object) -> None:
        self._later(self._random.choice(self.soon) * T, action, *arguments)

    # --- rounds -----------------------------------------------------------------------------------------------

    def _away(self) -> list[H]:
        hosts = list(self._simulation.hosts.values())
        few = (len(hosts) - 1) // 2
        away = self._random.sample(hosts, self._random.randint(0, few if self._random.random() < 0.9 else len(hosts)))
        leader = self._leader()
        if leader and leader not in away and self._random.random() < self.leader_away:
            away = [leader, *away[1:]]
        return away

    def _bring_back(self, chance: float) -> None:
        if self._random.random() < chance:
            self._simulation.cut.clear()
        for host in self._simulation.hosts.values():
            if not host.running and self._random.random() < chance:
                self._simulation.start(host)
            if host.paused_until_s > self._simulation.now_s and self._random.random() < chance:
                host.paused_until_s = self._simulation.now_s

    # --- faults -----------------------------------------------------------------------------------------------

    def _crash(self, host: H) -> None:
        if host.running:
            self._simulation.crash(host)

    def _restart(self, host: H) -> None:
        if host.running:
            self._simulation.crash(host)
            self._simulation.start(host)

    def _power_failure(self) -> None:
        """Takes some down at one moment, and brings some of these up at once."""
        for host in self._simulation.hosts.values():
            if self._random.random() < 0.7:
                self._random.choice((self._crash, self._restart))(host)

    def _isolate(self, host: H) -> None:
        self._deafen(host)
        self._mute(host)

    def _deafen(self, host: H) -> None:
        self._simulation.cut |= {(other, host.name) for other in self._simulation.hosts if other != host.name}

    def _mute(self, host: H) -> None:
        self._simulation.cut |= {(host.name, other) for other in self._simulation.hosts if other != host.name}

    def _pause(self, host: H) -> None:
        host.paused_until_s = self._simulation.now_s + self._random.random() * 3 * T
