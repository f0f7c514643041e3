"""What `testbed render` shows of each mesh mode."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from testbed.control.dry_run import DryRun, UnknownProxy
from testbed.network.addresses.loopback import LoopbackNetwork
from testbed.objects.workloads import MeshMode
from testbed.scenario import load_scenario

SCENARIO = Path(__file__).parents[1] / "emulation" / "scenarios" / "modes.yaml"


def dry_run(mode: MeshMode) -> DryRun:
    scenario = load_scenario(SCENARIO, [f"spec.mesh.mode={mode}"])
    network = LoopbackNetwork(1, [place.name for place in scenario.topology.places])
    return DryRun(scenario.cluster, network.allocate_pod, network.relay_listener)


def kinds(manifests: list[dict[str, Any]]) -> Counter[str]:
    return Counter(manifest["kind"] for manifest in manifests)


def names(resources: list[Any]) -> list[str]:
    return [resource["name"] for resource in resources if resource["@type"].endswith("Listener")]


@pytest.mark.parametrize("mode", ["sidecar", "node", "none"])
def test_every_pod_is_ready_in_every_mode(mode: MeshMode) -> None:
    assert all(pod.ready for pod in dry_run(mode).pods())


def test_node_proxies_are_a_daemon_set_with_a_pod_on_every_node() -> None:
    cluster = dry_run("node")
    assert kinds(cluster.manifests())["DaemonSet"] == 1
    proxies = {pod.name: pod.node for pod in cluster.pods() if pod.template.role == "node-proxy"}
    assert proxies == {"node-proxy-east-a-1-1": "east-a-1", "node-proxy-east-b-1-1": "east-b-1"}
    told = cluster.proxy_resources("node-proxy-east-a-1-1")
    assert names(told) == ["inbound|web-1", "outbound|web-1", "inbound|orders-1", "outbound|orders-1"]


def test_without_a_mesh_there_is_an_ingress_and_nothing_of_istio() -> None:
    cluster = dry_run("none")
    found = kinds(cluster.manifests())
    assert found["Ingress"] == 1
    assert not {"DaemonSet", "DestinationRule", "VirtualService", "Gateway"} & set(found)
    assert [each["service"] for each in cluster.proxy_resources("kube-proxy/east-a-1")] == ["web", "orders"]


def test_a_proxy_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(UnknownProxy, match=r"'web-1'.*gateway-east-a-1.*kube-proxy/east-b-1"):
        dry_run("none").proxy_resources("web-1")
