"""The connection to Ray: to a local one of the run's own or to one that exists, and the machines that it has."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray.exceptions import RayError

from testbed.control.placement import ZONE_LABEL, Machine
from testbed.emulation.driver.local_ray import start_local_ray
from testbed.emulation.processes.janitor import RUN_VARIABLE, Janitor

REACHABLE_WITHIN_S = 5.0
SHUTDOWN_WITHIN_S = 5.0
REFUSED_TOKEN = "it refuses our token; the Ray cluster's has to be in ~/.ray/auth_token or in RAY_AUTH_TOKEN"
_HEAD_RESOURCE = "node:__internal_head__"
_stuck = threading.Event()


class RayUnreachable(Exception):
    """There is no Ray at the given address, or a local one did not start."""


@dataclass(frozen=True, slots=True)
class RayMachine:
    """A machine that is part of Ray; `described` is what placement has to know of it."""

    described: Machine
    node_id: str
    is_driver: bool
    is_head: bool

    @property
    def name(self) -> str:
        return self.described.name

    @property
    def address(self) -> str:
        return self.described.address


@contextlib.contextmanager
def connected_to_ray(address: str | None, janitor: Janitor, processes: int) -> Iterator[None]:
    """Ray for the time of the block. Without an address it is one of the run's own, sized for `processes` actors.

    Raises RayUnreachable.
    """
    os.environ[RUN_VARIABLE] = janitor.run_id
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray gives its workers niceness 15: load generator and proxies would be measured behind everything else.
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    logging.getLogger("ray").setLevel(logging.ERROR)
    # What Ray has to say about a worker that died would go to standard output, `log_to_driver=False` or not.
    ray._private.worker._worker_logs_enabled = False
    where = "a local Ray" if address is None else f"Ray at {address}"
    with _words_of_the_core() as words:
        try:
            if address is None:
                _connect(start_local_ray(janitor, processes))
            else:
                _check_reachable(address)
                _check_member()
                _connect(address)
        except (ConnectionError, RayError, RuntimeError, ValueError, OSError) as error:
            reason = REFUSED_TOKEN if b"InvalidAuthToken" in words() else str(error).strip()
            raise RayUnreachable(f"{where} cannot be used: {reason}") from error
    try:
        yield
    finally:
        # Without its head Ray does not come to an end by itself; the janitor ends what is left here.
        shutdown = threading.Thread(target=ray.shutdown, name="ray shutdown", daemon=True)
        shutdown.start()
        shutdown.join(SHUTDOWN_WITHIN_S)
        if shutdown.is_alive():
            _stuck.set()


def is_stuck() -> bool:
    """Whether Ray was left without an answer, so that it would hold this process back from ending."""
    return _stuck.is_set()


def _connect(address: str) -> None:
    ray.init(
        address,
        log_to_driver=False,
        configure_logging=False,
        logging_level=logging.ERROR,
    )


@contextlib.contextmanager
def _words_of_the_core() -> Iterator[Callable[[], bytes]]:
    """Ray's core writes to the descriptor of standard error; during the block that goes to who calls what is given."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield lambda: os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0)
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _check_reachable(address: str) -> None:
    """Ray itself goes on trying for minutes. Raises OSError."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), REACHABLE_WITHIN_S).close()


def _check_member() -> None:
    """Without a Ray node on this machine, Ray's core ends the process, with exit code 1. Raises ConnectionError."""
    here = _network_namespace("self")
    for process in psutil.process_iter(["name"]):
        # The machines of a lab are seen by their host, but are others.
        if process.info["name"] == "raylet" and _network_namespace(str(process.pid)) in (here, None):
            return
    raise ConnectionError(
        "no Ray node runs on this machine; run it on one of the Ray cluster's, or from here with `ray job submit`"
    )


def _network_namespace(pid: str) -> str | None:
    """None where one may not look."""
    try:
        return os.readlink(f"/proc/{pid}/ns/net")
    except OSError:
        return None


def machines() -> list[RayMachine]:
    """All machines of Ray that are alive, in order of their names; the name is the host name where it is
    unique, else the address."""
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    # Several Ray nodes of one machine are one machine: the one that drives the run, if it is among them.
    nodes.sort(key=lambda node: (node["NodeID"] != here, node["NodeManagerAddress"]))
    by_address: dict[str, dict[str, Any]] = {}
    for node in nodes:
        by_address.setdefault(node["NodeManagerAddress"], node)
    hosts = [node["NodeManagerHostname"] for node in by_address.values()]
    found = [
        RayMachine(
            Machine(
                name=host if hosts.count(host) == 1 else address,
                address=address,
                zone=node["Labels"].get(ZONE_LABEL),
                memory_bytes=int(node["Resources"].get("memory", 0)),
                cpus=node["Resources"].get("CPU", 0.0),
            ),
            node_id=node["NodeID"],
            is_driver=node["NodeID"] == here,
            is_head=_HEAD_RESOURCE in node["Resources"],
        )
        for (address, node), host in zip(by_address.items(), hosts, strict=True)
    ]
    return sorted(found, key=lambda machine: machine.name)
