"""The health-checked entry table: which gateway zones the DNS (GSLB) gives to the clients of one origin zone.

Owns the health of gateways as the checks from outside see it, and the order of the answer; of routers alike. Running
the checks, and clients that keep an answer for its TTL, are `emulation`'s.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from testbed.objects.places import Topology
from testbed.objects.timings import Timings

RISE = 2
"""Successes in a row that make a gateway healthy again: HAProxy's default `rise 2`. (Route 53 takes its failure
threshold for both directions.)"""


@dataclass(slots=True)
class _Gateway:
    zone: str
    name: str
    next_check_s: float
    healthy: bool = True
    against: int = 0
    """Results in a row that contradict `healthy`."""


class EntryTable:
    """Gateways start as healthy and are checked at `now_s` first, then every `entry_check_interval_s`."""

    def __init__(
        self,
        topology: Topology,
        origin_zone: str,
        gateways: tuple[tuple[str, str], ...],
        timings: Timings,
        now: float = 0.0,
    ) -> None:
        """`gateways` are (zone, gateway name), one a zone. Raises KeyError for a zone without any place."""
        self._timings = timings
        self._gateways = {
            zone: _Gateway(zone, name, now)
            for zone, name in sorted(gateways, key=lambda gateway: _distance(topology, origin_zone, gateway[0]))
        }
        self._answer = self.answer()

    def answer(self, among: Collection[str] | None = None) -> tuple[str, ...]:
        """Zones of healthy gateways, nearest first: own zone, own region by delay, others by delay. With `among`, only
        of those in these zones.

        All of them when none is healthy: then the checks are worth less than a try (Route 53 does the same).
        """
        asked = [each for each in self._gateways.values() if among is None or each.zone in among]
        healthy = tuple(gateway.zone for gateway in asked if gateway.healthy)
        return healthy or tuple(gateway.zone for gateway in asked)

    def due_checks(self, now: float) -> tuple[tuple[str, str], ...]:
        """The gateways, (zone, name), to check now. The next check of each is one interval later."""
        due = [gateway for gateway in self._gateways.values() if now >= gateway.next_check_s]
        for gateway in due:
            gateway.next_check_s = max(gateway.next_check_s, now) + self._timings.entry_check_interval_s
        return tuple((gateway.zone, gateway.name) for gateway in due)

    def next_deadline(self) -> float | None:
        """When the next check is due; None without gateways."""
        return min((gateway.next_check_s for gateway in self._gateways.values()), default=None)

    def handle_check(self, gateway_zone: str, ok: bool, now: float) -> tuple[str, ...] | None:
        """Takes in one result; the new answer if it changed, else None. (That of some zones changes only if that of all
        does, since then somebody's health has.) Raises KeyError for a zone without gateway.

        A gateway turns unhealthy after `entry_failure_threshold` failures in a row and healthy after `RISE` successes.
        """
        gateway = self._gateways[gateway_zone]
        gateway.against = 0 if ok == gateway.healthy else gateway.against + 1
        if gateway.against >= (RISE if ok else self._timings.entry_failure_threshold):
            gateway.healthy, gateway.against = ok, 0
        before, self._answer = self._answer, self.answer()
        return None if self._answer == before else self._answer


def _distance(topology: Topology, origin_zone: str, zone: str) -> tuple[bool, bool, float]:
    first = {place.locality.zone: place for place in reversed(topology.places)}
    origin, destination = first[origin_zone], first[zone]
    same_region = origin.locality.region == destination.locality.region
    delay_s = topology.quality(origin.name, destination.name).delay_s
    return origin_zone != zone, not same_region, delay_s
