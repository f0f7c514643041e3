"""The built-in workload: one HTTP server process that works, calls other services through its sidecar, and answers.

Runs as the container of a pod (`python -m testbed.emulation.workload`), configured by `TESTBED_WORKLOAD`, and reaches
other services by the HTTP_PROXY convention, as any real program would. Imports neither Ray nor the control plane's
state: only the description of the workload.
"""

from __future__ import annotations

import asyncio
import os
from math import log, sqrt
from random import Random

import aiohttp
import uvloop
from aiohttp import web

from testbed.control.objects import WorkTime
from testbed.emulation.container import SETTINGS_VARIABLE, WorkloadSettings
from testbed.network.timer import PreciseTimer

FORWARDED_HEADERS = ("x-request-id",)
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


class WorkloadServer:
    """Answers every request but `/healthz` with the declared work, calls, size and errors."""

    def __init__(self, settings: WorkloadSettings, session: aiohttp.ClientSession, timer: PreciseTimer) -> None:
        self._settings = settings
        self._session = session
        self._timer = timer
        self._random = Random(settings.workload.work.seed * 1_000_003 + settings.seed)
        self._body = b"x" * settings.workload.response_bytes

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/healthz":
            return web.Response(text="ok")
        workload = self._settings.workload
        work_s = draw_work_s(workload.work, self._random)
        if work_s > 0:
            await self._timer.sleep(work_s)
        if workload.error_rate and self._random.random() < workload.error_rate:
            return web.Response(status=500, text="declared errorRate")
        headers = {name: request.headers[name] for name in FORWARDED_HEADERS if name in request.headers}
        try:
            for stage in workload.stages:
                if len(stage) == 1:
                    await self._call(stage[0], headers)
                else:
                    await asyncio.gather(*(self._call(service, headers) for service in stage))
        except CallFailed as failure:
            return web.Response(status=failure.status, text=str(failure))
        return web.Response(body=self._body)

    async def _call(self, service: str, headers: dict[str, str]) -> None:
        try:
            async with self._session.get(f"http://{service}/", headers=headers, proxy=self._settings.proxy) as response:
                await response.read()
        except aiohttp.ClientError as error:
            raise CallFailed(service, 500, repr(error)) from error
        if response.status == 504:
            # A time-out further down stays one on the way up: nobody knows what the called service did.
            raise CallFailed(service, 504, "time-out")
        if response.status >= 400:
            raise CallFailed(service, 500, f"status {response.status}")


async def serve(settings: WorkloadSettings) -> None:
    """Serve until the process is killed."""
    timer = PreciseTimer(asyncio.get_running_loop())
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60)
    timeout = aiohttp.ClientTimeout(total=None, connect=None)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:
        server = web.Server(WorkloadServer(settings, session, timer).answer, access_log=None)
        runner = web.ServerRunner(server)
        await runner.setup()
        await web.TCPSite(runner, settings.host, settings.port, backlog=1024).start()
        await asyncio.Event().wait()


def main() -> None:
    settings = WorkloadSettings.from_json(os.environ[SETTINGS_VARIABLE])
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
