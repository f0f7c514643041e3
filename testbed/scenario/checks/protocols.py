"""Checks of what services speak, and of who can speak with them."""

from __future__ import annotations

from typing import Final

from testbed.documents.problems import Path
from testbed.objects.core import CAPTURE_PORTS
from testbed.scenario.checks.findings import Findings
from testbed.scenario.models.experiment import ScenarioModel

_NOT_HTTP: Final = {
    25: "SMTP",
    53: "DNS",
    1883: "MQTT",
    3306: "MySQL",
    5432: "PostgreSQL",
    5672: "AMQP",
    6379: "Redis",
    9042: "Cassandra",
    9092: "Kafka",
    11211: "memcached",
    27017: "MongoDB",
}
"""Ports by which Istio (ConvertProtocol: 25, 53, 3306, 27017) or its protocol sniffing finds TCP instead of HTTP."""


def check_protocols(model: ScenarioModel, findings: Findings) -> None:
    """What a service speaks must be known, be what its program speaks, and be what its callers speak."""
    for name, service in model.spec.services.items():
        here: Path = ("spec", "services", name)
        if not findings.is_whole(*here, "appProtocol"):
            continue
        if service.app_protocol is None:
            for key, port in (("port", service.port), ("containerPort", service.container_port)):
                if port in _NOT_HTTP:
                    message = f"{port} is the port of {_NOT_HTTP[port]}: write appProtocol: tcp"
                    findings.report((*here, key), f"{message}, or, if this is HTTP/1.1, appProtocol: http")
        if service.app_protocol == "tcp":
            if service.workload.command is None and findings.is_whole(*here, "workload"):
                what = "a store" if service.workload.store is not None else "the built-in workload"
                findings.report(
                    (*here, "appProtocol"), f"{what} speaks HTTP; tcp is for programs of your own (`command`)"
                )
            if service.class_ in ("sharded", "perCity"):
                message = f"{service.class_} is for calls, which carry a key; connections (appProtocol: tcp) do not"
                findings.report((*here, "class"), message)
    _check_callers(model, findings)


def _check_callers(model: ScenarioModel, findings: Findings) -> None:
    spoken = {name: service.app_protocol for name, service in model.spec.services.items()}
    tcp = {name for name, protocol in spoken.items() if protocol == "tcp"}
    for name, service in model.spec.services.items():
        here: Path = ("spec", "services", name)
        for stage, callees in enumerate(service.workload.calls):
            for index, callee in enumerate(callees):
                if callee in tcp:
                    message = f"{callee!r} speaks TCP, and the built-in workload calls by HTTP; use a `command`"
                    findings.report((*here, "workload", "calls", stage, index), message)
        if tcp and service.container_port in CAPTURE_PORTS:
            first, last = CAPTURE_PORTS[0], CAPTURE_PORTS[-1]
            message = f"{first} to {last} of a pod's address lead to services that speak TCP; choose another port"
            findings.report((*here, "containerPort"), message)
    for index, route in enumerate(model.spec.gateway.routes):
        if route.service in tcp:
            message = f"{route.service!r} speaks TCP, and gateways route HTTP; clients reach it through a service"
            findings.report(("spec", "gateway", "routes", index, "service"), message)
    for index, policy in enumerate(model.spec.mesh.policies):
        of_calls = {"timeout": policy.timeout is not None, "retries": "retries" in policy.model_fields_set}
        for key in (key for key, written in of_calls.items() if written and policy.service in tcp):
            message = f"is for calls; {policy.service!r} speaks TCP, of which only the trafficPolicy holds"
            findings.report(("spec", "mesh", "policies", index, key), message, at_key=True)
