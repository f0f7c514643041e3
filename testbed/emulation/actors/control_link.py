"""A place's way to the masters: one of them at a time, over the emulated links. Which one is `control.masters`'."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

from testbed.control.masters.connection import Connection, nearest_first, patience_s
from testbed.control.masters.messages import Closed, Tell
from testbed.control.messages import Event, Hello, LeaseRenewed, Ping, SessionEvent, StartPod, StopPod
from testbed.emulation.actors.control_channel import ControlChannel
from testbed.emulation.actors.network_card import NetworkCard
from testbed.emulation.actors.reports import Reported, latest_lease_only
from testbed.emulation.actors.seam import Actor
from testbed.emulation.processes.master_messages import EncodedPush, Leads, NodeCommand, Reset
from testbed.objects.places import Topology
from testbed.objects.timings import Timings

BUSY_S = 0.05
"""Who comes later than that to what is due has not read its mail either."""

Deliver = Callable[[Actor, list[Reported]], Awaitable[None]]


class ControlLink:
    """`connected` is called when a session has begun, and the place has to say all there is; `to_list` where only what
    is for the leader has to be said again. Both may be called at any time after `open`."""

    def __init__(
        self,
        card: NetworkCard,
        masters: Mapping[str, Actor],
        topology: Topology,
        timings: Timings,
        deliver: Deliver,
        connected: Callable[[], None],
        to_list: Callable[[], None],
    ) -> None:
        self._card = card
        self._masters = masters
        self._connection = Connection(nearest_first(card.place, tuple(masters), topology), patience_s(timings))
        self._deliver = deliver
        self._connected = connected
        self._to_list = to_list
        self._channels: dict[str, ControlChannel[Reported]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._begun = False

    @property
    def has_choice(self) -> bool:
        """Whether a master that is silent can be left for another."""
        return len(self._masters) > 1

    def open(self) -> None:
        for name, actor in self._masters.items():
            self._channels[name] = self._card.channel(name, partial(self._deliver, actor), latest_lease_only)

    def begin(self) -> None:
        """A session with the nearest."""
        self._begun = True
        self._connection.begin(time.monotonic())
        self._greet()

    def close(self) -> None:
        """Nobody is talked to until `begin`, as without power: what has not left is lost."""
        self._begun = False
        for channel in self._channels.values():
            channel.drop_waiting()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def say(self, event: Event | SessionEvent, at_s: float | None = None) -> None:
        """To the master, which was so at that monotonic second, or is now."""
        now_s = time.monotonic()
        connection = self._connection
        self._channels[connection.master].send(Reported(event, now_s if at_s is None else at_s, connection.session))
        if isinstance(event, LeaseRenewed | Ping):
            connection.ask(now_s)
            self._watch()

    def hear(self, command: NodeCommand) -> StartPod | StopPod | EncodedPush | None:
        """What the place has to do, if it is to do anything."""
        if not self._begun:
            return None
        connection, now_s = self._connection, time.monotonic()
        match command:
            case Leads(master, _, session):
                left = connection.master
                match connection.take_lead(master, session, now_s):
                    case "connect":
                        self._leave(left)
                        self._greet()
                        self._connected()
                    case "list":
                        self._to_list()
            case Reset(master):
                if connection.close(master, None, now_s):
                    self._moved(master)
            case Tell(_, session, Closed()) if session == connection.session:
                left = connection.master
                connection.close(left, session, now_s)
                self._moved(left)
            case Tell(_, session, what) if connection.hear(session) and isinstance(what, StartPod | StopPod):
                return what
            case EncodedPush(session=session) if connection.hear(session):
                return command
        return None

    def _greet(self) -> None:
        self.say(Hello())
        self._watch()

    def _moved(self, left: str) -> None:
        self._leave(left)
        self._greet()
        self._connected()

    def _leave(self, master: str) -> None:
        if master != self._connection.master:
            self._channels[master].drop_waiting()

    def _watch(self) -> None:
        if self._timer is None and (due_s := self._connection.next_deadline()) is not None:
            wait_s = max(0.0, due_s - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._due, due_s)

    def _due(self, due_s: float) -> None:
        self._timer = None
        now_s = time.monotonic()
        if now_s > due_s + BUSY_S:
            self._timer = asyncio.get_running_loop().call_later(BUSY_S, self._due, now_s + BUSY_S)
            return
        left = self._connection.master
        if self._connection.give_up(now_s):
            self._moved(left)
        else:
            self._watch()
