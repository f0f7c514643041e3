"""A link relay in a thread of this process, and the attachment of one place, called from the test's own thread."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network

from testbed.faults.effects import LinkEffect
from testbed.network.links import LinkSample, LinkTable
from testbed.network.wire.loop_thread import LoopThread
from testbed.network.wire.opening import Choice
from testbed.network.wire.relay import LinkRelay
from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology


class RelayThread:
    """What the methods of LinkRelay and Attachment say; each blocks shortly."""

    def __init__(self, place: str, topology: Topology, *, seed: int, head_timeout_s: float = 5.0) -> None:
        self.thread = LoopThread(f"link relay of {place}")
        self._stopped = False
        self.thread.start()
        self._relay = self.thread.call(lambda: LinkRelay(LinkTable(topology), self.thread.tasks))
        self.place = self.thread.call(lambda: self._relay.attach(place, seed=seed, head_timeout_s=head_timeout_s))

    def stop(self) -> None:
        """May be called twice."""
        self.thread.stop(self._relay.close)
        self._stopped = True

    def open_path(
        self, destination: str, listen: SocketAddress, network: IPv4Network, tunnel: Tunnel | None = None
    ) -> None:
        self.thread.call(lambda: self.place.open_path(destination, listen, network, tunnel))

    def open_forward(
        self, destination: str, listen: SocketAddress, target: SocketAddress, tunnel: Tunnel | None = None
    ) -> None:
        self.thread.call(lambda: self.place.open_forward(destination, listen, target, tunnel))

    def open_service(self, listen: SocketAddress, choose: Choice) -> None:
        self.thread.call(lambda: self.place.open_service(listen, choose))

    def close_forward(self, listen: SocketAddress) -> None:
        self.thread.call(lambda: self.place.close_forward(listen))

    def impose(self, fault: str, pairs: Iterable[tuple[str, str]], effect: LinkEffect) -> float:
        return self.thread.call(lambda: self._relay.impose(fault, pairs, effect))

    def lift(self, fault: str) -> float:
        return self.thread.call(lambda: self._relay.lift(fault))

    def drain_samples(self) -> list[LinkSample]:
        """Also once it has stopped."""
        return self._relay.drain_samples() if self._stopped else self.thread.call(self._relay.drain_samples)
