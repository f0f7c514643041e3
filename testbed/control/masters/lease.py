"""When whoever leads the log may run the controllers, and how long: the rules of client-go's leader election.

(k8s.io/client-go/tools/leaderelection: a Lease is taken when its holder has not renewed it for its duration, as seen
here; who tries looks again after a retry period times 1 to 2.2, who holds it renews it every retry period.)
"""

from __future__ import annotations

from random import Random

from testbed.objects.core import Lease
from testbed.objects.timings import Timings

CONTROLLERS = "kube-controller-manager"
"""The name of the Lease."""
_JITTER_FACTOR = 1.2


class LeaseKeeper:
    """Of one master. Times are seconds of its own clock."""

    def __init__(self, identity: str, timings: Timings, random: Random) -> None:
        """`identity` is of this life of it: who comes back is another."""
        self.identity = identity
        self._timings = timings
        self._random = random
        self._lease: Lease | None = None
        self._seen_s = 0.0
        self._look_s = 0.0

    def see(self, lease: Lease, now_s: float) -> None:
        """It has been written, and is committed."""
        self._lease, self._seen_s = lease, now_s

    @property
    def is_held(self) -> bool:
        return self._lease is not None and self._lease.holder == self.identity

    def lead(self, now_s: float) -> None:
        """Of the log."""
        self._look_s = now_s

    def next_deadline(self) -> float:
        return self._look_s

    def to_write(self, now_s: float) -> Lease | None:
        """To take or to renew it, if it is time; at `next_deadline`."""
        if now_s < self._look_s:
            return None
        lease, timings = self._lease, self._timings
        expired = now_s >= self._seen_s + timings.leader_elect_lease_duration_s
        if lease is None or not lease.holder or self.is_held or expired:
            self._look_s = now_s + timings.leader_elect_retry_period_s
            return self._renewed(self.identity)
        self._look_s = now_s + timings.leader_elect_retry_period_s * (1.0 + _JITTER_FACTOR * self._random.random())
        return None

    def to_release(self, identity: str) -> Lease | None:
        """Of a master that follows now, if it holds it."""
        return self._renewed("") if self._lease is not None and self._lease.holder == identity else None

    def is_lost(self, now_s: float) -> bool:
        """Whoever cannot renew it stops before anybody else takes it."""
        return self.is_held and now_s >= self._seen_s + self._timings.leader_elect_renew_deadline_s

    def _renewed(self, holder: str) -> Lease:
        return Lease(CONTROLLERS, holder, 1 + (0 if self._lease is None else self._lease.renewals))
