"""Serves one page and its pieces as they change, to who has the link: on loopback, behind a token, to no other site.

HTML is asked for once, `events` is a stream of server-sent events (the HTML standard's text/event-stream).
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

_ADDRESS = "127.0.0.1"
_STREAMS_MAX = 8
_KEEP_ALIVE_S = 10.0
_LAST_WORDS_S = 2.0
_ALWAYS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer:
    """A context manager; at its end those who watch are told so, and nobody is served any more.

    Who asks needs the token, which is in the link alone. The Host has to be this server's, so that no name of a
    stranger's can be made to point here (DNS rebinding); a request that a page of another origin makes is refused.
    """

    def __init__(self, page: str, content_security_policy: str) -> None:
        self._token = secrets.token_urlsafe(24)
        self._pieces: dict[str, tuple[int, str]] = {}
        self.published = 0
        """How often there was something new."""
        self._streams = 0
        self._over = False
        self._news = threading.Condition()
        self._http = ThreadingHTTPServer((_ADDRESS, 0), _handler(self, page, content_security_policy))
        self._http.daemon_threads = True
        self._http.block_on_close = False
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.2,), name="live page", daemon=True)

    def __enter__(self) -> PageServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        with self._news:
            self._over = True
            self._news.notify_all()
            self._news.wait_for(lambda: not self._streams, _LAST_WORDS_S)
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    @property
    def port(self) -> int:
        return int(self._http.server_address[1])

    @property
    def url(self) -> str:
        return f"http://{_ADDRESS}:{self.port}/{self._token}/"

    @property
    def is_watched(self) -> bool:
        return self._streams > 0

    def publish(self, pieces: Mapping[str, str]) -> None:
        """Those of them that have changed are sent."""
        with self._news:
            self.published += 1
            for name, piece in pieces.items():
                if name not in self._pieces or self._pieces[name][1] != piece:
                    self._pieces[name] = self.published, piece
            self._news.notify_all()

    def _refusal(self, handler: BaseHTTPRequestHandler) -> HTTPStatus | None:
        own = {f"{name}:{self.port}" for name in (_ADDRESS, "localhost")}
        headers = handler.headers
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site", "none")
        # A link may be followed from anywhere: who does so gets to see the page, and no other page does.
        followed = headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
        if headers.get("Host") not in own or (origin is not None and origin.removeprefix("http://") not in own):
            return HTTPStatus.FORBIDDEN
        if site not in ("none", "same-origin") and not followed:
            return HTTPStatus.FORBIDDEN
        wanted = handler.path.encode()
        known = [f"/{self._token}/{what}".encode() for what in ("", "events")]
        return None if any(hmac.compare_digest(wanted, each) for each in known) else HTTPStatus.NOT_FOUND

    def _stream(self, handler: BaseHTTPRequestHandler) -> None:
        """Send what is there, then what is new, until the end."""
        seen = 0
        while True:
            with self._news:
                self._wait_for_news(seen)
                new = {name: piece for name, (version, piece) in self._pieces.items() if version > seen}
                seen, over = self.published, self._over
            handler.wfile.write(b"data: " + orjson.dumps(new) + b"\n\n" if new else b":\n\n")
            if over:
                handler.wfile.write(b"event: end\ndata:\n\n")
                return
            handler.wfile.flush()

    def _wait_for_news(self, seen: int) -> None:
        self._news.wait_for(lambda: self._over or self.published > seen, _KEEP_ALIVE_S)

    def _may_stream(self) -> bool:
        with self._news:
            if self._streams >= _STREAMS_MAX or self._over:
                return False
            self._streams += 1
            return True

    def _streamed(self) -> None:
        with self._news:
            self._streams -= 1
            self._news.notify_all()


def _handler(server: PageServer, page: str, content_security_policy: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30.0
        """For a request, and for who does not read what is sent."""

        def do_GET(self) -> None:
            if (refusal := server._refusal(self)) is not None:
                self._answer(refusal, "text/plain", refusal.phrase.encode())
            elif not self.path.endswith("/events"):
                self._answer(HTTPStatus.OK, "text/html; charset=utf-8", page.encode())
            elif server._may_stream():
                try:
                    self._head(HTTPStatus.OK, "text/event-stream")
                    server._stream(self)
                except OSError:
                    # Who watched has gone.
                    pass
                finally:
                    server._streamed()
            else:
                self._answer(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"too many are watching")

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self._head(status, kind, len(body))
            self.wfile.write(body)

        def _head(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            if length is not None:
                self.send_header("Content-Length", str(length))
            for name, value in {**_ALWAYS, "Content-Security-Policy": content_security_policy}.items():
                self.send_header(name, value)
            self.end_headers()

        def version_string(self) -> str:
            return "testbed"

        def log_message(self, format: str, *args: object) -> None:
            """Nobody reads it."""

    return Handler
