"""The life of one load process, as its supervisor conducts it over stdin and stdout.

    out  {"ready": true}                 everything is loaded
    out  {"failed": why}                 or it cannot be; then exit 1
    in   start <t0, monotonic seconds>   send from t0 on
    out  {"stats": {...}}                every second from t0 on, see `statistics`
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
from loadgen.statistics import EVERY_S, Statistics

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_logger = logging.getLogger(__name__)


class Conductor:
    """`t0_s` is known once `wait_for_start` returned; `stopping` is set when nothing new may be sent."""

    def __init__(self, settings: Settings, recorder: Recorder) -> None:
        self.t0_s = 0.0
        self.stopping = Event()
        self._settings = settings
        self._recorder = recorder
        self._statistics = Statistics(recorder)
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
        while True:
            due_s += EVERY_S
            gevent.sleep(max(0.0, due_s - time.monotonic()))
            self._say(self._statistics.line(time.monotonic() - self.t0_s))

    def _say_done(self, environment: Environment) -> None:
        locust = environment.stats.total
        self._say(self._statistics.end(locust.num_requests, locust.num_failures))

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # the end of stdin says the same, and is acted upon
            os.write(self._out_fd, orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
