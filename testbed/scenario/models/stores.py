"""Replicated stores of keys and values."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from testbed.scenario.models.cells import MAX_PARTITIONS
from testbed.scenario.models.fields import Model, PositiveDuration


class IsrModel(Model):
    """Kafka's replication, in its words and with its defaults; a group is a partition of Kafka, and all replicas are
    brokers and controllers."""

    acks: Literal["all", 1, 0] = "all"
    """When a write is acknowledged: when all in sync have it on disk, already when the leader has, or at once."""
    replication_factor: Annotated[int, Field(ge=1)] | None = None
    """So many replicas have a group's data. Default: 3, or all if there are fewer."""
    min_insync_replicas: Annotated[int, Field(ge=1)] = 1
    """With `acks: all`, writes are refused while fewer are in sync."""
    unclean_leader_election: bool = False
    """Whether a replica that is not in sync may lead if none that is can: what it lacks is lost."""
    replica_lag_time_max: PositiveDuration = 30.0
    """Who has not caught up with the leader for so long is not in sync any more."""
    broker_session_timeout: PositiveDuration = 9.0
    """Whom the controller has not heard for so long leads nothing, and is in sync nowhere."""
    leader_imbalance_check: PositiveDuration = 300.0
    """How often a group is given back to the replica that is to lead it."""
    replica_selector: Literal["leader", "rackAware"] = "leader"
    """Who answers reads: the leader, or a replica that is in sync in the zone of the one that is asked, with what it
    knows that all in sync have, which may be old."""


class StoreModel(Model):
    """A replicated store of keys and values: `PUT /KEY` writes the body, `GET /KEY` reads it."""

    mode: Literal["quorum", "isr", "async"] = "quorum"
    """How replicas agree, with a log for each group of partitions: `quorum` is Raft, `isr` Kafka's replication, in
    which a controller says who leads and who is in sync. `async`: not at all; whoever owns the partitions by the map
    that its proxy has takes their writes, and the others get them later."""
    isr: IsrModel | None = None
    """Settings of mode `isr`."""
    partitions: Annotated[int, Field(ge=1, le=MAX_PARTITIONS)] | None = None
    """Of its keys, by hash; with `spec.cells` they are those of the cells, by their rule. Default: one a group."""
    groups: Annotated[int, Field(ge=1, le=100)] = 1
    """Neighbouring partitions are in one of so many groups, each with a log and a leader. Replicas take turns to
    lead."""
    acks: Literal["quorum", "leader"] = "quorum"
    """When a write is acknowledged: when a majority has it on disk, or already when the leader has, which a new leader
    need not know."""
    election_timeout: PositiveDuration = 1.0
    """How long followers wait for a leader that is silent, each once to twice as long, before they elect another."""
    heartbeat: PositiveDuration | None = None
    """How often the leader says that it is there. Default: a tenth of `electionTimeout`."""
    snapshot_every: Annotated[int, Field(ge=10, le=1_000_000)] = 10_000
    """After so many writes a snapshot takes the place of the log."""
    primary_zone: str | None = None
    """Zone whose replicas are to lead while they can. Default: any leads, or where there are several groups, all in
    turn."""
