"""The places that are connected to a master, nodes and clients, and what they are told of what is committed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from testbed.control.delivery.discovery import Discovery
from testbed.control.masters.messages import Output, Tell
from testbed.control.messages import (
    Command,
    ProxyConnected,
    PushConfig,
    RecordEvent,
    StartPod,
    StopPod,
    StreamEvent,
)
from testbed.control.overview import Streams
from testbed.control.store import Store


class Places:
    """Of one master. What it returns is to be done."""

    def __init__(self, discovery: Discovery) -> None:
        self._discovery = discovery
        self._look = False
        """Whether somebody may have to be told something."""
        self._sessions: dict[str, int] = {}
        self._registered: dict[str, int] = {}
        """Nodes, by their session: they are told of what is decided from that on."""
        self._unknown: dict[str, tuple[str, ProxyConnected]] = {}
        """Proxies of pods that are not in this store yet, with their place."""

    @property
    def sessions(self) -> Mapping[str, int]:
        return self._sessions

    def has(self, place: str, session: int) -> bool:
        return self._sessions.get(place) == session

    def open(self, store: Store, place: str, session: int) -> None:
        """A session has begun: all that was known of the place was of another one."""
        self._sessions[place] = session
        self._registered.pop(place, None)
        self._unknown = {name: each for name, each in self._unknown.items() if each[0] != place}
        self._discovery.disconnect(store, place)

    def boot(self, store: Store, place: str) -> None:
        """A node has: what was connected there is not any more."""
        self._discovery.disconnect(store, place)

    def take(self, store: Store, place: str, event: StreamEvent) -> list[Output]:
        told = self._discovery.handle(store, event)
        if isinstance(event, ProxyConnected):
            self._look = True
            if not told:
                self._unknown[event.proxy] = place, event
        return self._said(told)

    # --- what is committed -----------------------------------------------------------------------------------------

    def change(self) -> None:
        """Of the store."""
        self._look = True

    def register(self, place: str, session: int) -> None:
        """A node, in that session, if that is its session here."""
        if self.has(place, session):
            self._registered[place] = session

    def order(self, orders: Sequence[StartPod | StopPod]) -> list[Output]:
        """Nodes that are registered in their present session; others list what there is when they register."""
        found = ((order, self._sessions.get(order.node)) for order in orders)
        return [
            Tell(order.node, session, order)
            for order, session in found
            if session is not None and self._registered.get(order.node) == session
        ]

    # --- who is told configuration -----------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        return self._discovery.next_deadline()

    def tell(self, store: Store, now_s: float) -> list[Output]:
        """What is due."""
        due_s = self._discovery.next_deadline()
        if not self._look and (due_s is None or now_s < due_s):
            return []
        self._look = False
        out: list[Output] = []
        for _, event in list(self._unknown.values()):
            if told := self._discovery.handle(store, event):
                del self._unknown[event.proxy]
                out += self._said(told)
        return out + self._said(self._discovery.reconcile(store, now_s))

    def streams(self, store: Store) -> Streams:
        return self._discovery.streams(store, self._sessions)

    def _said(self, commands: Sequence[Command]) -> list[Output]:
        out: list[Output] = []
        for each in commands:
            if isinstance(each, PushConfig):
                out.append(Tell(each.place, self._sessions[each.place], each))
            elif isinstance(each, RecordEvent):
                out.append(each)
        return out
