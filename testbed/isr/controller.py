"""What the broker that leads the controllers decides, for as long as it does."""

from __future__ import annotations

from dataclasses import replace

from testbed.isr.messages import AlterPartition, BrokerHeartbeat
from testbed.isr.metadata import Cluster, altered, fenced, rebalanced, registered
from testbed.isr.settings import Settings


class Controller:
    """Begins with the state that the controllers' log has led to. It gives everybody a whole session first: nobody is
    taken for dead whom another controller has heard (Kafka's BrokerHeartbeatManager)."""

    def __init__(self, cluster: Cluster, settings: Settings, now_s: float) -> None:
        self._settings = settings
        self._heard_s = dict.fromkeys(cluster.brokers_alive, now_s)
        self._incarnations: dict[str, str] = {}
        """Of those that were heard, and are to be registered once an earlier incarnation is not alive any more."""
        self._rebalance_at_s = now_s + settings.leader_imbalance_check_s
        self._requests: dict[int, AlterPartition] = {}

    def hear(self, beat: BrokerHeartbeat, cluster: Cluster, now_s: float) -> None:
        """A session is of an incarnation: another one waits until it has expired (DUPLICATE_BROKER_REGISTRATION)."""
        current = dict(cluster.alive).get(beat.sender, beat.incarnation)
        if current == beat.incarnation:
            self._heard_s[beat.sender] = now_s
            self._incarnations[beat.sender] = beat.incarnation

    def ask(self, request: AlterPartition) -> None:
        """The last request counts, as each says all that its sender wants."""
        self._requests[request.partition] = request

    def next_cluster(self, cluster: Cluster, now_s: float) -> Cluster | None:
        """What is to follow `cluster`, if anything is. To be asked again when that has come about, or has not."""
        new, unclean = cluster, self._settings.unclean_leader_election
        for name in cluster.brokers_alive:
            if now_s >= self._expires_s(name):
                new = fenced(new, name, unclean)
                self._incarnations.pop(name, None)
        for name, incarnation in self._incarnations.items():
            if name not in new.brokers_alive and now_s < self._expires_s(name):
                new = registered(new, name, incarnation, unclean)
        for request in self._requests.values():
            new = altered(new, request)
        self._requests = {}
        if now_s >= self._rebalance_at_s:
            self._rebalance_at_s = now_s + self._settings.leader_imbalance_check_s
            new = rebalanced(new)
        return None if new == cluster else replace(new, version=cluster.version + 1)

    def next_deadline(self, cluster: Cluster) -> float:
        return min([self._rebalance_at_s, *map(self._expires_s, cluster.brokers_alive)])

    def _expires_s(self, name: str) -> float:
        return self._heard_s[name] + self._settings.broker_session_timeout_s
