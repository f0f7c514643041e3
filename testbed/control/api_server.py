"""What becomes of an object that a user applies or deletes: refused, or written into the store.

Owns what is valid and what may be changed. What follows from the store then is the controllers' and the views'; as in
Kubernetes, objects may name others that are not there (yet).
"""

from __future__ import annotations

import re
from dataclasses import replace

from testbed.control.cells.ownership import problem_of
from testbed.control.kubernetes.deployments import terminate
from testbed.control.messages import Apply, Command, Delete, RecordEvent
from testbed.control.store import Store
from testbed.objects.cells import PartitionMap
from testbed.objects.cluster import Declared
from testbed.objects.core import Node, Pod, Service
from testbed.objects.mesh import VirtualService
from testbed.objects.metadata import DEFAULT_NAMESPACE
from testbed.objects.places import DNS_LABEL
from testbed.objects.workloads import Deployment

_NAME = re.compile(DNS_LABEL)


class Refused(Exception):
    """What was asked cannot be; the message names the object and says why. Nothing was changed."""


def check(store: Store, event: Apply) -> None:
    """Raises Refused for an object that cannot be applied."""
    new = event.object
    old = _find(store, new)
    problem = _invalid(new) or (None if old is None else _immutable(old, new))
    if problem is not None:
        raise Refused(f"{type(new).__name__} {new.name!r}: {problem}")


def apply(store: Store, event: Apply) -> list[Command]:
    """Creates the object or replaces what is declared of it; its status stays. Nothing when it is as asked already.

    The events have kubectl's words. Raises Refused.
    """
    check(store, event)
    new = event.object
    old = _find(store, new)
    if isinstance(new, Node) and isinstance(old, Node):
        new = replace(old, capacity_pods=new.capacity_pods, unschedulable=new.unschedulable, labels=new.labels)
    if store.put(new) is None:
        return []
    return [RecordEvent(type(new).__name__, new.name, "Created" if old is None else "Configured", _where(new))]


def delete(store: Store, event: Delete) -> list[Command]:
    """Removes the object; a pod is stopped first, as an eviction does. Raises Refused where there is none."""
    kind = event.kind.__name__
    found = store.find(event.kind, event.name, event.namespace)
    if found is None:
        where = "" if event.kind is Node else f" in namespace {event.namespace}"
        raise Refused(f"{kind} {event.name!r}: not found{where}")
    if isinstance(found, Pod):
        return terminate(store, found) if found.phase != "Terminating" else []
    store.delete(event.kind, event.name, event.namespace)
    return [RecordEvent(kind, event.name, "Deleted", _where(found))]


def _find(store: Store, new: Declared) -> Declared | None:
    return store.find(type(new), new.name, DEFAULT_NAMESPACE if isinstance(new, Node) else new.namespace)


def _invalid(new: Declared) -> str | None:
    for what, name in (
        ("name", new.name),
        ("namespace", DEFAULT_NAMESPACE if isinstance(new, Node) else new.namespace),
    ):
        if not _NAME.fullmatch(name):
            return f"{what} {name!r} is no DNS label: lower-case letters, digits and `-`, at most 63"
    match new:
        case Deployment() if new.replicas < 0:
            return f"replicas must not be negative, and are {new.replicas}"
        case Service() if not 0 < new.port < 65536:
            return f"port must be 1 to 65535, and is {new.port}"
        case Node() if new.capacity_pods < 0:
            return f"capacity must not be negative, and is {new.capacity_pods}"
        case VirtualService() if not new.http or not new.hosts:
            return "it needs a host and a route"
        case PartitionMap():
            return problem_of(new)
        case _:
            return None


def _immutable(old: Declared, new: Declared) -> str | None:
    match old, new:
        case Node(), Node() if old.locality != new.locality:
            return f"a node stays where it is: in {old.locality.region}/{old.locality.zone}"
        case Deployment(), Deployment() if old.template.service != new.template.service:
            return f"its selector cannot be changed from app={old.template.service}: field is immutable"
        case PartitionMap(), PartitionMap() if new.version < old.version or (
            new.version == old.version and replace(new, rollout=None) != replace(old, rollout=None)
        ):
            return f"version {new.version} is not newer than {old.version}, which is there already"
        case _:
            return None


def _where(declared: Declared) -> dict[str, str]:
    return {} if isinstance(declared, Node) else {"namespace": declared.namespace}
