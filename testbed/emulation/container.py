"""What a container is started with: its command line and its environment. Starting it is `pod`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from testbed.control.objects import BuiltinWorkload, CommandWorkload, Pod, PodAddress, SocketAddress, WorkTime

SETTINGS_VARIABLE = "TESTBED_WORKLOAD"


@dataclass(frozen=True, slots=True)
class WorkloadSettings:
    """Everything the process of a built-in workload is told. `proxy` is the sidecar's outbound listener."""

    host: str
    port: int
    proxy: SocketAddress
    workload: BuiltinWorkload
    seed: int

    def to_json(self) -> str:
        return orjson.dumps(self).decode()

    @classmethod
    def from_json(cls, text: str) -> WorkloadSettings:
        data = orjson.loads(text)
        proxy = SocketAddress(**data.pop("proxy"))
        workload = data.pop("workload")
        workload["work"] = WorkTime(**workload["work"])
        workload["stages"] = tuple(tuple(stage) for stage in workload["stages"])
        return cls(workload=BuiltinWorkload(**workload), proxy=proxy, **data)


def expand(text: str, env: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)` in commands and values: an unknown name stays as it is, `$$` stands for `$`."""
    return re.sub(
        r"\$\$|\$\(([-._A-Za-z][-._A-Za-z0-9]*)\)",
        lambda match: "$" if match[0] == "$$" else env.get(match[1], match[0]),
        text,
    )


def command_line(pod: Pod, address: PodAddress, seed: int) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the pod's container: who and where it is, and its sidecar as HTTP proxy."""
    proxy = f"http://{address.outbound}"
    env = {
        "POD_NAME": pod.name,
        "POD_IP": address.app.ip,
        "NODE_NAME": pod.node or "",
        "HOSTNAME": pod.name,
        "PORT": str(address.app.port),
        "HTTP_PROXY": proxy,
        "http_proxy": proxy,
        "NO_PROXY": address.app.ip,
        "no_proxy": address.app.ip,
        "PYTHONUNBUFFERED": "1",
    }
    match pod.template.workload:
        case BuiltinWorkload() as workload:
            settings = WorkloadSettings(address.app.ip, address.app.port, address.outbound, workload, seed)
            env[SETTINGS_VARIABLE] = settings.to_json()
            return [sys.executable, "-m", "testbed.emulation.workload"], env
        case CommandWorkload(command=command, env=declared):
            for name, value in declared:
                env[name] = expand(value, env)
            return [expand(word, env) for word in command], env
        case None:
            raise AssertionError(f"{pod.name} is a gateway: it has no container of its own")
