"""Load that the cluster answers with errors whatever its machine can do: unknown paths, and too much declared work.

The built-in workload waits for its declared work without using a core, for as many requests at a time as come. So there
is no highest rate by work alone; there is one where a connection pool bounds how many calls are under way at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter

from testbed.documents.problems import Path
from testbed.documents.quantities import DURATION
from testbed.objects.workloads import gateway_of
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cluster import ServiceModel
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.models.traffic import PolicyModel
from testbed.scenario.wording import listed


def warn_of_paths(model: ScenarioModel, findings: Findings) -> None:
    if model.spec.load.locustfile is not None:
        return
    routes = _routes(model)
    for index, request in enumerate(model.spec.load.requests):
        if _service_of(request.path, routes) is None:
            message = f"no route of the gateway takes {request.path}, so the answer is 404"
            findings.warn(
                ("spec", "load", "requests", index, "path"), f"{message}; there are routes for {listed(routes)}"
            )


def _routes(model: ScenarioModel) -> dict[str, tuple[int, str]]:
    """Prefix -> position and service of the first route that has it."""
    routes: dict[str, tuple[int, str]] = {}
    for index, route in enumerate(model.spec.gateway.routes):
        routes.setdefault(route.path, (index, route.service))
    return routes


def _service_of(path: str, routes: dict[str, tuple[int, str]]) -> str | None:
    """The first route whose path the request's begins with wins, as in a VirtualService."""
    path = path.partition("?")[0]
    found = [routes[path[:length]] for length in range(1, len(path) + 1) if path[:length] in routes]
    return min(found)[1] if found else None


# --- work ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call to a service takes where nothing is slower than declared: at least, and on average; what succeeds."""

    least_s: float = 0.0
    mean_s: float = 0.0
    ok: float = 1.0


@dataclass(frozen=True, slots=True)
class _Calls:
    """Calls to one service from all callers of one name, spread over at most so many proxies."""

    caller: str
    service: str
    rate_per_s: float
    proxies: int


def warn_of_work(model: ScenarioModel, findings: Findings) -> None:
    """Only where it is sure: with means and minima of the declared work, without retries and without the machine."""
    answers = answers_of(model)
    calls = list(_calls(model, tuple(answers)[::-1], answers))
    _warn_of_timeouts(model, answers, calls, findings)
    if model.spec.mesh.mode != "none":
        _warn_of_pools(model, answers, calls, findings)


def answers_of(model: ScenarioModel) -> dict[str, Answer]:
    """Of every service, those that are called before their callers."""
    services = model.spec.services
    graph = {
        name: [callee for stage in service.workload.calls for callee in stage] for name, service in services.items()
    }
    answers: dict[str, Answer] = {}
    for name in TopologicalSorter(graph).static_order():
        answers[name] = _answer(services[name], answers)
    return answers


def services_asked(model: ScenarioModel) -> dict[str, int]:
    """How often clients ask for each service in relation to the others; none where a locustfile decides that."""
    load, routes = model.spec.load, _routes(model)
    weights: dict[str, int] = {}
    for request in load.requests if load.locustfile is None else ():
        if (service := _service_of(request.path, routes)) is not None:
            weights[service] = weights.get(service, 0) + request.weight
    return weights


def _answer(service: ServiceModel, answers: dict[str, Answer]) -> Answer:
    """Stages follow each other as long as all goes well; calls of one stage run in parallel."""
    work = service.workload.work
    if work is None:
        return Answer()
    least_s, mean_s = work.mean if work.distribution == "constant" else 0.0, work.mean
    if work.distribution == "uniform":
        least_s = work.mean - (work.spread or 0.0)
    ok = 1.0 - (service.workload.error_rate or 0.0)
    for stage in service.workload.calls:
        called = [answers[callee] for callee in stage]
        least_s += max(answer.least_s for answer in called)
        mean_s += ok * max(answer.mean_s for answer in called)
        for answer in called:
            ok *= answer.ok
    return Answer(least_s, mean_s, ok)


def _calls(model: ScenarioModel, order: tuple[str, ...], answers: dict[str, Answer]) -> Iterator[_Calls]:
    """All calls that the open load brings about; those of a closed load and of a locustfile have no rate.

    `order` has every caller before those that it calls.
    """
    services = model.spec.services
    nodes = sum(len(zone.nodes) for region in model.spec.topology.regions.values() for zone in region.zones.values())
    rates = dict.fromkeys(services, 0.0)
    called: set[str] = set()
    for call in _entering(model):
        called.add(call.service)
        rates[call.service] += call.rate_per_s
        yield call
    for caller in (each for each in order if each in called):
        service = services[caller]
        proxies = min(service.replicas, nodes) if model.spec.mesh.mode == "node" else service.replicas
        going_on_per_s = rates[caller] * (1.0 - (service.workload.error_rate or 0.0))
        to: dict[str, float] = {}
        for stage in service.workload.calls:
            for callee in stage:
                to[callee] = to.get(callee, 0.0) + going_on_per_s
            for callee in stage:
                going_on_per_s *= answers[callee].ok
        for callee, rate_per_s in to.items():
            called.add(callee)
            rates[callee] += rate_per_s
            yield _Calls(caller, callee, rate_per_s, proxies)


def _entering(model: ScenarioModel) -> Iterator[_Calls]:
    """What each zone's gateway passes on: clients have a gateway of their own zone as long as all is well."""
    load, weights = model.spec.load, services_asked(model)
    if load.locustfile is not None:
        weights = {service: 0 for _, service in _routes(model).values()}
    total = sum(request.weight for request in load.requests) or 1
    by_zone: dict[str, float] = {}
    for source in load.sources:
        by_zone[source.zone] = by_zone.get(source.zone, 0.0) + (source.rate or 0.0)
    for service, weight in weights.items():
        for zone, rate_per_s in by_zone.items():
            yield _Calls(gateway_of(zone), service, rate_per_s * weight / total, 1)


def _warn_of_timeouts(
    model: ScenarioModel, answers: dict[str, Answer], calls: list[_Calls], findings: Findings
) -> None:
    def beyond(limit_s: float | None, services: Iterable[str]) -> list[str]:
        """Those whose every answer takes longer."""
        return [each for each in services if limit_s is not None and answers[each].least_s >= limit_s]

    def warn(location: Path, late: list[str], whom: str) -> None:
        least_s = min(answers[service].least_s for service in late)
        message = f"a good answer of {listed(late)} takes {DURATION.format(round(least_s, 6))} of declared work or more"
        findings.warn(location, f"{message}: {whom}")

    load = model.spec.load
    entered = dict.fromkeys(call.service for call in calls if call.caller.startswith(gateway_of("")))
    if late := beyond(load.timeout, entered):
        warn(("spec", "load", "timeout"), late, "no client waits that long")
    if model.spec.mesh.mode == "none":
        return
    called = dict.fromkeys(call.service for call in calls)
    for index, policy, governed in _policies(model):
        here: Path = ("spec", "mesh", "policies", index)
        within = [service for service in governed if service in called]
        if late := beyond(policy.timeout, within):
            warn((*here, "timeout"), late, "no call is answered in time")
        if late := beyond(policy.retries.per_try_timeout, within):
            warn((*here, "retries", "perTryTimeout"), late, "no try is answered in time")


def _warn_of_pools(model: ScenarioModel, answers: dict[str, Answer], calls: list[_Calls], findings: Findings) -> None:
    """Little's law: a rate times the time of an answer is how many calls are under way at a time."""
    by_service: dict[str, list[_Calls]] = {}
    for call in calls:
        by_service.setdefault(call.service, []).append(call)
    for index, policy, governed in _policies(model):
        pool = policy.traffic_policy.connection_pool
        for service in governed:
            # With HTTP/1.1 each connection has one request, and Envoy opens one to each endpoint whatever the maximum.
            connections = pool.tcp.max_connections and pool.tcp.max_connections + model.spec.services[service].replicas
            bounds = {
                ("http", "http2MaxRequests"): pool.http.http2_max_requests,
                ("tcp", "maxConnections"): connections,
            }
            limits = {key: limit for key, limit in bounds.items() if limit is not None}
            mean_s = answers[service].mean_s
            for key, limit in limits.items():
                full = [call for call in by_service.get(service, ()) if call.rate_per_s * mean_s > limit * call.proxies]
                for call in full[:1]:
                    each, at_once = DURATION.format(round(mean_s, 6)), call.rate_per_s * mean_s
                    message = (
                        f"{call.rate_per_s:g} calls/s from {call.caller} to {service} that take {each} each are "
                        f"{at_once:.3g} at a time, and {call.caller} may have {limit * call.proxies} under way"
                    )
                    findings.warn(("spec", "mesh", "policies", index, "trafficPolicy", "connectionPool", *key), message)


def _policies(model: ScenarioModel) -> Iterator[tuple[int, PolicyModel, list[str]]]:
    """Every policy with its position and the services that it holds for."""
    of_their_own = {policy.service for policy in model.spec.mesh.policies}
    others = [service for service in model.spec.services if service not in of_their_own]
    for index, policy in enumerate(model.spec.mesh.policies):
        yield index, policy, others if policy.service == "*" else [policy.service]
