"""The built-in workload: one HTTP server process that works, calls other services, and answers.

Runs as the container of a pod (`python -m testbed.workloads.builtin`), configured by `TESTBED_WORKLOAD`. How it
reaches other services is `calls`. Imports neither Ray nor the control plane's state: only the description of the
workload.
"""

from __future__ import annotations

import asyncio
import os
import signal
from math import log, sqrt
from pathlib import Path
from random import Random

import uvloop

from testbed.network.wire.timer import PreciseTimer
from testbed.objects.workloads import CRASHED, WorkTime
from testbed.workloads.calls import Calls, LoggedCalls, MeshCalls
from testbed.workloads.http1 import Request, Response, ServerProtocol
from testbed.workloads.settings import SETTINGS_VARIABLE, WorkloadSettings

REQUEST_ID = b"x-request-id"
"""What an application must pass on so that the calls of one request can be joined, as with Istio's tracing headers."""


def draw_work_s(work: WorkTime, random: Random) -> float:
    """One working time in seconds, never negative."""
    match work.distribution:
        case "constant":
            return work.mean_s
        case "uniform":
            return max(0.0, random.uniform(work.mean_s - work.spread_s, work.mean_s + work.spread_s))
        case "exponential":
            return random.expovariate(1.0 / work.mean_s) if work.mean_s > 0 else 0.0
        case "lognormal":
            # Parameters of the underlying normal distribution that give the wanted mean and standard deviation.
            variance = log(1.0 + (work.spread_s / work.mean_s) ** 2) if work.mean_s > 0 else 0.0
            return random.lognormvariate(log(work.mean_s) - variance / 2, sqrt(variance)) if work.mean_s > 0 else 0.0


class CallFailed(Exception):
    """A called service did not answer well; `status` is what this workload answers in turn."""

    def __init__(self, service: str, status: int, why: str) -> None:
        super().__init__(f"call to {service} failed: {why}")
        self.status = status


class Workload:
    """Answers every request but `/healthz` with the declared work, calls, size and errors."""

    def __init__(self, settings: WorkloadSettings, calls: Calls, timer: PreciseTimer) -> None:
        self._workload = settings.workload
        self._calls = calls
        self._timer = timer
        self._random = Random(f"{settings.workload.work.seed}/{settings.seed}")
        self._passed_on = (REQUEST_ID, *(name.encode() for name in settings.workload.passed_on))
        self._ok = Response(200, b"x" * settings.workload.response_bytes)

    async def answer(self, request: Request) -> Response:
        if request.path == b"/healthz":
            return Response(200)
        workload = self._workload
        if workload.crash_path is not None and request.path.partition(b"?")[0] == workload.crash_path.encode():
            os._exit(CRASHED)
        work_s = draw_work_s(workload.work, self._random)
        if work_s > 0:
            await self._timer.sleep(work_s)
        if workload.error_rate and self._random.random() < workload.error_rate:
            return Response(500, b"declared errorRate")
        headers = {name: request.headers[name] for name in self._passed_on if name in request.headers}
        try:
            for stage in workload.stages:
                if len(stage) == 1:
                    await self._call(stage[0], headers)
                else:
                    await asyncio.gather(*(self._call(service, headers) for service in stage))
        except CallFailed as failure:
            return Response(failure.status, str(failure).encode())
        return self._ok

    async def _call(self, service: str, headers: dict[bytes, bytes]) -> None:
        try:
            status = await self._calls.get(service, headers)
        except OSError as error:
            raise CallFailed(service, 500, repr(error)) from error
        if status == 504:
            # A time-out further down stays one on the way up: nobody knows what the called service did.
            raise CallFailed(service, 504, "time-out")
        if status >= 400:
            raise CallFailed(service, 500, f"status {status}")


async def serve(settings: WorkloadSettings) -> None:
    """Serve until SIGTERM, which gives up on all calls: those that nobody answers are logged by their end."""
    loop = asyncio.get_running_loop()
    asked_to_end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, asked_to_end.set)
    calls: Calls
    if settings.proxy is not None:
        calls = MeshCalls(settings.proxy)
    else:
        assert settings.call_log is not None, "a workload without a proxy logs its calls itself"
        calls = LoggedCalls(os.environ["POD_NAME"], os.environ, Path(settings.call_log))
    workload = Workload(settings, calls, PreciseTimer(loop))
    server = await loop.create_server(
        lambda: ServerProtocol(workload.answer), settings.host, settings.port, backlog=1024
    )
    await asked_to_end.wait()
    server.close()


def main() -> None:
    settings = WorkloadSettings.from_json(os.environ[SETTINGS_VARIABLE])
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
