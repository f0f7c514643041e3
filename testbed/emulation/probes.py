"""Carries out one probe, as a kubelet does; when to probe and what follows is `control.kubelet`.

Kubernetes: an httpGet probe succeeds on a status of 200..399, a tcpSocket probe when the connection opens, an exec
probe on exit code 0 (concepts/configuration/liveness-readiness-startup-probes).
"""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence

from testbed.control.objects import Probe, SocketAddress


async def run_probe(probe: Probe, address: SocketAddress, env: Mapping[str, str]) -> tuple[bool, str]:
    """Whether it succeeded within its time-out, and what it saw."""
    try:
        # The sockets' own time-outs count from byte to byte.
        return await asyncio.wait_for(asyncio.to_thread(_run, probe, address, env), probe.timeout_s)
    except TimeoutError:
        return False, f"{probe.kind} {address}: timed out after {probe.timeout_s:g} s"


def http_status(address: SocketAddress, path: str, timeout_s: float) -> int:
    """Status of a GET. Raises OSError or http.client.HTTPException."""
    connection = http.client.HTTPConnection(address.ip, address.port, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"user-agent": "kube-probe"})
        return connection.getresponse().status
    finally:
        connection.close()


def _run(probe: Probe, address: SocketAddress, env: Mapping[str, str]) -> tuple[bool, str]:
    try:
        match probe.kind:
            case "httpGet":
                status = http_status(address, probe.path, probe.timeout_s)
                return 200 <= status < 400, f"GET {probe.path}: status {status}"
            case "tcpSocket":
                socket.create_connection((address.ip, address.port), probe.timeout_s).close()
                return True, "connected"
            case "exec":
                code = _run_command(probe.command, env, probe.timeout_s)
                return code == 0, f"exit code {code}"
    except (OSError, http.client.HTTPException, subprocess.TimeoutExpired) as error:
        return False, f"{probe.kind} {address}: {error or type(error).__name__}"


def _run_command(command: Sequence[str], env: Mapping[str, str], timeout_s: float) -> int:
    process = subprocess.Popen(
        command,
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
