"""The cluster as Kubernetes and Istio manifests, for reading: what a scenario would be on a real cluster.

Owns the form only; writing YAML is the command line's. What an object has beyond Kubernetes and Istio becomes an
annotation under `testbed/`; timings of the control plane are settings of its programs, not objects, and not here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any, Final

from testbed.control.cells.manifest import spec_of
from testbed.control.mesh.locality import HOSTNAME, REGION, SUBZONE, ZONE
from testbed.control.store import Store
from testbed.objects.cells import PartitionMap
from testbed.objects.cluster import Declared
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import (
    ConnectionPool,
    DestinationRule,
    Gateway,
    HttpRoute,
    Ingress,
    LocalityLoadBalancing,
    OutlierDetection,
    VirtualService,
)
from testbed.objects.metadata import Labels, host_of, selects
from testbed.objects.workloads import (
    BuiltinWorkload,
    CommandWorkload,
    Deployment,
    PodTemplate,
    Probe,
    StoreWorkload,
    WorkTime,
)

Manifest = dict[str, Any]

_ISTIO: Final = "networking.istio.io/v1"


def manifests(store: Store) -> list[Manifest]:
    """Plain dicts with apiVersion, kind, metadata and spec, in the order in which one would apply them.

    What is declared, and the present state of it. Without a mesh there are no objects of Istio's: an Ingress says what
    the gateways route.
    """
    services = {service.host: service for service in store.list(Service)}
    deployments = store.list(Deployment)
    in_mesh = [each for each in store.list(VirtualService) if not each.gateways]
    at_gateways = [each for each in store.list(VirtualService) if each.gateways]
    return [
        *(_node(node) for node in store.list(Node)),
        *(_service(service, deployments) for service in services.values()),
        *(_deployment(deployment) for deployment in deployments if deployment.template.node is None),
        *_daemon_sets(deployments),
        *(_pod(pod) for pod in store.list(Pod)),
        *(_endpoint_slice(slice_) for slice_ in store.list(EndpointSlice)),
        *(_ingress(ingress, services) for ingress in store.list(Ingress)),
        *(_destination_rule(rule) for rule in store.list(DestinationRule)),
        *(_virtual_service(each, services) for each in in_mesh),
        *(_gateway(gateway) for gateway in store.list(Gateway)),
        *(_virtual_service(each, services) for each in at_gateways),
        *({**_head("testbed/v1", "PartitionMap", each), "spec": spec_of(each)} for each in store.list(PartitionMap)),
    ]


# --- Kubernetes --------------------------------------------------------------------------------------------------


def _node(node: Node) -> Manifest:
    locality = node.locality
    labels = {HOSTNAME: node.name, REGION: locality.region, ZONE: locality.zone, **dict(node.labels)}
    if locality.subzone:
        labels[SUBZONE] = locality.subzone
    annotations = {f"testbed/relay.{destination}": str(address) for destination, address in node.relays}
    if node.lease_renewed_s is not None:
        annotations["testbed/lease-renewed"] = _seconds(node.lease_renewed_s)
    spec: dict[str, Any] = {"unschedulable": True} if node.unschedulable else {}
    if node.unreachable_since_s is not None:
        spec["taints"] = [{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}]
        annotations["testbed/unreachable-since"] = _seconds(node.unreachable_since_s)
    status = {
        "capacity": {"pods": str(node.capacity_pods)},
        "conditions": [{"type": "Ready", "status": node.ready}],
    }
    return {**_head("v1", "Node", node, labels, annotations), "spec": spec, "status": status}


def _service(service: Service, deployments: Iterable[Deployment]) -> Manifest:
    selected = (
        each.template.port
        for each in deployments
        if each.namespace == service.namespace and selects(service.selector, each.template.labels)
    )
    spec: dict[str, Any] = {
        "selector": dict(service.selector),
        "ports": [_service_port(service, next(selected, service.port))],
    }
    if service.traffic_distribution is not None:
        spec["trafficDistribution"] = service.traffic_distribution
    annotations = {} if service.service_class == "global" else {"testbed/class": service.service_class}
    return {**_head("v1", "Service", service, annotations=annotations), "spec": spec}


def _service_port(service: Service, target: int) -> Manifest:
    """Named by its protocol, which is how Istio knows it; `appProtocol` is written where it is not HTTP."""
    port: Manifest = {"name": service.app_protocol, "port": service.port, "targetPort": target}
    return port if service.app_protocol == "http" else {**port, "appProtocol": service.app_protocol}


def _deployment(deployment: Deployment) -> Manifest:
    template = deployment.template
    spread: dict[str, Any] = {
        "maxSkew": template.max_skew or 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "ScheduleAnyway" if template.max_skew is None else "DoNotSchedule",
        "labelSelector": {"matchLabels": dict(template.labels)},
    }
    pod_spec: dict[str, Any] = {"topologySpreadConstraints": [spread], **_pod_spec(template)}
    if template.zones:
        expression = {"key": ZONE, "operator": "In", "values": list(template.zones)}
        pod_spec["affinity"] = {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [{"matchExpressions": [expression]}]
                }
            }
        }
    metadata = {"labels": dict(template.labels), "annotations": _template_annotations(template)}
    return {
        **_head("apps/v1", "Deployment", deployment, dict(template.labels)),
        "spec": {
            "replicas": deployment.replicas,
            "selector": {"matchLabels": dict(template.labels)},
            "template": {"metadata": _without_empty(metadata), "spec": pod_spec},
        },
    }


def _daemon_sets(deployments: Iterable[Deployment]) -> list[Manifest]:
    """The Deployments that are pinned to a node each, as the one DaemonSet that they stand for."""
    pinned = {each.template.service: each for each in deployments if each.template.node is not None}
    return [
        {
            **_head("apps/v1", "DaemonSet", deployment, dict(template.labels), name=name),
            "spec": {
                "selector": {"matchLabels": dict(template.labels)},
                "template": {"metadata": {"labels": dict(template.labels)}, "spec": _pod_spec(template)},
            },
        }
        for name, deployment in pinned.items()
        for template in [deployment.template]
    ]


def _pod(pod: Pod) -> Manifest:
    annotations = _template_annotations(pod.template) | {"testbed/deployment": pod.deployment}
    status: dict[str, Any] = {
        "phase": "Running" if pod.phase == "Terminating" else pod.phase,
        "conditions": [{"type": "Ready", "status": str(pod.ready)}],
    }
    if pod.phase == "Terminating":
        annotations["testbed/phase"] = pod.phase
    if pod.reason:
        status["reason"] = pod.reason
    if pod.address is not None:
        status["podIP"] = pod.address.app.ip
        annotations["testbed/app"] = str(pod.address.app)
        if pod.template.mesh_mode != "none":
            annotations["testbed/inbound"] = str(pod.address.inbound)
            annotations["testbed/outbound"] = str(pod.address.outbound)
    status["containerStatuses"] = [
        {"name": container["name"], "ready": pod.ready, "restartCount": pod.restarts}
        for container in _pod_spec(pod.template)["containers"]
    ]
    spec = _pod_spec(pod.template)
    if pod.node is not None:
        spec["nodeName"] = pod.node
    head = _head("v1", "Pod", pod, dict(pod.template.labels), annotations)
    return {**head, "spec": spec, "status": status}


def _pod_spec(template: PodTemplate) -> dict[str, Any]:
    """The containers of a pod; its proxy is not among them, as an injector would add it."""
    container: dict[str, Any] = {
        "name": template.service,
        "image": "testbed/workload" if template.role == "service" else "istio/proxyv2",
        "ports": [{"name": "http", "containerPort": template.port}],
    }
    if isinstance(template.workload, CommandWorkload):
        container["image"] = "testbed/command"
        container["command"] = list(template.workload.command)
        container["env"] = [{"name": name, "value": value} for name, value in template.workload.env]
    if template.readiness is not None:
        container["readinessProbe"] = _probe(template.readiness, template.port)
    if template.liveness is not None:
        container["livenessProbe"] = _probe(template.liveness, template.port)
    return {"containers": [container]}


def _probe(probe: Probe, port: int) -> dict[str, Any]:
    action: dict[str, Any] = {"port": port}
    if probe.kind == "httpGet":
        action["path"] = probe.path
    elif probe.kind == "exec":
        action = {"command": list(probe.command)}
    # Kubernetes takes whole seconds here; shorter ones are in the annotations.
    return {
        probe.kind: action,
        "initialDelaySeconds": ceil(probe.initial_delay_s),
        "periodSeconds": ceil(probe.period_s),
        "timeoutSeconds": ceil(probe.timeout_s),
        "successThreshold": probe.success_threshold,
        "failureThreshold": probe.failure_threshold,
    }


def _template_annotations(template: PodTemplate) -> dict[str, str]:
    annotations: dict[str, str] = {}
    for name, probe in (("readiness", template.readiness), ("liveness", template.liveness)):
        if probe is not None:
            times = {"initial-delay": probe.initial_delay_s, "period": probe.period_s, "timeout": probe.timeout_s}
            fractions = {key: seconds for key, seconds in times.items() if seconds != int(seconds)}
            annotations |= {f"testbed/{name}-{key}": _seconds(seconds) for key, seconds in fractions.items()}
    workload = template.workload
    if isinstance(workload, BuiltinWorkload):
        annotations["testbed/work"] = _work(workload.work)
        annotations["testbed/response-bytes"] = str(workload.response_bytes)
        annotations["testbed/error-rate"] = str(workload.error_rate)
        if workload.crash_path is not None:
            annotations["testbed/crash-on"] = workload.crash_path
        if workload.stages:
            annotations["testbed/calls"] = "; ".join(",".join(stage) for stage in workload.stages)
    elif isinstance(workload, StoreWorkload):
        annotations["testbed/store-replica"] = workload.replica
        annotations["testbed/store-replicas"] = ",".join(each.name for each in workload.replicas)
        annotations["testbed/store-acks"] = workload.acks
        annotations["testbed/store-election-timeout"] = _seconds(workload.election_timeout_s)
        annotations["testbed/store-heartbeat"] = _seconds(workload.heartbeat_s)
        annotations["testbed/store-snapshot-entries"] = str(workload.snapshot_entries)
        annotations["testbed/store-groups"] = ",".join(f"{each.start}-{each.end - 1}" for each in workload.groups)
        for number, group in enumerate(workload.groups):
            if group.primaries:
                annotations[f"testbed/store-primaries-{number}"] = ",".join(group.primaries)
    return annotations


def _work(work: WorkTime) -> str:
    parameters = [f"mean={_seconds(work.mean_s)}"]
    if work.distribution in ("uniform", "lognormal"):
        parameters.append(f"spread={_seconds(work.spread_s)}")
    if work.distribution != "constant":
        parameters.append(f"seed={work.seed}")
    return f"{work.distribution}({', '.join(parameters)})"


def _ingress(ingress: Ingress, services: Mapping[str, Service]) -> Manifest:
    paths = [
        {
            "path": each.path,
            "pathType": "Prefix",
            "backend": {
                "service": {
                    "name": each.service,
                    "port": {"number": _port(host_of(each.service, ingress.namespace), services)},
                }
            },
        }
        for each in ingress.paths
    ]
    spec = {"ingressClassName": ingress.name, "rules": [{"http": {"paths": paths}}]}
    return {**_head("networking.k8s.io/v1", "Ingress", ingress), "spec": spec}


def _endpoint_slice(slice_: EndpointSlice) -> Manifest:
    """Kubernetes has one port for all endpoints of a slice; where they differ, each is in an annotation."""
    ports = sorted({endpoint.address.port for endpoint in slice_.endpoints})
    annotations = (
        {f"testbed/port.{endpoint.pod}": str(endpoint.address.port) for endpoint in slice_.endpoints}
        if len(ports) > 1
        else {}
    )
    labels = {"kubernetes.io/service-name": slice_.service}
    return {
        **_head("discovery.k8s.io/v1", "EndpointSlice", slice_, labels, annotations, name=slice_.service),
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": port} for port in ports[:1]],
        "endpoints": [_endpoint(endpoint) for endpoint in slice_.endpoints],
    }


def _endpoint(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "addresses": [endpoint.address.ip],
        "conditions": {"ready": True},
        "nodeName": endpoint.node,
        "zone": endpoint.locality.zone,
        "targetRef": {"kind": "Pod", "name": endpoint.pod},
    }


# --- Istio -------------------------------------------------------------------------------------------------------


def _destination_rule(rule: DestinationRule) -> Manifest:
    policy = rule.traffic_policy
    balancer: dict[str, Any] = {"simple": policy.load_balancer}
    if policy.locality is not None:
        balancer["localityLbSetting"] = _locality(policy.locality)
    traffic_policy: dict[str, Any] = {
        "loadBalancer": balancer,
        "connectionPool": _connection_pool(policy.connection_pool),
    }
    if policy.outlier_detection is not None:
        traffic_policy["outlierDetection"] = _outlier_detection(policy.outlier_detection)
    spec: dict[str, Any] = {"host": rule.host, "trafficPolicy": traffic_policy}
    if rule.subsets:
        spec["subsets"] = [{"name": subset.name, "labels": dict(subset.labels)} for subset in rule.subsets]
    return {**_head(_ISTIO, "DestinationRule", rule), "spec": spec}


def _locality(locality: LocalityLoadBalancing) -> dict[str, Any]:
    setting = {
        "distribute": [{"from": rule.source, "to": dict(rule.to)} for rule in locality.distribute],
        "failover": [{"from": source, "to": to} for source, to in locality.failover],
        "failoverPriority": list(locality.failover_priority),
    }
    return {"enabled": locality.enabled, **_without_empty(setting)}


def _connection_pool(pool: ConnectionPool) -> dict[str, Any]:
    tcp = {"connectTimeout": _seconds(pool.connect_timeout_s), "maxConnections": pool.max_connections}
    http = {
        "http1MaxPendingRequests": pool.http1_max_pending_requests,
        "http2MaxRequests": pool.http2_max_requests,
        "maxRetries": pool.max_retries,
        "maxRequestsPerConnection": pool.max_requests_per_connection,
        "idleTimeout": None if pool.idle_timeout_s is None else _seconds(pool.idle_timeout_s),
    }
    return _without_empty({"tcp": _without_empty(tcp), "http": _without_empty(http)})


def _outlier_detection(outliers: OutlierDetection) -> dict[str, Any]:
    return _without_empty(
        {
            "consecutive5xxErrors": outliers.consecutive_5xx_errors,
            "consecutiveGatewayErrors": outliers.consecutive_gateway_errors,
            "interval": _seconds(outliers.interval_s),
            "baseEjectionTime": _seconds(outliers.base_ejection_time_s),
            "maxEjectionPercent": outliers.max_ejection_percent,
            "minHealthPercent": outliers.min_health_percent,
        }
    )


def _virtual_service(virtual_service: VirtualService, services: Mapping[str, Service]) -> Manifest:
    spec: dict[str, Any] = {"hosts": list(virtual_service.hosts)}
    if virtual_service.gateways:
        spec["gateways"] = list(virtual_service.gateways)
    in_mesh = not virtual_service.gateways
    spec["http"] = [
        {
            **({"name": route.name} if route.name else {}),
            # At a gateway a path is always named; in the mesh `/` is what a route without match means.
            **({} if in_mesh and route.prefix == "/" else {"match": [{"uri": {"prefix": route.prefix}}]}),
            **_http_route(route, _port(host_of(route.destination, virtual_service.namespace), services)),
        }
        for route in virtual_service.http
    ]
    return {**_head(_ISTIO, "VirtualService", virtual_service), "spec": spec}


def _http_route(route: HttpRoute, port: int) -> dict[str, Any]:
    retries = route.retries
    retry: dict[str, Any] = {"attempts": retries.attempts}
    if retries.attempts > 0:
        # VirtualService has no field for the status codes: they stand among the conditions.
        retry["retryOn"] = ",".join([retries.retry_on, *map(str, retries.retriable_status_codes)])
        if retries.per_try_timeout_s is not None:
            retry["perTryTimeout"] = _seconds(retries.per_try_timeout_s)
    found: dict[str, Any] = {
        "route": [{"destination": {"host": route.destination, "port": {"number": port}}}],
        "retries": retry,
    }
    if route.timeout_s is not None:
        found["timeout"] = _seconds(route.timeout_s)
    return found


def _gateway(gateway: Gateway) -> Manifest:
    server = {"port": {"number": 80, "name": "http", "protocol": "HTTP"}, "hosts": ["*"]}
    spec = {"selector": dict(gateway.selector), "servers": [server]}
    return {**_head(_ISTIO, "Gateway", gateway), "spec": spec}


# --- parts -------------------------------------------------------------------------------------------------------


def _head(
    api_version: str,
    kind: str,
    declared: Declared | Pod | EndpointSlice,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    name: str = "",
) -> Manifest:
    """The namespace is written where it is not `default`; without `name` the object's own is."""
    own_labels: Labels = () if isinstance(declared, Pod | EndpointSlice) else declared.labels
    namespace = "default" if isinstance(declared, Node) else declared.namespace
    metadata = {
        "name": name or ("" if isinstance(declared, EndpointSlice) else declared.name),
        "namespace": None if namespace == "default" else namespace,
        "labels": {**dict(own_labels), **(labels or {})},
        "annotations": annotations or {},
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": _without_empty(metadata)}


def _port(host: str, services: Mapping[str, Service]) -> int:
    return services[host].port if host in services else 80


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != [] and value != {}}


def _seconds(seconds: float) -> str:
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"
