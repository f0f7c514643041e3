"""The port of a machine on real sockets: who is let in, where to, and what happens to a stream."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from threading import Thread
from time import monotonic_ns, time_ns

import pytest

from testbed.network.addresses.loopback import LoopbackBlock, LoopbackNetwork
from testbed.network.wire.ingress import CLOCK, PONG, Ingress
from testbed.objects.addresses import SocketAddress
from tests.network.conftest import DEADLINE_S, OPENED, TOKEN, is_silent, machine_ip, read_exactly, reset, wait_until


@dataclass
class Machine:
    """An ingress in front of place `here`, with a server there; `elsewhere` is a place on another machine."""

    ingress: Ingress
    address: SocketAddress
    server: socket.socket
    target: SocketAddress
    elsewhere: SocketAddress
    owned: ExitStack

    def ask(self, request_line: str, token: str = TOKEN) -> socket.socket:
        return self.send(f"{request_line}\r\nproxy-authorization: Bearer {token}\r\n\r\n".encode())

    def send(self, request: bytes) -> socket.socket:
        client = socket.create_connection((self.address.ip, self.address.port), timeout=DEADLINE_S)
        self.owned.enter_context(client).sendall(request)
        return client

    def connect(self) -> tuple[socket.socket, socket.socket]:
        client = self.ask(f"CONNECT {self.target} HTTP/1.1")
        assert read_exactly(client, len(OPENED)) == OPENED
        server = self.owned.enter_context(self.server.accept()[0])
        server.settimeout(DEADLINE_S)
        return client, server

    def nobody_came(self) -> bool:
        self.server.setblocking(False)
        try:
            self.server.accept()
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def head_timeout_s() -> float:
    """Long enough for every head that comes at all."""
    return DEADLINE_S


@pytest.fixture
def machine(block: LoopbackBlock, head_timeout_s: float) -> Iterator[Machine]:
    network = LoopbackNetwork(block.second_octet, ("here", "elsewhere"))
    target = network.allocate_pod("here", 8080).app
    with ExitStack() as owned:
        ingress = Ingress(TOKEN, [network.node_network("here")], head_timeout_s=head_timeout_s)
        address = ingress.start(machine_ip(block))
        owned.callback(ingress.stop)
        server = owned.enter_context(socket.create_server((target.ip, target.port)))
        server.settimeout(DEADLINE_S)
        yield Machine(ingress, address, server, target, network.allocate_pod("elsewhere", 8080).app, owned)


# --- who is let in -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", ["", "x", TOKEN[:-1], TOKEN + "0", TOKEN.upper()])
def test_a_wrong_token_is_refused_whatever_it_asks_for(machine: Machine, token: str) -> None:
    for request_line in (
        f"CONNECT {machine.target} HTTP/1.1",
        f"CONNECT {machine.elsewhere} HTTP/1.1",
        CLOCK,
        "nonsense",
    ):
        client = machine.ask(request_line, token)
        assert client.recv(1000).startswith(b"HTTP/1.1 407 ")
        assert client.recv(1) == b""
    assert machine.nobody_came()
    assert machine.ingress.refused == 4


@pytest.mark.parametrize(
    ("request_bytes", "status", "head_timeout_s"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"407", DEADLINE_S),
        (b"\x16\x03\x01\r\n\r\n", b"407", DEADLINE_S),
        (b"x" * 5000, b"431", DEADLINE_S),
        (b"CONNECT 127.", b"408", 0.2),
        (b"", b"408", 0.2),
    ],
)
def test_a_stranger_is_refused_and_counted(machine: Machine, request_bytes: bytes, status: bytes) -> None:
    assert machine.send(request_bytes).recv(1000).startswith(b"HTTP/1.1 " + status)
    assert machine.ingress.refused == 1


def test_a_peer_may_not_go_to_places_of_other_machines_or_to_the_machine_itself(machine: Machine) -> None:
    for target in (machine.elsewhere, SocketAddress("127.0.0.1", machine.target.port), machine.address):
        client = machine.ask(f"CONNECT {target} HTTP/1.1")
        assert client.recv(1000).startswith(b"HTTP/1.1 403 ")
        assert client.recv(1) == b""


def test_a_peer_that_asks_for_something_else_is_told_so(machine: Machine) -> None:
    assert machine.ask("GET / HTTP/1.1").recv(1000).startswith(b"HTTP/1.1 400 ")
    assert machine.ingress.refused == 0


def test_it_listens_at_its_own_address_only(machine: Machine) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", machine.address.port), timeout=1)
    with pytest.raises(ValueError, match=r"0\.0\.0\.0"):
        Ingress(TOKEN, []).start("0.0.0.0")


def test_an_address_in_use_is_named(machine: Machine) -> None:
    with pytest.raises(OSError, match=f"the ingress cannot listen at {machine.address}"):
        Ingress(TOKEN, []).start(machine.address.ip, machine.address.port)


# --- streams -------------------------------------------------------------------------------------------------------


def test_a_stream_carries_much_both_ways(machine: Machine) -> None:
    client, server = machine.connect()
    sent = os.urandom(8 << 20)
    for one, other in ((client, server), (server, client)):
        sender = Thread(target=one.sendall, args=(sent,))
        sender.start()
        assert read_exactly(other, len(sent)) == sent
        sender.join()


def test_bytes_behind_the_head_are_for_the_target(machine: Machine) -> None:
    client = machine.ask(f"CONNECT {machine.target} HTTP/1.1")
    early = os.urandom(1 << 20)
    client.sendall(early)
    server = machine.owned.enter_context(machine.server.accept()[0])
    assert read_exactly(server, len(early)) == early
    assert read_exactly(client, len(OPENED)) == OPENED


def test_a_refusal_of_the_target_is_a_reset_without_an_answer(machine: Machine) -> None:
    machine.server.close()
    client = machine.ask(f"CONNECT {machine.target} HTTP/1.1")
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("end", [0, 1], ids=["peer", "target"])
def test_an_end_and_a_reset_are_passed_on_as_what_they_are(machine: Machine, end: int) -> None:
    ends = machine.connect()
    ends[end].sendall(b"last words")
    ends[end].shutdown(socket.SHUT_WR)
    assert read_exactly(ends[1 - end], 10) == b"last words"
    assert ends[1 - end].recv(1) == b""
    ends[1 - end].sendall(b"answer")
    assert read_exactly(ends[end], 6) == b"answer"
    ends = machine.connect()
    reset(ends[end])
    with pytest.raises(ConnectionResetError):
        ends[1 - end].recv(1)


@pytest.mark.parametrize("end", [0, 1], ids=["peer", "target"])
def test_a_reader_that_does_not_read_holds_the_writer_back(machine: Machine, end: int) -> None:
    ends = machine.connect()
    ends[end].settimeout(0.3)
    sent = 0
    with suppress(TimeoutError):
        while sent < 64 << 20:
            sent += ends[end].send(bytes(65536))
    assert sent < 64 << 20
    read_exactly(ends[1 - end], sent)


def test_a_peer_that_gives_up_early_leaves_nothing_behind(machine: Machine) -> None:
    for _ in range(20):
        reset(machine.ask(f"CONNECT {machine.target} HTTP/1.1"))
        machine.ask(f"CONNECT {machine.target} HTTP/1.1").close()
        reset(machine.send(b"CONNECT"))
    wait_until(lambda: machine.ingress.thread.call(lambda: not machine.ingress.connections))


def test_stop_resets_everything(machine: Machine) -> None:
    client, server = machine.connect()
    clock = machine.ask(CLOCK)
    read_exactly(clock, len(OPENED))
    machine.ingress.stop()
    machine.ingress.stop()
    for end in (client, server, clock):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    with pytest.raises(ConnectionRefusedError):
        machine.ask(CLOCK)


# --- clocks --------------------------------------------------------------------------------------------------------


def test_a_ping_is_answered_with_both_clocks(machine: Machine) -> None:
    client = machine.ask(CLOCK)
    assert read_exactly(client, len(OPENED)) == OPENED
    for number in range(3):
        ping = struct.pack(">q", number)
        before, epoch_before = monotonic_ns(), time_ns()
        client.sendall(ping[:3])
        assert is_silent(client, 0.05)
        client.sendall(ping[3:])
        echo, monotonic, epoch = PONG.unpack(read_exactly(client, PONG.size))
        assert echo == ping
        assert before <= monotonic <= monotonic_ns()
        assert epoch_before <= epoch <= time_ns()
