"""A Locust that somebody else drives, by its own web page: real Locust, with the cluster's side of its tie played."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import orjson
import pytest

from loadgen.command import guest_line, page_command
from loadgen.entry import Entry, write_entries
from loadgen.settings import Settings, load
from tests.loadgen.conftest import DEADLINE_S, Server, get

OWN = """
from locust import HttpUser, FastHttpUser, constant, events, task

class Patient(HttpUser):
    wait_time = constant(0.05)

    @task
    def look(self):
        self.client.get("/mine")

class Quick(FastHttpUser):
    wait_time = constant(0.05)

    @task
    def look(self):
        self.client.get("/quick")
        events.request.fire(
            request_type="journey", name="all", response_time=1, response_length=0, exception=ValueError("no"),
        )
"""


class Host:
    """The cluster's side: takes one guest, and hears what it says."""

    def __init__(self, folder: Path, url: str, own: str | None = None, *options: str) -> None:
        self.records = folder / "records.jsonl"
        self.settings = folder / "guests.json"
        self._log = folder / "log.txt"
        entries, place = folder / "entry.json", Path(f"/proc/self/fd/{os.open(folder, os.O_PATH)}/guests")
        write_entries(entries, [Entry("a", url)])
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place))
        self._listener.listen()
        self._listener.settimeout(DEADLINE_S)
        wanted = {**get("/declared"), "name": "declared"}
        document: dict[str, Any] = {
            **{"origin_zone": "a", "seed": 7, "sources": [{"users": 1, "think_time_s": 0.05}], "duration_s": None},
            **{"requests": [wanted], "timeout_s": 5.0, "connect_timeout_s": 5.0, "entry_file": str(entries)},
            **{"entry_ttl_s": 0.5, "records_file": str(self.records), "locustfile": None},
            "guests_socket": str(folder / "guests"),
        }
        self.settings.write_bytes(orjson.dumps(document))
        locustfile = None
        if own is not None:
            locustfile = folder / "my.py"
            locustfile.write_text(own)
        self.port = _free_port()
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [*page_command(self.settings, self.port, locustfile), *options],
                env={**os.environ, "TESTBED_LOAD": str(self.settings)},
                cwd=folder,
                stdout=log,
                stderr=log,
            )
        self.connection, _ = self._listener.accept()
        self.connection.settimeout(DEADLINE_S)
        self._lines = self.connection.makefile("rb")
        assert self.hear("joined") == self.process.pid
        self.until(lambda: _listens(self.port))

    def hear(self, kind: str) -> Any:
        deadline_s = time.monotonic() + DEADLINE_S
        for line in self._lines:
            if kind in (message := orjson.loads(line)):
                return message[kind]
            assert time.monotonic() < deadline_s, self._log.read_text()
        raise AssertionError(f"it ended without {kind}: {self._log.read_text()}")

    def ask(self, path: str, **form: object) -> dict[str, Any]:
        data = urlencode(form).encode() if form else None
        with urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=DEADLINE_S) as answer:
            text = answer.read()
        return dict(orjson.loads(text)) if text.startswith(b"{") else {}

    def swarm(self, users: int, **form: object) -> None:
        assert self.ask("/swarm", user_count=users, spawn_rate=users, host="", **form)["success"]

    def stop(self) -> None:
        self.ask("/stop", stop="yes")
        self.until(lambda: self.ask("/stats/requests")["state"] == "stopped")

    def sent(self, path: str) -> int:
        return sum(line["e"] == "s" and line["u"] == path for line in self.lines())

    def lines(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [orjson.loads(line) for line in self.records.read_bytes().splitlines()]
        return lines

    def until(self, condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert self.process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline_s, self._log.read_text()
            time.sleep(0.05)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self.connection.close()
        self._listener.close()


@pytest.fixture
def host(tmp_path: Path, server: Server) -> Iterator[Callable[..., Host]]:
    hosts: list[Host] = []

    def begin(own: str | None = None, *options: str) -> Host:
        hosts.append(Host(tmp_path, server.url, own, *options))
        return hosts[-1]

    yield begin
    for each in hosts:
        each.close()


def _free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) == 0


def test_users_of_ones_own_are_recorded_from_swarm_to_swarm_and_all_of_them_counted(
    host: Callable[..., Host], server: Server
) -> None:
    guest = host(OWN)
    for times in (1, 2):
        guest.swarm(2)
        guest.until(lambda: min(guest.sent("/mine"), guest.sent("/quick")) >= 3 * times)  # noqa: B023
        guest.stop()
        guest.ask("/stats/reset", reset="yes")
    assert guest.hear("stats")["total"]["sent"] > 0
    guest.connection.sendall(b"stop\n")
    done = guest.hear("done")
    guest.process.wait(DEADLINE_S)
    lines = guest.lines()
    sent = {line["id"]: line for line in lines if line["e"] == "s"}
    finished = {line["id"]: line for line in lines if line["e"] == "f"}
    assert sent.keys() == finished.keys()
    assert {line["u"] for line in sent.values()} == {"/mine", "/quick"}
    assert {line["z"] for line in sent.values()} == {"a"}
    # Who is stopped between the record and the connection has sent nothing: nobody knows, says the record.
    arrived = set(server.request_ids)
    assert arrived <= sent.keys()
    assert {finished[each]["o"] for each in sent.keys() - arrived} <= {"unknown"}
    assert done["sent"] == len(sent)
    assert done["requests"] - done["own_events"] == len(sent)
    assert done["failures"] - done["own_failures"] == sum(line["o"] != "ok" for line in finished.values())
    assert done["own_failures"] > 0


def test_without_users_of_ones_own_they_send_what_is_declared(host: Callable[..., Host]) -> None:
    guest = host()
    guest.swarm(2)
    guest.until(lambda: guest.sent("/declared") >= 4)
    guest.process.send_signal(signal.SIGINT)
    assert guest.hear("done")["requests"] == len([line for line in guest.lines() if line["e"] == "s"])
    assert {line["n"] for line in guest.lines() if line["e"] == "s"} == {"declared"}


def test_users_that_are_picked_on_the_page_are_recorded_as_well(host: Callable[..., Host]) -> None:
    guest = host(OWN, "--class-picker")
    guest.swarm(2, user_classes="Quick")
    guest.until(lambda: guest.sent("/quick") >= 4)
    assert guest.sent("/mine") == 0


def test_a_locust_whose_cluster_is_gone_ends_and_none_joins_that_is_not_there(host: Callable[..., Host]) -> None:
    guest = host(OWN)
    guest.swarm(2)
    guest.until(lambda: guest.sent("/mine") >= 1)
    guest.connection.shutdown(socket.SHUT_RDWR)
    guest.process.wait(DEADLINE_S)  # Locust's exit code says whether requests have failed
    guest._listener.close()
    late = subprocess.run(
        page_command(guest.settings, guest.port),
        env={**os.environ, "TESTBED_LOAD": str(guest.settings)},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert late.returncode == 1
    assert "the cluster that this Locust was to join is not up any more" in late.stderr
    assert "Traceback" not in late.stderr


def test_the_line_that_is_printed_names_settings_and_plugin_for_any_shell(tmp_path: Path) -> None:
    file = tmp_path / "it's here" / "a.json"
    file.parent.mkdir()
    nowhere = Path("nowhere")
    Settings("a", 1, (), 1.0, (), 2.5, 1.0, nowhere, 1.0, nowhere, None, guests_socket=nowhere).save(file)
    assert load(file).guests_socket == nowhere
    shown = subprocess.run(
        ["/bin/sh", "-c", f"env {guest_line(file)} --version && echo done"], capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("locust 2.")
    assert shown.stdout.endswith("done\n")
