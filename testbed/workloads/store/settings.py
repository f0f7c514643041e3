"""What the process of a store's replica is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from testbed.control.cells.ownership import written
from testbed.control.cells.partitions import partition_of
from testbed.network.wire.peers import Peer
from testbed.objects.addresses import SocketAddress
from testbed.objects.cells import PartitionRule
from testbed.objects.workloads import StoreGroup, StoreIsr, StoreReplica, StoreWorkload

SETTINGS_VARIABLE = "TESTBED_STORE"


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """`host` and `port` are for clients, `listen` for peers. `volume` is the replica's folder: it outlives the
    process. What `leaders` writes goes to `leaders_log`. Peers know each other by the `secret`."""

    host: str
    port: int
    listen: SocketAddress
    peers: tuple[Peer, ...]
    volume: Path
    leaders_log: Path
    seed: int
    workload: StoreWorkload
    secret: str = field(repr=False)

    def partition_of(self, key: str) -> int | None:
        """None where the rule makes none of it."""
        return partition_of(self.workload.rule, self.workload.partitions, key)

    def partitions_of(self, group: int) -> str:
        declared = self.workload.groups[group]
        return written(range(declared.start, declared.end))

    def to_json(self) -> str:
        return orjson.dumps(self, default=str).decode()

    @classmethod
    def from_json(cls, text: str) -> StoreSettings:
        data = orjson.loads(text)
        workload = data.pop("workload")
        workload["replicas"] = tuple(StoreReplica(**each) for each in workload["replicas"])
        workload["groups"] = tuple(map(_group, workload["groups"]))
        workload["isr"] = None if workload["isr"] is None else StoreIsr(**workload["isr"])
        workload["rule"] = PartitionRule(**{**workload["rule"], **_tuples(workload["rule"], "digits", "bounds")})
        return cls(
            listen=SocketAddress(**data.pop("listen")),
            peers=tuple(map(_peer, data.pop("peers"))),
            volume=Path(data.pop("volume")),
            leaders_log=Path(data.pop("leaders_log")),
            workload=StoreWorkload(**workload),
            **data,
        )


def _group(data: dict[str, Any]) -> StoreGroup:
    return StoreGroup(**{**data, **_tuples(data, "primaries", "replicas")})


def _tuples(data: dict[str, Any], *names: str) -> dict[str, tuple[Any, ...]]:
    return {name: tuple(data[name]) for name in names}


def _peer(data: dict[str, dict[str, str | int] | str]) -> Peer:
    name, address, relay = data["name"], data["address"], data["relay"]
    assert isinstance(name, str)
    return Peer(name, _address(address), None if relay is None else _address(relay))


def _address(data: object) -> SocketAddress:
    assert isinstance(data, dict)
    return SocketAddress(**data)
