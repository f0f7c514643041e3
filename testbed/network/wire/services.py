"""Where connections to services go from one place: to an endpoint at random, as kube-proxy's rules have it.

Each connection goes to an endpoint at random and stays there (Kubernetes, "Virtual IPs and service proxies"). Nobody at
either end knows of the choice, so each is written down, as conntrack would know it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from random import Random

import orjson

from testbed.control.views.kube_proxy import CALLER, CONNECTED, ENDPOINT, SERVICE
from testbed.objects.addresses import SocketAddress

Endpoints = tuple[tuple[str, SocketAddress], ...]
"""Of one service: node and address of each."""


class ServiceRules:
    """`name` is the kube-proxy's; with `seed` it fixes the choices, for each service on its own."""

    def __init__(self, name: str, seed: int, log: Path) -> None:
        self._name, self._seed = name, seed
        # Without a buffer: what is asked for later is who was behind a connection that nobody answered.
        self._log = log.open("ab", buffering=0)
        self._endpoints: dict[str, Endpoints] = {}
        self._random: dict[str, Random] = {}

    def lead(self, endpoints: Mapping[str, Endpoints]) -> None:
        """Of all services, for the connections to come; a service that is not named has none."""
        self._endpoints = dict(endpoints)

    def choose(self, service: str, caller: SocketAddress) -> tuple[str, SocketAddress] | None:
        """Node and address for a connection that has just come from `caller`; None while there is no endpoint."""
        chosen = self._chosen(service)
        line = {
            CONNECTED: f"{time.time():.6f}",
            CALLER: str(caller),
            SERVICE: service,
            ENDPOINT: None if chosen is None else str(chosen[1]),
        }
        self._log.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        return chosen

    def close(self) -> None:
        """Write no more."""
        self._log.close()

    def _chosen(self, service: str) -> tuple[str, SocketAddress] | None:
        endpoints = self._endpoints.get(service)
        if not endpoints:
            return None
        if service not in self._random:
            self._random[service] = Random(f"{self._seed}/{self._name}/{service}")
        return self._random[service].choice(endpoints)
