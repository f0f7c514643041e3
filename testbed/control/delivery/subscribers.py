"""One kind of subscriber: who they are, what each has been told, and what it said to that.

Owns when configuration is sent (debounce), in which version, and what was acknowledged: the same for a proxy, a node's
kube-proxy and clients. What they are told is their view's; how it travels is `emulation`'s.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from testbed.control.messages import Command, ConfigAcked, ConfigRejected, ProxyConnected, PushConfig
from testbed.control.store import Store
from testbed.control.views.envoy.envoy_api import ROUTE_TYPE
from testbed.objects.timings import Timings

COMING_UP_PAUSE_S = 0.02
"""Between pushes to everyone while a cluster comes up, for each of them: twice of what it takes to tell a proxy of some
hundred endpoints."""

Resources = Mapping[str, tuple[Mapping[str, Any], ...]]
"""By type, in the order in which they are to be sent."""


@dataclass(frozen=True, slots=True)
class Subscriber:
    """Whoever is told configuration, at the place at which it is reached.

    `own` is that part of what it is told for which it does not wait until things are quiet; None while there is nothing
    to tell it at all.
    """

    name: str
    place: str
    own: Hashable | None = ()


class View(Protocol):
    """What one kind of subscriber is told. Every method is a pure function of its arguments."""

    prefix: str
    """Of the names of all subscribers of this kind."""

    def subscribers(self, store: Store) -> Iterable[Subscriber]:
        """All that there should be."""
        ...

    def revision(self, store: Store) -> Hashable:
        """Differs when what they are told may differ."""
        ...

    def resources(self, store: Store, subscriber: Subscriber) -> Resources:
        """All that one of them is to know. What several are told alike may be the same object for all of them."""
        ...


@dataclass(slots=True)
class _Told:
    """What one subscriber was told. `resources` is what was pushed last, by type, in push order."""

    resources: dict[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)
    built_for: tuple[int, Hashable] | None = None
    """The revision of the configuration and the `own` that `resources` were made from."""
    pushed: dict[str, int] = field(default_factory=dict)
    acked: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    connected: bool = False


class Subscribers:
    """Pushes state-of-the-world configuration to those of one kind that are connected.

    Changes are pushed after `push_debounce_s` without another one and at most `push_debounce_max_s` after the first
    (istiod, pilot/pkg/xds/discovery.go: debounce). Who just connected does not wait, nor does who is changed itself: a
    node's proxy when a pod comes or goes there (istio-cni tells ztunnel on the spot). Only types whose resources
    changed are sent.
    """

    def __init__(self, view: View, timings: Timings) -> None:
        self.prefix = view.prefix
        self._view = view
        self._timings = timings
        self._told: dict[str, _Told] = {}
        self._revision = 0
        self._seen: Hashable = None
        self._coming_up = False
        self._first_change_s: float | None = None
        """Of those that were not pushed to everyone yet; `_last_change_s` means something where there is one."""
        self._last_change_s = 0.0

    def connect(self, store: Store, event: ProxyConnected) -> bool:
        """It is told everything. Versions grow on, so that no late answer is mistaken for one to a new push: from those
        that were sent from here, or from those of whoever told it before.

        False when there should be nobody of that name.
        """
        name = event.proxy
        if not any(each.name == name for each in self._view.subscribers(store)):
            return False
        versions = self._versions(name)
        for type_url, version in event.versions:
            versions[type_url] = max(version, versions.get(type_url, 0))
        self._told[name] = _Told(pushed=versions, connected=True)
        return True

    def disconnect(self, store: Store, place: str) -> None:
        """A place was powered off: nothing is pushed to who is there until they connect again."""
        for each in self._view.subscribers(store):
            if each.place == place and each.name in self._told:
                self._told[each.name] = _Told(pushed=self._versions(each.name))

    def acked(self, event: ConfigAcked) -> None:
        told = self._told.get(event.proxy)
        if told is not None and told.connected:
            told.acked[event.type_url] = event.version
            told.rejected.pop(event.type_url, None)

    def rejected(self, event: ConfigRejected) -> None:
        told = self._told.get(event.proxy)
        if told is not None and told.connected:
            told.rejected[event.type_url] = event.error

    def reconcile(self, store: Store, now: float, *, coming_up: bool = False) -> list[Command]:
        """Notices changes, then pushes what is due: to new ones at once, to all when the debounce is over.

        While a cluster is `coming_up` for the first time, everyone is told only so often that most of the machine's
        time is left for what is starting.
        """
        self._coming_up = coming_up
        self._notice(store, now)
        due_s = self.next_deadline()
        everyone = due_s is not None and now >= due_s
        if everyone:
            self._first_change_s = None
        there = {each.name: each for each in self._view.subscribers(store)}
        commands: list[Command] = []
        for name, told in list(self._told.items()):
            subscriber = there.get(name)
            if subscriber is None:
                del self._told[name]
            elif told.connected and subscriber.own is not None:
                at_once = told.built_for is None or told.built_for[1] != subscriber.own
                if at_once or (everyone and told.built_for != (self._revision, subscriber.own)):
                    told.built_for = (self._revision, subscriber.own)
                    commands += _push(told, subscriber, self._view.resources(store, subscriber))
        return commands

    def next_deadline(self) -> float | None:
        if self._first_change_s is None:
            return None
        timings = self._timings
        latest_s = self._first_change_s + timings.push_debounce_max_s
        if self._coming_up:
            pause_s = max(timings.push_debounce_s, COMING_UP_PAUSE_S * len(self._told))
            return min(self._first_change_s + pause_s, latest_s)
        return min(self._last_change_s + timings.push_debounce_s, latest_s)

    def problems(self, store: Store) -> Iterator[tuple[Subscriber, str | None]]:
        """All that there should be, each with why it does not have all that it should have, if so."""
        return ((each, self.not_in_sync(each.name)) for each in self._view.subscribers(store))

    def not_in_sync(self, name: str) -> str | None:
        """Why one does not have all that it should have, in one line; None when it has."""
        told = self._told.get(name)
        if told is None or not told.connected:
            return "not connected"
        if told.built_for is None:
            return "connected, nothing pushed yet"
        for type_url, error in told.rejected.items():
            return f"rejected {_short(type_url)}: {error}"
        for type_url, version in told.pushed.items():
            acked = told.acked.get(type_url, "none")
            if acked != str(version):
                return f"not in sync: {_short(type_url)} version {version} pushed, {acked} acknowledged"
        return None

    def _versions(self, name: str) -> dict[str, int]:
        return self._told[name].pushed if name in self._told else {}

    def _notice(self, store: Store, now: float) -> None:
        seen = self._view.revision(store)
        if seen == self._seen:
            return
        self._seen = seen
        self._revision += 1
        self._last_change_s = now
        if self._first_change_s is None:
            self._first_change_s = now


def _push(told: _Told, subscriber: Subscriber, resources: Resources) -> list[Command]:
    commands: list[Command] = []
    for type_url, new in resources.items():
        # Envoy does not ask for routes before a listener names some, and would not acknowledge that there are none.
        nothing_to_say = type_url == ROUTE_TYPE and not new
        if told.resources.get(type_url) != new and not nothing_to_say:
            told.resources[type_url] = new
            told.pushed[type_url] = version = told.pushed.get(type_url, 0) + 1
            commands.append(PushConfig(subscriber.place, subscriber.name, type_url, str(version), new))
    return commands


def _short(type_url: str) -> str:
    return type_url.rpartition(".")[2]
