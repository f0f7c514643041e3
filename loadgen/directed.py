"""Clients that are directed: they ask a router for their cell, keep its answer for a while, and go to a gateway there.

The answer is a cookie with a Max-Age, kept by the client itself: it knows neither how a key becomes a partition nor
what other clients were told. A request of a client without one asks first, as part of itself: what that takes counts in
its latency and time-out. A gateway that refuses as misdirected (421) makes the client ask anew and send once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geventhttpclient.client import HTTPClient
from geventhttpclient.url import URL
from locust.contrib.fasthttp import FAILURE_EXCEPTIONS, FastHttpSession

from loadgen.entry import Entry, Resolver
from loadgen.outcome import NoCell
from loadgen.recorder import REQUEST_ID, TRIP, Trip
from loadgen.sessions import Session, addressed
from loadgen.settings import Directed, Ids, RequestTemplate, Settings

_OK = 200
_MISDIRECTED = 421


@dataclass(slots=True)
class DirectedTrip(Trip):
    """Of one request. Path and headers depend on the cookies that its client has by then."""

    request: RequestTemplate
    session: Session


class Router:
    """Whom clients ask. Each question has a connection of its own, as those who ask are strangers to each other."""

    def __init__(self, settings: Settings, directed: Directed, ids: Ids, resolver: Resolver) -> None:
        self._settings = settings
        self._directed = directed
        self._ids = ids
        self._resolver = resolver

    def direct(self, client: FastHttpSession) -> None:
        """Let this client send where the trip in the context of a request leads it."""
        client.request = self._directing(client, client.request)

    def _directing(self, client: FastHttpSession, send: Callable[..., Any]) -> Callable[..., Any]:
        def request(
            method: str, url: str, name: str, *, headers: dict[str, str], context: dict[str, Any], **options: Any
        ) -> Any:
            trip: DirectedTrip = context[TRIP]
            identity = {REQUEST_ID: headers[REQUEST_ID]}
            for last in (False, True):
                entry = self._lead(trip, identity)
                trip.entry_zone, client.base_url = entry.zone, entry.url
                path, addressed_to = addressed(trip.request, self._ids, trip.session)
                response = send(
                    method, path, name, headers=addressed_to | identity, context=context, catch_response=True, **options
                )
                if response.status_code != _MISDIRECTED:
                    break
                trip.session.drop(self._directed.cookie)
                if last:
                    break
            with response:  # what a try was answered that is followed by another is nothing to count
                return response

        return request

    def _lead(self, trip: DirectedTrip, identity: dict[str, str]) -> Entry:
        """The gateway to send to now, by what the client holds or is told. Raises NoCell."""
        now, session = time.monotonic(), trip.session
        session.drop_expired(now)
        if self._directed.cookie not in session.cookies:
            trip.questions += 1
            try:
                self._ask(trip.request, session, identity, now)
            finally:
                trip.router_ms = (trip.router_ms or 0.0) + (time.monotonic() - now) * 1e3
        trip.cell, trip.map_version = session.cookies.get(self._directed.cookie), session.map_version
        if trip.cell is None:
            return self._resolver.resolve(now)
        return self._resolver.gateway_of(trip.cell, now)

    def _ask(self, request: RequestTemplate, session: Session, identity: dict[str, str], now: float) -> None:
        path, headers = addressed(request, self._ids, session)
        url = URL(self._resolver.router(now).url + path)
        client = HTTPClient(
            url.host,
            url.port,
            connection_timeout=self._settings.connect_timeout_s,
            network_timeout=self._settings.timeout_s,
        )
        client._connection_pool.size = -1  # as often as it says: once
        try:
            response = client.request("GET", url.quoted_uri, headers=headers | identity)
            response.read()
        except FAILURE_EXCEPTIONS as error:
            raise NoCell(str(error)) from error
        finally:
            client.close()
        if response.status_code != _OK:
            raise NoCell(f"status {response.status_code}")
        found, version = (response.get(name) for name in ("set-cookie", self._directed.map_version_header))
        session.take([found] if isinstance(found, str) else found or (), time.monotonic())
        session.map_version = None if version is None else int(version)
