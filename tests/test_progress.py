"""No stage of a run is silent for long, whatever the run waits for."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Callable, Sequence
from itertools import count

import pytest
from rich.console import Console

from testbed.cli.progress import LiveProgress
from testbed.control.waiting import Waiting
from testbed.emulation.actors.locust_process import LoadProgress
from testbed.emulation.actors.reports import Readiness
from testbed.emulation.driver.events import (
    Applied,
    BringingUp,
    Broken,
    ChangeBegun,
    ChangeSettled,
    ComingUp,
    ConnectingToRay,
    Deleted,
    FaultApplied,
    FaultHealed,
    GoingDown,
    GuestsWelcome,
    Interrupted,
    LoadEnded,
    LoadFailed,
    LoadReported,
    LoadStarted,
    LoadStopping,
    MachinesJoined,
    MachinesLost,
    Ready,
    SessionEvent,
    TimeBegins,
)
from testbed.faults.impact import Impact

SILENT_S = 0.1


Lines = Callable[[], list[str]]


def told(do: Callable[[LiveProgress, Lines], None], *, terminal: bool = False, silent_s: float = SILENT_S) -> str:
    """What is printed while `do` goes on, which can look at the lines so far."""
    out = io.StringIO()
    with LiveProgress(Console(file=out, width=80, force_terminal=terminal), silent_s) as progress:
        do(progress, lambda: out.getvalue().splitlines())
    return out.getvalue()


def until(condition: Callable[[], bool], meanwhile: Callable[[], None] = lambda: None) -> None:
    deadline_s = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline_s
        meanwhile()
        time.sleep(SILENT_S / 20)


def test_a_stage_that_says_nothing_more_is_repeated_with_its_time() -> None:
    def wait(progress: LiveProgress, lines: Lines) -> None:
        progress.hear(Broken("m2 is silent"))
        until(lambda: len(lines()) > 3)

    first, *later = told(wait).splitlines()
    assert first == "▸ m2 is silent; keeping what was measured"
    assert all(line.startswith("  m2 is silent   [") for line in later)


def test_what_changes_often_is_told_now_and_then_as_it_is_by_then() -> None:
    numbers = count()

    def come_up(progress: LiveProgress, lines: Lines) -> None:
        until(lambda: len(lines()) > 2, lambda: progress.hear(ComingUp(next(numbers), 1000, None)))

    began_s = time.monotonic()
    lines = told(come_up).splitlines()
    assert len(lines) <= (time.monotonic() - began_s) / SILENT_S
    counts = [int(line.split()[0]) for line in lines]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


@pytest.mark.parametrize(
    ("reported_s", "told_s"),
    [(range(1, 22), ["10.0", "20.0"]), ((8, 9, 11, 12, 19, 22, 23), ["11.0", "22.0"])],
    ids=["each second", "late and not each second"],
)
def test_load_tells_of_every_tenth_second_only(reported_s: Sequence[int], told_s: list[str]) -> None:
    def send(progress: LiveProgress, lines: Lines) -> None:
        progress.hear(LoadStarted(100.0, 30.0))
        for second in reported_s:
            zones = {"east-a": LoadProgress(t_s=second, sent_per_s=100.0)}
            progress.hear(LoadReported(100.0 + second, zones))
            time.sleep(SILENT_S / 2)

    # A load that goes on for longer than a stage may be silent is not repeated in between.
    assert [line.split()[0] for line in told(send, silent_s=10 * SILENT_S).splitlines()[1:]] == told_s


def test_a_terminal_has_one_line_that_is_rewritten() -> None:
    def wait(progress: LiveProgress, lines: Lines) -> None:
        progress.hear(ComingUp(12, 12, Readiness(12, 3, 60, ())))
        until(lambda: "3 ready" in "".join(lines()))

    assert "12 of 60 pods started, 3 ready   [0 s]" in told(wait, terminal=True)


RUN: list[tuple[SessionEvent, str]] = [
    (ConnectingToRay(None), "▸ starting Ray"),
    (ConnectingToRay("auto"), "▸ connecting to Ray at auto"),
    (MachinesJoined(("m1", "m2"), 3), "▸ 2 of 3 machines have joined Ray: m1, m2"),
    (
        BringingUp("mine", 3, 8, ("m1",), "fast", 1, "actor"),
        "▸ mine: bringing up 3 nodes and 8 pods (fast profile, seed 1; pods in actors of their own)",
    ),
    (
        BringingUp("mine", 3, 8, ("m1", "m2"), "fast", 1, "node"),
        "▸ mine: bringing up 3 nodes and 8 pods on 2 machines (m1, m2) "
        "(fast profile, seed 1; pods hosted by their nodes' agents)",
    ),
    (Interrupted(), ""),
    (Ready(10.24), "▸ ready after 10.2 s; starting Locust"),
    (Applied((("Service", "web"), ("Deployment", "web"))), "▸ applied Service web, Deployment web"),
    (Deleted("Service", "web"), "▸ deleted Service web"),
    (LoadStarted(100.0, 40.0), "▸ sending load for 40 s"),
    (LoadReported(101.0, {"east-a": LoadProgress()}), ""),
    (
        LoadReported(
            110.94,
            {
                "east-a": LoadProgress(t_s=10.0, sent_per_s=200.4, p99_ms=13.5, failed=1),
                "east-b": LoadProgress(t_s=10.0, sent_per_s=204.0, p99_ms=2.0, unknown=2),
            },
        ),
        "   10.9 / 40 s      404 requests/s   p99    13.5 ms   not ok so far 3",
    ),
    (FaultApplied("lose-a", 112.0, Impact(112.0051, victims=("a-1",))), "⚡  12.005 s  lose-a: applied to a-1"),
    (FaultApplied("kill", 112.0, Impact(112.0, hit_nothing="no pod")), "⚡  12.000 s  kill: hit nothing: no pod"),
    (FaultHealed("lose-a", 125.0, 125.0062), "⚡  25.006 s  lose-a: healed"),
    (LoadFailed(("one", "two")), "▸ one; two"),
    (MachinesLost(("m2", "m3")), "▸ machine lost: m2, m3; keeping what was measured"),
    (Broken("the master died"), "▸ the master died; keeping what was measured"),
    (Interrupted(), "▸ interrupted: keeping what was measured; once more to end at once"),
    (LoadStopping(130.0), ""),
    (LoadEnded({}), "▸ load has ended; collecting what was recorded"),
]


def test_every_event_of_a_session_has_its_line_if_any() -> None:
    out = io.StringIO()
    with LiveProgress(Console(file=out, width=200)) as progress:
        for event, line in RUN:
            out.truncate(0)
            out.seek(0)
            progress.hear(event)
            assert out.getvalue() == (f"{line}\n" if line else ""), event


BY_HAND: list[tuple[SessionEvent, str]] = [
    (Ready(10.24), "▸ ready after 10.2 s"),
    (
        TimeBegins(100.0),
        "▸ up; from any terminal: testbed status, inject FILE, heal FAULT, apply FILE, logs POD, load start; "
        "testbed down or Ctrl-C ends it",
    ),
    (
        GuestsWelcome({"east-a": "A", "east-b": "B"}, {"east-a": "http://127.0.0.1:8089"}, {}),
        "▸ Locust's page for clients of east-a: http://127.0.0.1:8089\n"
        "▸ a Locust of your own, clients of east-a (or of east-b, by their files): A\n",
    ),
    (
        GuestsWelcome(
            {"east-a": "A", "east-b": "B", "east-c": "C"},
            {"east-b": "http://127.0.0.1:8089"},
            {"east-b": "m2", "east-c": "m2"},
        ),
        "▸ Locust's page for clients of east-b: http://127.0.0.1:8089 (on loopback of m2)\n"
        "▸ a Locust of your own, clients of east-a: A\n"
        "▸ a Locust of your own on m2, clients of east-b (or of east-c, by their files): B\n",
    ),
    (ChangeBegun("apply", (("Deployment", "web"), ("Service", "web")), 101.5), "⚡   1.500 s  apply: Deployment web, "),
    (ChangeSettled("apply", 103.25), "⚡   3.250 s  apply: all is as declared"),
    (FaultApplied("lose-a", 112.0, Impact(112.0051, victims=("a-1",))), "⚡  12.005 s  lose-a: applied to a-1"),
    (LoadStarted(120.0, math.inf), "▸ sending load"),
    (
        LoadReported(130.94, {"east-a": LoadProgress(t_s=10.0, sent_per_s=200.4, p99_ms=13.5, failed=1)}),
        "   30.9 s      200 requests/s   p99    13.5 ms   not ok so far 1",
    ),
    (LoadStopping(135.0), ""),
    (LoadEnded({}), "▸ load has stopped"),
    (GoingDown(140.0), "▸ going down; collecting what was recorded"),
]


def test_times_of_a_session_that_a_person_drives_count_from_when_it_is_up() -> None:
    out = io.StringIO()
    with LiveProgress(Console(file=out, width=200), by_hand=True) as progress:
        for event, line in BY_HAND:
            out.truncate(0)
            out.seek(0)
            progress.hear(event)
            assert out.getvalue().startswith(line), event
            assert bool(out.getvalue()) == bool(line), event


def test_how_far_a_bring_up_is_names_one_that_is_waited_for() -> None:
    def wait(progress: LiveProgress, lines: Lines) -> None:
        waiting = (Waiting("pod", "web-1", "it is not scheduled"), Waiting("pod", "web-2", "it is not scheduled"))
        progress.hear(ComingUp(3, 3, Readiness(9, 2, 8, waiting)))
        until(lambda: bool(lines()))

    assert f"  8 of 8 pods started, 2 ready; waiting for {Waiting('pod', 'web-1', 'it is not scheduled')}" in told(wait)
