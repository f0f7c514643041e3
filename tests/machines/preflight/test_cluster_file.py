"""What is read of a Ray cluster file, and where a wrong one is said to be wrong."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from testbed.machines.preflight.cluster_file import read_cluster_file
from testbed.scenario import ScenarioError

REPOSITORY = Path(__file__).parents[3]
MACHINES = "{type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2]}"
USER = "{ssh_user: ray}"


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
        secret.touch(0o600)
    monkeypatch.chdir(REPOSITORY)
    file, _ = read_cluster_file(Path("cluster.yaml"))
    assert file.provider.worker_ips == ("198.18.0.12", "198.18.0.13", "198.18.0.14")
    assert (file.auth.ssh_user, file.auth.ssh_private_key) == ("root", str(key))
    assert file.makes_environment


def test_what_ray_does_not_ask_for_may_be_missing() -> None:
    file, _ = read_cluster_file(write(f"cluster_name: mine\nprovider: {MACHINES}\nauth: {USER}\n"))
    assert (file.auth.ssh_private_key, file.auth.ssh_proxy_command) == (None, None)
    assert not file.makes_environment


def test_paths_count_from_where_one_is_and_home_is_expanded(here: Path) -> None:
    (here / "key").touch()
    file, _ = read_cluster_file(
        write(f"provider: {MACHINES}\nauth: {{ssh_user: ray, ssh_private_key: ~/key}}\nfile_mounts: {{/there: key}}\n")
    )
    assert file.auth.ssh_private_key == str(here / "key")


@pytest.mark.parametrize(
    ("more", "address"),
    [
        ("", "10.0.0.1"),
        (", external_head_ip: 192.0.2.1", "192.0.2.1"),
        (", external_head_ip: 192.0.2.1, use_internal_ips: true", "10.0.0.1"),
        (", external_head_ip: 192.0.2.1, use_internal_ips: true, use_external_head_ip: true", "192.0.2.1"),
    ],
)
def test_the_head_is_reached_at_the_address_that_ray_takes(more: str, address: str) -> None:
    provider = MACHINES.replace("}", f"{more}}}")
    file, _ = read_cluster_file(write(f"provider: {provider}\nauth: {USER}\n"))
    assert file.provider.head_from_here == address


def test_an_empty_docker_section_means_no_container() -> None:
    read_cluster_file(write(f"provider: {MACHINES}\nauth: {USER}\ndocker: {{image: '', container_name: ''}}\n"))


def test_a_key_that_is_not_there_is_told_with_its_place(here: Path) -> None:
    assert problems_of(f"provider: {MACHINES}\nauth:\n  ssh_user: ray\n  ssh_private_key: ~/key\n") == [
        f"cluster.yaml:4:20: auth.ssh_private_key: there is no {here}/key here"
    ]


def test_a_token_that_is_not_there_is_told_with_the_command_that_makes_it(here: Path) -> None:
    assert problems_of(
        f"auth: {USER}\nprovider: {MACHINES}\nfile_mounts:\n  ~/.ray/auth_token: ~/.ray/auth_token\n"
    ) == [
        "cluster.yaml:4:22: file_mounts.'~/.ray/auth_token': "
        f"there is no {here}/.ray/auth_token here; `(umask 077; ray get-auth-token --generate)` makes it"
    ]


def test_a_token_that_other_users_may_read_is_told_with_the_command_that_closes_it(here: Path) -> None:
    token = here / ".ray" / "auth_token"
    token.parent.mkdir()
    token.touch(0o600)
    text = f"auth: {USER}\nprovider: {MACHINES}\nfile_mounts:\n  ~/.ray/auth_token: ~/.ray/auth_token\n"
    read_cluster_file(write(text))
    token.chmod(0o644)
    assert problems_of(text) == [
        f"cluster.yaml:4:22: file_mounts.'~/.ray/auth_token': {token} is open to other users: chmod 600 {token}"
    ]


def test_machines_that_a_provider_makes_itself_are_the_only_thing_wrong() -> None:
    assert problems_of("provider:\n  type: aws\n  region: eu-west-1\n") == [
        "cluster.yaml:2:9: provider.type: is 'aws': "
        "only machines that are there already (local) can be tried before `ray up`"
    ]


def test_machines_that_a_coordinator_gives_are_the_only_thing_wrong() -> None:
    assert problems_of("provider: {type: local, coordinator_address: 10.0.0.1:80}\n") == [
        "cluster.yaml:1:46: provider.coordinator_address: "
        "which machines a coordinator gives is not known before `ray up`"
    ]


def test_ray_in_containers_cannot_be_tried() -> None:
    assert problems_of(f"auth: {USER}\nprovider: {MACHINES}\ndocker: {{container_name: ray}}\n") == [
        "cluster.yaml:3:26: docker.container_name: what a container will have cannot be tried before `ray up`"
    ]


def test_a_machine_that_is_written_twice_or_would_never_be_started_is_told() -> None:
    provider = "{type: local, head_ip: h, worker_ips: [a, b, a, h]}"
    assert problems_of(f"auth: {USER}\nprovider: {provider}\nmin_workers: 3\n") == [
        "cluster.yaml:2:56: provider.worker_ips[2]: a is written twice",
        "cluster.yaml:2:59: provider.worker_ips[3]: h is written twice",
        "cluster.yaml:3:14: min_workers: is 3: no more of the 4 worker_ips would ever be started",
    ]


def test_a_key_that_is_no_file_is_told(here: Path) -> None:
    (message,) = problems_of(
        f"provider: {MACHINES}\nauth: {{ssh_user: ray, ssh_private_key: ~}}\n".replace("~", str(here))
    )
    assert message.endswith(f"auth.ssh_private_key: {here} is no file that can be read")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cluster.yaml:1:1: is empty; such a file begins with `cluster_name: NAME`"),
        ("a: b: c", "cluster.yaml:1:5: is not valid YAML: mapping values are not allowed here"),
        ("[]", "cluster.yaml:1:1: must be a mapping of keys to values, not a list"),
        (f"provider: {MACHINES}", "cluster.yaml:1:1: auth: is required but not written"),
        (
            f"auth: {USER}\nprovider: {{type: local, worker_ips: []}}",
            "cluster.yaml:2:1: provider.head_ip: is required but not written",
        ),
        (f"auth: {{}}\nprovider: {MACHINES}", "cluster.yaml:1:1: auth.ssh_user: is required but not written"),
        (
            f"auth: {{<<: {USER}}}\nprovider: {MACHINES}",
            "cluster.yaml:1:7: auth: merge keys (<<) are not understood here",
        ),
        (
            f"auth: {{ssh_user: ''}}\nprovider: {MACHINES}",
            "cluster.yaml:1:18: auth.ssh_user: must not be empty",
        ),
        (
            f"auth: {USER}\nprovider: {MACHINES}\nfile_mounts: {{/x: ~nobody-here/x}}",
            "cluster.yaml:3:19: file_mounts./x: there is no ~nobody-here/x here",
        ),
    ],
)
def test_what_is_no_cluster_file_is_told(text: str, message: str) -> None:
    assert problems_of(text) == [message]


FILE = yaml.safe_load(
    f"provider: {MACHINES}\nauth: {USER}\nmin_workers: 1\nmax_workers: 1\nfile_mounts: {{/a: /}}\n"
    "initialization_commands: [a]\nsetup_commands: [b]\ndocker: {container_name: ''}\n"
)
KEYS = [(key,) for key in FILE] + [(key, inner) for key in FILE if isinstance(FILE[key], dict) for inner in FILE[key]]
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(KEYS), ANYTHING)
def test_whatever_is_wrong_is_said_in_words_for_people(key: tuple[str, ...], value: object) -> None:
    tree = copy.deepcopy(FILE)
    around = tree
    for part in key[:-1]:
        around = around[part]
    around[key[-1]] = value
    path = Path("cluster.yaml")
    path.write_text(yaml.safe_dump(tree))
    try:
        read_cluster_file(path)
    except ScenarioError as error:
        for problem in error.problems:
            assert not re.search(
                "[Ii]nput should|valid |instance of|[Vv]alue error|[Ss]hould |pydantic", problem.message
            )
