"""The container of one pod as a real process: the built-in workload or any user command."""

from __future__ import annotations

from collections.abc import Mapping

from testbed.emulation.actors.reports import MachineFolders
from testbed.emulation.actors.seam import Actor
from testbed.emulation.actors.vigil import Attended
from testbed.emulation.actors.worker_setup import let_the_supervised_go_first
from testbed.emulation.processes.container import StoreHome, command_line
from testbed.emulation.processes.forked_process import ForkedProcess, fork_server_socket
from testbed.emulation.processes.precedence import EMULATED_NICENESS
from testbed.emulation.processes.process import last_lines
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Pod as PodObject

STOP_GRACE_S = 2.0


class Pod(Attended):
    """Supervises one container process; tells its node agent when it exits."""

    def __init__(
        self,
        agent: Actor,
        folders: MachineFolders,
        pod: PodObject,
        address: PodAddress,
        seed: int,
        services: Mapping[str, SocketAddress],
        home: StoreHome,
    ) -> None:
        super().__init__(f"the supervisor of pod {pod.name} (container)")
        let_the_supervised_go_first()
        self._name = pod.name
        self._agent = agent
        self._environment = folders.container_environment()
        self._log = folders.logs / f"{pod.name}.log"
        self._arguments, self._env = command_line(pod, address, seed, services, folders.logs, home)
        self._fork_server = fork_server_socket(folders.sockets)
        self._process: ForkedProcess | None = None

    async def start(self, life: int) -> None:
        """Start the container for the `life`-th time. Raises OSError when the program cannot be started."""
        self._process = ForkedProcess(
            self._fork_server,
            self._arguments,
            env={**self._environment, **self._env},
            output=self._log,
            niceness=EMULATED_NICENESS,
            on_exit=lambda code: self._exited(life, code),
        )
        await self._process.started()

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            await self._process.kill()

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after a short grace."""
        if self._process is not None:
            await self._process.terminate(STOP_GRACE_S)

    def _exited(self, life: int, code: int) -> None:
        self._agent.process_exited.remote(self._name, "app", life, code, last_lines(self._log))
