"""What must be true of masters, nodes and proxies once all is healed, whatever went wrong before."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field, replace

from testbed.control.store import Store
from testbed.control.views.envoy.envoy_api import ROUTE_TYPE
from testbed.control.views.envoy.proxies import Proxies
from testbed.objects.core import Node, Pod, Service
from testbed.objects.workloads import Deployment
from tests.control.masters.simulation import Simulation, Violation


@dataclass
class Wanted:
    """What users have asked for: `acknowledged` are those requests that were answered with success."""

    services: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    """Pods, whether or not it was acknowledged."""
    deleted_for_sure: set[str] = field(default_factory=set)
    replicas: int = 0
    """The most that was acknowledged; each request is for more than the one before."""


def check(simulation: Simulation, wanted: Wanted, scaled: str) -> None:
    """`scaled` is the Deployment whose replicas are `wanted`."""
    check_agreed(simulation)
    check_kept(simulation.stores()[0], wanted, scaled)
    check_pods(simulation, wanted.deleted)
    check_told(simulation)


def check_agreed(simulation: Simulation) -> None:
    first, *others = (content(store) for store in simulation.stores())
    if any(other != first for other in others):
        raise Violation("masters differ in what is committed")
    if len(simulation.leads_log()) != 1:
        raise Violation(f"{simulation.leads_log()} lead")


def check_kept(store: Store, wanted: Wanted, scaled: str) -> None:
    forgotten = wanted.services - {service.name for service in store.list(Service)}
    forgotten |= wanted.deleted_for_sure & {pod.name for pod in store.list(Pod)}
    if forgotten:
        raise Violation(f"acknowledged and forgotten: {forgotten}")
    if (replicas := store.get(Deployment, scaled).replicas) < wanted.replicas:
        raise Violation(f"{wanted.replicas} replicas were acknowledged, and there are {replicas}")


def check_pods(simulation: Simulation, deleted: Set[str]) -> None:
    """What runs is what is known to run, and nothing has run, or was stopped, or failed, that was not to."""
    running = {
        name: (node.name, pod.address, pod.restarts, pod.ready)
        for node in simulation.nodes.values()
        for name, pod in node.pods.items()
    }
    known = {pod.name: (pod.node, pod.address, pod.restarts, pod.ready) for pod in simulation.stores()[0].list(Pod)}
    if running != known:
        raise Violation(f"not both there and known: {set(running.items()) ^ set(known.items())}")
    stopped = {name for node in simulation.nodes.values() for name in node.stopped}
    if stopped - deleted:
        raise Violation(f"stopped though nobody wanted it: {stopped - deleted}")
    if simulation.started - known.keys() - deleted:
        raise Violation(f"started though it was never decided: {simulation.started - known.keys() - deleted}")
    not_ready = {event.object for _, _, event in simulation.events if event.reason == "NotReady"}
    if not_ready - simulation.failed - deleted:
        raise Violation(f"taken for not ready though its node never said so: {not_ready - simulation.failed - deleted}")


def check_told(simulation: Simulation) -> None:
    """Every proxy goes by all that follows from what is committed."""
    store, view = simulation.stores()[0], Proxies()
    for subscriber in view.subscribers(store):
        has = simulation.nodes[subscriber.place].resources.get(subscriber.name, {})
        for type_url, resources in view.resources(store, subscriber).items():
            if has.get(type_url, ()) != resources and (type_url != ROUTE_TYPE or resources):
                raise Violation(f"{subscriber.name} does not go by the {type_url} that is right")


def content(store: Store) -> object:
    """But for when leases were renewed."""
    return [
        (key, replace(each, lease_renewed_s=0.0) if isinstance(each, Node) else each)
        for _, key, each in store.everything().objects
    ]
