from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from testbed.results.report import WIDTH, print_report
from testbed.results.summary import summarize


def _printed(run_dir: Path, **console: bool) -> str:
    out = io.StringIO()
    print_report(summarize(run_dir), Path("runs/zone-outage-1"), Console(file=out, width=WIDTH, **console))
    return out.getvalue()


def test_the_report_of_a_small_run(run_dir: Path, golden: Callable[[str, str], None]) -> None:
    golden("report.txt", _printed(run_dir))


def test_the_report_fits_a_screen_and_has_colour_on_a_terminal_only(run_dir: Path) -> None:
    plain = _printed(run_dir)
    assert len(plain.splitlines()) <= 40
    assert max(map(len, plain.splitlines())) <= WIDTH
    assert "\x1b" not in plain
    assert "\x1b" in _printed(run_dir, force_terminal=True)
