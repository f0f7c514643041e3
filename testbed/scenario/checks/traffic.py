"""Checks of gateway, mesh policies and load."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from testbed.control.mesh.locality import REGION, SUBZONE, ZONE
from testbed.documents.problems import Path
from testbed.scenario.checks.cluster import zone_names, zones_of
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.models.traffic import DistributeModel, LocalityLbModel, PolicyModel
from testbed.scenario.policies import RETRY_CONDITIONS, retry_terms
from testbed.scenario.wording import nearest


def check_mesh(model: ScenarioModel, findings: Findings) -> None:
    """Gateway routes and mesh policies."""
    services = findings.names("spec", "services")
    for index, route in enumerate(model.spec.gateway.routes):
        findings.reference(("spec", "gateway", "routes", index, "service"), "service", route.service, services)
    named: set[str] = set()
    for index, policy in enumerate(model.spec.mesh.policies):
        here: Path = ("spec", "mesh", "policies", index)
        if policy.service != "*":
            findings.reference((*here, "service"), "service", policy.service, services)
        if policy.service in named:
            message = f"there is a policy for {policy.service!r} already; policies are not merged, keep one"
            findings.report((*here, "service"), message)
        named.add(policy.service)
        _check_retries(here, policy, findings)
        locality = (*here, "trafficPolicy", "loadBalancer", "localityLbSetting")
        if (setting := policy.traffic_policy.load_balancer.locality_lb_setting) is not None:
            _check_locality(locality, setting, model, findings)


def _check_retries(here: Path, policy: PolicyModel, findings: Findings) -> None:
    retries = policy.retries
    for term in retry_terms(retries.retry_on or ""):
        if term not in RETRY_CONDITIONS and not re.fullmatch("[1-5][0-9][0-9]", term):
            message = f"there is no retry condition {term!r}; {nearest(term, RETRY_CONDITIONS)}"
            findings.report((*here, "retries", "retryOn"), message)
    for key, value in (("perTryTimeout", retries.per_try_timeout), ("retryOn", retries.retry_on)):
        if retries.attempts == 0 and value is not None:
            # Source: Istio, virtualservice.go, validateHTTPRetry.
            findings.report(
                (*here, "retries", key), "has no meaning with attempts: 0, which turns retries off", at_key=True
            )
    if policy.timeout is not None and (retries.per_try_timeout or 0) > policy.timeout:
        message = "is longer than the `timeout` of the whole request"
        findings.report((*here, "retries", "perTryTimeout"), message)


def _check_locality(here: Path, setting: LocalityLbModel, model: ScenarioModel, findings: Findings) -> None:
    """What Istio refuses (pkg/config/validation, ValidateLocalityLbSetting), and localities that do not exist."""
    if setting.distribute and (setting.failover or setting.failover_priority):
        message = "excludes failover and failoverPriority; keep one of them"
        findings.report((*here, "distribute"), message, at_key=True)
    _check_distribute((*here, "distribute"), setting.distribute, model, findings)
    regions = findings.names("spec", "topology", "regions")
    for index, failover in enumerate(setting.failover):
        item = (*here, "failover", index)
        findings.reference((*item, "from"), "region", failover.from_, regions)
        findings.reference((*item, "to"), "region", failover.to, regions)
        if failover.from_ == failover.to:
            findings.report((*item, "to"), "must be another region than `from`")
    for index, label in enumerate(setting.failover_priority if setting.failover else ()):
        if label in (REGION, ZONE, SUBZONE):
            message = "region, zone and subzone cannot be among the labels beside `failover`, which orders by them"
            findings.report((*here, "failoverPriority", index), f"{message}; keep one of them")


def _check_distribute(here: Path, shares: list[DistributeModel], model: ScenarioModel, findings: Findings) -> None:
    for index, earlier in _overlaps((share.from_ for share in shares), first_holds=True):
        message = f"{shares[index].from_!r} overlaps with {earlier!r} above, which holds instead"
        findings.report((*here, index, "from"), f"{message}; keep one of them, or the narrower one first")
    for index, share in enumerate(shares):
        item: Path = (*here, index)
        _check_pattern((*item, "from"), share.from_, model, findings)
        targets = list(share.to)
        for position, other in _overlaps(targets, first_holds=False):
            message = f"{targets[position]!r} overlaps with {other!r}; an endpoint can be in one share only"
            findings.report((*item, "to", targets[position]), message, at_key=True)
        for target in targets:
            _check_pattern((*item, "to", target), target, model, findings, at_key=True)
        total = sum(share.to.values())
        if total != 100 and findings.is_whole(*item, "to"):
            findings.report((*item, "to"), f"percentages must sum to 100, not {total}", at_key=True)


def _overlaps(localities: Iterable[str], *, first_holds: bool) -> Iterator[tuple[int, str]]:
    """Index of each locality that overlaps with one before it, and that one.

    Where the first that matches holds, a wider one with `*` may follow. Source: Istio, validateLocalities, which finds
    overlapping keys of `to` or not, as the order of a Go map has it.
    """
    covered: dict[tuple[str, ...], str] = {}
    around: dict[tuple[str, ...], str] = {}
    for index, locality in enumerate(localities):
        named = tuple(part for part in locality.split("/") if part != "*")
        wider = [named[:depth] for depth in range(len(named) + 1)]
        other = next((covered[parts] for parts in wider if parts in covered), None)
        if other is None and not (first_holds and locality.endswith("*")):
            other = around.get(named)
        if other is not None:
            yield index, other
        covered.setdefault(named, locality)
        for parts in wider:
            around.setdefault(parts, locality)


def _check_pattern(here: Path, pattern: str, model: ScenarioModel, findings: Findings, *, at_key: bool = False) -> None:
    """`region/zone/subzone`, where `*` may stand for the rest."""
    parts = pattern.split("/")
    if "*" in parts[:-1] or not all(parts) or len(parts) > 3:
        message = f"must be region/zone/* or region/* or *, not {pattern!r}"
        findings.report(here, message, at_key=at_key)
        return
    if not findings.is_whole("spec", "topology"):
        return
    known = [[str(location[3]), name] for location, name, _ in zones_of(model)]
    named = [part for part in parts if part != "*"]
    if not any(home[: len(named)] == named[:2] for home in known):
        patterns = [f"{region}/{zone}/*" for region, zone in known]
        findings.report(here, f"there is no locality {pattern!r}; {nearest(pattern, patterns)}", at_key=at_key)
    elif len(named) == 3 and named[2] not in findings.known("cell"):
        message = f"there is no sub-zone {named[2]!r}: sub-zones are cells; write {'/'.join(named[:2])}/*"
        findings.report(here, message, at_key=at_key)


def check_load(model: ScenarioModel, findings: Findings) -> None:
    load = model.spec.load
    here: Path = ("spec", "load")
    zones = zone_names(findings)
    for index, source in enumerate(load.sources):
        item: Path = (*here, "sources", index)
        findings.reference((*item, "zone"), "zone", source.zone, zones)
        if not findings.is_whole(*item):
            continue
        if (source.rate is None) == (source.users is None):
            found = "neither" if source.rate is None else "both"
            findings.report(item, f"must have either `rate` (open load) or `users` (closed load), but has {found}")
        elif source.users is None and source.think_time is not None:
            findings.report((*item, "thinkTime"), "belongs to `users`; a `rate` does not wait", at_key=True)
        elif source.rate is None and source.arrival is not None:
            findings.report((*item, "arrival"), "belongs to a `rate`; `users` wait for responses", at_key=True)
        if load.locustfile is not None and source.rate is not None:
            findings.report((*item, "rate"), "a locustfile decides when it sends; write `users` instead", at_key=True)
        elif load.locustfile is not None and source.think_time is not None:
            findings.report((*item, "thinkTime"), "a locustfile has its own wait_time; remove it", at_key=True)
    if findings.is_whole(*here, "warmup") and findings.is_whole(*here, "duration") and load.warmup >= load.duration:
        message = f"the warm-up of {load.warmup:g}s must be shorter than the duration of {load.duration:g}s"
        findings.report((*here, "warmup"), message)
    names: set[str] = set()
    for index, request in enumerate(load.requests):
        name = request.name or f"{request.method} {request.path}"
        if name in names and findings.is_whole(*here, "requests", index):
            findings.report((*here, "requests", index), f"request {name!r} is there already; give it another `name`")
        names.add(name)
    if load.operations is not None:
        if load.locustfile is not None:
            message = "does not go with `operations`, which say what is sent; remove one of them"
            findings.report((*here, "locustfile"), message, at_key=True)
        for key in (key for key in ("requests", "ids") if load.only_operations and getattr(load, key)):
            message = (
                "does not go with `operations` that are all that is sent; give these a `share`, or remove one of them"
            )
            findings.report((*here, key), message, at_key=True)
        if "?" in load.operations.path:
            findings.report((*here, "operations", "path"), "is what stands before the key, and has no query")
    if load.locustfile is None:
        return
    if load.requests:
        findings.report((*here, "requests"), "are what the locustfile decides; remove one of them", at_key=True)
    try:
        exists = (findings.folder / load.locustfile).is_file()
    except (OSError, ValueError):
        exists = False
    if not exists:
        message = f"there is no file {load.locustfile!r} relative to the scenario's folder"
        findings.report((*here, "locustfile"), message)
