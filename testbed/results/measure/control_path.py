"""How the control plane followed each fault and its heal: noticed, decided, pushed, acknowledged.

Owns the definition of these steps; it stands at `control_path`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from testbed.control.views.kube_proxy import node_of_kube_proxy
from testbed.objects.places import CLIENTS
from testbed.results.tables.columns import Floats, codes, floats
from testbed.results.tables.facts import AppliedFault

DETECTED_FAULT = frozenset({"NodeNotReady", "ContainersNotReady", "Unhealthy", "BackOff", "Ejected"})
DETECTED_HEAL = frozenset({"NodeReady", "Started", "Unejected"})
DECIDED = frozenset({"EndpointsChanged"})
WAVE_GAP_S = 0.5
"""Pushes further apart than this belong to different decisions: istiod collects changes for 0.1 s before it pushes."""


@dataclass(frozen=True, slots=True)
class ControlPath:
    """When the control plane followed a change, in seconds after it; None where it never did. See `control_path`."""

    detected_s: float | None = None
    decided_s: float | None = None
    pushed_s: float | None = None
    propagated_s: float | None = None
    unacked: int = 0
    cut_off: tuple[str, ...] = ()
    """Proxies that were told and could not be reached."""
    cut_off_acked_s: float | None = None


@dataclass(frozen=True, slots=True)
class CutOffs:
    """Whom the control plane did not reach, or who did not reach it: `times` by place, each from and until when, in
    seconds. `nodes` are those of pods."""

    times: Mapping[str, Sequence[tuple[float, float]]] = field(default_factory=dict)
    nodes: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, faults: Iterable[AppliedFault], nodes: Mapping[str, str]) -> CutOffs:
        times: dict[str, list[tuple[float, float]]] = {}
        for fault in faults:
            for place in fault.cut_off:
                times.setdefault(place, []).append(
                    (fault.applied_s, np.inf if fault.healed_s is None else fault.healed_s)
                )
        return cls(times, nodes)

    def concern(self, proxy: str, from_s: float, until_s: float) -> bool:
        """Whether it was cut off at any time between."""
        place = self.nodes.get(proxy) or node_of_kube_proxy(proxy)
        return any(from_s < end_s and until_s > start_s for start_s, end_s in self.times.get(place, ()))


NOBODY = CutOffs()


def control_path(
    events: pa.Table,
    pushes: pa.Table,
    start_s: float,
    end_s: float,
    signs: Iterable[str] = DETECTED_FAULT,
    cut_offs: CutOffs = NOBODY,
) -> ControlPath:
    """How the control plane followed a change at `start_s`, all before `end_s`; times are seconds after `start_s`.

    detected: the first event with one of the reasons `signs`; decided: the first EndpointsChanged; pushed: the first
    push sent since; propagated: the last ACK of that wave, which goes on while pushes are less than 0.5 s apart. What
    clients are told of gateways is no answer to endpoints and is left out. `unacked` counts pushes of the wave that
    nobody acknowledged (dead or rejecting proxies).

    A proxy that was cut off at any time between a push and its ACK has it when the cut is over, however fast the
    control plane is: such pushes are in none of these, but their proxies are in `cut_off`, and `cut_off_acked_s` is the
    last of their ACKs.
    """
    times_s = floats(events["t_s"])
    found, reasons = codes(events["reason"])

    def first(wanted: Iterable[str]) -> float | None:
        chosen = np.isin(found, [reasons.index(reason) for reason in sorted(wanted) if reason in reasons])
        matching_s = times_s[chosen & (times_s >= start_s) & (times_s < end_s)]
        return float(matching_s.min()) - start_s if len(matching_s) else None

    detected_s, decided_s = first(signs), first(DECIDED)
    if decided_s is None:
        return ControlPath(detected_s)
    sent_s, acked_s = floats(pushes["sent_s"]), floats(pushes["acked_s"])
    told, names = codes(pushes["proxy"])
    to_clients = np.isin(told, [index for index, name in enumerate(names) if name and name.startswith(CLIENTS)])
    wave = np.flatnonzero((sent_s >= start_s + decided_s) & (sent_s < end_s) & ~to_clients)
    if not len(wave):
        return ControlPath(detected_s, decided_s)
    wave = wave[np.argsort(sent_s[wave], kind="stable")]
    pauses = np.flatnonzero(np.diff(sent_s[wave]) > WAVE_GAP_S)
    if len(pauses):
        wave = wave[: pauses[0] + 1]
    until_s = np.where(np.isnan(acked_s), end_s, acked_s)
    apart = np.array([cut_offs.concern(names[told[each]], sent_s[each], until_s[each]) for each in wave])
    acks_s, late_s = (_acked(acked_s[part]) for part in (wave[~apart], wave[apart]))
    return ControlPath(
        detected_s,
        decided_s,
        float(sent_s[wave[0]]) - start_s,
        float(acks_s.max()) - start_s if len(acks_s) else None,
        int((~apart).sum()) - len(acks_s),
        tuple(sorted({names[code] for code in told[wave[apart]]})),
        float(late_s.max()) - start_s if len(late_s) else None,
    )


def _acked(acked_s: Floats) -> Floats:
    acks_s: Floats = acked_s[~np.isnan(acked_s)]
    return acks_s
