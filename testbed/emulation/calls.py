"""How the built-in workload calls other services: through the mesh, or at their virtual addresses.

Owns also what a workload without a proxy logs of its own calls, since nobody else could: the lines of
`control.access_log`, as a proxy would write them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import orjson

from testbed.control import access_log
from testbed.control.objects import SocketAddress
from testbed.emulation.container import service_address
from testbed.emulation.http1 import Answer, HttpClient

REQUEST_ID = access_log.REQUEST_ID_HEADER.encode()

Headers = dict[bytes, bytes]


class Calls(Protocol):
    async def get(self, service: str, headers: Headers) -> int:
        """GET / of a service: the status of the answer. Raises OSError where there is none."""
        ...


class MeshCalls:
    """Through the pod's outbound listener, by the HTTP_PROXY convention, as any real program would."""

    def __init__(self, proxy: SocketAddress) -> None:
        self._client = HttpClient(proxy.ip, proxy.port)

    async def get(self, service: str, headers: Headers) -> int:
        return (await self._client.get(f"http://{service}/", service, headers)).status


class LoggedCalls:
    """To the addresses that kube-proxy serves, as `env` names them; connections are kept, and with them endpoints.

    A call is logged with the address that its answer came from; who did not answer is not known to the caller. Lines
    are written at once, so that a killed workload loses none.
    """

    def __init__(self, pod: str, env: Mapping[str, str], log: Path) -> None:
        self._pod = pod
        self._env = env
        self._clients: dict[str, HttpClient] = {}
        self._log = log.open("ab", buffering=0)

    def close(self) -> None:
        self._log.close()

    async def get(self, service: str, headers: Headers) -> int:
        if service not in self._clients:
            address = service_address(service, self._env)
            self._clients[service] = HttpClient(address.ip, address.port)
        start_epoch_s, start_s = time.time(), time.monotonic()
        request_id = headers.get(REQUEST_ID)
        answer, flags = None, None
        try:
            answer = await self._clients[service].get("/", service, headers)
        except OSError:
            flags = access_log.UPSTREAM_CLOSED
            raise
        except asyncio.CancelledError:
            flags = access_log.DOWNSTREAM_CLOSED
            raise
        finally:
            self._write(service, request_id, start_epoch_s, time.monotonic() - start_s, answer, flags)
        return answer.status

    def _write(
        self,
        service: str,
        request_id: bytes | None,
        start_epoch_s: float,
        duration_s: float,
        answer: Answer | None,
        flags: str | None,
    ) -> None:
        common: dict[str, str | int | float | None] = {
            access_log.POD: self._pod,
            access_log.REQUEST_ID: None if request_id is None else request_id.decode(),
            access_log.START: f"{start_epoch_s:.6f}",
            access_log.UPSTREAM_HOST: None if answer is None else answer.served_by,
            access_log.UPSTREAM_CLUSTER: service,
            access_log.STATUS: None if answer is None else answer.status,
            access_log.FLAGS: flags,
        }
        lines = [
            {
                access_log.KIND: access_log.OUTBOUND,
                **common,
                access_log.DURATION_US: round(duration_s * 1e6),
                access_log.PEER: None,
                access_log.ATTEMPTS: 1,
                access_log.BYTES_RECEIVED: 0,
                access_log.BYTES_SENT: 0 if answer is None else answer.body_bytes,
            }
        ]
        if answer is None or answer.status >= access_log.FAILED_STATUS:
            lines.append({access_log.KIND: access_log.ATTEMPT, **common, access_log.DURATION_MS: duration_s * 1e3})
        self._log.write(b"".join(orjson.dumps(line) + b"\n" for line in lines))
