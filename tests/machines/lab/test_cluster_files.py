"""The cluster files of the repository, against Ray's own schema and against the lab."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from testbed.machines.lab.plan import DEFAULT_ZONES, LabPlan

REPOSITORY = Path(__file__).parents[3]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((REPOSITORY / name).read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.aws.yaml"])
def test_ray_accepts_the_cluster_file(name: str) -> None:
    validate_config(prepare_config(load(name)))


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster.aws.yaml"])
def test_what_is_copied_to_machines_exists(name: str) -> None:
    mounts = load(name)["file_mounts"]
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    assert all((REPOSITORY / source).exists() for source in mounts.values())


def test_the_cluster_file_names_the_machines_of_a_lab_as_it_is_without_options() -> None:
    head, *workers = LabPlan().machines
    config = load("cluster.yaml")
    assert config["provider"] == {
        "type": "local",
        "head_ip": head.address,
        "worker_ips": [worker.address for worker in workers],
    }
    assert config["min_workers"] == config["max_workers"] == len(workers)


def test_on_aws_every_zone_is_a_node_type_with_its_label() -> None:
    types = load("cluster.aws.yaml")["available_node_types"]
    assert {name: fields.get("labels") for name, fields in types.items()} == {
        "head": None,
        **{zone: {"testbed.zone": zone} for zone in DEFAULT_ZONES},
    }


def test_on_kubernetes_every_zone_is_a_worker_group_with_its_label_and_affinity() -> None:
    groups = load("cluster.kuberay.yaml")["spec"]["workerGroupSpecs"]
    assert [group["labels"]["testbed.zone"] for group in groups] == list(DEFAULT_ZONES)
    places = [expression for group in groups for expression in zone_expressions(group)]
    assert len({tuple(place["values"]) for place in places}) == len(DEFAULT_ZONES)
    assert {place["key"] for place in places} == {"topology.kubernetes.io/zone"}


def zone_expressions(group: dict[str, Any]) -> Iterator[dict[str, Any]]:
    affinity = group["template"]["spec"]["affinity"]["nodeAffinity"]
    for term in affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]:
        yield from term["matchExpressions"]
