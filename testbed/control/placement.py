from __future__ import annotations
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from testbed.control.objects import ClusterSpec
from testbed.control.topology import Topology

class PlacementImpossible(Exception): ...

@dataclass(frozen=True, slots=True)
class Machine:
    name: str
    address: str
    zone: str | None
    memory_bytes: int
    cpus: float

@dataclass(frozen=True, slots=True)
class Placement:
    machines: Mapping[str, str]

def place(topology: Topology, cluster: ClusterSpec, machines: Sequence[Machine], head: str) -> Placement:
    labelled=[m for m in machines if m.zone]
    r={}
    for p in topology.places:
        c=[m.name for m in labelled if m.zone==p.locality.zone]
        if p.kind=="control-plane" and not c: c=[head]
        if not labelled: c=[head]
        r[p.name]=c[0]
    return Placement(r)
