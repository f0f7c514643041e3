"""What the actors and processes recorded -> the tables in the run folder."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from errno import EDQUOT, ENOSPC
from functools import partial
from itertools import chain
from pathlib import Path

import orjson

from testbed.control.cells.partitions import partition_of
from testbed.emulation.actors.reports import Push, Recorded
from testbed.emulation.driver.cluster import ClusterRecords
from testbed.emulation.processes.container import ACCESS_SUFFIX
from testbed.emulation.processes.kube_proxy import CONNECTIONS_SUFFIX
from testbed.emulation.processes.pushed import lines
from testbed.emulation.processes.sampler import MachineSample
from testbed.network.links import LinkSample
from testbed.objects.cells import CELL, PartitionMap
from testbed.objects.core import Pod
from testbed.objects.places import Topology, clients_of
from testbed.results.tables.facts import UnreadLines
from testbed.results.tables.ingest import ingest_leaders, ingest_outlier_log, ingest_requests
from testbed.results.tables.ingest_calls import Connections, call_tables, ingest_access_log
from testbed.results.tables.lines import IngestCounts, line_count
from testbed.results.tables.pods import PodIdentity, Pods
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import TableWriter, write_missing_tables
from testbed.workloads.store.leaders import LEADERS_SUFFIX

REQUESTS_SUFFIX = ".requests.jsonl"
OUTLIER_SUFFIX = ".outlier.jsonl"

_NAMES = ("name", "cluster_name", "service")
"""Where the resources of one type or the other have theirs."""


@dataclass(frozen=True, slots=True)
class Written:
    """What of the logs is in no table, and the parts of tables for which the disk had no room."""

    unread: tuple[UnreadLines, ...]
    lost: tuple[str, ...]


@contextlib.contextmanager
def _no_search_for_cycles() -> Iterator[None]:
    """Nothing of a log refers to itself, and to search millions of parsed lines for it is a quarter of the work."""
    searches = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searches:
            gc.enable()


@_no_search_for_cycles()
def record(
    run_dir: Path,
    clock: Clock,
    clock_of: Callable[[str], Clock],
    topology: Topology,
    records: ClusterRecords,
    samples: Iterable[MachineSample],
    cell_map: PartitionMap | None = None,
) -> Written:
    """Write every table of a run, from the records of its actors and from the raw logs in `<run_dir>/logs`.

    `clock` is the driver's, which records and samples are in; logs are by `clock_of` the place that wrote them. Of
    `cell_map` only what makes a partition of a key counts, which is the same in all versions.
    """
    nodes = {pod.name: pod.node for pod, _ in records.pods if pod.node is not None}
    pods = Pods(identity(pod, started_s, topology, clock) for pod, started_s in records.pods)
    room = _Room()
    logs = run_dir / "logs"
    counts: dict[str, IngestCounts] = {}
    unknown: dict[str, int] = {}
    # What a report cannot do without comes first.
    for path in sorted(logs.glob(f"*{REQUESTS_SUFFIX}")):
        zone = path.name.removesuffix(REQUESTS_SUFFIX)
        with room.for_("requests", zone):
            own = TableWriter(run_dir, "events", f"{zone}.locust")  # no pod has a name like this
            operations = TableWriter(run_dir, "operations", zone)
            with TableWriter(run_dir, "requests", zone) as requests, own, operations:
                clock_there = clock_of(clients_of(zone))
                counts[path.name] = ingest_requests(path, requests, own, clock_there, zone, operations)
    with room.for_("events", "the cluster"), TableWriter(run_dir, "events", "cluster") as events:
        for event in records.events:
            events.append(_event(event, clock))
    with room.for_("pods", "the cluster"):
        _write_pods(run_dir, pods)
    with room.for_("pushes", "the cluster"):
        _write_pushes(run_dir, clock, records.pushes)
    with room.for_("resources", "the cluster"):
        _write_resources(run_dir, records.pushed_resources)
    with room.for_("links", "the cluster"):
        _write_links(run_dir, clock, records.links)
    with room.for_("machines", "the cluster"):
        _write_machines(run_dir, clock, samples)
    for path in sorted(logs.glob(f"*{OUTLIER_SUFFIX}")):
        pod = path.name.removesuffix(OUTLIER_SUFFIX)
        if path.stat().st_size and pod in nodes:
            with room.for_("events", pod), TableWriter(run_dir, "events", pod) as events:
                counts[path.name] = ingest_outlier_log(path, pod, pods, clock_of(nodes[pod]), events)
    services = {pod.name: pod.template.service for pod, _ in records.pods}
    for path in sorted(logs.glob(f"*{LEADERS_SUFFIX}")):
        pod = path.name.removesuffix(LEADERS_SUFFIX)
        if pod in nodes:
            with room.for_("events", pod), TableWriter(run_dir, "events", f"{pod}.leaders") as events:
                counts[path.name] = ingest_leaders(path, pod, services[pod], clock_of(nodes[pod]), events)
    led = {
        path.name.removesuffix(CONNECTIONS_SUFFIX): Connections(path) for path in logs.glob(f"*{CONNECTIONS_SUFFIX}")
    }
    for node, connections in led.items():
        counts[f"{node}{CONNECTIONS_SUFFIX}"] = IngestCounts(unreadable=connections.unreadable)
    partition = None if cell_map is None else partial(partition_of, cell_map.rule, len(cell_map.owners))
    for path in sorted(logs.glob(f"*{ACCESS_SUFFIX}")):
        pod = path.name.removesuffix(ACCESS_SUFFIX)
        if pod not in nodes:
            # The master's machine was lost, and with it who was where.
            unknown[path.name] = line_count(path)
            continue
        with room.for_("hops, attempts and connections", pod), call_tables(run_dir, pod) as tables:
            counts[path.name] = ingest_access_log(
                path, pods, clock_of(nodes[pod]), tables, led.get(nodes[pod]), partition
            )
    with room.for_("all tables", "nobody"):
        write_missing_tables(run_dir)
    unread = [UnreadLines(file, each.unreadable, each.orphans) for file, each in counts.items()]
    unread += [UnreadLines(file, unknown=lines) for file, lines in unknown.items()]
    return Written(tuple(each for each in unread if each.lines), tuple(room.lost))


class _Room:
    """Room on the disk for one file after the other: where it is short, the file is lost, and the others are not."""

    def __init__(self) -> None:
        self.lost: list[str] = []

    @contextlib.contextmanager
    def for_(self, table: str, writer: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT):
                raise
            self.lost.append(f"{table} of {writer}")


def identity(pod: Pod, started_s: float, topology: Topology, clock: Clock) -> PodIdentity:
    assert pod.node is not None
    assert pod.address is not None
    locality = topology.place(pod.node).locality
    return PodIdentity(
        pod=pod.name,
        service=pod.template.service,
        node=pod.node,
        zone=locality.zone,
        region=locality.region,
        cell=dict(pod.template.extra_labels).get(CELL, locality.subzone),
        ip=pod.address.app.ip,
        started_s=clock.from_monotonic(started_s),
    )


def _write_pods(run_dir: Path, pods: Pods) -> None:
    with TableWriter(run_dir, "pods", "cluster") as table:
        for pod in pods.identities:
            table.append(pod.row())


def _event(event: Recorded, clock: Clock) -> dict[str, object]:
    return {
        "t_s": clock.from_monotonic(event.t_s),
        "source": event.source,
        "kind": event.kind,
        "object": event.object,
        "reason": event.reason,
        "details": orjson.dumps(event.details).decode(),
    }


def _write_pushes(run_dir: Path, clock: Clock, pushes: Iterable[Push]) -> None:
    with TableWriter(run_dir, "pushes", "master") as table:
        for push in pushes:
            table.append(
                {
                    "proxy": push.proxy,
                    "type": push.type_url.rpartition(".")[2],
                    "version": push.version,
                    "sent_s": clock.from_monotonic(push.sent_s),
                    "acked_s": None if push.acked_s is None else clock.from_monotonic(push.acked_s),
                    "error": push.error,
                    "resources": push.resources,
                }
            )


def _write_resources(run_dir: Path, compressed: Iterable[bytes]) -> None:
    with TableWriter(run_dir, "resources", "master") as table:
        for number, line in enumerate(chain.from_iterable(map(lines, compressed))):
            content = orjson.loads(line)
            kind = content["@type"].rpartition(".")[2]
            name = next((content[key] for key in _NAMES if key in content), "")
            table.append({"number": number, "type": kind, "name": name, "content": line.decode()})


def _write_links(run_dir: Path, clock: Clock, links: Iterable[LinkSample]) -> None:
    with TableWriter(run_dir, "links", "relays") as table:
        for sample in links:
            row = asdict(sample)
            row["second_s"] = clock.from_monotonic(row.pop("second"))
            table.append(row)


def _write_machines(run_dir: Path, clock: Clock, samples: Iterable[MachineSample]) -> None:
    with TableWriter(run_dir, "machines", "sampler") as table:
        for sample in samples:
            row = asdict(sample)
            row["t_s"] = clock.from_monotonic(row.pop("t_monotonic_s"))
            table.append(row)
