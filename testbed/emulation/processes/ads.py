"""An Envoy's only source of configuration: the state-of-the-world ADS stream on a Unix socket.

Owns the protocol (nonces, ACK and NACK, order of types, which resources are due). The resources come ready as
serialised `Any` messages. Source: envoyproxy.io/docs, "xDS REST and gRPC protocol".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "StreamAggregatedResources"


@dataclass(slots=True)
class _Subscription:
    """What this stream has been sent of one type."""

    names: tuple[str, ...] = ()
    sent_version: str = ""
    sent_nonce: str = ""
    has: frozenset[bytes] = frozenset()
    """The resources that the proxy keeps, unless it rejects the last response."""
    unanswered: bool = False
    owed: bool = True
    """A response is due even if the version is the one that was sent last."""


@dataclass(slots=True)
class _Stream:
    subscriptions: dict[str, _Subscription] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class AdsServer:
    """Serves one proxy.

    `push_order`: type URLs in the order in which changes are sent; `dependents`: which type has to follow which.
    Callbacks run in the event loop: `connected()`, `acked(type_url, version)`, `rejected(type_url, version, error)`.
    """

    def __init__(
        self,
        socket: Path,
        push_order: tuple[str, ...],
        dependents: dict[str, str],
        *,
        connected: Callable[[], None],
        acked: Callable[[str, str], None],
        rejected: Callable[[str, str, str], None],
    ) -> None:
        self._socket = socket
        self._push_order = push_order
        self._dependents = dependents
        self._connected = connected
        self._acked = acked
        self._rejected = rejected
        self._latest: dict[str, tuple[str, tuple[bytes, ...]]] = {}
        self._streams: list[_Stream] = []
        self._nonce = 0
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen; nothing happens where it does already."""
        if self._server is not None:
            return
        self._server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
            response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),))
        self._server.add_insecure_port(f"unix:{self._socket}")
        await self._server.start()

    async def stop(self) -> None:
        """End every stream and listen no more, until the next start."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace=None)

    def publish(self, type_url: str, version: str, resources: tuple[bytes, ...]) -> None:
        """Replace all resources of one type; every connected proxy that wants the type is sent them."""
        self._latest[type_url] = (version, resources)
        for stream in self._streams:
            stream.changed.set()

    def forget(self) -> None:
        """Drop what was published: a restarted proxy starts from nothing, and its control plane sends anew."""
        self._latest.clear()

    async def _stream(
        self, requests: AsyncIterator[discovery_pb2.DiscoveryRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[discovery_pb2.DiscoveryResponse]:
        stream = _Stream()
        self._streams.append(stream)
        reader = asyncio.create_task(self._read(stream, requests))
        self._connected()
        try:
            while not reader.done():
                await stream.changed.wait()
                stream.changed.clear()
                for type_url in self._push_order:
                    response = self._due(stream, type_url)
                    if response is not None:
                        yield response
        finally:
            reader.cancel()
            self._streams.remove(stream)

    async def _read(self, stream: _Stream, requests: AsyncIterator[discovery_pb2.DiscoveryRequest]) -> None:
        try:
            async for request in requests:
                self._take(stream, request)
        finally:
            stream.changed.set()

    def _take(self, stream: _Stream, request: discovery_pb2.DiscoveryRequest) -> None:
        subscription = stream.subscriptions.setdefault(request.type_url, _Subscription())
        if request.response_nonce != subscription.sent_nonce:
            return  # answers an older response; the answer to the newest is still to come
        subscription.unanswered = False
        if request.response_nonce:
            if request.HasField("error_detail"):
                subscription.has = frozenset()
                self._rejected(request.type_url, subscription.sent_version, request.error_detail.message)
            else:
                self._acked(request.type_url, subscription.sent_version)
        names = tuple(sorted(request.resource_names))
        if names != subscription.names:
            # New names (a cluster that warms up, a new route configuration) are owed a response of the same version.
            subscription.names = names
            subscription.owed = True
        stream.changed.set()

    def _owe_dependents(self, stream: _Stream, type_url: str) -> None:
        # A changed cluster or listener warms until its endpoints or routes are sent again, even unchanged ones, and
        # Envoy does not acknowledge clusters before all of them are warm (ClusterManagerImpl::updateClusterCounts).
        dependent = stream.subscriptions.get(self._dependents.get(type_url, ""))
        if dependent is not None:
            dependent.owed = True

    def _due(self, stream: _Stream, type_url: str) -> discovery_pb2.DiscoveryResponse | None:
        subscription = stream.subscriptions.get(type_url)
        if subscription is None or type_url not in self._latest:
            return None
        # Who is busy is told the newest when it has taken in the last. Clusters and listeners may be answered only when
        # they are warm, which may need newer ones.
        if subscription.unanswered and type_url not in self._dependents:
            return None
        version, resources = self._latest[type_url]
        if version == subscription.sent_version and not subscription.owed:
            return None
        # Who asks for resources by their names (endpoints, routes) keeps those that are left out, and reading a hundred
        # endpoints takes a proxy as long as dozens of calls. As istiod does; "Grouping Resources into Responses" there.
        due = resources
        if subscription.names and not subscription.owed:
            due = tuple(each for each in resources if each not in subscription.has)
        self._nonce += 1
        subscription.owed, subscription.unanswered = False, True
        subscription.has = frozenset(resources)
        subscription.sent_version = version
        subscription.sent_nonce = str(self._nonce)
        self._owe_dependents(stream, type_url)
        return discovery_pb2.DiscoveryResponse(
            version_info=version,
            type_url=type_url,
            nonce=subscription.sent_nonce,
            resources=[any_pb2.Any.FromString(each) for each in due],
        )
