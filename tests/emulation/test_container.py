"""What a container is told: `$(NAME)` in its command, its environment, and the settings of a built-in workload."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.emulation.processes.container import command_line, expand
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Pod
from testbed.objects.workloads import BuiltinWorkload, CommandWorkload, MeshMode, PodTemplate, WorkTime
from testbed.workloads.settings import SETTINGS_VARIABLE, WorkloadSettings, service_address

IP = "127.20.1.3"
LOGS = Path("/logs")
ADDRESS = PodAddress(app=SocketAddress(IP, 8080), inbound=SocketAddress(IP, 15006), outbound=SocketAddress(IP, 15001))
ENV = {"A": "1", "B_2": "$(A)", "EMPTY": ""}

names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
workloads = st.builds(
    BuiltinWorkload,
    work=st.builds(
        WorkTime,
        distribution=st.sampled_from(["constant", "uniform", "exponential", "lognormal"]),
        mean_s=finite,
        spread_s=finite,
        seed=st.integers(0, 2**32),
    ),
    stages=st.lists(st.lists(st.text(max_size=8), max_size=3).map(tuple), max_size=3).map(tuple),
    response_bytes=st.integers(0, 2**31),
    error_rate=st.floats(0, 1),
)


def pod(workload: BuiltinWorkload | CommandWorkload | None, mesh_mode: MeshMode = "sidecar") -> Pod:
    template = PodTemplate("cart", workload, mesh_mode=mesh_mode)
    return Pod(name="cart-0", deployment="cart", template=template, node="east-a-1")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("--port=$(A)", "--port=1"),
        ("$(A)$(A)", "11"),
        ("[$(EMPTY)]", "[]"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$$$$", "$$"),
        ("$(B_2)", "$(A)"),
        ("$A ${A} $(A $() $", "$A ${A} $(A $() $"),
        ("", ""),
    ],
)
def test_only_known_names_in_round_brackets_are_expanded_and_only_once(text: str, expanded: str) -> None:
    assert expand(text, ENV) == expanded


@given(st.text().filter(lambda text: "$" not in text), st.dictionaries(names, st.text()))
def test_a_text_without_a_dollar_stays_as_it_is(text: str, env: dict[str, str]) -> None:
    assert expand(text, env) == text


@given(st.text(), st.dictionaries(names, st.text()))
def test_a_text_with_doubled_dollars_comes_out_literally(text: str, env: dict[str, str]) -> None:
    assert expand(text.replace("$", "$$"), env) == text


@given(st.text(alphabet="$()AB_2 ").filter(lambda text: "$$" not in text))
def test_without_an_environment_only_double_dollars_change(text: str) -> None:
    assert expand(text, {}) == text


@given(names, st.text(), st.text(alphabet="ab ()"), st.text(alphabet="ab ()"))
def test_a_value_is_put_in_place_of_its_name_and_not_expanded_again(
    name: str, value: str, before: str, after: str
) -> None:
    assert expand(f"{before}$({name}){after}", {name: value}) == before + value + after


@given(workloads, st.text(max_size=20), st.integers(0, 65535), st.integers(0, 2**32))
def test_workload_settings_survive_the_way_through_json(
    workload: BuiltinWorkload, host: str, port: int, seed: int
) -> None:
    settings = WorkloadSettings(host, port, SocketAddress(host, port), workload, seed)
    assert WorkloadSettings.from_json(settings.to_json()) == settings


@pytest.mark.parametrize("workload", [BuiltinWorkload(), CommandWorkload(("server",))])
def test_every_container_is_told_who_and_where_it_is(workload: BuiltinWorkload | CommandWorkload) -> None:
    _, env = command_line(pod(workload), ADDRESS, 7, {}, LOGS)
    assert env["POD_NAME"] == env["HOSTNAME"] == "cart-0"
    assert env["NODE_NAME"] == "east-a-1"
    assert (env["POD_IP"], env["PORT"]) == (IP, "8080")


@pytest.mark.parametrize("mode", ["sidecar", "node"])
@pytest.mark.parametrize("workload", [BuiltinWorkload(), CommandWorkload(("server",))])
def test_the_mesh_is_the_http_proxy_for_all_but_the_pod_itself(
    workload: BuiltinWorkload | CommandWorkload, mode: MeshMode
) -> None:
    _, env = command_line(pod(workload, mode), ADDRESS, 7, {}, LOGS)
    assert env["HTTP_PROXY"] == env["http_proxy"] == f"http://{IP}:15001"
    assert env["NO_PROXY"] == env["no_proxy"] == IP


def test_a_builtin_workload_gets_its_settings_in_one_variable() -> None:
    workload = BuiltinWorkload(WorkTime("uniform", 0.01, 0.002, seed=3), (("a", "b"), ("c",)), 100, 0.1)
    arguments, env = command_line(pod(workload), ADDRESS, 7, {}, LOGS)
    assert arguments == [sys.executable, "-m", "testbed.workloads.builtin"]
    assert WorkloadSettings.from_json(env[SETTINGS_VARIABLE]) == WorkloadSettings(
        IP, 8080, ADDRESS.outbound, workload, 7
    )


SERVICES = {"orders": SocketAddress("127.20.1.1", 24000), "audit-log": SocketAddress("127.20.1.1", 24001)}


def test_without_a_mesh_the_virtual_addresses_of_services_take_the_place_of_the_proxy() -> None:
    workload = CommandWorkload(("client", "http://$(ORDERS_SERVICE_HOST):$(ORDERS_SERVICE_PORT)/"))
    arguments, env = command_line(pod(workload, "none"), ADDRESS, 7, SERVICES, LOGS)
    assert arguments == ["client", "http://127.20.1.1:24000/"]
    assert (env["AUDIT_LOG_SERVICE_HOST"], env["AUDIT_LOG_SERVICE_PORT"]) == ("127.20.1.1", "24001")
    assert not [name for name in env if "proxy" in name.lower()]
    assert {service: service_address(service, env) for service in SERVICES} == SERVICES


def test_without_a_mesh_a_builtin_workload_logs_its_calls_beside_the_proxies() -> None:
    _, env = command_line(pod(BuiltinWorkload(), "none"), ADDRESS, 7, SERVICES, LOGS)
    settings = WorkloadSettings.from_json(env[SETTINGS_VARIABLE])
    assert (settings.proxy, settings.call_log) == (None, "/logs/cart-0.access.jsonl")


def test_arguments_of_a_command_are_expanded_from_its_own_and_the_declared_variables() -> None:
    workload = CommandWorkload(
        ("server", "--bind=$(POD_IP):$(PORT)", "$(GREETING)", "$$(PORT)", "$(NOBODY)"), (("GREETING", "hello"),)
    )
    arguments, env = command_line(pod(workload), ADDRESS, 7, {}, LOGS)
    assert arguments == ["server", f"--bind={IP}:8080", "hello", "$(PORT)", "$(NOBODY)"]
    assert SETTINGS_VARIABLE not in env


def test_a_declared_variable_sees_those_before_it_and_not_those_after_it() -> None:
    declared = (("EARLY", "$(LATE)"), ("LATE", "$(PORT)"), ("LAST", "$(LATE)/$(POD_NAME)"))
    _, env = command_line(pod(CommandWorkload(("server",), declared)), ADDRESS, 7, {}, LOGS)
    assert [env[name] for name, _ in declared] == ["$(LATE)", "8080", "8080/cart-0"]
    assert list(env)[-3:] == ["EARLY", "LATE", "LAST"]


def test_a_declared_variable_replaces_the_one_that_the_testbed_sets() -> None:
    arguments, env = command_line(pod(CommandWorkload(("$(PORT)",), (("PORT", "9$(PORT)"),))), ADDRESS, 7, {}, LOGS)
    assert (arguments, env["PORT"]) == (["98080"], "98080")


def test_a_gateway_has_no_container() -> None:
    with pytest.raises(AssertionError, match="cart-0 is a gateway"):
        command_line(pod(None), ADDRESS, 7, {}, LOGS)


@pytest.mark.parametrize("mode", ["sidecar", "none"])
def test_what_a_command_finds_in_its_environment_is_in_the_page_of_the_language(mode: MeshMode) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scenario.md").read_text()
    services = {} if mode == "sidecar" else {"<service>": SocketAddress("127.20.0.9", 80)}
    _, env = command_line(pod(CommandWorkload(("server",)), mode), ADDRESS, 0, services, LOGS)
    assert [name for name in env if f"`{name}`" not in page] == []
