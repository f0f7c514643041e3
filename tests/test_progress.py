"""No stage of a run is silent for long, whatever the run waits for."""

from __future__ import annotations

import io
import time
from collections.abc import Callable

from rich.console import Console

from testbed.cli.progress import LiveProgress
from testbed.emulation.actors.load_generator import LoadProgress

SILENT_S = 0.1


def told(do: Callable[[LiveProgress], None], *, terminal: bool = False) -> str:
    out = io.StringIO()
    with LiveProgress(Console(file=out, width=80, force_terminal=terminal), SILENT_S) as progress:
        do(progress)
    return out.getvalue()


def test_a_stage_that_says_nothing_more_is_repeated_with_its_time() -> None:
    def wait(progress: LiveProgress) -> None:
        progress.stage("starting Ray; in its own time")
        time.sleep(4.5 * SILENT_S)

    first, *later = told(wait).splitlines()
    assert first == "▸ starting Ray; in its own time"
    assert len(later) >= 3
    assert all(line.startswith("  starting Ray   [") for line in later)


def test_what_changes_often_is_told_now_and_then_as_it_is_by_then() -> None:
    def come_up(progress: LiveProgress) -> None:
        for number in range(100):
            progress.doing(f"{number} of 100 pods ready")
            time.sleep(SILENT_S / 20)

    began_s = time.monotonic()
    lines = told(come_up).splitlines()
    assert 2 <= len(lines) <= (time.monotonic() - began_s) / SILENT_S
    counts = [int(line.split()[0]) for line in lines]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_load_tells_of_every_tenth_second_only() -> None:
    def send(progress: LiveProgress) -> None:
        for second in range(1, 22):
            progress.load(second, 30.0, {"east-a": LoadProgress(t_s=second, sent_per_s=100.0)})
            time.sleep(SILENT_S / 2)

    assert [line.split()[0] for line in told(send).splitlines()] == ["10.0", "20.0"]


def test_a_terminal_has_one_line_that_is_rewritten() -> None:
    def wait(progress: LiveProgress) -> None:
        progress.doing("12 of 60 pods started")
        time.sleep(0.3)

    assert "12 of 60 pods started   [0 s]" in told(wait, terminal=True)
