"""The chain that a person would wire by hand: static Envoy configurations in front of the same workload processes.

Gateway -> web's Envoy -> web -> web's Envoy -> orders' Envoy -> orders, without Ray, ADS, relays or access logs. With
crossings, what would be three links is a plain Envoy each that passes TCP on: what one puts there by hand who wants
a place at which links can be broken.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from testbed.emulation.processes import envoy
from testbed.emulation.processes.probes import http_status
from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.objects.addresses import SocketAddress
from testbed.objects.workloads import BuiltinWorkload
from testbed.workloads.settings import SETTINGS_VARIABLE, WorkloadSettings

_TYPES = "type.googleapis.com/"
_MANAGER = _TYPES + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = _TYPES + "envoy.extensions.filters.http.router.v3.Router"
_TCP_PROXY = _TYPES + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"

Hop = tuple[SocketAddress, SocketAddress]
"""From where a proxy listens to where it forwards."""


@contextlib.contextmanager
def hand_wired_chain(directory: Path, *, crossings: bool = False) -> Iterator[SocketAddress]:
    """Yields the address that clients send to; everything is ended with the block."""
    with contextlib.ExitStack() as stack:
        block = stack.enter_context(LoopbackBlock.reserve())
        network = LoopbackNetwork(block.second_octet, ["clients", "gateway", "web", "orders"])
        gateway, web, orders = (network.allocate_pod(place, 8080) for place in ("gateway", "web", "orders"))
        entry, to_web, to_orders = gateway.app, web.inbound, orders.inbound
        commands = []
        if crossings:
            entry = network.relay_listener("clients", "gateway")
            to_web, to_orders = network.relay_listener("gateway", "web"), network.relay_listener("web", "orders")
            hops = (entry, gateway.app), (to_web, web.inbound), (to_orders, orders.inbound)
            commands += [_envoy(directory / f"crossing-{hop[1].ip}.json", [hop], _passing_on) for hop in hops]
        commands += [
            _envoy(directory / "gateway.json", [(gateway.app, to_web)]),
            _envoy(directory / "web.json", [(web.inbound, web.app), (web.outbound, to_orders)]),
            _envoy(directory / "orders.json", [(orders.inbound, orders.app)]),
        ]
        for command in commands:
            stack.enter_context(_process(command, {}))
        for address, workload in ((web.app, BuiltinWorkload(stages=(("orders",),))), (orders.app, BuiltinWorkload())):
            settings = WorkloadSettings(address.ip, address.port, web.outbound, workload, seed=1)
            command = [sys.executable, "-m", "testbed.workloads.builtin"]
            stack.enter_context(_process(command, {SETTINGS_VARIABLE: settings.to_json()}))
        _await_answer(entry)
        yield entry


def _envoy(path: Path, hops: list[Hop], forwarding: Callable[[str], dict[str, Any]] | None = None) -> list[str]:
    """A proxy that forwards from each listener to one address; returns its command line."""
    static = {
        "listeners": [_listener(index, listen, forwarding or _requests) for index, (listen, _) in enumerate(hops)],
        "clusters": [_cluster(index, target) for index, (_, target) in enumerate(hops)],
    }
    path.write_bytes(orjson.dumps({"static_resources": static}))
    return envoy.arguments(path, log_level="error")


def _listener(index: int, address: SocketAddress, forwarding: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    name = f"hop-{index}"
    return {"name": name, "address": _address(address), "filter_chains": [{"filters": [forwarding(name)]}]}


def _requests(cluster: str) -> dict[str, Any]:
    routes = [{"match": {"prefix": "/"}, "route": {"cluster": cluster}}]
    manager = {
        "@type": _MANAGER,
        "stat_prefix": cluster,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}}],
    }
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}


def _passing_on(cluster: str) -> dict[str, Any]:
    proxy = {"@type": _TCP_PROXY, "stat_prefix": cluster, "cluster": cluster}
    return {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}


def _cluster(index: int, address: SocketAddress) -> dict[str, Any]:
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": _address(address)}}]}]
    return {
        "name": f"hop-{index}",
        "type": "STATIC",
        "load_assignment": {"cluster_name": f"hop-{index}", "endpoints": endpoints},
    }


def _address(address: SocketAddress) -> dict[str, Any]:
    return {"socket_address": {"address": address.ip, "port_value": address.port}}


@contextlib.contextmanager
def _process(command: list[str], env: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **env}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.kill()
        process.wait()


class NotServing(Exception):
    """The chain does not answer well yet."""


@retry(retry=retry_if_exception_type((OSError, NotServing)), stop=stop_after_delay(20), wait=wait_fixed(0.1))
def _await_answer(gateway: SocketAddress) -> None:
    status = asyncio.run(http_status(gateway, "/", timeout_s=1.0))
    if status != 200:
        raise NotServing(f"status {status}")
