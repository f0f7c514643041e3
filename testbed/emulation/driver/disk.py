"""The disk that a run writes to: whether it has room for what the load will record, and when it is about to be full."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, ENOSPC
from pathlib import Path

from testbed.objects.cluster import ClusterSpec
from testbed.objects.workloads import BuiltinWorkload
from testbed.scenario import LoadSource, Scenario

REQUEST_BYTES = 350
"""What a load generator and the table of requests record of one request, as measured."""
CALL_BYTES = 2 * 420
"""What the two proxies of one call and the table of hops record of it, as measured."""
POD_BYTES = 32 * 1024
"""Of every pod whatever it serves: logs, Envoy's bootstrap and its tables, in blocks of 4 kB."""
RUN_BYTES = 64 * 1024
TABLES_SHARE = 0.35
"""Of raw records, what the tables made of them take."""
FASTEST_USER_S = 0.005
"""Assumed of a closed load: from one request to the next one of a user, thinking apart."""


class DiskFull(Exception):
    """The disk of the run folder has no room for what is to be written; the message names it."""


def expected_bytes(scenario: Scenario) -> int:
    """About how much a run of the scenario leaves, whatever it sends being answered."""
    requests = sum(_rate_per_s(source) for source in scenario.load.sources) * scenario.load.duration_s
    calls = _calls_per_request(scenario.cluster)
    return _fixed_bytes(scenario.cluster) + int(requests * (REQUEST_BYTES + calls * CALL_BYTES))


class RunDisk:
    """`folder` is the run's own, which must exist."""

    def __init__(self, folder: Path, scenario: Scenario) -> None:
        self.folder = folder
        self._scenario = scenario
        self._mount = next(path for path in (folder, *folder.parents) if path.is_mount())
        self.name = f"the disk of {folder} (mounted at {self._mount})"

    def shortage(self) -> str | None:
        """A warning where there is less room than the load that is declared will need."""
        free, needed = self._free_bytes(), expected_bytes(self._scenario)
        if free >= needed:
            return None
        load = self._scenario.load
        rate = sum(_rate_per_s(source) for source in load.sources)
        return (
            f"warning: {self.name} has {_size(free)} free, but {load.duration_s:g} s of about {rate:g} requests/s "
            f"record about {_size(needed)}: the run will end when it is full; make room or choose another --out"
        )

    def require_room(self) -> None:
        """Raises DiskFull where there is no more room than it takes to make tables of what is recorded by now."""
        free = self._free_bytes()
        logs = self.folder / "logs"
        recorded = sum(entry.stat().st_size for entry in os.scandir(logs)) if logs.exists() else 0
        if free < _fixed_bytes(self._scenario.cluster) + TABLES_SHARE * recorded:
            raise DiskFull(f"{self.name} is full: {_size(free)} are left, with {_size(recorded)} recorded")

    @contextmanager
    def blamed(self, what: str) -> Iterator[None]:
        """`what` is lost if there is no room for it in the block. Raises DiskFull."""
        try:
            yield
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT):
                raise
            raise DiskFull(f"{self.name} is full; lost: {what}") from error

    def _free_bytes(self) -> int:
        found = os.statvfs(self.folder)
        return found.f_bavail * found.f_frsize


def _fixed_bytes(cluster: ClusterSpec) -> int:
    return RUN_BYTES + POD_BYTES * sum(deployment.replicas for deployment in cluster.deployments)


def _rate_per_s(source: LoadSource) -> float:
    if source.rate_per_s is not None:
        return source.rate_per_s
    assert source.users is not None
    return source.users / (source.think_time_s + FASTEST_USER_S)


def _calls_per_request(cluster: ClusterSpec) -> int:
    """Calls that a request for the most expensive service becomes, that of the gateway included."""
    called = {
        deployment.template.service: [service for stage in workload.stages for service in stage]
        for deployment in cluster.deployments
        if isinstance(workload := deployment.template.workload, BuiltinWorkload)
    }
    known: dict[str, int] = {}

    def calls(service: str, above: frozenset[str]) -> int:
        if service in above:
            return 0
        if service not in known:
            known[service] = 1 + sum(calls(each, above | {service}) for each in called.get(service, ()))
        return known[service]

    return max((calls(service, frozenset()) for service in called), default=1)


def _size(count: float) -> str:
    return f"{count / 1e6:,.1f} MB" if count < 1e9 else f"{count / 1e9:,.1f} GB"
