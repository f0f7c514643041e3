"""Where things are and how far apart: localities, places and the declared quality of the links between places.

Owns the *declared* network. What faults do to it at run time is `network.links`; what really happens to a byte is
`network.wire.relay`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, get_args

DNS_LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
"""What a name may be, that of a zone above all: as Kubernetes has it (RFC 1123)."""


CONTROL_PLANE: Final = "control-plane"
"""The place of the only master, wherever it lies, and what those of several begin with."""
CLIENTS: Final = "clients/"
"""What the names of places of clients, and none else, begin with."""


def master_names(replicas: int) -> tuple[str, ...]:
    """The places of the control plane's replicas."""
    return (CONTROL_PLANE,) if replicas == 1 else tuple(f"{CONTROL_PLANE}-{n}" for n in range(1, replicas + 1))


def clients_of(zone: str) -> str:
    """The place of the clients of a zone: they are end users outside, each zone's with links of their own."""
    return CLIENTS + zone


@dataclass(frozen=True, slots=True)
class Locality:
    """Region, zone and sub-zone, as Envoy and Istio use them; a cell is a sub-zone."""

    region: str
    zone: str
    subzone: str = ""


Distance = Literal["same_node", "same_zone", "same_city", "same_region", "cross_region"]
"""How far apart two pods are, the nearest first. A city is a group of zones of a region; where no cities are declared a
region is one, and what is near in it is `same_region`."""
DISTANCES: Final[tuple[Distance, ...]] = get_args(Distance)


@dataclass(frozen=True, slots=True)
class LinkQuality:
    """One direction of the path between two places.

    `delay_s` is one way: half of the round trip time that a scenario declares.
    """

    delay_s: float = 0.0
    jitter_s: float = 0.0
    bandwidth_bits_per_s: float | None = None
    loss: float = 0.0
    cut: bool = False

    @property
    def is_ideal(self) -> bool:
        """True when a byte on this link is neither delayed, lost nor stopped."""
        return self == LinkQuality()


@dataclass(frozen=True, slots=True)
class Place:
    """An end of a link: a node, the clients of an origin zone, or a control plane that lives outside all zones."""

    name: str
    locality: Locality
    kind: Literal["node", "clients", "control-plane"] = "node"


@dataclass(frozen=True, slots=True)
class ZoneLink:
    """Quality between two zones (either direction) that overrides the class of the link."""

    zones: tuple[str, str]
    quality: LinkQuality


@dataclass(frozen=True, slots=True)
class Topology:
    """All places of a run and the declared quality between any two of them."""

    places: tuple[Place, ...]
    same_zone: LinkQuality = LinkQuality()
    same_region: LinkQuality = LinkQuality()
    cross_region: LinkQuality = LinkQuality()
    zone_links: tuple[ZoneLink, ...] = ()
    _by_name: dict[str, Place] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._by_name.update((place.name, place) for place in self.places)

    def place(self, name: str) -> Place:
        """The place of that name. Raises KeyError."""
        return self._by_name[name]

    def quality(self, source: str, destination: str) -> LinkQuality:
        """Declared quality from one place to another; a place reaches itself over an ideal link."""
        if source == destination:
            return LinkQuality()
        a, b = self.place(source).locality, self.place(destination).locality
        for link in self.zone_links:
            if {a.zone, b.zone} == set(link.zones):
                return link.quality
        if a.region != b.region:
            return self.cross_region
        return self.same_zone if a.zone == b.zone else self.same_region

    @property
    def nodes(self) -> tuple[Place, ...]:
        return tuple(place for place in self.places if place.kind == "node")

    @property
    def masters(self) -> tuple[str, ...]:
        """The places of the control plane's replicas."""
        return tuple(place.name for place in self.places if place.kind == "control-plane")

    def nodes_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The nodes that the given zone and node names stand for, in topology order. Raises KeyError for a stranger."""
        known = {place.name for place in self.nodes} | {place.locality.zone for place in self.nodes}
        for name in names:
            if name not in known:
                raise KeyError(name)
        return tuple(place.name for place in self.nodes if place.name in names or place.locality.zone in names)

    def places_of(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The places that the given zone and place names stand for, in topology order. Raises KeyError for a stranger.

        A zone stands for its nodes and for a control plane that lies in it, not for its clients: they are end users
        outside, and are meant only where they are named (`clients/east-a`).
        """
        zones = {place.locality.zone for place in self.nodes}
        for name in names:
            if name not in self._by_name and name not in zones:
                raise KeyError(name)
        return tuple(
            place.name
            for place in self.places
            if place.name in names or (place.kind != "clients" and place.locality.zone in names)
        )
