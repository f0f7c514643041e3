"""Clients with ids: which id each request carries, where, and the cookies that its client was given.

A pure function of the settings and of the answers. It imports neither Locust nor gevent.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from math import ceil, inf
from random import Random

from loadgen.settings import Ids, OpenSource, RequestTemplate


@dataclass(slots=True)
class Session:
    """One client: an id, the requests that it has still to send, and its cookies."""

    id: str
    left: int
    cookies: dict[str, str] = field(default_factory=dict)
    map_version: int | None = None
    """By which a router told it its cell, if one did."""
    _expire_s: dict[str, float] = field(default_factory=dict)

    def take(self, set_cookies: Iterable[str], now: float = 0.0) -> None:
        """What an answer's `set-cookie` headers say; of attributes only Max-Age matters, as all is for one site.

        Source: RFC 6265, 5.2 and 5.2.2 (a Max-Age that is no number does not count, one of 0 or less ends the cookie).
        """
        for each in set_cookies:
            cookie, *attributes = ([text.strip() for text in part.partition("=")] for part in each.split(";"))
            name, is_cookie, value = cookie
            if not is_cookie:
                continue
            self.cookies[name], self._expire_s[name] = value, inf
            for attribute, _, text in attributes:
                if attribute.lower() == "max-age" and text.removeprefix("-").isdecimal():
                    self._expire_s[name] = now + int(text)
        self.drop_expired(now)

    def drop_expired(self, now: float) -> None:
        """`now` is seconds of the clock by which cookies were taken."""
        for name in [name for name, expire_s in self._expire_s.items() if now >= expire_s]:
            self.drop(name)

    def drop(self, cookie: str) -> None:
        self.cookies.pop(cookie, None)
        self._expire_s.pop(cookie, None)


class IdDraw:
    """Draws ids by the settings. Made once a process, for all that draw."""

    def __init__(self, ids: Ids) -> None:
        self._count = ids.count
        self._written = None if ids.file is None else ids.file.read_text().split()
        self._weights = None
        if ids.file is None and ids.distribution == "zipf":
            self._weights = list(accumulate((number + 1) ** -ids.exponent for number in range(ids.count)))

    def draw(self, random: Random) -> str:
        if self._written is not None:
            return random.choice(self._written)
        if self._weights is not None:
            return str(random.choices(range(self._count), cum_weights=self._weights)[0])
        return str(random.randrange(self._count))


class Sessions:
    """Clients who take turns. A client whose requests are sent is followed by one with an id of its own.

    The first ones have a part of their requests behind them, so that new ones come at an even pace from the start.
    """

    def __init__(self, ids: Ids, draw: IdDraw, random: Random, at_once: int = 1) -> None:
        self._length = ids.session
        self._draw = draw
        self._random = random
        self._clients = [Session(draw.draw(random), random.randint(1, ids.session)) for _ in range(at_once)]
        self._turn = 0

    def next(self) -> Session:
        """Whose turn it is to send a request."""
        at = self._turn % len(self._clients)
        self._turn += 1
        if self._clients[at].left == 0:
            self._clients[at] = Session(self._draw.draw(self._random), self._length)
        self._clients[at].left -= 1
        return self._clients[at]


def clients_of(sources: Sequence[OpenSource]) -> int:
    """How many clients carry an open load: each sends about one request a second, so that it has its answer before."""
    return max(1, ceil(sum(source.rate_per_s for source in sources)))


def addressed(request: RequestTemplate, ids: Ids, session: Session) -> tuple[str, dict[str, str]]:
    """Path and headers of a request with the id and the cookies of its client. What the request has itself stays."""
    path = request.path.replace("{id}", session.id)
    headers = dict(request.headers)
    written = {name.lower(): name for name in headers}
    cookies = dict(session.cookies)
    if ids.where == "header" and ids.name.lower() not in written:
        headers[ids.name] = session.id
    elif ids.where == "query" and f"{ids.name}=" not in path:
        path += f"{'&' if '?' in path else '?'}{ids.name}={session.id}"
    elif ids.where == "cookie":
        cookies[ids.name] = session.id
    if cookies:
        own = [headers.pop(written["cookie"])] if "cookie" in written else []
        headers["Cookie"] = "; ".join([*own, *(f"{name}={value}" for name, value in cookies.items())])
    return path, headers
