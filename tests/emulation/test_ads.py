"""The configuration stream as a proxy sees it, over a real Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2, wrappers_pb2

from testbed.control.views.envoy.envoy_api import CLUSTER_TYPE, ENDPOINT_TYPE, LISTENER_TYPE, ROUTE_TYPE
from testbed.control.views.envoy.xds import PUSH_ORDER
from testbed.emulation.processes.ads import METHOD, SERVICE, AdsServer
from tests.emulation.loopback import DEADLINE_S, eventually


def resource(text: str) -> bytes:
    packed = any_pb2.Any()
    packed.Pack(wrappers_pb2.StringValue(value=text))
    return packed.SerializeToString()


class Proxy:
    """The proxy's end of one stream."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def ask(self, type_url: str, *names: str, nonce: str = "", error: str | None = None) -> None:
        request = discovery_pb2.DiscoveryRequest(type_url=type_url, resource_names=names, response_nonce=nonce)
        if error is not None:
            request.error_detail.message = error
        await self._call.write(request)

    async def told(self) -> Any:
        return await asyncio.wait_for(self._call.read(), DEADLINE_S)

    async def ack(self, response: Any, *names: str) -> None:
        await self.ask(response.type_url, *names, nonce=response.nonce)


@asynccontextmanager
async def connected(socket: Path) -> AsyncIterator[Proxy]:
    """A proxy, as far as its own end of the stream."""
    async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
        call = channel.stream_stream(
            f"/{SERVICE}/{METHOD}",
            request_serializer=discovery_pb2.DiscoveryRequest.SerializeToString,
            response_deserializer=discovery_pb2.DiscoveryResponse.FromString,
        )()
        yield Proxy(call)
        await call.done_writing()
        assert await call.read() == grpc.aio.EOF


class Control:
    """The control plane's end: the server, and what it was called back with."""

    def __init__(self, socket: Path) -> None:
        self.connections = 0
        self.acks: list[tuple[str, str]] = []
        self.nacks: list[tuple[str, str, str]] = []
        self.socket = socket
        self.server = AdsServer(
            socket,
            PUSH_ORDER,
            {CLUSTER_TYPE: ENDPOINT_TYPE, LISTENER_TYPE: ROUTE_TYPE},
            connected=self._connected,
            acked=lambda *ack: self.acks.append(ack),
            rejected=lambda *nack: self.nacks.append(nack),
        )

    def _connected(self) -> None:
        self.connections += 1

    def publish(self, type_url: str, version: str, *texts: str) -> None:
        self.server.publish(type_url, version, tuple(resource(text) for text in texts))

    def proxy(self) -> AbstractAsyncContextManager[Proxy]:
        return connected(self.socket)

    async def has_read_all(self, proxy: Proxy) -> None:
        """Return when the server has taken everything that the proxy wrote before."""
        self.publish(LISTENER_TYPE, "end")
        await proxy.ask(LISTENER_TYPE)
        assert (await proxy.told()).type_url == LISTENER_TYPE


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[Control], Awaitable[None]]], None]:
    """`run(test)`: with a server of its own."""

    async def served(test: Callable[[Control], Awaitable[None]]) -> None:
        control = Control(tmp_path / "ads.sock")
        await control.server.start()
        try:
            await asyncio.wait_for(test(control), DEADLINE_S)
        finally:
            await control.server.stop()

    return lambda test: asyncio.run(served(test))


Run = Callable[[Callable[[Control], Awaitable[None]]], None]


def test_a_proxy_is_told_what_it_subscribes_to(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(CLUSTER_TYPE, "1", "a", "b")
        control.publish(ENDPOINT_TYPE, "9", "unasked")
        async with control.proxy() as proxy:
            await eventually(lambda: control.connections == 1)
            await proxy.ask(CLUSTER_TYPE)
            response = await proxy.told()
            assert (response.type_url, response.version_info) == (CLUSTER_TYPE, "1")
            assert [any_.SerializeToString() for any_ in response.resources] == [resource("a"), resource("b")]

    run(test)


def test_changes_are_pushed_clusters_then_endpoints_then_listeners_then_routes(run: Run) -> None:
    async def test(control: Control) -> None:
        for type_url in PUSH_ORDER:
            control.publish(type_url, "1")
        async with control.proxy() as proxy:
            for type_url in PUSH_ORDER:
                await proxy.ask(type_url)
                first = await proxy.told()
                assert first.version_info == "1"
                await proxy.ack(first)
            await eventually(lambda: len(control.acks) == len(PUSH_ORDER))
            for type_url in reversed(PUSH_ORDER):
                control.publish(type_url, "2")
            responses = [await proxy.told() for _ in PUSH_ORDER]
            assert [response.type_url for response in responses] == [
                CLUSTER_TYPE,
                ENDPOINT_TYPE,
                LISTENER_TYPE,
                ROUTE_TYPE,
            ]
            assert {response.version_info for response in responses} == {"2"}

    run(test)


def test_an_ack_is_reported_with_its_version(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(CLUSTER_TYPE, "1")
        async with control.proxy() as proxy:
            await proxy.ask(CLUSTER_TYPE)
            await proxy.ack(await proxy.told())
            await eventually(lambda: control.acks)
            control.publish(CLUSTER_TYPE, "2")
            await proxy.ack(await proxy.told())
            await eventually(lambda: len(control.acks) == 2)
        assert control.acks == [(CLUSTER_TYPE, "1"), (CLUSTER_TYPE, "2")]
        assert control.nacks == []

    run(test)


def test_a_nack_is_reported_with_version_and_error_and_not_answered(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(CLUSTER_TYPE, "1")
        async with control.proxy() as proxy:
            await proxy.ask(CLUSTER_TYPE)
            response = await proxy.told()
            await proxy.ask(CLUSTER_TYPE, nonce=response.nonce, error="no such filter")
            await control.has_read_all(proxy)
        assert control.nacks == [(CLUSTER_TYPE, "1", "no such filter")]
        assert control.acks == []

    run(test)


@pytest.mark.parametrize("error", [None, "no such filter"], ids=["ack", "nack"])
def test_an_answer_with_a_stale_nonce_is_ignored(run: Run, error: str | None) -> None:
    async def test(control: Control) -> None:
        control.publish(CLUSTER_TYPE, "1")
        async with control.proxy() as proxy:
            await proxy.ask(CLUSTER_TYPE)
            first = await proxy.told()
            control.publish(CLUSTER_TYPE, "2")
            second = await proxy.told()
            assert first.nonce != second.nonce
            await proxy.ask(CLUSTER_TYPE, "new-name", nonce=first.nonce, error=error)
            await control.has_read_all(proxy)
            assert (control.acks, control.nacks) == ([], [])
            await proxy.ack(second)
            await eventually(lambda: control.acks)
        assert control.acks == [(CLUSTER_TYPE, "2")]

    run(test)


def test_a_proxy_that_has_not_answered_yet_is_told_the_newest_endpoints_once_it_has(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(ENDPOINT_TYPE, "1", "a")
        async with control.proxy() as proxy:
            await proxy.ask(ENDPOINT_TYPE, "web")
            first = await proxy.told()
            for version in ("2", "3", "4"):
                control.publish(ENDPOINT_TYPE, version, "a")
                await asyncio.sleep(0)
            await control.has_read_all(proxy)
            await proxy.ack(first, "web")
            second = await proxy.told()
            assert (second.type_url, second.version_info) == (ENDPOINT_TYPE, "4")
            control.publish(ENDPOINT_TYPE, "5", "a")
            await proxy.ask(ENDPOINT_TYPE, "web", nonce=second.nonce, error="no such cluster")
            assert (await proxy.told()).version_info == "5"
            assert (control.acks[-1], control.nacks[-1][1]) == ((ENDPOINT_TYPE, "1"), "4")

    run(test)


def contents(response: Any) -> list[bytes]:
    return [each.SerializeToString() for each in response.resources]


def test_of_what_is_asked_for_by_name_only_changes_are_told(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(ENDPOINT_TYPE, "1", "a", "b")
        async with control.proxy() as proxy:
            await proxy.ask(ENDPOINT_TYPE, "a", "b")
            await proxy.ack(await proxy.told(), "a", "b")
            for version, texts, changed in (("2", ("a", "c"), ["c"]), ("3", ("a", "b"), ["b"])):
                control.publish(ENDPOINT_TYPE, version, *texts)
                response = await proxy.told()
                assert (response.version_info, contents(response)) == (version, [resource(each) for each in changed])
                await proxy.ack(response, "a", "b")

    run(test)


def test_clusters_are_told_all_as_what_is_left_out_would_be_gone(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(CLUSTER_TYPE, "1", "a", "b")
        async with control.proxy() as proxy:
            await proxy.ask(CLUSTER_TYPE)
            await proxy.ack(await proxy.told())
            control.publish(CLUSTER_TYPE, "2", "a", "c")
            assert contents(await proxy.told()) == [resource("a"), resource("c")]

    run(test)


def test_who_has_rejected_a_change_is_told_all_with_the_next_one(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(ENDPOINT_TYPE, "1", "a", "b")
        async with control.proxy() as proxy:
            await proxy.ask(ENDPOINT_TYPE, "a", "b")
            await proxy.ack(await proxy.told(), "a", "b")
            control.publish(ENDPOINT_TYPE, "2", "a", "bad")
            rejected = await proxy.told()
            await proxy.ask(ENDPOINT_TYPE, "a", "b", nonce=rejected.nonce, error="bad")
            await eventually(lambda: control.nacks)
            control.publish(ENDPOINT_TYPE, "3", "c", "bad")
            assert contents(await proxy.told()) == [resource("c"), resource("bad")]

    run(test)


def test_new_names_are_answered_with_the_same_version_again(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(ENDPOINT_TYPE, "1", "a", "b")
        async with control.proxy() as proxy:
            await proxy.ask(ENDPOINT_TYPE, "a")
            first = await proxy.told()
            await proxy.ack(first, "b", "a")
            second = await proxy.told()
            assert (second.version_info, second.resources) == (first.version_info, first.resources)
            assert second.nonce != first.nonce
            await proxy.ack(second, "a", "b")
            await control.has_read_all(proxy)

    run(test)


@pytest.mark.parametrize(("changed", "warming"), [(CLUSTER_TYPE, ENDPOINT_TYPE), (LISTENER_TYPE, ROUTE_TYPE)])
def test_a_change_is_followed_by_what_it_needs_to_warm_before_it_is_acknowledged(
    run: Run, changed: str, warming: str
) -> None:
    async def test(control: Control) -> None:
        for type_url in (changed, warming):
            control.publish(type_url, "1")
        async with control.proxy() as proxy:
            for type_url in (changed, warming):
                await proxy.ask(type_url, "a")
                await proxy.ack(await proxy.told(), "a")
            await eventually(lambda: len(control.acks) == 2)
            control.publish(changed, "2")
            told = [await proxy.told(), await proxy.told()]
            assert [(each.type_url, each.version_info) for each in told] == [(changed, "2"), (warming, "1")]
            for each in told:
                await proxy.ack(each, "a")
            await eventually(lambda: control.acks[2:] == [(changed, "2"), (warming, "1")])

    run(test)


def test_a_proxy_that_connects_after_forget_is_told_only_what_is_published_anew(run: Run) -> None:
    async def test(control: Control) -> None:
        control.publish(CLUSTER_TYPE, "1")
        async with control.proxy() as proxy:
            await proxy.ask(CLUSTER_TYPE)
            await proxy.told()
        control.server.forget()
        async with control.proxy() as proxy:
            await eventually(lambda: control.connections == 2)
            await proxy.ask(CLUSTER_TYPE)
            await control.has_read_all(proxy)
            control.publish(CLUSTER_TYPE, "1", "new")
            response = await proxy.told()
            assert (response.type_url, len(response.resources)) == (CLUSTER_TYPE, 1)

    run(test)


def test_every_connected_proxy_is_told(run: Run) -> None:
    async def test(control: Control) -> None:
        async with control.proxy() as one, control.proxy() as other:
            for proxy in (one, other):
                await proxy.ask(CLUSTER_TYPE)
            await eventually(lambda: control.connections == 2)
            control.publish(CLUSTER_TYPE, "1")
            assert [(await proxy.told()).version_info for proxy in (one, other)] == ["1", "1"]

    run(test)
