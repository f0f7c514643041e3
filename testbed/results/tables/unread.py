"""Lines of raw logs that are in no table, and which of them the death of their writer explains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from testbed.objects.places import clients_of
from testbed.results.tables.facts import RunFacts, UnreadLines


def unexplained_lines(facts: RunFacts, events: pa.Table, pods: pa.Table) -> tuple[UnreadLines, ...]:
    """What of `facts.unread` nothing explains, log by log.

    A process that is killed can leave its last line torn, to which it writes on if it starts again: each of its deaths
    explains one line that cannot be read. So does the loss of a machine, whose logs came home in pieces. Lines of a pod
    that nobody knew are explained by a lost machine, with which the list of pods went.
    """
    exits = _exits(events)
    nodes = {row["pod"]: row["node"] for row in pods.select(["pod", "node"]).to_pylist()}
    lost = [machine for machine in facts.machines if machine.lost_s is not None]
    found = []
    for log in facts.unread:
        deaths = sum(1 for _ in _deaths(log.file.partition(".")[0], facts, exits, nodes))
        unknown = 0 if lost else log.unknown
        left = replace(log, unreadable=max(0, log.unreadable - deaths), unknown=unknown)
        if left.lines:
            found.append(left)
    return tuple(found)


def _deaths(writer: str, facts: RunFacts, exits: Mapping[str, int], nodes: Mapping[str, str]) -> Iterator[str]:
    """Each death of who wrote a log, be it a pod, a node or the clients of a zone."""
    node, clients = nodes.get(writer, writer), clients_of(writer)
    yield from ["exit"] * exits.get(writer, 0)
    for fault in facts.faults:
        if node in (fault.victims or ()):
            yield f"crash of {node}"
    for machine in facts.machines:
        if machine.lost_s is not None and {writer, node, clients} & set(machine.places):
            yield f"loss of {machine.name}"
    if any(source.zone == writer for source in facts.sources) and writer not in facts.locust:
        yield f"Locust of {writer} ended"


def _exits(events: pa.Table) -> Mapping[str, int]:
    """By pod: how often one of its processes ended; both end when the pod is killed, and only one writes the log."""
    ended = events.filter(pc.equal(events["reason"].cast(pa.string()), "ProcessExited"))
    by_process = Counter(zip(ended["object"].to_pylist(), map(_process, ended["details"].to_pylist()), strict=True))
    exits: dict[str, int] = {}
    for (pod, _), times in by_process.items():
        exits[pod] = max(exits.get(pod, 0), times)
    return exits


def _process(details: str) -> str:
    return str(orjson.loads(details or "{}").get("process"))
