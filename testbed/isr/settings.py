"""How long brokers wait for each other, and what counts as written. Defaults are Kafka's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    min_insync_replicas: int = 1
    """Below so many in sync, writes with acks=all are refused."""
    unclean_leader_election: bool = False
    """Whether a replica that is not in sync may lead when none is that is: what it lacks is lost."""
    replica_lag_time_max_s: float = 30.0
    """Who has not caught up with the leader for so long is not in sync any more."""
    fetch_wait_max_s: float = 0.5
    """So long a leader keeps a fetch that it has nothing for. An answer that does not come in twice the time is given
    up: Kafka's connections would tell."""
    fetch_backoff_s: float = 1.0
    """After an answer that the one who was asked does not lead."""
    broker_heartbeat_s: float = 2.0
    broker_session_timeout_s: float = 9.0
    """Who has not been heard for so long is fenced: in no ISR, and no leader."""
    leader_imbalance_check_s: float = 300.0
    """How often the controller makes the first replica of a partition its leader again, if it is in sync."""
    entries_per_fetch: int = 256
    follower_reads: bool = False
    """Whether a follower that is in sync, as far as it knows, answers reads (KIP-392)."""
    durable_only: bool = False
    """Followers get what their leader has on disk, and not what it may lose yet: then one that comes back can go on in
    the same epoch, as nobody has entries of it that it lacks (MySQL's `sync_binlog=1`)."""
