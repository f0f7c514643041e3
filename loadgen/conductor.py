"""The life of one load process, as its supervisor conducts it over stdin and stdout.

    out  {"ready": true}                 everything is loaded
    out  {"failed": why}                 or it cannot be; then exit 1
    in   start <t0, monotonic seconds>   send from t0 on
    out  {"stats": {...}}                every second from t0 on, see `_statistics`
    in   stop                            send no more, wait for requests under way
    out  {"done": {"requests", "failures", "sent", "unfinished", "own_events", "own_failures"}}
                                         then exit 0, whatever failed; the first two are Locust's own counts of all

The end of stdin means that the supervisor died: stop at once. Everything else that is printed goes to stderr.
"""

from __future__ import annotations

import gc
import logging
import math
import os
import sys
import time
from contextlib import suppress
from typing import Any

import gevent
import orjson
from gevent.event import AsyncResult, Event
from gevent.fileobject import FileObjectPosix
from locust.env import Environment

from loadgen.recorder import Recorder
from loadgen.settings import Settings

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_STATISTICS_EVERY_S = 1.0
_logger = logging.getLogger(__name__)


class Conductor:
    """`t0_s` is known once `wait_for_start` returned; `stopping` is set when nothing new may be sent."""

    def __init__(self, settings: Settings, recorder: Recorder) -> None:
        self.t0_s = 0.0
        self.stopping = Event()
        self._settings = settings
        self._recorder = recorder
        self._has_answered = False
        self._start: AsyncResult[float | None] = AsyncResult()
        # Locustfiles print: what they print must not get between the lines meant for the supervisor.
        self._out_fd = os.dup(_STDOUT)
        os.dup2(_STDERR, _STDOUT)

    def wait_for_start(self, environment: Environment) -> None:
        """Blocks Locust before it spawns users; exits where the supervisor calls it off before it began."""
        gevent.spawn(self._listen, environment)
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        self._answer({"ready": True})
        t0_s = self._start.get()
        if t0_s is None:
            self._say_done(environment)
            sys.exit(0)
        self.t0_s = t0_s
        gevent.spawn(self._report)
        gevent.spawn(self._end, environment)

    def give_up_unless_ready(self, why: str) -> None:
        """Tell the supervisor, once, that there will be no load."""
        if not self._has_answered:
            self._answer({"failed": why})

    def _answer(self, message: dict[str, Any]) -> None:
        self._has_answered = True
        self._say(message)

    def finish(self, environment: Environment) -> None:
        """Locust is quitting, for whatever reason: no request stays open, and the counts are final."""
        environment.stop_timeout = 0.0
        assert environment.runner is not None
        environment.runner.quit()
        self._recorder.finish_under_way()
        self._say_done(environment)
        environment.process_exit_code = 0

    def _listen(self, environment: Environment) -> None:
        for line in FileObjectPosix(_STDIN, "rb", closefd=False):
            match line.split():
                case [b"start", t0_s]:
                    self._start.set(float(t0_s))
                case [b"stop"]:
                    self.stopping.set()
                    if not self._start.ready():
                        self._start.set(None)
                case _:
                    _logger.warning("the supervisor said %r: it should be 'start <seconds>' or 'stop'", line)
        _logger.warning("the supervisor is gone")
        self.stopping.set()
        if not self._start.ready():
            self._start.set(None)
            return
        environment.stop_timeout = 0.0
        assert environment.runner is not None
        environment.runner.quit()

    def _end(self, environment: Environment) -> None:
        left_s = self.t0_s + self._settings.duration_s - time.monotonic()
        self.stopping.wait(None if left_s == math.inf else max(0.0, left_s))
        self.stopping.set()
        assert environment.runner is not None
        environment.runner.quit()

    def _report(self) -> None:
        due_s = self.t0_s
        before: dict[str, int] = dict.fromkeys(("sent", "ok", "failed", "unknown"), 0)
        while True:
            due_s += _STATISTICS_EVERY_S
            gevent.sleep(max(0.0, due_s - time.monotonic()))
            before = self._say_statistics(before)

    def _say_statistics(self, before: dict[str, int]) -> dict[str, int]:
        """Counts and percentiles since the last line, and the counts since t0 as `total`; null where nothing came."""
        recorder = self._recorder
        total = {"sent": recorder.sent} | {name: recorder.outcomes[name] for name in ("ok", "failed", "unknown")}
        latencies_s, lags_s = recorder.take()
        self._say(
            {
                "stats": {
                    "t": time.monotonic() - self.t0_s,
                    **{name: count - before[name] for name, count in total.items()},
                    "p99_ms": _p99_ms(latencies_s),
                    "lag_p99_ms": _p99_ms(lags_s),
                    "total": total,
                }
            }
        )
        return total

    def _say_done(self, environment: Environment) -> None:
        locust = environment.stats.total
        self._say(
            {
                "done": {
                    "requests": locust.num_requests,
                    "failures": locust.num_failures,
                    "sent": self._recorder.sent,
                    "unfinished": self._recorder.unfinished,
                    "own_events": self._recorder.own_events,
                    "own_failures": self._recorder.own_failures,
                }
            }
        )

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the end of stdin says the same, and is acted upon
            os.write(self._out_fd, orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))


def _p99_ms(values_s: list[float]) -> float | None:
    return sorted(values_s)[int(len(values_s) * 0.99)] * 1e3 if values_s else None
