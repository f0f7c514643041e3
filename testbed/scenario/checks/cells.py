"""Checks of cells: every partition has one owner, every class a place, and every request a key or a declared fate."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

from testbed.control.cells.ownership import RESERVED, written
from testbed.control.views.envoy.partition_filter import OWN_HEADERS
from testbed.documents.problems import Path
from testbed.scenario.cells import key_of, owned, partition_map, placements, sharing
from testbed.scenario.checks.cluster import zone_names
from testbed.scenario.checks.directed import check_entry
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.cells import CellModel, CellsModel
from testbed.scenario.models.cluster import ServiceModel
from testbed.scenario.models.experiment import ScenarioModel
from testbed.scenario.models.traffic import RequestModel
from testbed.scenario.stores import groups_of, homes
from testbed.scenario.wording import listed

_CELLS: Path = ("spec", "cells")
MAX_SHARDED_PARTITIONS = 1000


def check_cells(model: ScenarioModel, findings: Findings) -> None:
    cells = model.spec.cells
    _check_classes(model, findings)
    _check_ids(model, findings)
    if cells is None:
        return
    if model.spec.mesh.mode == "none":
        message = "need proxies to route by the key: mesh.mode must be sidecar or node, and is none"
        findings.report(_CELLS, message, at_key=True)
    _check_key(cells, findings)
    _check_rule(cells, findings)
    for name, cell in cells.cells.items():
        _check_cell((*_CELLS, "cells", name), name, cell, cells, findings)
    if all(cell.elastic for cell in cells.cells.values()):
        findings.report((*_CELLS, "cells"), "nobody owns anything: one cell at least must not be elastic", at_key=True)
    else:
        _check_owners(cells, findings)
    for name, rule in (cells.cross_cell or {}).items():
        for key, service in (("from", rule.from_), ("to", rule.to)):
            at: Path = (*_CELLS, "crossCell", name, key)
            findings.reference(at, "service", service, findings.known("service"))
        if rule.to in model.spec.services and model.spec.services[rule.to].class_ != "sharded":
            message = f"{rule.to} is in no cell (its class is not sharded), so that calls to it need no rule"
            findings.report((*_CELLS, "crossCell", name, "to"), message)
    _check_cities(model, cells, findings)
    check_entry(model, cells, findings)
    if cells.unkeyed is not None and cells.unkeyed not in RESERVED:
        findings.reference((*_CELLS, "unkeyed"), "cell", cells.unkeyed, findings.known("cell"))
    _check_keys_of_requests(model, cells, findings)
    if not findings.source.problems and findings.is_whole("spec"):
        _check_groups(model, findings)


def _check_key(cells: CellsModel, findings: Findings) -> None:
    here: Path = (*_CELLS, "key")
    if not findings.is_whole(*here):
        return
    kinds = [kind for kind in ("header", "cookie", "query", "path") if getattr(cells.key, kind) is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none of them"
        findings.report(here, f"must have one of header, cookie, query and path, but has {found}", at_key=True)
    elif cells.key.header is not None and cells.key.header.lower() in OWN_HEADERS:
        message = f"{cells.key.header} is a header of the proxies' own: they take it off every request; choose another"
        findings.report((*here, "header"), message)
    elif cells.key.cookie is not None and cells.key.cookie == cells.cookie:
        findings.report((*here, "cookie"), "is the cookie that names the cell as well; choose another for one of them")


def _check_rule(cells: CellsModel, findings: Findings) -> None:
    here: Path = (*_CELLS, "partition")
    rule = cells.partition
    if not findings.is_whole(*here) or not findings.is_whole(*_CELLS, "partitions"):
        return
    kinds = [kind for kind in ("digits", "modulo", "hash", "ranges") if getattr(rule, kind) is not None]
    if len(kinds) != 1:
        found = " and ".join(kinds) or "none of them"
        findings.report(here, f"must have one of digits, modulo, hash and ranges, but has {found}", at_key=True)
        return
    if rule.digits is not None and 10 ** len(rule.digits) != cells.partitions:
        digits = "one digit makes" if len(rule.digits) == 1 else f"{len(rule.digits)} digits make"
        message = f"{digits} {10 ** len(rule.digits)} partitions, not {cells.partitions}"
        where = (*here, "digits") if findings.source.exists((*here, "digits")) else (*_CELLS, "partitions")
        findings.report(where, f"{message}; change `partitions`, or the rule")
    if rule.ranges is not None:
        if len(rule.ranges) != cells.partitions:
            message = f"{len(rule.ranges)} ranges make as many partitions, not {cells.partitions}"
            findings.report((*here, "ranges"), f"{message}; write partitions: {len(rule.ranges)}", at_key=True)
        for index, (before, bound) in enumerate(pairwise(rule.ranges), start=1):
            if bound <= before:
                findings.report((*here, "ranges", index), f"must be more than {before}, where the range before begins")


def _check_cell(here: Path, name: str, cell: CellModel, cells: CellsModel, findings: Findings) -> None:
    if name in RESERVED:
        message = f"{name!r} is a fate of requests without a key; choose another name"
        findings.report(here, message, at_key=True)
    for index, zone in enumerate(cell.zones):
        findings.reference((*here, "zones", index), "zone", zone, zone_names(findings))
        if zone in cell.zones[:index]:
            findings.report((*here, "zones", index), f"zone {zone!r} is written twice")
    weights = sum(cell.groups.values())
    if cell.groups and weights != 100 and findings.is_whole(*here, "groups"):
        findings.report((*here, "groups"), f"weights must sum to 100, not {weights}", at_key=True)
    if cell.backup == name:
        findings.report((*here, "backup"), "must be another cell")
    elif cell.backup is not None:
        findings.reference((*here, "backup"), "cell", cell.backup, findings.known("cell"))
    if cell.elastic and cell.partitions is not None:
        message = "an elastic cell owns nothing until it is used; remove `partitions` or `elastic`"
        findings.report((*here, "partitions"), message, at_key=True)
    elif not cell.elastic and cell.partitions is None and not sharing(cells) and findings.is_whole(*here):
        message = "owns nothing, as other cells say what they own; give it `partitions`, or write elastic: true"
        findings.report(here, message, at_key=True)


def _check_owners(cells: CellsModel, findings: Findings) -> None:
    """Every partition has one owner. An overlap is told where it is written second, a gap at all cells."""
    if sharing(cells):
        count = len(sharing(cells))
        if count > cells.partitions:
            message = f"{cells.partitions} partitions are not enough for {count} cells"
            findings.report((*_CELLS, "cells"), message, at_key=True)
        return
    owners: list[str] = [""] * cells.partitions
    whole = findings.is_whole(*_CELLS, "cells") and findings.is_whole(*_CELLS, "partitions")
    for name, cell in cells.cells.items():
        for index, first, last in owned(cell):
            here: Path = (*_CELLS, "cells", name, "partitions", index)
            if last < first:
                findings.report(here, f"must rise: write {last}-{first}")
            elif last >= cells.partitions:
                if findings.is_whole(*_CELLS, "partitions"):
                    message = f"there is no partition {last}: the {cells.partitions} are 0-{cells.partitions - 1}"
                    findings.report(here, message)
            else:
                taken = [at for at in range(first, last + 1) if owners[at]]
                if taken:
                    other = owners[taken[0]]
                    both = [at for at in taken if owners[at] == other]
                    findings.report(here, f"{written(both)} {_are(both)} owned by cell {other!r} already")
                for at in range(first, last + 1):
                    owners[at] = owners[at] or name
                continue
            whole = False
    gap = [partition for partition, owner in enumerate(owners) if not owner]
    if gap and whole:
        message = f"partition{'s' if len(gap) > 1 else ''} {written(gap)} {_are(gap)} owned by no cell"
        findings.report((*_CELLS, "cells"), message, at_key=True)


def _are(partitions: list[int]) -> str:
    return "are" if len(partitions) > 1 else "is"


def _check_cities(model: ScenarioModel, cells: CellsModel, findings: Findings) -> None:
    homes: dict[str, str] = {}
    for name, zones in cells.cities.items():
        for index, zone in enumerate(zones):
            here: Path = (*_CELLS, "cities", name, index)
            findings.reference(here, "zone", zone, zone_names(findings))
            if zone in homes:
                findings.report(here, f"zone {zone!r} is in city {homes[zone]!r} already")
            homes.setdefault(zone, name)
    if cells.cities and findings.is_whole(*_CELLS, "cities"):
        outside = [zone for zone in zone_names(findings) if zone not in homes]
        if outside:
            message = f"zone{'s' if len(outside) > 1 else ''} {listed(outside)} {'are' if len(outside) > 1 else 'is'}"
            findings.report((*_CELLS, "cities"), f"{message} in no city; every zone must be in one", at_key=True)


def _check_classes(model: ScenarioModel, findings: Findings) -> None:
    names = findings.names("spec", "services")
    for name, service in model.spec.services.items():
        here: Path = ("spec", "services", name)
        if service.class_ is not None and model.spec.cells is None:
            if findings.is_whole(*_CELLS):
                message = f"{service.class_} has no place: there are no cells; write `spec.cells`, or remove it"
                findings.report((*here, "class"), message)
            continue
        stores_data = service.workload.store is not None
        if service.class_ == "sharded" and stores_data and model.spec.cells is not None:
            _check_sharded_store(here, name, service, model, model.spec.cells, findings)
        if service.class_ in ("sharded", "perCity") and service.zones and not stores_data:
            where = "of its cells" if service.class_ == "sharded" else "of each city"
            findings.report((*here, "zones"), f"a {service.class_} service lives in the zones {where}", at_key=True)
        _check_shards(here, service, model, findings)
        for placement in placements(name, service, model.spec):
            if placement.deployment != name and placement.deployment in names:
                message = f"its pods in a cell are called {placement.deployment!r}, as is another service; rename one"
                findings.report(here, message, at_key=True)
            elif len(placement.deployment) > 55:
                message = f"its pods in a cell would be called {placement.deployment!r}: shorten a name"
                findings.report(here, message, at_key=True)
    sharded = any(service.class_ == "sharded" for service in model.spec.services.values())
    if model.spec.cells is not None and findings.is_whole("spec", "services") and not sharded:
        message = "no service lives in them: give one at least the class sharded"
        findings.report((*_CELLS, "cells"), message, at_key=True)


def _check_sharded_store(
    here: Path, name: str, service: ServiceModel, model: ScenarioModel, cells: CellsModel, findings: Findings
) -> None:
    """Every replica is in one cell, and every cell has one."""
    if service.shuffle_shards is not None:
        findings.report((*here, "shuffleShards"), "a store has one leader for each partition; remove it", at_key=True)
    if model.spec.load.operations is not None and not model.spec.load.only_operations:
        message = f"must be 100%: keys of {name}, a store of class sharded, are the ids of clients"
        findings.report(("spec", "load", "operations", "share"), message)
    zones = dict.fromkeys(zone for _, zone in homes(name, service, model.spec))
    for zone in zones:
        inside = [cell_name for cell_name, cell in cells.cells.items() if zone in cell.zones]
        if len(inside) != 1 and zone in zone_names(findings):
            found = f"in the cells {listed(inside)}" if inside else "in no cell"
            message = f"zone {zone} is {found}, but each replica of a sharded store is in one; name its `zones`"
            findings.report(here, message, at_key=True)
    for cell_name, cell in cells.cells.items():
        if not set(cell.zones) & zones.keys() and findings.is_whole(*here):
            message = f"no replica is in cell {cell_name}; give it more `replicas`, or name its `zones`"
            findings.report(here, message, at_key=True)
        if cell.groups:
            message = f"replicas of the store {name} are in no deployment group; remove them, or write `class: global`"
            findings.report((*_CELLS, "cells", cell_name, "groups"), message, at_key=True)


def _check_groups(model: ScenarioModel, findings: Findings) -> None:
    """Of a store that is led by the owners of its partitions."""
    cell_map = partition_map(model.spec)
    assert cell_map is not None
    for name, service in model.spec.services.items():
        store = service.workload.store
        if store is None or store.mode != "async":
            continue
        for number, group in enumerate(groups_of(len(cell_map.owners), store.groups)):
            owners = list(dict.fromkeys(cell_map.owners[group.start : group.end]))
            if len(owners) > 1:
                found = f"group {number} has the partitions {written(range(group.start, group.end))}"
                message = (
                    f"{found} and, in mode async, one owner, not {listed(owners)}; change `groups`, or who owns what"
                )
                findings.report(("spec", "services", name, "workload", "store", "groups"), message)
                break


def _check_shards(here: Path, service: ServiceModel, model: ScenarioModel, findings: Findings) -> None:
    size, at = service.shuffle_shards, (*here, "shuffleShards")
    if size is None:
        return
    if service.class_ != "sharded":
        findings.report(at, "needs the class sharded: only there a key says whose a call is", at_key=True)
        return
    if size > service.replicas and findings.is_whole(*here, "replicas"):
        findings.report(at, f"must be at most the {service.replicas} replicas that there are in a cell, not {size}")
    if model.spec.cells is not None and model.spec.cells.partitions > MAX_SHARDED_PARTITIONS:
        message = f"at most {MAX_SHARDED_PARTITIONS} partitions can have shards, as every proxy keeps each; there are"
        findings.report(at, f"{message} {model.spec.cells.partitions}", at_key=True)


def _check_ids(model: ScenarioModel, findings: Findings) -> None:
    ids, load = model.spec.load.ids, model.spec.load
    here: Path = ("spec", "load", "ids")
    if ids is None:
        return
    if model.spec.cells is None and findings.is_whole(*_CELLS):
        message = "nothing says where a request carries an id: there is no `spec.cells`"
        findings.report(here, message, at_key=True)
    if load.locustfile is not None:
        findings.report(here, "a locustfile draws its own ids; remove one of them", at_key=True)
    if ids.file is not None:
        for key in (key for key in ("distribution", "count", "exponent") if getattr(ids, key) is not None):
            findings.report((*here, key), "the ids come from `file`; remove one of them", at_key=True)
        _check_file((*here, "file"), ids.file, findings)
    elif ids.exponent is not None and ids.distribution != "zipf":
        findings.report((*here, "exponent"), "belongs to distribution: zipf", at_key=True)
    if ids.distribution == "zipf" and (ids.count or 0) > 1_000_000:
        findings.report((*here, "count"), f"must be at most 1000000 with zipf, not {ids.count}")


def _check_file(here: Path, file: str, findings: Findings) -> None:
    try:
        lines = (findings.folder / file).read_text().split()
    except (OSError, ValueError):
        findings.report(here, f"there is no text file {file!r} relative to the scenario's folder")
        return
    if not lines:
        findings.report(here, f"{file!r} has no ids; there must be one a line")


def _check_keys_of_requests(model: ScenarioModel, cells: CellsModel, findings: Findings) -> None:
    """Without a declared fate, every request of the load must carry a key. What a locustfile sends nobody knows."""
    load = model.spec.load
    whole = all(findings.is_whole(*at) for at in ((*_CELLS, "key"), ("spec", "load"), (*_CELLS, "unkeyed")))
    if cells.unkeyed is not None or load.locustfile is not None or not whole:
        return
    if sum(getattr(cells.key, kind) is not None for kind in ("header", "cookie", "query", "path")) != 1:
        return
    requests = load.requests or [RequestModel(path="/{id}" if load.only_operations else "/")]
    without = list(_without_key(model, cells, requests))
    what = f"{key_of(cells.key).kind} {key_of(cells.key).name}"
    if len(without) == len(requests):
        message = f"no request of the load carries it ({what})"
        draw = "write `load.ids`" if load.ids is None else "write {id} where it is in a path"
        findings.report(
            (*_CELLS, "key"), f"{message}; {draw}, or what becomes of such requests: `unkeyed`", at_key=True
        )
        return
    for index in without:
        message = f"carries no key ({what}), and nothing says what becomes of it; write `spec.cells.unkeyed`"
        findings.report(("spec", "load", "requests", index), message)


def _without_key(model: ScenarioModel, cells: CellsModel, requests: list[RequestModel]) -> Iterator[int]:
    load = model.spec.load
    key, drawn = key_of(cells.key), load.ids is not None or load.only_operations
    for index, request in enumerate(requests):
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.path.replace("{id}", "0") if drawn else request.path
        match key.kind:
            case "header":
                carries = drawn or key.header in headers
            case "cookie":
                carries = drawn or f"{key.name}=" in headers.get("cookie", "")
            case "query":
                carries = drawn or re.search(f"[?&]{re.escape(key.name)}=", path) is not None
            case "path":
                carries = re.fullmatch(key.name, path.partition("?")[0]) is not None
        if not carries:
            yield index
