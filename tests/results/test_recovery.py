"""Recovery against a slow oracle that follows the definition word by word."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.results.measure.control_path import ControlPath, CutOffs, control_path
from testbed.results.measure.recovery import Aftermath, impacts, recovery
from testbed.results.measure.steady import Steady
from testbed.results.tables.columns import Requests
from testbed.results.tables.facts import AppliedFault
from testbed.results.tables.schemas import SCHEMAS
from testbed.scenario import RecoveryRule

NOTHING = {name: SCHEMAS[name].empty_table() for name in ("events", "pushes")}

Row = tuple[float, float | None, str]
"""Intended and finished in seconds, and the outcome."""


def _table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"intended_s": i, "sent_s": i, "finished_s": f, "outcome": outcome} for i, f, outcome in rows],
        schema=SCHEMAS["requests"],
    )


def _steady(start_s: float, end_s: float, outcome: str = "ok", per_s: int = 100) -> list[Row]:
    numbers = range(round(start_s * per_s), round(end_s * per_s))
    return [(number / per_s, number / per_s + 0.005, outcome) for number in numbers]


def _oracle(rows: list[Row], applied_s: list[float], start_s: float, end_s: float) -> tuple[Any, ...]:
    counted = []
    for intended_s, finished_s, outcome in rows:
        met = [t for t in applied_s if intended_s < t and (finished_s is None or finished_s >= t)]
        counted_s = min(met, default=intended_s)
        if start_s <= counted_s < end_s:
            counted.append((counted_s, intended_s, outcome))
    not_ok = [request for request in counted if request[2] != "ok"]
    first = min((intended_s for _, intended_s, _ in not_ok), default=None)
    failed = sum(outcome == "failed" for _, _, outcome in not_ok)
    if not counted:
        return None, None, 0, 0
    begins = sorted({counted_s for counted_s, _, _ in counted})
    windows = {
        begin: [outcome for counted_s, _, outcome in counted if begin <= counted_s < begin + 1]
        for begin in begins
        if begin + 1 <= end_s
    } or {begins[0]: [outcome for _, _, outcome in counted]}
    bad = [begin for begin, seen in windows.items() if 100 * seen.count("ok") < 99 * len(seen)]
    later = [begin for begin in windows if bad and begin > max(bad)]
    recovered = start_s if not bad else min(later, default=None)
    return first, recovered, failed, len(not_ok) - failed


_ROWS = st.lists(
    st.tuples(
        st.integers(0, 60),
        st.one_of(st.none(), st.integers(0, 30)),
        st.sampled_from(["ok"] * 6 + ["failed", "unknown"]),
        st.integers(1, 120),
    ),
    max_size=25,
)


@given(rows=_ROWS, applied=st.lists(st.integers(0, 50), min_size=1, max_size=3), healed=st.integers(0, 20))
def test_recovery_agrees_with_its_definition(
    rows: list[tuple[int, int | None, str, int]], applied: list[int], healed: int
) -> None:
    # Quarters of a second are exact, so that the edges of windows are met often; repeats make 99 % reachable.
    requests: list[Row] = [
        (i / 4, None if took is None and outcome == "unknown" else (i + (took or 0)) / 4, outcome)
        for i, took, outcome, times in rows
        for _ in range(times if outcome == "ok" else 1)
    ]
    faults = [AppliedFault(f"f{n}", t / 4, t / 4, (t + healed) / 4 if n == 0 else None) for n, t in enumerate(applied)]
    end_s = 15.0
    for impact in impacts(Requests.of(_table(requests), faults), **NOTHING, faults=faults, end_s=end_s):
        for aftermath in (impact.applied, impact.healed):
            if aftermath is None:
                continue
            start_s, until_s = _moment_of(impact.fault.name, aftermath is impact.healed, faults)
            got = aftermath.recovery
            first_error_s, recovered_s, failed, unknown = _oracle(
                requests, [fault.applied_s for fault in faults], start_s, min(end_s, until_s)
            )
            assert (got.first_error_s, got.errors.failed, got.errors.unknown) == (first_error_s, failed, unknown)
            if recovered_s is None:
                assert (got.recovered_s, got.time_to_recover_s) == (None, None)
            else:
                assert got.recovered_s == max(recovered_s, aftermath.at_s)
                assert got.time_to_recover_s == got.recovered_s - aftermath.at_s


def _moment_of(name: str, heal: bool, faults: list[AppliedFault]) -> tuple[float, float]:
    """From when to when all lasts that came less than a second after what came before it."""
    changes = sorted(
        [(fault.applied_s, number, fault.name, False) for number, fault in enumerate(faults)]
        + [
            (fault.healed_s, len(faults) + number, fault.name, True)
            for number, fault in enumerate(faults)
            if fault.healed_s is not None
        ]
    )
    starts_s: list[float] = []
    seen: list[str] = []
    mine, last_s = 0, -math.inf
    for at_s, _, fault, is_heal in changes:
        if at_s - last_s >= 1 or (is_heal and fault in seen):
            starts_s.append(at_s)
            seen = []
        seen, last_s = [*seen, fault], at_s
        if (fault, is_heal) == (name, heal):
            mine = len(starts_s) - 1
    starts_s.append(math.inf)
    return starts_s[mine], starts_s[mine + 1]


def test_nothing_fell_below_the_target_is_recovered_at_once() -> None:
    rows = [*_steady(0, 10), (3.5, 3.6, "failed")]
    got = recovery(Requests.of(_table(rows)), 3.0, 10.0)
    assert (got.first_error_s, got.recovered_s, got.time_to_recover_s) == (3.5, 3.0, 0.0)


def test_an_outage_ends_where_success_returns_for_good() -> None:
    rows = _steady(0, 3) + _steady(3, 5, "failed") + _steady(5, 6) + _steady(6, 6.1, "unknown") + _steady(6.1, 10)
    got = recovery(Requests.of(_table(rows)), 3.0, 10.0)
    assert got.time_to_recover_s == pytest.approx(3.1, abs=0.011)
    assert (got.errors.failed, got.errors.unknown) == (200, 10)


def test_an_outage_until_the_next_change_never_recovered() -> None:
    got = recovery(Requests.of(_table(_steady(0, 3) + _steady(3, 10, "failed"))), 3.0, 10.0)
    assert (got.recovered_s, got.time_to_recover_s) == (None, None)


def test_users_who_all_hang_count_as_an_outage_until_the_first_of_them_is_served_again() -> None:
    hanging: list[Row] = [(3.0, 8.0, "unknown")] * 10
    got = recovery(Requests.of(_table(_steady(0, 3) + hanging + _steady(8, 12))), 3.0, 12.0)
    assert got.recovered_s == 8.0


def test_what_a_fault_met_in_flight_counts_for_the_fault_and_what_a_heal_met_does_not_count_for_the_heal() -> None:
    fault = AppliedFault("f", 3.0, 3.0, 6.0)
    rows = [*_steady(0, 2.9), (2.95, 3.2, "failed"), (5.9, 6.4, "unknown"), *_steady(6, 10)]
    (impact,) = impacts(Requests.of(_table(rows), [fault]), **NOTHING, faults=[fault], end_s=10.0)
    assert impact.applied.recovery.first_error_s == 2.95
    assert (impact.applied.recovery.errors.failed, impact.applied.recovery.errors.unknown) == (1, 1)
    assert impact.healed is not None
    assert impact.healed.recovery.errors.unknown == 0


Part = tuple[np.ndarray, np.ndarray]
"""When requests were sent, and which of them failed."""


def _background(chance: np.random.Generator, start_s: float, end_s: float, per_s: float, share: float) -> Part:
    """Poisson arrivals, of which a share is not ok by chance."""
    at_s = chance.uniform(start_s, end_s, chance.poisson(per_s * (end_s - start_s)))
    return at_s, chance.random(len(at_s)) < share


def _time_to_recover_s(parts: list[Part], at_s: float, end_s: float) -> float | None:
    """As a run with one fault at `at_s` and a steady phase before it is judged."""
    sent_s, not_ok = (np.concatenate(column) for column in zip(*parts, strict=True))
    requests = Requests(sent_s, sent_s, sent_s, sent_s + 0.005, np.full(len(sent_s), 5.0), ~not_ok, not_ok)
    steady = Steady(int((sent_s < at_s).sum()), int(not_ok[sent_s < at_s].sum()))
    return recovery(requests, at_s, end_s, steady).time_to_recover_s


def test_a_kill_that_costs_three_requests_among_errors_all_the_time_recovers_within_a_second() -> None:
    """Judged against 99 % it would recover when the last unlucky window ends, seconds later or never."""
    kill: Part = (np.array([8.0, 8.02, 8.04]), np.full(3, True))
    for seed in range(20):
        recovered_s = _time_to_recover_s(
            [_background(np.random.default_rng(seed), 0.0, 20.0, 100.0, 0.02), kill], 8.0, 20.0
        )
        assert recovered_s is not None
        assert recovered_s < 1.0


@pytest.mark.parametrize("share", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("per_s", [20.0, 100.0, 400.0])
def test_errors_as_in_the_steady_phase_are_an_outage_in_one_of_a_hundred_aftermaths_at_most(
    per_s: float, share: float
) -> None:
    runs, alarms = 100, 0
    for seed in range(runs):
        sent_s, not_ok = _background(np.random.default_rng(seed), 0.0, 30.0, per_s, share)
        if not_ok[sent_s < 15.0].any():
            alarms += _time_to_recover_s([(sent_s, not_ok)], 15.0, 30.0) != 0.0
    # Three standard errors beyond one percent.
    assert alarms <= runs * 0.01 + 3 * (runs * 0.01) ** 0.5


@pytest.mark.parametrize("share", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("per_s", [100.0, 400.0])
@pytest.mark.parametrize("outage_s", [1.0, 3.0])
def test_an_outage_among_errors_all_the_time_is_seen_and_ends_when_it_ends(
    per_s: float, share: float, outage_s: float
) -> None:
    """One of three requests fails, as when one of three zones is lost."""
    found = []
    for seed in range(40):
        chance = np.random.default_rng(seed)
        parts = [
            _background(chance, 0.0, 10.0, per_s, share),
            _background(chance, 10.0, 10.0 + outage_s, per_s, share + (1 - share) / 3),
            _background(chance, 10.0 + outage_s, 25.0, per_s, share),
        ]
        found.append(_time_to_recover_s(parts, 10.0, 25.0))
    measured = sorted(math.inf if recovered_s is None else recovered_s for recovered_s in found)
    assert measured[20] == pytest.approx(outage_s, abs=0.08)
    assert measured[4] > outage_s - 0.2
    assert measured[-4] < outage_s + 0.3


def test_a_steady_phase_without_errors_leaves_the_threshold_of_99_percent_alone() -> None:
    rows = _steady(0, 3) + _steady(3, 3.02, "failed") + _steady(3.02, 10)
    got = recovery(Requests.of(_table(rows)), 3.0, 10.0, Steady(300, 0))
    assert got.time_to_recover_s == pytest.approx(0.01)


def test_errors_of_the_steady_phase_are_no_excuse_where_the_rule_is_not_relative_to_it() -> None:
    rows = [row if number % 50 else (*row[:2], "failed") for number, row in enumerate(_steady(0, 20))]
    requests = Requests.of(_table(rows))
    assert recovery(requests, 10.0, 20.0, Steady(1000, 20)).time_to_recover_s == 0.0
    absolute = Steady(1000, 20, RecoveryRule(relative_to_steady=False))
    assert recovery(requests, 10.0, 20.0, absolute).time_to_recover_s is None
    lower = Steady(1000, 20, RecoveryRule(at_least=0.97, relative_to_steady=False))
    assert recovery(requests, 10.0, 20.0, lower).time_to_recover_s == 0.0


def test_what_clients_saw_first_need_not_be_what_was_sent_first() -> None:
    rows: list[Row] = [(3.0, 8.0, "unknown"), (4.0, 4.1, "failed"), (5.0, 5.1, "ok"), (6.0, None, "unknown")]
    got = recovery(Requests.of(_table(rows)), 3.0, 10.0)
    assert (got.first_error_s, got.first_error_seen_s) == (3.0, 4.1)
    assert recovery(Requests.of(_table(rows[2:])), 3.0, 10.0).first_error_seen_s is None


def _kept(*faults: AppliedFault, rows: list[Row]) -> dict[str, Aftermath]:
    found = impacts(Requests.of(_table(rows), faults), **NOTHING, faults=faults, end_s=20.0)
    return {impact.fault.name: impact.applied for impact in found} | {
        f"heal of {impact.fault.name}": impact.healed for impact in found if impact.healed is not None
    }


def test_faults_of_one_moment_share_what_they_cost_by_name_and_none_of_them_shows_nothing() -> None:
    """Each would show the few milliseconds until the next, and the crash 0 errors, while half the requests fail."""
    faults = [
        AppliedFault("crash", 4.0, 4.003, 12.0),
        AppliedFault("cut", 4.0, 4.005, 12.0),
        AppliedFault("degrade", 4.0, 4.028, 12.0),
        AppliedFault("kill", 4.0, 4.05, instant=True),
    ]
    bad = [row if number % 2 else (*row[:2], "failed") for number, row in enumerate(_steady(4.1, 6.1))]
    found = _kept(*faults, rows=_steady(0, 4.1) + bad + _steady(6.1, 20))
    for fault in faults:
        got = found[fault.name]
        assert got.recovery.errors.failed == 100
        assert got.recovery.time_to_recover_s == pytest.approx(6.1 - fault.applied_s, abs=0.03)
        assert got.shared_with == tuple(other.name for other in faults if other is not fault)
    assert found["heal of crash"].shared_with == ("heal of cut", "heal of degrade")


def test_a_heal_and_a_fault_less_than_a_second_apart_are_one_moment() -> None:
    cut, kill = AppliedFault("cut", 4.0, 4.0, 10.0), AppliedFault("kill", 10.4, 10.4, instant=True)
    found = _kept(cut, kill, rows=_steady(0, 10.5) + _steady(10.5, 11.5, "failed") + _steady(11.5, 20))
    assert found["cut"].shared_with == ()
    assert found["heal of cut"].shared_with == ("kill",)
    assert found["kill"].shared_with == ("heal of cut",)
    assert found["heal of cut"].recovery.time_to_recover_s == pytest.approx(1.5, abs=0.02)
    assert found["kill"].recovery.time_to_recover_s == pytest.approx(1.1, abs=0.02)


def test_faults_a_second_apart_are_told_apart() -> None:
    first, second = AppliedFault("a", 4.0, 4.0, instant=True), AppliedFault("b", 5.0, 5.0, instant=True)
    found = _kept(first, second, rows=_steady(0, 5) + _steady(5, 6, "failed") + _steady(6, 20))
    assert found["a"].recovery.errors.failed == 0
    assert (found["b"].recovery.errors.failed, found["b"].shared_with) == (100, ())


def test_a_short_fault_does_not_share_the_moment_of_its_own_heal() -> None:
    found = _kept(
        AppliedFault("blip", 4.0, 4.0, 4.5), rows=_steady(0, 4) + _steady(4, 4.5, "failed") + _steady(4.5, 20)
    )
    assert (found["blip"].recovery.errors.failed, found["blip"].recovery.time_to_recover_s) == (50, None)
    assert (found["heal of blip"].recovery.errors.failed, found["heal of blip"].shared_with) == (0, ())


def test_the_control_path_ends_with_the_last_ack_of_the_first_wave() -> None:
    events = [(4.0, "Connected"), (5.4, "NodeNotReady"), (5.41, "EndpointsChanged"), (5.9, "EndpointsChanged")]
    pushes = [(4.9, 4.95), (5.5, 5.52), (5.51, 5.6), (5.52, None), (9.0, 9.1)]
    to_clients = [(5.45, 5.5), (5.9, None), (6.3, 6.4)]
    sent = [("web-1", *push) for push in pushes] + [("clients/east-a", *push) for push in to_clients]
    got = control_path(
        pa.Table.from_pylist([{"t_s": t, "reason": reason} for t, reason in events], schema=SCHEMAS["events"]),
        pa.Table.from_pylist(
            [dict(zip(("proxy", "sent_s", "acked_s"), push, strict=True)) for push in sent], schema=SCHEMAS["pushes"]
        ),
        5.0,
        20.0,
    )
    want = ControlPath(0.4, 0.41, 0.5, 0.6, 1)
    for name in ("detected_s", "decided_s", "pushed_s", "propagated_s", "unacked"):
        assert math.isclose(getattr(got, name), getattr(want, name), rel_tol=1e-9)


def test_the_last_ack_is_of_proxies_that_the_control_plane_could_reach() -> None:
    pushes = [
        ("web-1", 5.5, 5.52),
        ("web-2", 5.5, 11.1),
        ("kube-proxy/cut-1", 5.51, 11.2),
        ("web-3", 5.52, 5.55),
        ("web-4", 5.9, None),
        ("web-5", 5.9, None),
    ]
    got = control_path(
        pa.Table.from_pylist([{"t_s": 5.4, "reason": "EndpointsChanged"}], schema=SCHEMAS["events"]),
        pa.Table.from_pylist(
            [dict(zip(("proxy", "sent_s", "acked_s"), push, strict=True)) for push in pushes], schema=SCHEMAS["pushes"]
        ),
        5.0,
        20.0,
        cut_offs=CutOffs(
            {"cut-1": [(5.2, 11.0)], "b-1": [(5.54, 9.0)], "a-1": [(2.0, 5.4), (20.0, 30.0)]},
            {"web-1": "a-1", "web-2": "cut-1", "web-3": "b-1", "web-4": "cut-1", "web-5": "a-1"},
        ),
    )
    # web-3 was cut off before its acknowledgement had arrived, a-1 was reached again before anything was sent.
    assert (got.propagated_s, got.unacked) == (pytest.approx(0.52), 1)
    assert got.cut_off == ("kube-proxy/cut-1", "web-2", "web-3", "web-4")
    assert got.cut_off_acked_s == pytest.approx(6.2)


def test_a_fault_names_whom_it_cuts_off_and_its_control_path_tells_them_apart() -> None:
    faults = [AppliedFault("cut", 5.0, 5.0, 11.0, 11.0, cut_off=("cut-1",))]
    tables = {
        "events": pa.Table.from_pylist([{"t_s": 5.4, "reason": "EndpointsChanged"}], schema=SCHEMAS["events"]),
        "pushes": pa.Table.from_pylist(
            [{"proxy": pod, "sent_s": 5.5, "acked_s": at_s} for pod, at_s in (("web-1", 5.6), ("web-2", 11.1))],
            schema=SCHEMAS["pushes"],
        ),
    }
    requests = Requests.of(_table(_steady(0, 20)), faults)
    cut_offs = CutOffs.of(faults, {"web-1": "a-1", "web-2": "cut-1"})
    (impact,) = impacts(requests, **tables, faults=faults, end_s=20.0, cut_offs=cut_offs)
    assert impact.applied.control.propagated_s == pytest.approx(0.6)
    assert impact.applied.control.cut_off == ("web-2",)


def test_a_control_plane_that_noticed_nothing_has_no_path() -> None:
    assert control_path(NOTHING["events"], NOTHING["pushes"], 5.0, 20.0) == ControlPath()
