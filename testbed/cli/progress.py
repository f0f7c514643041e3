"""What a person sees while a run goes on: bring-up, then rate, errors and latency, and the faults as they come.

Owns the live lines in the terminal, and that no stage is silent for long. What happened is told afterwards by
`results.show.report`.
"""

from __future__ import annotations

import threading
import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

from testbed.emulation.actors.load_generator import LoadProgress

SILENT_AT_MOST_S = 4.0
"""Where lines cannot be rewritten, a stage that goes on says so."""


class LiveProgress:
    """A line that is rewritten on a terminal; elsewhere one every few seconds, and every tenth second of load.

    A thread of its own writes it, so that it comes whatever the run waits for. A context manager.
    """

    def __init__(self, console: Console, silent_at_most_s: float = SILENT_AT_MOST_S) -> None:
        self._console = console
        self._silent_at_most_s = silent_at_most_s
        self._doing = ""
        self._since_s = self._told_s = time.monotonic()
        self._live = (
            Live(console=console, get_renderable=self._line, refresh_per_second=8, transient=True)
            if console.is_terminal
            else None
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, name="progress", daemon=True)

    def __enter__(self) -> LiveProgress:
        if self._live is not None:
            self._live.start()
        else:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        if self._live is not None:
            self._live.stop()
        else:
            self._thread.join()

    def stage(self, text: str) -> None:
        self._since_s, self._doing = time.monotonic(), text.partition(";")[0]
        self._print(Text.assemble(("▸ ", "cyan"), text))

    def doing(self, text: str) -> None:
        self._doing = text

    def fault(self, t_s: float, name: str, what: str) -> None:
        self._print(Text.assemble(("⚡ ", "yellow"), f"{t_s:7.3f} s  {name}: {what}"))

    def load(self, t_s: float, duration_s: float, zones: dict[str, LoadProgress]) -> None:
        seconds = [progress for progress in zones.values() if progress.t_s > 0]
        if not seconds:
            return
        rate = sum(progress.sent_per_s for progress in seconds)
        bad = sum(progress.failed + progress.unknown for progress in zones.values())
        p99_ms = max((progress.p99_ms for progress in seconds), default=0.0)
        line = f"{t_s:5.1f} / {duration_s:g} s   {rate:6.0f} requests/s   p99 {p99_ms:7.1f} ms   not ok so far {bad}"
        if self._live is None and int(t_s) % 10 == 0:
            self._print(Text(f"  {line}"))
        self._doing, self._told_s = line, time.monotonic()

    def _line(self) -> Text:
        """What is going on, and for how long by now."""
        elapsed_s = time.monotonic() - self._since_s
        return Text(f"  {self._doing}   [{elapsed_s:.0f} s]", overflow="ellipsis", no_wrap=True)

    def _keep_telling(self) -> None:
        while not self._over.wait(max(0.05, self._told_s + self._silent_at_most_s - time.monotonic())):
            if time.monotonic() >= self._told_s + self._silent_at_most_s:
                self._print(self._line())

    def _print(self, line: Text) -> None:
        self._told_s = time.monotonic()
        self._console.print(line)


class NoProgress:
    """For `--quiet` and `--json`."""

    def stage(self, text: str) -> None: ...

    def doing(self, text: str) -> None: ...

    def fault(self, t_s: float, name: str, what: str) -> None: ...

    def load(self, t_s: float, duration_s: float, zones: dict[str, LoadProgress]) -> None: ...
