"""What the process of a built-in workload is told, and the names under which any container finds services."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from testbed.objects.addresses import SocketAddress
from testbed.objects.workloads import BuiltinWorkload, WorkTime

STORE_OWNER_HEADER = "x-store-owner"
"""In answers of a store: who took the write."""

SETTINGS_VARIABLE = "TESTBED_WORKLOAD"


@dataclass(frozen=True, slots=True)
class WorkloadSettings:
    """Everything the process of a built-in workload is told.

    `proxy` is the mesh's outbound listener for the pod. Without a mesh there is none: services are called at the
    addresses in the environment, and every call is logged at `call_log`.
    """

    host: str
    port: int
    proxy: SocketAddress | None
    workload: BuiltinWorkload
    seed: int
    call_log: str | None = None

    def to_json(self) -> str:
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str) -> WorkloadSettings:
        data = orjson.loads(text)
        proxy = data.pop("proxy")
        workload = data.pop("workload")
        workload["work"] = WorkTime(**workload["work"])
        workload["stages"] = tuple(tuple(stage) for stage in workload["stages"])
        workload["passed_on"] = tuple(workload["passed_on"])
        return cls(workload=BuiltinWorkload(**workload), proxy=proxy and SocketAddress(**proxy), **data)


def service_variables(service: str) -> tuple[str, str]:
    """The names of the variables with a service's virtual address and port.

    Kubernetes, "Discovering services": `{SVCNAME}_SERVICE_HOST` and `_PORT`, upper case, dashes become underscores.
    """
    name = service.upper().replace("-", "_")
    return f"{name}_SERVICE_HOST", f"{name}_SERVICE_PORT"


def service_address(service: str, env: Mapping[str, str]) -> SocketAddress:
    """The virtual address that an environment has for a service. Raises KeyError."""
    host, port = service_variables(service)
    return SocketAddress(env[host], int(env[port]))
