"""What came of a fault's effects, as whoever carried them out found it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Impact:
    """What came of effects: when the last victim felt it, and the pods whose proxies were killed, and when.

    `victims` are the links, pods, nodes or machines that were hit; `hit_nothing` says why there are none. `by_command`:
    a program of the user's did it, in the time that this takes. Monotonic seconds.
    """

    at_s: float
    killed_proxies: tuple[tuple[str, float], ...] = ()
    victims: tuple[str, ...] = ()
    hit_nothing: str = ""
    by_command: bool = False
    cut_off: tuple[str, ...] = ()
    """Places that live, and that the control plane cannot reach, or that cannot reach it."""

    @classmethod
    def all(cls, impacts: Sequence[Impact]) -> Impact:
        kills = tuple(kill for impact in impacts for kill in impact.killed_proxies)
        victims = tuple(victim for impact in impacts for victim in impact.victims)
        why = "; ".join(dict.fromkeys(impact.hit_nothing for impact in impacts if impact.hit_nothing))
        cut_off = tuple(dict.fromkeys(place for impact in impacts for place in impact.cut_off))
        by_command = any(impact.by_command for impact in impacts)
        return cls(max(impact.at_s for impact in impacts), kills, victims, "" if victims else why, by_command, cut_off)
