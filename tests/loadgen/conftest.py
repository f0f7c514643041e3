"""A local HTTP server that misbehaves on request, and real load processes against it."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import orjson
import pytest

from loadgen.command import command

DEADLINE_S = 60.0


class Server:
    """What it saw is `request_ids`, in order; `hang` holds every request that asks for it until the server closes."""

    def __init__(self) -> None:
        self.request_ids: list[str | None] = []
        self.headers: list[dict[str, str]] = []
        """Of each request, with names in lower case."""
        self.paths: list[str] = []
        self.answer: dict[str, str] = {}
        """Headers of every answer."""
        self.statuses: list[int] = []
        """Of the next answers, whatever was asked."""
        self.most_at_once = 0
        self._at_once = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                server._serve(self)

            do_POST = do_HEAD = do_GET

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 1024
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # clients that were killed

        self._http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("content-length", 0)))
        with self._lock:
            self.request_ids.append(handler.headers.get("x-request-id"))
            self.paths.append(handler.path)
            self.headers.append({name.lower(): value for name, value in handler.headers.items()})
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            if handler.path == "/hang":
                self._closing.wait()
            if handler.path in ("/hang", "/lose"):
                handler.close_connection = True
                handler.connection.shutdown(socket.SHUT_RDWR)
                return
            status = int(handler.path[1:]) if handler.path[1:].isdecimal() else 200
            with self._lock:
                status = self.statuses.pop(0) if self.statuses else status
            handler.send_response(status)
            if status == 302:
                handler.send_header("location", "/elsewhere")
            if handler.path == "/cookie":
                handler.send_header("set-cookie", "cell=rz01; Path=/; HttpOnly")
                handler.send_header("x-partition", "12")
            for name, value in self.answer.items():
                handler.send_header(name, value)
            handler.send_header("content-length", "2")
            handler.end_headers()
            if handler.command != "HEAD":
                handler.wfile.write(b"ok")
        finally:
            with self._lock:
                self._at_once -= 1

    def close(self) -> None:
        self._closing.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


class Load:
    """One load process; its lines are read with a deadline."""

    def __init__(self, directory: Path, url: str, table: dict[str, Any] | None = None, **changes: Any) -> None:
        """`table` is what the table of entries has besides the gateway at `url`."""
        self._table = table or {}
        self.records_file = directory / "records.jsonl"
        self.entry_file = directory / "entry.json"
        self.settings_file = directory / "settings.json"
        self.stderr_file = directory / "stderr.txt"
        self.set_entry("a", url)
        self.t0_s = 0.0
        self.settings: dict[str, Any] = {
            "origin_zone": "a",
            "seed": 7,
            "sources": [{"rate_per_s": 100.0, "arrival": "poisson"}],
            "duration_s": 1.5,
            "requests": [get("/")],
            "timeout_s": 10.0,
            "connect_timeout_s": 10.0,
            "entry_file": str(self.entry_file),
            "entry_ttl_s": 0.5,
            "records_file": str(self.records_file),
            "locustfile": None,
        } | changes
        self.settings_file.write_bytes(orjson.dumps(self.settings))
        with self.stderr_file.open("wb") as stderr:
            self.process = subprocess.Popen(
                command(self.settings_file),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=directory,
                env={**os.environ, "TESTBED_LOAD": str(self.settings_file)},
            )
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def set_entry(self, zone: str, url: str) -> None:
        written = self.entry_file.with_suffix(".new")
        written.write_bytes(orjson.dumps({"entries": [{"zone": zone, "url": url}], **self._table}))
        written.replace(self.entry_file)

    def wait_for(self, kind: str) -> Any:
        """The next line of that kind, passing over others."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line, f"ended without {kind}: {self.stderr_file.read_text()}"
            message = orjson.loads(line)
            if kind in message:
                return message[kind]

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def start(self) -> None:
        assert self.wait_for("ready") is True
        self.t0_s = time.monotonic() + 0.1
        self.say(f"start {self.t0_s}")

    def wait(self) -> int:
        return self.process.wait(DEADLINE_S)

    def finish(self) -> Any:
        """The counts of `done`, after the process has ended as it should."""
        done = self.wait_for("done")
        assert self.wait() == 0, self.stderr_file.read_text()
        return done

    def records(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Sent and finished lines by request id; no id may come twice in either."""
        sent: dict[str, Any] = {}
        finished: dict[str, Any] = {}
        for line in self.records_file.read_bytes().splitlines():
            record = orjson.loads(line)
            if record["e"] == "o":
                continue
            lines = sent if record["e"] == "s" else finished
            assert record["id"] not in lines
            lines[record["id"]] = record
        return sent, finished

    def own_events(self) -> list[dict[str, Any]]:
        """What the locustfile fired itself."""
        lines = map(orjson.loads, self.records_file.read_bytes().splitlines())
        return [line for line in lines if line["e"] == "o"]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()


def get(path: str, **changes: Any) -> dict[str, Any]:
    return {"name": path, "method": "GET", "path": path, "weight": 1, "headers": {}, "body": None} | changes


@pytest.fixture
def start_server() -> Iterator[Callable[[], Server]]:
    servers: list[Server] = []

    def start() -> Server:
        servers.append(Server())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(start_server: Callable[[], Server]) -> Server:
    return start_server()


@pytest.fixture
def start_load(tmp_path: Path) -> Iterator[Callable[..., Load]]:
    loads: list[Load] = []

    def start(url: str, **changes: Any) -> Load:
        directory = tmp_path / str(len(loads))
        directory.mkdir()
        loads.append(Load(directory, url, **changes))
        return loads[-1]

    yield start
    for load in loads:
        load.close()
