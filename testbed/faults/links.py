"""Faults of links: cut off or made worse, both ways or one way.

Owns which directed links a fault means. How effects of several faults add up on one link is `network.links`.
"""

from __future__ import annotations

from dataclasses import dataclass

from testbed.faults.effects import Effect, ImpairLinks, LinkEffect
from testbed.objects.places import Topology

EVERYTHING_ELSE = "*"


@dataclass(frozen=True, slots=True)
class LinkFault:
    """An effect on all links from the places of `sources` to the places of `destinations`.

    Both are names of zones, nodes or other places; `*` on one side stands for every place that the other side does
    not name, clients included. Otherwise links to the clients of a zone are meant only where `clients/<zone>` is named.
    """

    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    effect: LinkEffect
    both_ways: bool = True

    def pairs(self, topology: Topology) -> tuple[tuple[str, str], ...]:
        """The directed links that are meant, each once. Raises KeyError for a name that the topology does not have."""
        return directed_links(*self.sides(topology), both_ways=self.both_ways)

    def sides(self, topology: Topology) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The places of `sources` and those of `destinations`. Raises KeyError as `pairs` does."""
        return (
            _places(self.sources, self.destinations, topology),
            _places(self.destinations, self.sources, topology),
        )

    def effects(self, topology: Topology) -> tuple[Effect, ...]:
        return (ImpairLinks(self.pairs(topology), self.effect),)


def cut_off(links: ImpairLinks, masters: tuple[str, ...]) -> tuple[str, ...]:
    """The places that no master can reach any more, or that can reach none."""
    if not links.effect.cut:
        return ()
    cut = {place: {other for pair in links.pairs if place in pair for other in pair} for place in _ends(links)}
    return tuple(place for place, others in cut.items() if place not in masters and others.issuperset(masters))


def _ends(links: ImpairLinks) -> tuple[str, ...]:
    return tuple(dict.fromkeys(place for pair in links.pairs for place in pair))


def directed_links(
    sources: tuple[str, ...], destinations: tuple[str, ...], *, both_ways: bool
) -> tuple[tuple[str, str], ...]:
    """Every (source, destination) of two different places, each once; with `both_ways` the way back as well."""
    there = [(a, b) for a in sources for b in destinations if a != b]
    back = [(b, a) for a, b in there] if both_ways else []
    return tuple(dict.fromkeys(there + back))


def silence(victims: tuple[str, ...], topology: Topology) -> ImpairLinks:
    """Cut every link of the given places, those to clients as well: a dead machine answers nobody."""
    everywhere = tuple(place.name for place in topology.places)
    return ImpairLinks(directed_links(victims, everywhere, both_ways=True), LinkEffect(cut=True))


def _places(names: tuple[str, ...], others: tuple[str, ...], topology: Topology) -> tuple[str, ...]:
    if EVERYTHING_ELSE not in names:
        return topology.places_of(names)
    excluded = topology.places_of(tuple(name for name in others if name != EVERYTHING_ELSE))
    return tuple(place.name for place in topology.places if place.name not in excluded)
