"""The page of a run is served to who has its link, and to nobody else; what changes is sent, and the end is told."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator

import orjson
import pytest

from testbed.results.show.live.server import PageServer

PATIENCE_S = 20.0
POLICY = "default-src 'none'"


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer("<p>page</p>", POLICY) as server:
        yield server


def asked(server: PageServer, path: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.putrequest("GET", path, skip_host="Host" in given)
    for name, value in given.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def token_of(server: PageServer) -> str:
    return server.url.rsplit("/", 2)[1]


class Stream:
    def __init__(self, server: PageServer) -> None:
        self._answer = asked(server, f"/{token_of(server)}/events")
        assert self._answer.headers["Content-Type"] == "text/event-stream"

    def event(self) -> tuple[str, object]:
        """The next one that is no comment: its name, and its data."""
        name, data = "message", b""
        while True:
            line = self._answer.readline()
            assert line
            if line.startswith(b"event: "):
                name = line[7:].decode().strip()
            elif line.startswith(b"data:"):
                data = line[5:].strip()
            elif line == b"\n" and (data or name != "message"):
                return name, orjson.loads(data) if data else None


def test_who_has_the_link_gets_the_page_and_it_may_fetch_from_nowhere_else(server: PageServer) -> None:
    answer = asked(server, f"/{token_of(server)}/")
    assert (answer.status, answer.read()) == (200, b"<p>page</p>")
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Access-Control-Allow-Origin" not in answer.headers
    assert server.url.startswith("http://127.0.0.1:")
    assert len(token_of(server)) >= 32


@pytest.mark.parametrize("what", ["", "events"])
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
    ],
)
def test_no_other_site_is_answered_even_with_the_token(
    server: PageServer, what: str, headers: dict[str, str], status: int
) -> None:
    server.publish({"a": "secret"})
    answer = asked(server, f"/{token_of(server)}/{what}", **headers)
    assert answer.status == status
    assert b"secret" not in answer.read()


def test_a_link_can_be_followed_from_anywhere(server: PageServer) -> None:
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert asked(server, f"/{token_of(server)}/", **followed).status == 200


@pytest.mark.parametrize("path", ["/", "/events", "/wrong/", "/{}x/", "/{}/other", "/{}", "/{}/../events"])
def test_without_the_token_or_with_another_path_there_is_nothing(server: PageServer, path: str) -> None:
    assert asked(server, path.format(token_of(server))).status == 404


def test_what_is_there_is_sent_at_once_then_only_what_changes_and_then_the_end() -> None:
    with PageServer("", POLICY) as server:
        assert not server.is_watched
        server.publish({"a": "1", "b": "<b>ü\n"})
        first, second = Stream(server), Stream(server)
        for stream in (first, second):
            assert stream.event() == ("message", {"a": "1", "b": "<b>ü\n"})
        assert server.is_watched
        server.publish({"a": "2", "b": "<b>ü\n"})
        assert first.event() == second.event() == ("message", {"a": "2"})
        server.publish({"a": "3"})
    assert first.event() == ("message", {"a": "3"})
    assert first.event() == ("end", None)


def test_more_than_a_few_are_not_served_and_who_has_gone_makes_room(server: PageServer) -> None:
    server.publish({"a": "1"})
    streams = [Stream(server) for _ in range(8)]
    for stream in streams:
        stream.event()
    assert asked(server, f"/{token_of(server)}/events").status == 503
    for stream in streams:
        stream._answer.close()
    gone = threading.Event()
    for number in range(200):
        server.publish({"a": str(number + 2)})
        if not server.is_watched:
            break
        gone.wait(0.05)
    assert not server.is_watched


def test_what_is_no_request_for_a_page_is_refused(server: PageServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_S)
    connection.request("POST", f"/{token_of(server)}/", b"x")
    assert connection.getresponse().status == 501
