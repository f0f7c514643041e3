"""The JSON Schema, held against `check`: it takes what is right, and refuses what a schema can know to be wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from testbed.documents.overrides import override
from testbed.documents.source import read_source
from testbed.scenario import ScenarioError, json_schema, load_scenario

ROOT = Path(__file__).parents[2]
SCHEMA = json_schema()
VALIDATOR = Draft202012Validator(SCHEMA)
FILES = sorted([*(ROOT / "scenarios").glob("*.yaml"), *(ROOT / "tests" / "emulation" / "scenarios").glob("*.yaml")])

WHOLE = """
apiVersion: testbed/v1
kind: Scenario
metadata: {name: whole, description: Every kind of thing.}
spec:
  topology:
    regions:
      east: {zones: {east-a: {nodes: 2}, east-b: {nodes: [{name: big, capacityPods: 4}, {}], capacityPods: 9}}}
      west: {zones: {west-a: {nodes: 1}}}
    links: {sameZone: {jitter: 1ms}, between: [{zones: [east-a, west-a], rtt: 10ms, loss: 1%, bandwidth: 1mbit}]}
  controlPlane: {profile: kubernetes, zone: east-a, timings: {evictionRate: 2/s, entryFailureThreshold: 2}}
  services:
    web: {workload: {calls: [orders, [stock, orders]], work: 2ms}, livenessProbe: {exec: {command: ["true"]}}}
    orders: {workload: {work: {distribution: uniform, mean: 2ms, spread: 1ms}, errorRate: 1%, responseSize: 2kB}}
    stock: {workload: {command: [server], env: {A: b}}, readinessProbe: {tcpSocket: {}, period: 1s}}
  gateway: {routes: [{path: /, service: web}]}
  mesh:
    policies:
      - {service: web, trafficPolicy: {loadBalancer: {localityLbSetting: {failover: [{from: east, to: west}]}}}}
      - {service: "*", retries: {attempts: 0}, timeout: 2s}
  load: {sources: [{zone: east-a, rate: 10/s}, {zone: west-a, users: 2, thinkTime: 0s}], requests: [{weight: 2}]}
  faults:
    - {name: power, at: 10s, for: 2s, crash: {zone: east-b}}
    - {name: end, at: 15s, kill: {service: web, count: 1}}
    - {name: split, at: 20s, for: 1s, cut: {from: east-a, to: "*", direction: oneWay}}
    - {name: slow, at: 22s, for: 1s, degrade: {from: [east-a], to: west-a, loss: 1%}}
    - {name: m2, at: 30s, machine: m2, powerOff: {}}
  expect:
    - {metric: success_rate, when: steady, atLeast: 99.9%}
    - {metric: latency_p99, when: during, fault: slow, atMost: 300ms}
    - {metric: errors, atMost: 0}
    - {metric: time_to_recover, fault: power, atMost: 3s}
    - {metric: time_to_recover, fault: power, origin: east-a, atMost: 3s}
    - {metric: time_to_recover, fault: power, service: web, atMost: 3s}
    - {metric: same_zone_share, service: orders, atLeast: 0%, atMost: 100%}
    - {metric: cross_zone_bytes, when: steady, atMost: 2.5GB}
  recovery: {atLeast: 95%, window: 500ms, relativeToSteady: false}
  prices: {currency: EUR, sameRegion: {out: 0.012/GB}, crossRegion: {out: 0.05/GB, in: 0/GB}}
"""


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = tmp_path / "whole.yaml"
    path.write_text(WHOLE)
    return path


def complaints(path: Path, *overrides: str) -> list[str]:
    source = read_source(path)
    for assignment in overrides:
        override(source, assignment)
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(source.data)]


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_the_whole_language_is_taken_as_it_is_written_and_as_it_is_resolved(whole: Path) -> None:
    assert complaints(whole) == []
    whole.write_text(load_scenario(whole).resolved_yaml())
    assert complaints(whole) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_scenario_is_taken_as_it_is_written_and_as_it_is_resolved(path: Path, tmp_path: Path) -> None:
    assert complaints(path) == []
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(load_scenario(path).resolved_yaml())
    assert complaints(resolved) == []


def test_the_scenario_of_the_readme_is_taken() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    scenarios = [block for block in blocks if block.startswith("apiVersion")]
    assert scenarios
    assert [list(VALIDATOR.iter_errors(yaml.safe_load(block))) for block in scenarios] == [[]] * len(scenarios)


def _defaults(node: Any, path: str = "$") -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        if "default" in node:
            yield path, node
        for key, value in node.items():
            yield from _defaults(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _defaults(value, f"{path}[{index}]")


def test_every_default_keeps_its_own_type() -> None:
    found = list(_defaults(SCHEMA))
    assert len(found) > 60
    for path, node in found:
        errors = list(Draft202012Validator({**node, "$defs": SCHEMA["$defs"]}).iter_errors(node["default"]))
        assert not errors, f"{path}: {errors[0].message}"


def test_defaults_are_shown_as_one_would_write_them() -> None:
    outliers = SCHEMA["$defs"]["OutlierDetectionModel"]["properties"]
    assert [outliers[key]["default"] for key in ("interval", "maxEjectionPercent")] == ["10s", 10]


@pytest.mark.parametrize(
    "assignment",
    [
        "metadata.name=Not_A_Name",
        "kind=Deployment",
        "spec.zones={}",
        "spec.topology.regions={}",
        "spec.topology.regions.east.zones.east-a.nodes=0",
        "spec.topology.regions.east.zones.east-a.nodes=251",
        "spec.topology.regions.east.zones.East={nodes: 1}",
        "spec.topology.links.sameZone.rtt=5",
        "spec.topology.links.sameZone.loss=0.01",
        "spec.topology.links.sameZone.bandwidth=0mbit",
        "spec.topology.links.between[0].zones=[east-a]",
        "spec.controlPlane.profile=slow",
        "spec.controlPlane.timings.leaseRenew=0s",
        "spec.services.web.replicas=-1",
        "spec.services.web.workload.work=fast",
        "spec.services.web.workload.work={distribution: lognormal, mean: 2ms}",
        "spec.services.web.workload.calls=[[]]",
        "spec.services.web.workload.env={A: b}",
        "spec.services.stock.workload.errorRate=1%",
        "spec.services.stock.workload.calls=[web]",
        "spec.services.stock.readinessProbe={period: 1s}",
        "spec.services.stock.readinessProbe={tcpSocket: {}, httpGet: {}}",
        "spec.services.orders.workload.responseSize=2kb",
        "spec.gateway.routes[0].path=orders",
        "spec.mesh.mode=ambient",
        "spec.mesh.policies[0].trafficPolicy.loadBalancer.localityLbSetting.distribute=[{from: '*', to: {'*': 100}}]",
        "spec.mesh.policies[0].trafficPolicy.loadBalancer.localityLbSetting.failoverPriority="
        "[topology.kubernetes.io/zone]",
        "spec.mesh.policies[0].trafficPolicy.loadBalancer.localityLbSetting={distribute: [{from: '*', to: {'*': 0}}]}",
        "spec.mesh.policies[1].retries.retryOn=5xx",
        "spec.load.sources[0].users=3",
        "spec.load.sources[0]={zone: east-a}",
        "spec.load.sources[0].thinkTime=1s",
        "spec.load.sources[1].arrival=constant",
        "spec.load.locustfile=whole.yaml",
        "spec.load.requests[0].weight=0",
        "spec.faults[power].for=",
        "spec.faults[power].kill={pod: web-1}",
        "spec.faults[power].crash={}",
        "spec.faults[power].crash={zone: east-a, node: big}",
        "spec.faults[power].crash=",
        "spec.faults[power].machine=m1",
        "spec.faults[end].for=2s",
        "spec.faults[end].kill={pod: web-1, count: 1}",
        "spec.faults[end].kill={service: web, count: 0}",
        "spec.faults[slow].degrade={from: east-a, to: west-a}",
        "spec.faults[slow].degrade.direction=back",
        "spec.faults[m2].machine=",
        "spec.expect[0].metric=sucess_rate",
        "spec.expect[0].atLeast=",
        "spec.expect[0].atLeast=0.99",
        "spec.expect[0].atLeast=3s",
        "spec.expect[0].fault=power",
        "spec.expect[0].service=web",
        "spec.expect[1].atMost=99%",
        "spec.expect[1].fault=",
        "spec.expect[2].atMost=1%",
        "spec.expect[2].atMost=-1",
        "spec.expect[3].fault=",
        "spec.expect[3].when=during",
    ],
)
def test_what_check_refuses_and_a_schema_can_know_is_refused(whole: Path, assignment: str) -> None:
    with pytest.raises(ScenarioError):
        load_scenario(whole, [assignment])
    assert complaints(whole, assignment)


def test_every_key_is_described() -> None:
    for name, model in {"ScenarioModel": SCHEMA, **SCHEMA["$defs"]}.items():
        for key, value in model.get("properties", {}).items():
            meant = value if "description" in value else SCHEMA["$defs"][value["$ref"].removeprefix("#/$defs/")]
            assert meant["description"], f"{name}.{key}"
