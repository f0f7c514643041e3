"""A Locust that somebody else has started, by its web page or from a terminal, as clients of a cluster that is up.

It sends what and when its user wants, and is recorded like any other. A Unix socket is its tie to the cluster:

    out  {"joined": pid}
    out  {"stats": {...}}    every second, see `statistics`
    in   stop                the cluster is going down: stop users, and end
    out  {"done": {...}}     at the end, whoever ended it

The end of the socket means that the cluster is gone: end at once.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import orjson
from locust.env import Environment
from locust.event import EventHook

from loadgen.recorder import Recorder
from loadgen.statistics import EVERY_S, Statistics

_logger = logging.getLogger(__name__)


class Guest:
    """Of the cluster that listens at a path."""

    def __init__(self, path: Path, recorder: Recorder, request_event: EventHook) -> None:
        self._recorder = recorder
        self._statistics = Statistics(recorder)
        # Locust's statistics are cleared when a swarm begins, and when its user wants: what they are made of is not.
        self._requests = self._failures = 0
        request_event.add_listener(self._count)
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connection.connect(str(path))
        except OSError:
            sys.exit("the cluster that this Locust was to join is not up any more; see `testbed status`")
        self._finished = False

    def join(self, environment: Environment) -> None:
        """From now on the cluster hears of it."""
        self._began_s = time.monotonic()
        self._say({"joined": os.getpid()})
        # Left to Python, Ctrl-C is an exception in whatever runs just then, and some libraries swallow it.
        gevent.signal_handler(signal.SIGINT, os.kill, os.getpid(), signal.SIGTERM)
        gevent.spawn(self._listen, environment)
        gevent.spawn(self._report)

    def finish(self, environment: Environment) -> None:
        """Locust is quitting, for whatever reason: no request stays open, and the counts are final."""
        if self._finished:
            return
        self._finished = True
        assert environment.runner is not None
        environment.runner.quit()
        self._recorder.finish_under_way()
        self._say(self._statistics.end(self._requests, self._failures))

    def _count(self, exception: BaseException | None = None, **_: Any) -> None:
        self._requests += 1
        self._failures += exception is not None

    def _listen(self, environment: Environment) -> None:
        with suppress(OSError):
            if self._connection.recv(64).startswith(b"stop"):
                _logger.info("the cluster is going down")
                os.kill(os.getpid(), signal.SIGTERM)
                return
        if not self._finished:
            _logger.warning("the cluster is gone")
            environment.stop_timeout = 0.0
            os.kill(os.getpid(), signal.SIGTERM)

    def _report(self) -> None:
        due_s = self._began_s
        while not self._finished:
            due_s += EVERY_S
            gevent.sleep(max(0.0, due_s - time.monotonic()))
            self._say(self._statistics.line(time.monotonic() - self._began_s))

    def _say(self, message: dict[str, Any]) -> None:
        with suppress(OSError):  # the end of the socket is noticed where it is read
            self._connection.sendall(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))
