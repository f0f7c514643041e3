"""What a person sees of a session that goes on: lines in the terminal, and a page if it is asked for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from testbed.cli.progress import LiveProgress
from testbed.cli.watch import Watch
from testbed.emulation.driver.events import SessionEvent, Watcher
from testbed.emulation.driver.result_folder import write_defect
from testbed.results.show.summary import Summary
from testbed.scenario import Scenario


class Showing:
    """`hear` is a watcher of the session."""

    def __init__(self, watchers: list[Watcher], page: Watch | None, run_dir: Path) -> None:
        self._watchers = watchers
        self._page = page
        self._run_dir = run_dir

    def hear(self, event: SessionEvent) -> None:
        for each in self._watchers:
            each(event)

    def ended(self, summary: Summary) -> None:
        if self._page is not None:
            self._page.ended(summary.verdict, self._run_dir / "report.html")


@contextlib.contextmanager
def showing(
    scenario: Scenario, run_dir: Path, terminal: Console | None, *, watch: bool, by_hand: bool = False
) -> Iterator[Showing]:
    """Lines where there is a terminal; with `watch` a page, whose link is told at once."""
    with contextlib.ExitStack() as shown:
        watchers: list[Watcher] = []
        page = None
        if watch:
            page = shown.enter_context(Watch(scenario, run_dir, lambda defect: write_defect(run_dir, defect)))
            watchers.append(page.hear)
            # Standard output may be a file that others read: who has the link sees the page.
            print(f"watch it at {page.url}", file=sys.stderr, flush=True)
        if terminal is not None:
            watchers.append(shown.enter_context(LiveProgress(terminal, by_hand=by_hand)).hear)
        yield Showing(watchers, page, run_dir)
