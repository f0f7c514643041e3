"""What replicas tell each other, and what they keep on disk, as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from testbed.consensus.log import Entry, Snapshot
from testbed.consensus.membership import Membership
from testbed.consensus.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    Message,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from testbed.isr import messages as isr
from testbed.isr.metadata import Cluster, Partition
from testbed.workloads.store.commands import Answer, Ask, Get, Put, Told

PeerMessage = Message | isr.Message | Ask | Told

_ISR: tuple[type[PeerMessage], ...] = (isr.Fetch, isr.FetchReply, isr.BrokerHeartbeat, isr.AlterPartition)
_KINDS: dict[str, type[PeerMessage]] = {
    kind.__name__: kind
    for kind in (RequestVote, VoteReply, AppendEntries, AppendReply, InstallSnapshot, TimeoutNow, Ask, Told, *_ISR)
}


class Json:
    """The form of a store's journals."""

    dumps = staticmethod(orjson.dumps)
    loads = staticmethod(orjson.loads)

    @staticmethod
    def entry(read: Any) -> Entry:
        return entry(read)

    @staticmethod
    def snapshot(read: Any) -> Snapshot:
        return snapshot(read)


def encode(group: int, message: PeerMessage) -> bytes:
    return orjson.dumps((group, type(message).__name__, message))


def decode(data: bytes) -> tuple[int, PeerMessage]:
    """The group, and what its replicas tell each other."""
    group, kind, fields = orjson.loads(data)
    if kind in ("AppendEntries", "FetchReply"):
        fields["entries"] = tuple(map(entry, fields["entries"]))
        if fields.get("diverging"):
            fields["diverging"] = tuple(fields["diverging"])
    elif kind == "AlterPartition":
        fields["isr"] = tuple(fields["isr"])
    elif kind == "InstallSnapshot":
        fields["snapshot"] = snapshot(fields["snapshot"])
    elif kind == "Ask":
        fields["what"] = Put(**fields["what"]) if "id" in fields["what"] else Get(**fields["what"])
    elif kind == "Told":
        fields["answer"] = Answer(**fields["answer"])
    return group, _KINDS[kind](**fields)


def entry(data: Mapping[str, Any]) -> Entry:
    command = data["command"]
    if command is not None:
        command = _command(command)
    return Entry(data["index"], data["term"], command)


def _command(data: Mapping[str, Any]) -> Membership | Cluster | Put:
    if "voters" in data:
        return _membership(data)
    return _cluster(data) if "alive" in data else Put(**data)


def _cluster(data: Mapping[str, Any]) -> Cluster:
    partitions = tuple(
        Partition(**{**each, "replicas": tuple(each["replicas"]), "isr": tuple(each["isr"])})
        for each in data["partitions"]
    )
    return Cluster(partitions, tuple(map(tuple, data["alive"])), data["version"])


def snapshot(data: Mapping[str, Any]) -> Snapshot:
    return Snapshot(data["index"], data["term"], _membership(data["membership"]), data["state"])


def _membership(data: Mapping[str, Any]) -> Membership:
    return Membership(tuple(data["voters"]), tuple(data["learners"]))
