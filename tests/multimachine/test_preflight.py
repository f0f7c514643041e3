"""Machines tried before `ray up`: a login that is refused, silence, another version are one line each."""

from __future__ import annotations

import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testbed.machines.lab.keys import make_key
from tests.multimachine.conftest import COMMAND, ROOT, STRANGER, Cluster

pytestmark = pytest.mark.live

WITHIN_S = 120.0
"""A machine that is silent takes 10 s."""


@pytest.fixture
def cluster_file(cluster: Cluster, tmp_path: Path) -> Path:
    """That of the repository, for the cluster's machines and one more."""
    text = (ROOT / "cluster.yaml").read_text().replace("198.18.0.", "198.18.78.")
    path = tmp_path / "cluster.yaml"
    text = text.replace("198.18.78.14]", f"198.18.78.14, {cluster.address(STRANGER)}]")
    path.write_text(text.replace("_workers: 3", "_workers: 4"))
    return path


def preflight(cluster: Cluster, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "preflight", str(file)], env=cluster.env, cwd=ROOT, capture_output=True, text=True, timeout=WITHIN_S
    )


def assert_one_problem(tried: subprocess.CompletedProcess[str], written_at: str, message: str) -> None:
    (line,) = tried.stderr.splitlines()
    assert f": {written_at}: {message}" in line
    assert (tried.returncode, tried.stdout) == (2, "")


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    aside = path.rename(path.with_name(f"{path.name}.aside"))
    try:
        yield
    finally:
        aside.replace(path)


def test_machines_on_which_all_is_well_are_shown_with_their_zones(cluster: Cluster, cluster_file: Path) -> None:
    tried = preflight(cluster, cluster_file)
    assert (tried.returncode, tried.stderr) == (0, "")
    rows = [line.split() for line in tried.stdout.splitlines()[1:]]
    assert [row[:2] for row in rows] == [[machine.address, machine.zone or "-"] for machine in cluster.plan.machines]


def test_a_wrong_key_is_one_error(cluster: Cluster, cluster_file: Path, tmp_path: Path) -> None:
    make_key(tmp_path / "wrong", "wrong")
    text = cluster_file.read_text()
    cluster_file.write_text(text.replace("~/.testbed/lab/id_ed25519", str(tmp_path / "wrong")))
    reason = f"{cluster.address('m1')} does not let root in with the key {tmp_path}/wrong ("
    assert_one_problem(preflight(cluster, cluster_file), "provider.head_ip", reason)


def test_a_worker_that_does_not_know_the_key_is_named(cluster: Cluster, cluster_file: Path) -> None:
    with moved_away(cluster.plan.state_dir / "homes" / STRANGER / ".ssh" / "authorized_keys"):
        tried = preflight(cluster, cluster_file)
    assert_one_problem(tried, "provider.worker_ips[3]", f"{cluster.address(STRANGER)} does not let root in")


def test_a_worker_that_the_head_cannot_reach_is_named(cluster: Cluster, cluster_file: Path) -> None:
    cluster.lab("cut", "m1", STRANGER)
    try:
        tried = preflight(cluster, cluster_file)
    finally:
        cluster.lab("heal", "m1", STRANGER)
    assert_one_problem(tried, "provider.worker_ips[3]", f"{cluster.address(STRANGER)} cannot be reached (")


def test_a_worker_with_another_ray_is_named(cluster: Cluster, cluster_file: Path) -> None:
    environment = cluster.plan.state_dir / "homes" / STRANGER / "testbed-env"
    other = environment.with_name("other-env")
    venv.create(other, symlinks=True)
    (packages,) = other.glob("lib/python*/site-packages")
    (packages / "ray-2.0.1.dist-info").mkdir()
    (packages / "ray-2.0.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: ray\nVersion: 2.0.1\n")
    with moved_away(environment):
        environment.symlink_to(other.name)
        tried = preflight(cluster, cluster_file)
    assert_one_problem(tried, "provider.worker_ips[3]", f"{cluster.address(STRANGER)} has Ray 2.0.1 and the head ")
