"""What went down although no fault explains it: processes that nobody ended, restarts, nodes and pods that were not
ready, ejections, gateways that clients were told to be ill.

Owns the rule of what a fault explains; it stands at `undeclared`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from testbed.objects.workloads import gateway_of
from testbed.results.measure.moments import moments
from testbed.results.measure.recovery import FaultImpact
from testbed.results.tables.facts import RunFacts

SETTLING_S = {"fast": 3.0, "kubernetes": 60.0}
"""By profile: longer than a control plane takes to give up a node, since what it notices late can still come."""
EARLY_S = 0.05
"""By as much can what a fault does be dated before it: the time of a fault is that of its last victim."""
_OWN = {"envoy": "Envoy", "workload": "built-in workload"}
"""Programs that are the testbed's: they never end by themselves."""

_REASONS = (
    *("ProcessExited", "Started", "SuccessfulCreate", "Killing", "DeletionByPodGC"),
    *("NodeNotReady", "NodeReady", "NotReady", "Ready", "Ejected", "Unejected", "EntryChanged"),
)


@dataclass(frozen=True, slots=True)
class Undeclared:
    """`object` is a pod, a node or a gateway. `why` says more than `what`, and can be empty. Deaths of the testbed's
    own programs make a run invalid."""

    t_s: float
    what: Literal["death", "restart", "not ready", "ejection", "unhealthy"]
    object: str
    why: str = ""
    invalidates: bool = False


@dataclass(frozen=True, slots=True)
class _Event:
    t_s: float
    source: str
    kind: str
    object: str
    reason: str
    details: Mapping[str, Any]


def undeclared(events: pa.Table, facts: RunFacts, impacts: Sequence[FaultImpact]) -> tuple[Undeclared, ...]:
    """All of it since the load began, in order of time; when the load has ended, nodes are switched off one by one.

    - A process that a fault killed is declared. One that its kubelet ended is a restart, and explained by any fault
      in force; so is the end of a user's own command. No fault explains the end of a program of the testbed's own that
      nobody ended.
    - What is not ready, ejected or unhealthy to clients is explained by any fault in force. A fault is in force until
      its heal (a kill: at its moment), and from then on until clients have recovered and everything that went down is
      back: nodes and pods ready, endpoints no longer ejected, and for a while after (`SETTLING_S`).
    """
    seen = list(_events(events))
    explained = _in_force(seen, facts, impacts)
    starts_s = [start_s for start_s, _ in explained]

    def by_a_fault(t_s: float) -> bool:
        before = bisect_right(starts_s, t_s)
        return any(t_s <= end_s for _, end_s in explained[:before])

    found = [*(each for event in seen if (each := _judged(event)) is not None), *_left_by_clients(seen)]
    return tuple(
        each
        for each in sorted(found, key=lambda each: each.t_s)
        if each.t_s >= 0 and (each.invalidates or (each.t_s <= facts.end_s and not by_a_fault(each.t_s)))
    )


def _judged(event: _Event) -> Undeclared | None:
    match event.kind, event.reason:
        case "Pod", "ProcessExited" if event.details.get("by") == "kubelet":
            return Undeclared(event.t_s, "restart", event.object, "its kubelet ended it")
        case "Pod", "ProcessExited" if event.details.get("by") == "request":
            return Undeclared(event.t_s, "death", event.object, "crashed by a request, as declared")
        case "Pod", "ProcessExited" if event.details.get("by") != "fault":
            program = event.details.get("program", "")
            name = _OWN.get(program) or str(event.details.get("process", "process"))
            how = f"{name} {_how(event.details)}{_said(event.details) if program in _OWN else ''}"
            return Undeclared(event.t_s, "death", event.object, how, program in _OWN)
        case ("Node", "NodeNotReady") | ("Pod", "NotReady"):
            return Undeclared(event.t_s, "not ready", event.object)
        case "Endpoint", "Ejected":
            return Undeclared(event.t_s, "ejection", event.object, f"by {event.source}")
    return None


def _left_by_clients(events: Sequence[_Event]) -> Iterator[Undeclared]:
    """The gateways that each answer to the clients of a zone lacks and the one before had. The first was all of them:
    gateways begin as healthy."""
    answers = [
        (event, frozenset(map(str, event.details.get("answer", ()))))
        for event in events
        if (event.kind, event.reason) == ("Entry", "EntryChanged")
    ]
    every = frozenset[str]().union(*(zones for _, zones in answers))
    last: dict[str, frozenset[str]] = {}
    for event, zones in answers:
        for zone in sorted(last.get(event.object, every) - zones):
            yield Undeclared(event.t_s, "unhealthy", gateway_of(zone), f"to clients of {event.object}")
        last[event.object] = zones


def _how(details: Mapping[str, Any]) -> str:
    match details.get("code"):
        case None:
            return "did not start"
        case int(code) if code < 0:
            return f"ended by signal {-code}"
        case code:
            return f"ended with code {code}"


def _said(details: Mapping[str, Any]) -> str:
    """What a program said before it ended by itself, as a store's replica that cannot trust its disk, or use it."""
    code, last = details.get("code"), str(details.get("last_lines") or "").rpartition(" | ")[2]
    return f": {last}" if last and isinstance(code, int) and code > 0 else ""


def _events(events: pa.Table) -> Iterator[_Event]:
    chosen = events.filter(pc.is_in(events["reason"].cast(pa.string()), value_set=pa.array(_REASONS)))
    for row in sorted(chosen.to_pylist(), key=lambda row: float(row["t_s"])):
        details = orjson.loads(row["details"] or "{}")
        yield _Event(row["t_s"], row["source"] or "", row["kind"] or "", row["object"] or "", row["reason"], details)


def _in_force(events: Sequence[_Event], facts: RunFacts, impacts: Sequence[FaultImpact]) -> list[tuple[float, float]]:
    """From when to when each change of the run explains what goes down, in order of time."""
    recovered_s = {
        (impact.fault.name, heal): aftermath.recovery.recovered_s
        for impact in impacts
        for heal, aftermath in ((False, impact.applied), (True, impact.healed))
        if aftermath is not None
    }
    spans = []
    for moment in moments([fault for fault in facts.faults if not fault.is_operation]):
        for change in moment.changes:
            fault = change.fault
            declared_s = fault.declared_heal_s if change.heal else fault.declared_at_s
            from_s = min(change.at_s if declared_s is None else declared_s, change.at_s) - EARLY_S
            if change.heal or (fault.instant and not fault.by_command):
                well_s = recovered_s.get((fault.name, change.heal))
                settling_s = SETTLING_S.get(facts.profile, max(SETTLING_S.values()))
                spans.append((from_s, _settled_s(events, moment.end_s if well_s is None else well_s, settling_s)))
            else:
                spans.append((from_s, float("inf") if fault.healed_s is None else fault.healed_s))
    return sorted(spans)


def _settled_s(events: Iterable[_Event], well_s: float, settling_s: float) -> float:
    """Until when a change explains what goes down, if clients are well again at `well_s`.

    What is down soon after that is the change's doing, and has to come back first. What goes down later is not waited
    for, else an endpoint that is ejected again and again would be explained for ever.
    """
    down: set[tuple[str, ...]] = set()
    pods: dict[str, set[str]] = {}
    until_s = well_s + settling_s
    for event in events:
        late = event.t_s > well_s + settling_s
        if late and not down:
            break
        before = set(down) if late else down
        _follow(event, down, pods)
        if late:
            down &= before
            until_s = max(until_s, event.t_s + settling_s)
    return float("inf") if down else until_s


def _follow(event: _Event, down: set[tuple[str, ...]], pods: dict[str, set[str]]) -> None:
    """Keep what is down and which pods are on which node."""
    match event.kind, event.reason:
        case "Node", "NodeNotReady":
            down.add(("Node", event.object))
        case "Node", "NodeReady":
            down.discard(("Node", event.object))
            if event.details.get("rebooted"):
                down.update(("Pod", pod) for pod in pods.get(event.object, ()))
        case "Pod", "NotReady" | "NodeNotReady":
            down.add(("Pod", event.object))
        case "Pod", "Ready":
            down.discard(("Pod", event.object))
        case "Deployment", "SuccessfulCreate":
            down.add(("Pod", str(event.details.get("pod"))))
        case "Pod", "Started":
            pods.setdefault(str(event.details.get("node")), set()).add(event.object)
            _forget_ejections_by(event.object, down)
        case "Pod", "Killing" | "DeletionByPodGC":
            pods.get(str(event.details.get("node")), set()).discard(event.object)
            down.discard(("Pod", event.object))
            _forget_ejections_by(event.object, down)
        case "Endpoint", "Ejected":
            down.add(("Endpoint", event.object, event.source))
        case "Endpoint", "Unejected":
            down.discard(("Endpoint", event.object, event.source))


def _forget_ejections_by(proxy: str, down: set[tuple[str, ...]]) -> None:
    """A proxy that starts has ejected nobody."""
    down.difference_update([each for each in down if each[0] == "Endpoint" and each[2] == proxy])
