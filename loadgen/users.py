"""The Locust users: the two built-in ones (open and closed load), and the recording that every user class gets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from random import Random
from typing import Any, ClassVar

import gevent
from gevent.pool import Group
from geventhttpclient.client import HTTPClient, HTTPClientPool
from geventhttpclient.url import URL
from locust import FastHttpUser, HttpUser, User, task
from locust.env import Environment
from locust.exception import StopUser
from locust.user.users import UserMeta

from loadgen.alarm import Alarm
from loadgen.conductor import Conductor
from loadgen.directed import DirectedTrip, Router
from loadgen.operations import OperationDraw
from loadgen.outcome import NoCell
from loadgen.recorder import INTENDED_S, OPERATION, TRIP, Recorder
from loadgen.schedule import schedule
from loadgen.sessions import IdDraw, Sessions, addressed, clients_of
from loadgen.settings import OPERATION_KEY, ClosedSource, RequestTemplate, Settings

_UNLIMITED = 1_000_000
_ALARM_WITHIN_S = 0.05


class _OneAttemptPool(HTTPClientPool):  # type: ignore[misc]
    """Connections as many as needed, and every request sent once.

    HTTPClient.request silently sends an idempotent request again, up to its pool's size + 1 times, when a connection
    breaks: that would hide exactly what is measured here.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            concurrency=_UNLIMITED,
            connection_timeout=settings.connect_timeout_s,
            network_timeout=settings.timeout_s,
        )

    def get_client(self, url: str | URL) -> HTTPClient:
        client = super().get_client(url)
        client._connection_pool.size = -1
        return client


class _BuiltInUser(FastHttpUser):  # type: ignore[misc]
    """Sends requests of the settings, each with a time-out over all of it, and follows no redirects."""

    abstract = True
    max_redirects = 0
    settings: ClassVar[Settings]
    conductor: ClassVar[Conductor]
    draw: ClassVar[IdDraw | None] = None
    """Of the ids that clients carry; None where they carry none."""
    router: ClassVar[Router | None] = None
    """None where clients are not directed to their cell."""
    sessions: Sessions | None = None
    operations: ClassVar[OperationDraw | None] = None
    """None where requests are not of a store's keys."""
    process: str | None = None
    """Who does one thing after the other; None where each request is by itself."""

    def __init__(self, environment: Environment) -> None:
        self.client_pool = _OneAttemptPool(self.settings)
        super().__init__(environment)
        if self.router is not None:
            self.router.direct(self.client)

    def carry_ids(self, random: Random, at_once: int) -> None:
        """So many clients take turns, each with an id and cookies of its own."""
        if self.draw is not None and self.settings.ids is not None:
            self.client.client.cookiejar = None
            self.sessions = Sessions(self.settings.ids, self.draw, random, at_once)

    def send(self, request: RequestTemplate, intended_s: float) -> None:
        context: dict[str, Any] = {INTENDED_S: intended_s}
        session = None if self.sessions is None else self.sessions.next()
        if self.operations is not None and OPERATION_KEY in request.path:
            client = None if session is None else session.id
            request, context[OPERATION] = self.operations.next(request, self.process, client)
        if session is None or self.settings.ids is None:
            self._send(request, request.path, request.headers, context)
            return
        if self.router is not None:
            context[TRIP] = DirectedTrip(request, session)
        response = self._send(request, *addressed(request, self.settings.ids, session), context)
        if response is not None and response.headers is not None:
            found = response.headers.get("set-cookie")
            session.take([found] if isinstance(found, str) else found or (), time.monotonic())

    def _send(self, request: RequestTemplate, path: str, headers: dict[str, str], context: dict[str, Any]) -> Any:
        """The answer; None where none came in time."""
        with suppress(NoCell), gevent.Timeout(self.settings.timeout_s):
            return self.client.request(
                request.method, path, request.name, data=request.body, headers=headers, context=context
            )
        return None


class OpenUser(_BuiltInUser):
    """All open sources of the process: each arrival gets a greenlet of its own, so that none waits for another."""

    abstract = True

    def on_start(self) -> None:
        # Arrivals are independent clients: they must not share cookies.
        self.client.client.cookiejar = None
        settings = self.settings
        self.carry_ids(Random(f"{settings.seed_text}/ids"), clients_of(settings.open_sources))
        self._requests = Group()

    @task  # type: ignore[untyped-decorator]
    def send_the_schedule(self) -> None:
        alarm = Alarm()
        stopping = self.conductor.stopping
        for offset_s, request in schedule(self.settings):
            due_s = self.conductor.t0_s + offset_s
            early_s = due_s - time.monotonic() - _ALARM_WITHIN_S
            if early_s > 0:
                stopping.wait(early_s)
            if stopping.is_set():
                break
            alarm.sleep_until(due_s)
            self._requests.spawn(self.send, request, due_s)
        self._requests.join()
        raise StopUser

    def on_stop(self) -> None:
        self._requests.kill()


class ClosedUser(_BuiltInUser):
    """One user of a closed source: ask, wait for the answer, think, ask again."""

    abstract = True
    numbers: ClassVar[Iterator[int]] = count()

    def on_start(self) -> None:
        number = next(self.numbers)
        self.process = f"{self.settings.origin_zone}/{self.settings.turn}/{number}"
        sources = [source for source in self.settings.closed_sources for _ in range(source.users)]
        self._source: ClosedSource = sources[number]
        self._random = Random(f"{self.settings.seed_text}/user {number}")
        self._weights = [request.weight for request in self.settings.requests]
        self.carry_ids(Random(f"{self.settings.seed_text}/ids of {number}"), at_once=1)
        # Staggered over the first second, so that they do not march in step.
        self._due_s = self.conductor.t0_s + number / len(sources)
        if self.conductor.stopping.wait(max(0.0, self._due_s - time.monotonic())):
            raise StopUser

    def wait_time(self) -> float:
        self._due_s = time.monotonic() + self._source.think_time_s
        return self._source.think_time_s

    @task  # type: ignore[untyped-decorator]
    def send_one(self) -> None:
        if self.conductor.stopping.is_set():  # Locust kills a user whose wait it saw, even if the wait has just ended
            raise StopUser
        (request,) = self._random.choices(self.settings.requests, self._weights)
        self.send(request, self._due_s)


class DeclaredUser(_BuiltInUser):
    """One user of a Locust that somebody else drives: sends the declared requests, and thinks in between."""

    abstract = True
    think_time_s: ClassVar[float] = 1.0

    def on_start(self) -> None:
        self._random = Random()
        self._weights = [request.weight for request in self.settings.requests]
        self.carry_ids(self._random, at_once=1)

    def wait_time(self) -> float:
        return self.think_time_s

    @task  # type: ignore[untyped-decorator]
    def send_one(self) -> None:
        (request,) = self._random.choices(self.settings.requests, self._weights)
        self.send(request, time.monotonic())


class _RecordedUser(User):  # type: ignore[misc]
    abstract = True
    recorder: ClassVar[Recorder]

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        client = getattr(self, "client", None)
        if isinstance(self, (HttpUser, FastHttpUser)):
            self.recorder.attach(client)

    def stop(self, force: bool = False) -> bool:
        """Locust kills a user that it sees waiting, and so in the middle of a request if that wait is just over: let
        such a user begin its task first, which makes Locust wait for the end of it."""
        if not force:
            gevent.sleep(0.001)
        stopped: bool = super().stop(force)
        return stopped


def recorded(user_class: type[User], recorder: Recorder) -> type[User]:
    """A subclass under the same name whose HTTP client is recorded from its first request on."""
    attributes = {"recorder": recorder, "__module__": user_class.__module__}
    subclass: type[User] = UserMeta(user_class.__name__, (_RecordedUser, user_class), attributes)
    return subclass
