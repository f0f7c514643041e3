"""Readings of clocks over real sockets: of peers that answer, vanish, come back or never answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic, time

import pytest

from testbed.network.addresses.loopback import LoopbackBlock
from testbed.network.wire.clock_probe import ClockProbe
from testbed.network.wire.ingress import Ingress
from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import SocketAddress
from tests.network.conftest import TOKEN, machine_ip, wait_until


@pytest.fixture
def owned() -> Iterator[ExitStack]:
    with ExitStack() as owned:
        yield owned


def start_ingress(owned: ExitStack, ip: str, port: int = 0) -> tuple[Ingress, Tunnel]:
    ingress = Ingress(TOKEN, [])
    address = ingress.start(ip, port)
    owned.callback(ingress.stop)
    return ingress, Tunnel(address, TOKEN)


def start_probe(owned: ExitStack, peers: dict[str, Tunnel]) -> ClockProbe:
    probe = ClockProbe(peers, period_s=0.02)
    probe.start()
    owned.callback(probe.stop)
    return probe


def test_readings_bracket_the_remote_time(block: LoopbackBlock, owned: ExitStack) -> None:
    _, tunnel = start_ingress(owned, machine_ip(block))
    probe = start_probe(owned, {"there": tunnel})
    wait_until(lambda: len(probe.readings("there")) >= 5)
    probe.stop()
    readings = probe.readings("there")
    for reading in readings:
        # Both ends have the same clock here.
        assert reading.sent_s <= reading.remote_monotonic_s <= reading.received_s
        assert abs(reading.remote_epoch_s - time()) < 60
    assert readings == sorted(readings, key=lambda reading: reading.sent_s)
    assert probe.last_answer_s("there") == readings[-1].received_s


def test_a_peer_that_comes_back_is_heard_again(block: LoopbackBlock, owned: ExitStack) -> None:
    ingress, tunnel = start_ingress(owned, machine_ip(block))
    probe = start_probe(owned, {"there": tunnel})
    wait_until(lambda: len(probe.readings("there")) >= 2)
    ingress.stop()
    gone_s = monotonic()
    start_ingress(owned, tunnel.ingress.ip, tunnel.ingress.port)
    wait_until(lambda: (probe.last_answer_s("there") or 0.0) > gone_s)


def test_a_silent_peer_does_not_hold_up_the_others(block: LoopbackBlock, owned: ExitStack) -> None:
    _, tunnel = start_ingress(owned, machine_ip(block))
    deaf = owned.enter_context(socket.create_server((machine_ip(block, 2), 0)))
    nobody = SocketAddress(machine_ip(block, 3), 30000)
    peers = {
        "deaf": Tunnel(SocketAddress(*deaf.getsockname()), TOKEN),
        "nobody": Tunnel(nobody, TOKEN),
        "there": tunnel,
    }
    probe = start_probe(owned, peers)
    wait_until(lambda: len(probe.readings("there")) >= 10)
    assert probe.readings("deaf") == probe.readings("nobody") == []
    assert probe.last_answer_s("deaf") is None


def test_a_question_without_answer_is_asked_anew_over_a_new_connection(block: LoopbackBlock, owned: ExitStack) -> None:
    deaf = owned.enter_context(socket.create_server((machine_ip(block), 0)))
    deaf.settimeout(10)
    start_probe(owned, {"there": Tunnel(SocketAddress(*deaf.getsockname()), TOKEN)})
    first = owned.enter_context(deaf.accept()[0])
    first.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    owned.enter_context(deaf.accept()[0])
    first.settimeout(10)
    while first.recv(1000):
        pass


def test_an_unknown_peer_is_an_error() -> None:
    with pytest.raises(KeyError):
        ClockProbe({}).readings("nobody")
