"""The API server's storage: versioned objects by kind and name.

Owns which objects exist, in which order and at which version. Decides nothing and calls nobody back: a write returns
the change that it made, and who made it acts on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from testbed.control.objects import Deployment, EndpointSlice, Node, Pod, Service

T = TypeVar("T", Node, Deployment, Pod, Service, EndpointSlice)


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
        self._objects: dict[type[Any], dict[str, Any]] = {
            kind: {} for kind in (Node, Deployment, Pod, Service, EndpointSlice)
        }
        self._kind_versions: dict[type[Any], int] = dict.fromkeys(self._objects, 0)
        self._generated: dict[str, int] = {}

    def put(self, new: T) -> Change[T] | None:
        """Creates or replaces the object of that kind and name; None when an equal one is there already.

        A replaced object keeps its place in `list`.
        """
        kind = type(new)
        name = _name(new)
        old = self._objects[kind].get(name)
        if old == new:
            return None
        self._objects[kind][name] = new
        return Change(old, new, self._count(kind))

    def delete(self, kind: type[T], name: str) -> Change[T] | None:
        """Removes an object; None when there is none."""
        old = self._objects[kind].pop(name, None)
        return None if old is None else Change(old, None, self._count(kind))

    def get(self, kind: type[T], name: str) -> T:
        """Raises KeyError that names the object which is not there."""
        found = self.find(kind, name)
        if found is None:
            raise KeyError(f"no {kind.__name__} {name!r}: there are {', '.join(self._objects[kind]) or 'none'}")
        return found

    def find(self, kind: type[T], name: str) -> T | None:
        found: T | None = self._objects[kind].get(name)
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


def _name(an_object: Node | Deployment | Pod | Service | EndpointSlice) -> str:
    return an_object.service if isinstance(an_object, EndpointSlice) else an_object.name
