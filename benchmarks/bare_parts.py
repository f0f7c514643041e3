"""As many bare Envoys, built-in workloads and Ray actors as a cluster needs, and nothing that connects them.

Workloads are forked, as a cluster's are: one that starts an interpreter costs four times as much.
Run as a program it prints, as one line of JSON, how long they took to come up and what they take at rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import psutil
import ray
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from testbed.emulation.processes import envoy
from testbed.emulation.processes.container import BUILTIN_COMMAND
from testbed.emulation.processes.fork_messages import OWN, Order, send
from testbed.emulation.processes.forked_process import connected, fork_server_socket
from testbed.emulation.processes.precedence import EMULATED_NICENESS
from testbed.emulation.processes.probes import http_status
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.objects.addresses import SocketAddress
from testbed.objects.workloads import BuiltinWorkload
from testbed.workloads.settings import SETTINGS_VARIABLE, WorkloadSettings

AT_REST_S = 10.0
PODS_A_PLACE = 200


@dataclass(frozen=True, slots=True)
class BareParts:
    """`cpu_percent` of one core, as the mean of `AT_REST_S`; memory above what the machine used before."""

    ready_s: float
    cpu_percent: float
    memory_bytes: int


def measure(envoys: int, workloads: int, actors: int) -> BareParts:
    """Start so many of each at once in a process of its own, and end them again."""
    numbers = [str(number) for number in (envoys, workloads, actors)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bare_parts", *numbers],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "RAY_AUTH_TOKEN": secrets.token_hex(32)},
        check=True,
        timeout=300,
    )
    # Ray has something to say on standard output, too.
    (told,) = (line for line in done.stdout.splitlines() if line.startswith(b"{"))
    return BareParts(**orjson.loads(told))


class _Bare:
    def ping(self) -> None: ...


def main() -> None:
    envoys, workloads, actors = map(int, sys.argv[1:])
    used_bytes = psutil.virtual_memory().used
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="testbed-bare-")))
        block = stack.enter_context(LoopbackBlock.reserve())
        count = max(envoys, workloads)
        places = [f"place-{number}" for number in range(count // PODS_A_PLACE + 1)]
        network = LoopbackNetwork(block.second_octet, places)
        addresses = [network.allocate_pod(places[number // PODS_A_PLACE], 8080) for number in range(count)]
        # As the testbed counts its own: from when everything is imported.
        started_s = time.monotonic()
        server = _fork_server(stack, folder)
        for number in range(envoys):
            _start(stack, _envoy(folder / f"{number}.json", addresses[number].inbound))
        for number in range(workloads):
            app = addresses[number].app
            settings = WorkloadSettings(app.ip, app.port, addresses[number].outbound, BuiltinWorkload(), seed=number)
            _fork(stack, server, {**os.environ, SETTINGS_VARIABLE: settings.to_json()})
        ray.init(
            num_cpus=actors,
            object_store_memory=256 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            logging_level=logging.ERROR,
        )
        stack.callback(ray.shutdown)
        bare: Any = ray.remote(num_cpus=0)(_Bare)
        handles = [bare.remote() for _ in range(actors)]
        ray.get([handle.ping.remote() for handle in handles])
        for address in addresses[:envoys]:
            _await_answer(address.inbound)
        for address in addresses[:workloads]:
            _await_answer(address.app)
        ready_s = time.monotonic() - started_s
        psutil.cpu_percent()
        time.sleep(AT_REST_S)
        cpu_percent = psutil.cpu_percent() * (psutil.cpu_count() or 1)
        memory_bytes = psutil.virtual_memory().used - used_bytes
        sys.stdout.buffer.write(
            orjson.dumps({"ready_s": ready_s, "cpu_percent": cpu_percent, "memory_bytes": memory_bytes}) + b"\n"
        )


def _start(stack: contextlib.ExitStack, command: list[str]) -> None:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)


def _fork_server(stack: contextlib.ExitStack, folder: Path) -> Path:
    """It ends with all that it started when its owner's connection does."""
    path = fork_server_socket(folder)
    subprocess.run([sys.executable, "-m", "testbed.emulation.processes.fork_server_process", str(path)], check=True)
    send(stack.enter_context(connected(path)), OWN)
    return path


def _fork(stack: contextlib.ExitStack, server: Path, env: dict[str, str]) -> None:
    order = Order(BUILTIN_COMMAND, env, Path(os.devnull), None, EMULATED_NICENESS, heavy=False)
    send(stack.enter_context(connected(server)), order)


def _envoy(path: Path, address: SocketAddress) -> list[str]:
    """A proxy with one listener that answers by itself."""
    types = "type.googleapis.com/envoy.extensions.filters"
    manager = {
        "@type": f"{types}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bare",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}],
                }
            ]
        },
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": f"{types}.http.router.v3.Router"}}
        ],
    }
    listener = {
        "name": "bare",
        "address": {"socket_address": {"address": address.ip, "port_value": address.port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    path.write_bytes(orjson.dumps({"static_resources": {"listeners": [listener]}}))
    return envoy.arguments(path, log_level="error")


@retry(retry=retry_if_exception_type(OSError), stop=stop_after_delay(120), wait=wait_fixed(0.05))
def _await_answer(address: SocketAddress) -> None:
    asyncio.run(http_status(address, "/healthz", timeout_s=1.0))


if __name__ == "__main__":
    main()
