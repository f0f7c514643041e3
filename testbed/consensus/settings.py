"""How long replicas wait for each other, and how much they send at once."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    election_timeout_s: float
    """T: each follower waits for a random time in [T, 2T] (3.4). A leader steps down that has not heard from a majority
    for T (6.2), gives up a transfer after T, and sends a snapshot again after T."""
    heartbeat_s: float
    """Well below T, so that a lost heartbeat or two elect nobody."""
    commits_at_once: bool = True
    """Whether followers are told at once what is committed, or with the next entries or heartbeat: half as many
    messages, for who needs it at the leader only."""
    entries_per_message: int = 64
    entries_in_flight: int = 1024
    """Beyond what a follower has acknowledged; then its leader waits for it."""

    def __post_init__(self) -> None:
        assert 0 < self.heartbeat_s < self.election_timeout_s
