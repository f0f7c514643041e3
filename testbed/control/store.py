"""The API server's storage: versioned objects by kind, namespace and name.

Owns which objects exist, in which order and at which version, and which writes a replicated log has to hold so that
another store becomes the same. Decides nothing and calls nobody back: a write returns the change that it made, and who
made it acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from testbed.objects.cells import PartitionMap
from testbed.objects.cluster import Declared
from testbed.objects.core import EndpointSlice, Lease, Node, Pod, Service
from testbed.objects.mesh import DestinationRule, Gateway, Ingress, VirtualService
from testbed.objects.metadata import DEFAULT_NAMESPACE
from testbed.objects.workloads import Deployment

T = TypeVar("T", bound=Declared | Pod | EndpointSlice | Lease)

KINDS = (
    Node,
    Deployment,
    Pod,
    Service,
    EndpointSlice,
    DestinationRule,
    VirtualService,
    Gateway,
    Ingress,
    PartitionMap,
    Lease,
)

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One write: `old` is None for a creation, `new` for a deletion; `version` is the store's after it."""

    old: T | None
    new: T | None
    version: int


@dataclass(frozen=True, slots=True)
class Writes:
    """What was done to a store, in order: done to an equal one, both are equal again. As an entry of a log."""

    objects: tuple[tuple[type[Any], _Key, Any], ...]
    """Kind and key, with the object that is there from then on; None where there is none."""
    generated: tuple[tuple[str, int], ...]
    """By prefix, how many names were given out."""

    def __bool__(self) -> bool:
        return bool(self.objects or self.generated)


class Store:
    """Objects of all kinds. `version` grows by one a change, whatever the kind."""

    def __init__(self) -> None:
        self.version = 0
        self._objects: dict[type[Any], dict[_Key, Any]] = {kind: {} for kind in KINDS}
        self._kind_versions: dict[type[Any], int] = dict.fromkeys(self._objects, 0)
        self._generated: dict[str, int] = {}
        self._written: list[tuple[type[Any], _Key, Any]] = []
        self._given_out: set[str] = set()

    def put(self, new: T) -> Change[T] | None:
        """Creates or replaces the object of that kind, namespace and name; None when an equal one is there already.

        A replaced object keeps its place in `list`.
        """
        kind = type(new)
        key = _key(kind, _name(new), "" if isinstance(new, Node) else new.namespace)
        old = self._objects[kind].get(key)
        if old == new:
            return None
        self._objects[kind][key] = new
        if not _is_heartbeat(old, new):
            self._written.append((kind, key, new))
        return Change(old, new, self._count(kind))

    def delete(self, kind: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> Change[T] | None:
        """Removes an object; None when there is none."""
        key = _key(kind, name, namespace)
        old = self._objects[kind].pop(key, None)
        if old is None:
            return None
        self._written.append((kind, key, None))
        return Change(old, None, self._count(kind))

    def get(self, kind: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T:
        """Raises KeyError that names the object which is not there."""
        found = self.find(kind, name, namespace)
        if found is None:
            there = ", ".join(map(_name, self._objects[kind].values())) or "none"
            raise KeyError(f"no {kind.__name__} {name!r}: there are {there}")
        return found

    def find(self, kind: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> T | None:
        found: T | None = self._objects[kind].get(_key(kind, name, namespace))
        return found

    def list(self, kind: type[T]) -> tuple[T, ...]:
        """All objects of a kind in the order of their creation."""
        return tuple(self._objects[kind].values())

    def kind_version(self, kind: type[T]) -> int:
        """The version at which an object of that kind last changed; 0 before the first."""
        return self._kind_versions[kind]

    def generate_name(self, prefix: str) -> str:
        """A name that was never given out before: `prefix` and a number that grows from 1 (compare `generateName`)."""
        self._generated[prefix] = self._generated.get(prefix, 0) + 1
        self._given_out.add(prefix)
        return f"{prefix}{self._generated[prefix]}"

    # --- what a log holds of it ---

    def take_writes(self) -> Writes:
        """All since the last call, but for heartbeats: as in Kubernetes these are no news to anybody but the leader,
        and there are more of them than of all else."""
        writes = Writes(tuple(self._written), tuple((each, self._generated[each]) for each in sorted(self._given_out)))
        self._written.clear()
        self._given_out.clear()
        return writes

    def redo(self, writes: Writes) -> None:
        """What was done to another store. It is in the log already."""
        for kind, key, new in writes.objects:
            if new is None:
                self._objects[kind].pop(key, None)
            else:
                self._objects[kind][key] = new
            self._count(kind)
        self._generated.update(writes.generated)

    def become(self, everything: Writes) -> None:
        """As the store that this is everything of. Who has looked at this one sees that all kinds have changed."""
        for kind, there in self._objects.items():
            there.clear()
            self._count(kind)
        self._generated.clear()
        self.redo(everything)

    def everything(self) -> Writes:
        """What makes an empty store equal to this one."""
        objects = ((kind, key, each) for kind, there in self._objects.items() for key, each in there.items())
        return Writes(tuple(objects), tuple(self._generated.items()))

    def _count(self, kind: type[Any]) -> int:
        self.version += 1
        self._kind_versions[kind] = self.version
        return self.version


def _is_heartbeat(old: Any, new: Any) -> bool:
    return isinstance(old, Node) and old == replace(new, lease_renewed_s=old.lease_renewed_s)


def _name(an_object: Declared | Pod | EndpointSlice | Lease) -> str:
    return an_object.service if isinstance(an_object, EndpointSlice) else an_object.name


def _key(kind: type[Any], name: str, namespace: str) -> _Key:
    """Nodes are in no namespace, and a pod's name says which one is meant whatever its namespace."""
    return ("", name) if kind in (Node, Pod) else (namespace, name)
