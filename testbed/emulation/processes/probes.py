"""Carries out one probe, as a kubelet does; when to probe and what follows is `control.kubelet`.

Kubernetes: an httpGet probe succeeds on a status of 200..399, a tcpSocket probe when the connection opens, an exec
probe on exit code 0 (concepts/configuration/liveness-readiness-startup-probes). A probe costs no thread while it waits:
a node whose pods all hang probes the next one on time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from testbed.emulation.processes.forked_process import ForkedProcess
from testbed.emulation.processes.http_get import BrokenAnswer, connection, get
from testbed.emulation.processes.precedence import EMULATED_NICENESS
from testbed.objects.addresses import SocketAddress
from testbed.objects.workloads import Probe

_REDIRECTS_MAX = 10
_REDIRECTS = (301, 302, 303, 307, 308)
_BODY_BYTES_MAX = 10 << 10


async def run_probe(
    probe: Probe, address: SocketAddress, env: Mapping[str, str], fork_server: Path
) -> tuple[bool, str]:
    """Whether it succeeded within its time-out, and what it saw. `env` is all of a command's environment; commands are
    started by the `fork_server` that listens there."""
    limit = asyncio.timeout(probe.timeout_s)
    try:
        async with limit:
            match probe.kind:
                case "httpGet":
                    status = await _follow(address, probe.path)
                    return 200 <= status < 400, f"GET {probe.path}: status {status}"
                case "tcpSocket":
                    (await connection(address)).close()
                    return True, "connected"
                case "exec":
                    code = await _run_command(probe.command, env, fork_server)
                    return code == 0, f"exit code {code}"
    except OSError as error:  # the time-out is one
        if limit.expired():
            return False, f"{probe.kind} {address}: timed out after {probe.timeout_s:g} s"
        return False, f"{probe.kind} {address}: {error or type(error).__name__}"


async def http_status(address: SocketAddress, path: str, timeout_s: float) -> int:
    """Status of a GET. Raises OSError, TimeoutError among them."""
    async with asyncio.timeout(timeout_s):
        return (await get(address, path)).status


async def _follow(address: SocketAddress, path: str) -> int:
    """The status behind at most ten redirects within the same host; one that leads elsewhere is the answer itself.

    Source: kubernetes pkg/probe/http, RedirectChecker and DoHTTPProbe (which reads 10 kB of the body).
    """
    url, server, target = f"http://{address}{path}", address, path
    for _ in range(_REDIRECTS_MAX):
        reply = await get(server, target, user_agent="kube-probe", body_bytes_max=_BODY_BYTES_MAX)
        if reply.status not in _REDIRECTS or not reply.headers.get("location"):
            return reply.status
        try:
            url = urljoin(url, reply.headers["location"])
            parts = urlsplit(url)
            server = SocketAddress(address.ip, parts.port or 80)
        except ValueError as error:
            raise BrokenAnswer(f"redirected to {reply.headers['location']!r}: {error}") from None
        if parts.hostname != address.ip or parts.scheme != "http":
            return reply.status
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    raise OSError(f"stopped after {_REDIRECTS_MAX} redirects")


async def _run_command(command: Sequence[str], env: Mapping[str, str], fork_server: Path) -> int:
    process = ForkedProcess(fork_server, command, env=env, output=Path(os.devnull), niceness=EMULATED_NICENESS)
    try:
        await process.started()
        return await process.wait()
    finally:
        await process.kill()
        await process.wait()
