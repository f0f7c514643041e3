"""What a container is started with: its command line and its environment. Starting it is `pod`."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from testbed.network.addresses.backend import NetworkBackend
from testbed.network.wire.peers import Peer
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Pod
from testbed.objects.workloads import BuiltinWorkload, CommandWorkload, StoreWorkload
from testbed.workloads.settings import SETTINGS_VARIABLE, WorkloadSettings, service_variables
from testbed.workloads.store import settings as store
from testbed.workloads.store.leaders import LEADERS_SUFFIX

ACCESS_SUFFIX = ".access.jsonl"
"""Of every file with lines about calls, whoever wrote them."""

BUILTIN_COMMAND = (sys.executable, "-m", "testbed.workloads.builtin")
STORE_COMMAND = (sys.executable, "-m", "testbed.workloads.store")

INHERITED_VARIABLES = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "TMPDIR",
    # Without these some interpreters do not find themselves or testbed.
    "VIRTUAL_ENV",
    "PYTHONHOME",
    "PYTHONPATH",
    "LD_LIBRARY_PATH",
)
"""What a container gets of the environment of who called `testbed`. A node passes nothing on in reality: tokens, keys
of a cloud and proxies for the real network least of all."""


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that containers may see."""
    return {name: environment[name] for name in INHERITED_VARIABLES if name in environment}


def expand(text: str, env: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)` in commands and values: an unknown name stays as it is, `$$` stands for `$`."""
    return re.sub(
        r"\$\$|\$\(([-._A-Za-z][-._A-Za-z0-9]*)\)",
        lambda match: "$" if match[0] == "$$" else env.get(match[1], match[0]),
        text,
    )


@dataclass(frozen=True, slots=True)
class StoreHome:
    """What a node has for replicas of stores: the way to others, a folder for disks, which are there as long as the run
    is, and the secret by which all of them know each other."""

    network: NetworkBackend
    volumes: Path
    secret: str = field(repr=False)


def command_line(
    pod: Pod,
    address: PodAddress,
    seed: int,
    services: Mapping[str, SocketAddress],
    log_dir: Path,
    home: StoreHome | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the pod's container: who and where it is, and how it calls others.

    That is the mesh as HTTP proxy or, without a mesh, the virtual addresses of `services`. `home` is what a replica of
    a store needs besides.
    """
    env = {
        "POD_NAME": pod.name,
        "POD_IP": address.app.ip,
        "NODE_NAME": pod.node or "",
        "HOSTNAME": pod.name,
        "PORT": str(address.app.port),
        "PYTHONUNBUFFERED": "1",
    }
    meshed = pod.template.mesh_mode != "none"
    if meshed:
        env |= dict.fromkeys(("HTTP_PROXY", "http_proxy"), f"http://{address.outbound}")
        env |= dict.fromkeys(("NO_PROXY", "no_proxy"), address.app.ip)
    for service, at in services.items():
        env |= dict(zip(service_variables(service), (at.ip, str(at.port)), strict=True))
    match pod.template.workload:
        case BuiltinWorkload() as workload:
            settings = WorkloadSettings(
                address.app.ip,
                address.app.port,
                address.outbound if meshed else None,
                workload,
                seed,
                None if meshed else str(log_dir / f"{pod.name}{ACCESS_SUFFIX}"),
            )
            env[SETTINGS_VARIABLE] = settings.to_json()
            return list(BUILTIN_COMMAND), env
        case StoreWorkload() as workload:
            assert home is not None, f"{pod.name} is of a store, and there is no home for it"
            leaders_log = log_dir / f"{pod.name}{LEADERS_SUFFIX}"
            env[store.SETTINGS_VARIABLE] = _store_settings(workload, address.app, seed, home, leaders_log).to_json()
            return list(STORE_COMMAND), env
        case CommandWorkload(command=command, env=declared):
            for name, value in declared:
                env[name] = expand(value, env)
            return [expand(word, env) for word in command], env
        case None:
            raise AssertionError(f"{pod.name} is a gateway: it has no container of its own")


def _store_settings(
    workload: StoreWorkload, clients: SocketAddress, seed: int, home: StoreHome, leaders_log: Path
) -> store.StoreSettings:
    """Its disk is the replica's, not the pod's: whichever pod takes its place finds it."""
    network, replicas = home.network, {each.name: each for each in workload.replicas}
    own = replicas.pop(workload.replica)
    peers = [
        Peer(
            name=peer.name,
            address=network.replica_address(peer.node, peer.number),
            relay=None if peer.node == own.node else network.relay_listener(own.node, peer.node),
        )
        for peer in replicas.values()
    ]
    listen = network.replica_address(own.node, own.number)
    volume = home.volumes / own.name
    return store.StoreSettings(
        clients.ip, clients.port, listen, tuple(peers), volume, leaders_log, seed, workload, home.secret
    )
