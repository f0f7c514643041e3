"""The parts of route configurations: virtual hosts of services, and what a route does with a call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from testbed.control.views.envoy.access_log import INBOUND, PEER_HEADER
from testbed.control.views.envoy.envoy_api import ROUTE_TYPE, TYPES, Resource, duration, header
from testbed.objects.core import Service
from testbed.objects.mesh import HttpRoute, Retries

BLOCKED: Final = "block_all"
"""Istio's name of the virtual host for what is no service, and of its route."""


def inbound_routes(name: str, routes: Sequence[Mapping[str, Any]]) -> Resource:
    return {
        "@type": ROUTE_TYPE,
        "name": name,
        "validate_clusters": False,
        "virtual_hosts": [{"name": INBOUND, "domains": ["*"], "routes": list(routes)}],
    }


def outbound_routes(name: str, hosts: Sequence[Mapping[str, Any]], caller: str | None) -> Resource:
    """`caller` is the pod to be named as such, None where a filter does that."""
    # Istio's outboundTrafficPolicy REGISTRY_ONLY: calls to anything but a service are answered 502.
    blocked = {
        "name": BLOCKED,
        "domains": ["*"],
        "routes": [{"name": BLOCKED, "match": {"prefix": "/"}, "direct_response": {"status": 502}}],
    }
    return {
        "@type": ROUTE_TYPE,
        "name": name,
        "validate_clusters": False,
        "virtual_hosts": [*hosts, blocked],
        **({} if caller is None else {"request_headers_to_add": [header(PEER_HEADER, caller)]}),
    }


def domains(service: Service, namespace: str) -> list[str]:
    """Every name by which a pod of a namespace can call a service, with and without port."""
    qualified = f".{service.namespace}"
    suffixes = (qualified, f"{qualified}.svc", f"{qualified}.svc.cluster.local")
    names = ("", *suffixes) if namespace == service.namespace else suffixes
    return [f"{service.name}{suffix}{port}" for suffix in names for port in ("", f":{service.port}")]


def route_action(route: HttpRoute, cluster: str) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": cluster, "timeout": duration(route.timeout_s or 0.0)}
    if route.retries.attempts > 0:
        action["retry_policy"] = _retry_policy(route.retries)
    return action


def _retry_policy(retries: Retries) -> dict[str, Any]:
    """Source: Istio 1.32, pilot/pkg/networking/core/route/retry/retry.go. Back-off is Envoy's default, written out.

    Until 1.23 Istio also retried 503 (EXCLUDE_UNSAFE_503_FROM_DEFAULT_RETRY): an answer, after which the work may be
    done. Now only a policy that names 503 or `gateway-error` has that.
    """
    policy: dict[str, Any] = {
        "retry_on": retries.retry_on,
        "num_retries": retries.attempts,
        "retriable_status_codes": list(retries.retriable_status_codes),
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": TYPES + "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    if retries.per_try_timeout_s is not None:
        policy["per_try_timeout"] = duration(retries.per_try_timeout_s)
    return policy
