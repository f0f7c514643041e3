"""One Locust process that sends what is declared: started, told when to begin and to end, and heard.

Which requests it sends, and what it says, is `loadgen`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from loadgen.command import command
from loadgen.settings import ENVIRONMENT_VARIABLE
from testbed.emulation.processes.precedence import started_goes_first, starting_gives_way
from testbed.emulation.processes.process import ChildProcess, last_lines
from testbed.results.tables.facts import LocustCount

STARTUP_DEADLINE_S = 30.0
DRAIN_MARGIN_S = 5.0
LAST_WORDS_S = 1.0
"""How long what a process has printed is waited for once it has ended."""

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """The newest second of one origin zone, and totals since the start."""

    t_s: float = 0.0
    sent_per_s: float = 0.0
    p99_ms: float = 0.0
    failed: int = 0
    unknown: int = 0
    done: LocustCount | None = None
    error: str | None = None


class LocustProcess:
    """Running since it was made. `progress` is always the newest."""

    def __init__(self, title: str, settings: Path, environment: Mapping[str, str], log: Path, spawn: Spawn) -> None:
        """`title` is whose it is. It reads the file of `settings`, and prints into the `log`."""
        self.progress = LoadProgress()
        self._title = title
        self._log = log
        self._spawn = spawn
        self._ready = asyncio.Event()
        self._done = asyncio.Event()
        self._process = ChildProcess(
            command(settings),
            env={**environment, ENVIRONMENT_VARIABLE: str(settings)},
            output=log,
            errors=log,
            on_exit=lambda code: self._endings.append(spawn(self._ended(code))),
            pipes=True,
            own_session=True,
        )
        self._endings: list[asyncio.Task[None]] = []
        self._reader = spawn(self._read())

    async def ready(self) -> str | None:
        """Wait until it could send; returns why it cannot, if so."""
        await starting_gives_way(self._process.pid)
        try:
            await asyncio.wait_for(self._ready.wait(), STARTUP_DEADLINE_S)
        except TimeoutError:
            self._fail("did not become ready")
        if self._process.running:
            await started_goes_first(self._process.pid)
        return self.progress.error

    def start(self, t0_s: float) -> None:
        """Send from `t0_s`, monotonic seconds."""
        self._tell(f"start {t0_s!r}")

    async def stop(self, timeout_s: float) -> None:
        """Send no more, and return when all that was sent is answered or timed out."""
        if self._process.running:
            self._tell("stop")
            try:
                await asyncio.wait_for(self._done.wait(), timeout_s + DRAIN_MARGIN_S)
            except TimeoutError:
                self._fail("did not stop")

    async def end(self) -> None:
        """It is gone when this returns."""
        await self._process.terminate(grace_s=1.0)
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def _tell(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # what its end means is told when that is noticed
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()

    async def _read(self) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, self._process.stdout)
        async for line in reader:
            match orjson.loads(line):
                case {"ready": True}:
                    self._ready.set()
                case {"failed": why}:
                    self._give_up(why)
                case {"stats": stats}:
                    self.progress = LoadProgress(
                        t_s=stats["t"],
                        sent_per_s=stats["sent"],
                        p99_ms=stats["p99_ms"] or 0.0,
                        failed=stats["total"]["failed"],
                        unknown=stats["total"]["unknown"],
                    )
                case {"done": done}:
                    count = LocustCount(done["requests"], done["failures"], done["own_events"], done["own_failures"])
                    self.progress = LoadProgress(failed=self.progress.failed, unknown=self.progress.unknown, done=count)
                    self._done.set()

    async def _ended(self, code: int) -> None:
        # What it said last may still be on the way.
        await asyncio.wait({self._reader}, timeout=LAST_WORDS_S)
        if not self._done.is_set():
            self._fail(f"ended with exit code {code}")

    def _fail(self, how: str) -> None:
        self._give_up(f"{self._title} {how}: {last_lines(self._log)} (log: {self._log})")

    def _give_up(self, error: str) -> None:
        self.progress = LoadProgress(error=error)
        self._ready.set()
        self._done.set()
