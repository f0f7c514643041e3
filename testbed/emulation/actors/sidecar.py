"""The pilot-agent of one pod: supervises one real Envoy process and serves it configuration over ADS."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path

import orjson
from tenacity import retry, retry_if_exception_type, wait_fixed

from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.control.views.envoy.xds import PUSH_ORDER
from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import Actor, is_here
from testbed.emulation.actors.vigil import Attended
from testbed.emulation.actors.worker_setup import let_the_supervised_go_first
from testbed.emulation.processes import envoy
from testbed.emulation.processes.ads import AdsServer
from testbed.emulation.processes.container import ACCESS_SUFFIX
from testbed.emulation.processes.forked_process import ForkedProcess, fork_server_socket
from testbed.emulation.processes.http_get import get
from testbed.emulation.processes.lateness import LoopWatch
from testbed.emulation.processes.precedence import EMULATED_NICENESS
from testbed.emulation.processes.process import last_lines

STOP_GRACE_S = 2.0
ADMIN_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class SidecarPaths:
    """Files of one sidecar: logs are kept in the run folder, sockets live in a short path of their own."""

    access_log: Path
    outlier_log: Path
    error_log: Path
    bootstrap: Path
    admin_socket: Path
    ads_socket: Path

    @classmethod
    def of(cls, pod: str, folders: MachineFolders) -> SidecarPaths:
        return cls(
            access_log=folders.logs / f"{pod}{ACCESS_SUFFIX}",
            outlier_log=folders.logs / f"{pod}.outlier.jsonl",
            error_log=folders.logs / f"{pod}.envoy.log",
            bootstrap=folders.logs / f"{pod}.bootstrap.json",
            admin_socket=folders.sockets / f"{pod}.admin",
            ads_socket=folders.sockets / f"{pod}.ads",
        )


class NotLiveYet(Exception):
    """Envoy answers, but has not taken in all of its first configuration."""


@retry(retry=retry_if_exception_type((OSError, NotLiveYet)), wait=wait_fixed(0.05))
async def envoy_is_live(admin_socket: Path) -> None:
    """Return once Envoy serves: /ready says LIVE when all of its first configuration is in place."""
    async with asyncio.timeout(ADMIN_TIMEOUT_S):
        state = (await get(admin_socket, "/ready")).body.decode()
    if not state.startswith("LIVE"):
        raise NotLiveYet(state.strip())


class Sidecar(Attended):
    """One Envoy. Tells its node agent of connections, ACKs and NACKs, readiness and exits."""

    def __init__(self, agent: Actor, folders: MachineFolders, pod: str) -> None:
        super().__init__(f"the supervisor of pod {pod} (sidecar)")
        let_the_supervised_go_first()
        self._pod = pod
        self._agent = agent
        self._paths = SidecarPaths.of(pod, folders)
        self._environment = folders.container_environment()
        self._fork_server = fork_server_socket(folders.sockets)
        self._process: ForkedProcess | None = None
        self._ads = AdsServer(
            self._paths.ads_socket,
            PUSH_ORDER,
            {CLUSTER_TYPE: ENDPOINT_TYPE, LISTENER_TYPE: ROUTE_TYPE},
            connected=lambda: self._tell("connected"),
            acked=self._acked,
            rejected=lambda type_url, version, error: self._tell("rejected", type_url, version, error),
        )
        self._loop_watch = LoopWatch(lambda due_s, late_s: self._tell("late", f"{due_s}", f"{late_s}"))
        self._configured = asyncio.Event()
        self._readiness: asyncio.Task[None] | None = None

    async def start(self, life: int) -> None:
        """Start Envoy for the `life`-th time. Raises OSError when the program cannot be started."""
        if not is_here(self._agent):
            self._loop_watch.start()
        await self._ads.start()
        self._ads.forget()
        self._configured.clear()
        paths = self._paths
        config = envoy.bootstrap(
            node_id=self._pod,
            admin_socket=paths.admin_socket,
            ads_socket=paths.ads_socket,
            outlier_log=paths.outlier_log,
        )
        paths.bootstrap.write_bytes(orjson.dumps(config, option=orjson.OPT_INDENT_2))
        self._process = ForkedProcess(
            self._fork_server,
            envoy.arguments(paths.bootstrap),
            env=self._environment,
            output=paths.access_log,
            errors=paths.error_log,
            niceness=EMULATED_NICENESS,
            heavy=True,
            on_exit=lambda code: self._exited(life, code),
        )
        await self._process.started()
        self._readiness = self.spawn(self._await_ready())

    async def publish(self, type_url: str, version: str, resources: tuple[bytes, ...]) -> None:
        self._ads.publish(type_url, version, resources)

    async def kill(self) -> None:
        """End Envoy as a crash does: nothing is flushed."""
        if self._process is not None:
            await self._process.kill()

    async def stop(self) -> None:
        """End Envoy in good order, so that its access log is whole."""
        if self._process is not None:
            await self._process.terminate(STOP_GRACE_S)
        await self._ads.stop()

    def _tell(self, what: str, *details: str) -> None:
        self._agent.proxy_reported.remote(self._pod, what, time.monotonic(), details)

    def _exited(self, life: int, code: int) -> None:
        if self._readiness is not None:
            self._readiness.cancel()
        self._agent.process_exited.remote(self._pod, "proxy", life, code, last_lines(self._paths.error_log))

    def _acked(self, type_url: str, version: str) -> None:
        self._tell("acked", type_url, version)
        if type_url == LISTENER_TYPE:
            self._configured.set()

    async def _await_ready(self) -> None:
        # No use in asking before the listeners are there. Routes may never be: the proxy of an empty node needs none.
        await self._configured.wait()
        await envoy_is_live(self._paths.admin_socket)
        if self._process is not None:
            self._process.settled()
        self._tell("ready")
