"""How the built-in workload calls other services: through the mesh, or at their virtual addresses.

Owns also what a workload without a proxy logs of its own calls, since nobody else could: the lines of
`control.views.envoy.access_log`, as a proxy would write them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import orjson

from testbed.control.views.envoy import access_log
from testbed.objects.addresses import SocketAddress
from testbed.workloads.http1 import Answer, HttpClient
from testbed.workloads.settings import service_address

REQUEST_ID = access_log.REQUEST_ID_HEADER.encode()

Headers = dict[bytes, bytes]
Line = dict[str, str | int | float | None]


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

    Who is behind such an address is not known to the caller: a call is logged with the caller's end of its connection,
    of which kube-proxy has the other. Lines are written at once, so that a killed workload loses none.
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
        client = self._clients[service]
        start_epoch_s, start_s = time.time(), time.monotonic()
        connection, answer, flags = None, None, None
        try:
            connection = await client.connection()
            answer = await client.get_over(connection, "/", service, headers)
        except OSError:
            flags = access_log.UPSTREAM_CLOSED
            raise
        except asyncio.CancelledError:
            flags = access_log.DOWNSTREAM_CLOSED
            raise
        finally:
            request_id = headers.get(REQUEST_ID)
            duration_s = time.monotonic() - start_s
            common: Line = {
                access_log.POD: self._pod,
                access_log.REQUEST_ID: None if request_id is None else request_id.decode(),
                access_log.START: f"{start_epoch_s:.6f}",
                access_log.DURATION_MS: duration_s * 1e3,
                access_log.UPSTREAM_HOST: None,
                access_log.UPSTREAM_CLUSTER: service,
                access_log.CALLER: None if connection is None else connection.local,
                access_log.STATUS: None if answer is None else answer.status,
                access_log.FLAGS: flags,
            }
            self._write(common, duration_s, answer)
        return answer.status

    def _write(self, common: Line, duration_s: float, answer: Answer | None) -> None:
        call = {
            access_log.KIND: access_log.OUTBOUND,
            **common,
            access_log.DURATION_US: round(duration_s * 1e6),
            access_log.PEER: None,
            access_log.ROUTE: None,
            access_log.ATTEMPTS: 1,
            access_log.BYTES_RECEIVED: 0,
            access_log.BYTES_SENT: 0 if answer is None else answer.body_bytes,
            access_log.REQUEST_BYTES: 0 if answer is None else answer.request_bytes,
            access_log.RESPONSE_BYTES: 0 if answer is None else answer.response_bytes,
        }
        failed = answer is None or answer.status >= access_log.FAILED_STATUS
        lines = [call, {access_log.KIND: access_log.ATTEMPT, **common}] if failed else [call]
        self._log.write(b"".join(orjson.dumps(line) + b"\n" for line in lines))
