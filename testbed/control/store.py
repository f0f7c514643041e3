"""The API server's storage: versioned objects by kind, namespace and name.

Owns which objects exist, in which order and at which version. Decides nothing and calls nobody back: a write returns
the change that it made, and who made it acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from testbed.objects.cells import PartitionMap
from testbed.objects.cluster import Declared
from testbed.objects.core import EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import DestinationRule, Gateway, Ingress, VirtualService
from testbed.objects.metadata import DEFAULT_NAMESPACE
from testbed.objects.workloads import Deployment

T = TypeVar("T", bound=Declared | Pod | EndpointSlice)

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
)

_Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change(Generic[T]):
    """One write: `old` is None for a creation, `new` for a deletion; `version` is the store's after it."""

    old: T | None
    new: T | None
    version: int


class Store:
    """Objects of all kinds. `version` grows by one a change, whatever the kind."""

    def __init__(self) -> None:
        self.version = 0
        self._objects: dict[type[Any], dict[_Key, Any]] = {kind: {} for kind in KINDS}
        self._kind_versions: dict[type[Any], int] = dict.fromkeys(self._objects, 0)
        self._generated: dict[str, int] = {}

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
        return Change(old, new, self._count(kind))

    def delete(self, kind: type[T], name: str, namespace: str = DEFAULT_NAMESPACE) -> Change[T] | None:
        """Removes an object; None when there is none."""
        old = self._objects[kind].pop(_key(kind, name, namespace), None)
        return None if old is None else Change(old, None, self._count(kind))

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
        return f"{prefix}{self._generated[prefix]}"

    def _count(self, kind: type[Any]) -> int:
        self.version += 1
        self._kind_versions[kind] = self.version
        return self.version


def _name(an_object: Declared | Pod | EndpointSlice) -> str:
    return an_object.service if isinstance(an_object, EndpointSlice) else an_object.name


def _key(kind: type[Any], name: str, namespace: str) -> _Key:
    """Nodes are in no namespace, and a pod's name says which one is meant whatever its namespace."""
    return ("", name) if kind in (Node, Pod) else (namespace, name)
