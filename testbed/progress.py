"""What a person sees while a run goes on: bring-up, then rate, errors and latency, and the faults as they come.

Owns the live lines in the terminal. What happened is told afterwards by `results.report`.
"""

from __future__ import annotations

from rich.console import Console
from rich.live import Live
from rich.text import Text

from testbed.emulation.load_generator import LoadProgress
from testbed.emulation.reports import Readiness


class LiveProgress:
    """A line that is rewritten on a terminal; elsewhere a line for each change and every tenth second of load."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=8, transient=True) if console.is_terminal else None
        self._last_readiness: tuple[int, int] | None = None

    def __enter__(self) -> LiveProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._live is not None:
            self._live.stop()

    def stage(self, text: str) -> None:
        self._console.print(Text.assemble(("▸ ", "cyan"), text))

    def readiness(self, readiness: Readiness) -> None:
        waiting = readiness.waiting_for[0] if readiness.waiting_for else ""
        self._rewrite(f"  {readiness.ready} of {readiness.total} pods ready   {waiting}")
        counts = (readiness.ready, readiness.total)
        if self._live is None and counts != self._last_readiness and readiness.ready:
            self._console.print(f"  {readiness.ready} of {readiness.total} pods ready")
        self._last_readiness = counts

    def fault(self, t_s: float, name: str, what: str) -> None:
        self._console.print(Text.assemble(("⚡ ", "yellow"), f"{t_s:7.3f} s  {name}: {what}"))

    def load(self, t_s: float, duration_s: float, zones: dict[str, LoadProgress]) -> None:
        seconds = [progress for progress in zones.values() if progress.t_s > 0]
        if not seconds:
            return
        rate = sum(progress.sent_per_s for progress in seconds)
        bad = sum(progress.failed + progress.unknown for progress in zones.values())
        p99_ms = max((progress.p99_ms for progress in seconds), default=0.0)
        line = f"  {t_s:5.1f} / {duration_s:g} s   {rate:6.0f} requests/s   p99 {p99_ms:7.1f} ms   not ok so far {bad}"
        self._rewrite(line)
        if self._live is None and int(t_s) % 10 == 0:
            self._console.print(line)

    def _rewrite(self, line: str) -> None:
        if self._live is not None:
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True))


class NoProgress:
    """For `--quiet` and `--json`."""

    def stage(self, text: str) -> None: ...

    def readiness(self, readiness: Readiness) -> None: ...

    def fault(self, t_s: float, name: str, what: str) -> None: ...

    def load(self, t_s: float, duration_s: float, zones: dict[str, LoadProgress]) -> None: ...
