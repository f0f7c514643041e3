"""What is read of a Ray cluster file, and where a wrong one is said to be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.preflight.cluster_file import read_cluster_file
from testbed.scenario import ScenarioError

REPOSITORY = Path(__file__).parents[2]
MACHINES = "{type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str) -> Path:
    path = Path("cluster.yaml")
    path.write_text(text)
    return path


def problems_of(text: str) -> list[str]:
    with pytest.raises(ScenarioError) as caught:
        read_cluster_file(write(text))
    return [str(problem) for problem in caught.value.problems]


def test_the_cluster_file_of_the_repository_is_understood(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, token = here / ".testbed" / "lab" / "id_ed25519", here / ".ray" / "auth_token"
    for secret in (key, token):
        secret.parent.mkdir(parents=True)
        secret.touch()
    monkeypatch.chdir(REPOSITORY)
    file, _ = read_cluster_file(Path("cluster.yaml"))
    assert file.provider.worker_ips == ("198.18.0.12", "198.18.0.13", "198.18.0.14")
    assert (file.auth.ssh_user, file.auth.ssh_private_key) == ("root", key)
    assert file.makes_environment


def test_what_ray_does_not_ask_for_may_be_missing() -> None:
    file, _ = read_cluster_file(write(f"cluster_name: mine\nprovider: {MACHINES}\n"))
    assert (file.auth.ssh_user, file.auth.ssh_private_key, file.auth.ssh_proxy_command) == ("ubuntu", None, None)
    assert not file.makes_environment


def test_paths_count_from_where_one_is_and_home_is_expanded(here: Path) -> None:
    (here / "key").touch()
    file, _ = read_cluster_file(
        write(f"provider: {MACHINES}\nauth: {{ssh_private_key: ~/key}}\nfile_mounts: {{/there: key}}\n")
    )
    assert file.auth.ssh_private_key == here / "key"


def test_a_key_that_is_not_there_is_told_with_its_place(here: Path) -> None:
    assert problems_of(f"provider: {MACHINES}\nauth:\n  ssh_private_key: ~/key\n") == [
        f"cluster.yaml:3:20: auth.ssh_private_key: there is no {here}/key here"
    ]


def test_a_token_that_is_not_there_is_told_with_the_command_that_makes_it(here: Path) -> None:
    assert problems_of(f"provider: {MACHINES}\nfile_mounts:\n  ~/.ray/auth_token: ~/.ray/auth_token\n") == [
        "cluster.yaml:3:22: file_mounts.'~/.ray/auth_token': "
        f"there is no {here}/.ray/auth_token here; `ray get-auth-token --generate` makes it"
    ]


def test_machines_that_a_provider_makes_itself_are_the_only_thing_wrong() -> None:
    assert problems_of("provider:\n  type: aws\n  region: eu-west-1\n") == [
        "cluster.yaml:2:9: provider.type: is 'aws': "
        "only machines that are there already (local) can be tried before `ray up`"
    ]


def test_ray_in_containers_cannot_be_tried() -> None:
    assert problems_of(f"provider: {MACHINES}\ndocker: {{image: ray}}\n") == [
        "cluster.yaml:2:9: docker: what a container will have cannot be tried before `ray up`"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cluster.yaml:1:1: is empty; such a file begins with `cluster_name: NAME`"),
        ("a: b: c", "cluster.yaml:1:5: is not valid YAML: mapping values are not allowed here"),
        ("[]", "cluster.yaml:1:1: input should be a valid dictionary or instance of ClusterFile"),
        ("kind: Scenario", "cluster.yaml:1:1: provider: is missing"),
        ("provider: {type: local, worker_ips: []}", "cluster.yaml:1:1: provider.head_ip: is missing"),
    ],
)
def test_what_is_no_cluster_file_is_told(text: str, message: str) -> None:
    assert problems_of(text) == [message]
