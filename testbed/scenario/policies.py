"""From the mesh policies of a scenario to what holds for one service: a TrafficPolicy, and a route to it."""

from __future__ import annotations

from typing import Literal

from testbed.objects.mesh import (
    ConnectionPool,
    HttpRoute,
    LocalityDistribution,
    LocalityLoadBalancing,
    OutlierDetection,
    Retries,
    TrafficPolicy,
)
from testbed.scenario.models.traffic import (
    ConnectionPoolModel,
    LocalityLbModel,
    MeshModel,
    OutlierDetectionModel,
    PolicyModel,
    RetriesModel,
)

RETRY_CONDITIONS = (
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
)
"""Envoy's `x-envoy-retry-on` and `x-envoy-retry-grpc-on`."""


def winning_policy(service: str, mesh: MeshModel) -> PolicyModel | None:
    """The policy that names the service, else that of `*`; whole, as with Istio's DestinationRules."""
    for wanted in (service, "*"):
        for policy in mesh.policies:
            if policy.service == wanted:
                return policy
    return None


def traffic_distribution(asked: str | None) -> Literal["PreferSameZone", "PreferSameNode"] | None:
    """Kubernetes' current name of what is asked for."""
    if asked is None:
        return None
    return "PreferSameNode" if asked == "PreferSameNode" else "PreferSameZone"


def traffic_policy(policy: PolicyModel | None) -> TrafficPolicy:
    """The rules of a policy; Istio's defaults where there is none."""
    if policy is None:
        return TrafficPolicy()
    rules = policy.traffic_policy
    detection, locality = rules.outlier_detection, rules.load_balancer.locality_lb_setting
    return TrafficPolicy(
        load_balancer=rules.load_balancer.simple,
        locality=None if locality is None else _locality(locality),
        connection_pool=_pool(rules.connection_pool),
        outlier_detection=None if detection is None else _outliers(detection),
    )


def http_route(name: str, service: str, policy: PolicyModel | None, prefix: str = "/") -> HttpRoute:
    """The route to a service with the time-out and retries of its policy; Istio's defaults where there is none."""
    if policy is None:
        return HttpRoute(service, prefix, name=name)
    return HttpRoute(service, prefix, policy.timeout, _retries(policy.retries), name)


def _locality(setting: LocalityLbModel) -> LocalityLoadBalancing:
    return LocalityLoadBalancing(
        enabled=setting.enabled,
        distribute=tuple(LocalityDistribution(d.from_, tuple(d.to.items())) for d in setting.distribute),
        failover=tuple((f.from_, f.to) for f in setting.failover),
        failover_priority=tuple(setting.failover_priority),
    )


def _pool(pool: ConnectionPoolModel) -> ConnectionPool:
    return ConnectionPool(
        connect_timeout_s=pool.tcp.connect_timeout,
        max_connections=pool.tcp.max_connections,
        http1_max_pending_requests=pool.http.http1_max_pending_requests,
        http2_max_requests=pool.http.http2_max_requests,
        max_retries=pool.http.max_retries,
        max_requests_per_connection=pool.http.max_requests_per_connection,
        idle_timeout_s=pool.http.idle_timeout,
    )


def _outliers(detection: OutlierDetectionModel) -> OutlierDetection:
    return OutlierDetection(
        consecutive_5xx_errors=detection.consecutive_5xx_errors,
        consecutive_gateway_errors=detection.consecutive_gateway_errors,
        interval_s=detection.interval,
        base_ejection_time_s=detection.base_ejection_time,
        max_ejection_percent=detection.max_ejection_percent,
        min_health_percent=detection.min_health_percent,
    )


def _retries(retries: RetriesModel) -> Retries:
    if retries.retry_on is None:
        return Retries(retries.attempts, retries.per_try_timeout)
    # Istio splits retryOn (pilot/pkg/networking/core/route/retry/retry.go): numbers are status codes, and a retryOn of
    # one's own replaces the default codes as well.
    terms = retry_terms(retries.retry_on)
    codes = tuple(int(term) for term in terms if term.isdecimal())
    conditions = [term for term in terms if not term.isdecimal()]
    if codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    return Retries(retries.attempts, retries.per_try_timeout, ",".join(conditions), codes)


def retry_terms(retry_on: str) -> list[str]:
    """The conditions and status codes of a retryOn."""
    return [term.strip() for term in retry_on.split(",") if term.strip()]
