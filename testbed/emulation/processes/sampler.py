"""Samples the machine that it runs on: whether it was fast enough to be believed."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class MachineSample:
    """`lateness_ms` is how much later than planned the sampler itself woke up: what the machine does to any timer."""

    t_monotonic_s: float
    machine: str
    cpu_percent: float
    memory_bytes: int
    network_bytes: int
    lateness_ms: float


class MachineSampler:
    """A thread that takes a sample every `period_s` until it is stopped."""

    def __init__(self, machine: str, period_s: float = 0.5) -> None:
        self._machine = machine
        self._period_s = period_s
        self._samples: deque[MachineSample] = deque()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="machine-sampler", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread. May be called twice, and without a start."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def drain(self) -> list[MachineSample]:
        """Samples since the last call."""
        return [self._samples.popleft() for _ in range(len(self._samples))]

    def _run(self) -> None:
        psutil.cpu_percent()
        due_s = time.monotonic() + self._period_s
        while not self._stopped.wait(max(0.0, due_s - time.monotonic())):
            now_s = time.monotonic()
            network = psutil.net_io_counters()
            self._samples.append(
                MachineSample(
                    t_monotonic_s=now_s,
                    machine=self._machine,
                    cpu_percent=psutil.cpu_percent(),
                    memory_bytes=psutil.virtual_memory().used,
                    network_bytes=network.bytes_sent + network.bytes_recv,
                    lateness_ms=(now_s - due_s) * 1e3,
                )
            )
            due_s += self._period_s
