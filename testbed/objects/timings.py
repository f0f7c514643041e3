"""Every timing of the control plane."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timings:
    """Every timing of the control plane. The defaults are Kubernetes' and Istio's own (the `kubernetes` profile)."""

    lease_renew_s: float = 10.0
    lease_grace_s: float = 40.0
    node_monitor_s: float = 5.0
    unreachable_toleration_s: float = 300.0
    eviction_rate_per_s: float = 0.1
    restart_backoff_initial_s: float = 10.0
    restart_backoff_max_s: float = 300.0
    restart_backoff_reset_s: float = 600.0
    master_restart_s: float = 10.0
    """From when a master is killed to when the next process begins: kubelets restart static pods like all others."""
    election_timeout_s: float = 1.0
    """Of the log that several masters have: etcd's --election-timeout."""
    leader_elect_lease_duration_s: float = 15.0
    """As long as the controllers' Lease is not renewed, nobody else takes it: --leader-elect-lease-duration."""
    leader_elect_renew_deadline_s: float = 10.0
    leader_elect_retry_period_s: float = 2.0
    push_debounce_s: float = 0.1
    push_debounce_max_s: float = 10.0
    entry_check_interval_s: float = 10.0
    entry_check_timeout_s: float = 4.0
    entry_failure_threshold: int = 3
    entry_ttl_s: float = 60.0

    @property
    def lease_patience_s(self) -> float:
        """For how long a kubelet can be held up before its lease may expire."""
        return self.lease_grace_s - self.lease_renew_s

    @property
    def entry_patience_s(self) -> float:
        """For how long checks of a gateway have to fail before clients leave it."""
        return (self.entry_failure_threshold - 1) * self.entry_check_interval_s + self.entry_check_timeout_s
