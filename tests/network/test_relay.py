"""The relay on real sockets: who may connect, and what a link does to bytes."""

from __future__ import annotations

import selectors
import socket
import threading
from ipaddress import IPv4Address
from itertools import chain
from time import monotonic

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from testbed.faults.effects import LinkEffect
from testbed.network.wire.opening import Choice
from testbed.network.wire.tunnel import parse_connect
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import LinkQuality
from tests.network.conftest import (
    BOTH,
    BOTH_KINDS,
    DEADLINE_S,
    FORWARD,
    ONE_MS,
    OPENED,
    Start,
    World,
    head,
    is_silent,
    read_exactly,
    reset,
    round_trips_s,
)

# --- connections ---------------------------------------------------------------------------------------------------


@BOTH_KINDS
def test_a_connect_tunnel_carries_bytes_both_ways(world: Start, quality: LinkQuality) -> None:
    client, server = world(quality).connect()
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"
    server.sendall(b"pong")
    assert read_exactly(client, 4) == b"pong"


@BOTH_KINDS
def test_bytes_behind_the_head_are_forwarded(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    early = bytes(range(256)) * 1024
    client = w.ask(head(w.target) + early)
    assert read_exactly(w.accept(), len(early)) == early
    assert read_exactly(client, len(OPENED)) == OPENED


@BOTH_KINDS
def test_a_target_that_speaks_first_is_heard_after_the_answer(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    client = w.ask(head(w.target))
    w.accept().sendall(b"hello")
    assert read_exactly(client, len(OPENED) + 5) == OPENED + b"hello"


@BOTH_KINDS
def test_a_forward_leads_to_its_target(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    client = w.dial(w.entry)
    client.sendall(b"ping")
    server = w.accept()
    assert read_exactly(server, 4) == b"ping"
    server.sendall(b"pong")
    assert read_exactly(client, 4) == b"pong"


@BOTH_KINDS
def test_a_half_close_ends_one_direction_only(world: Start, quality: LinkQuality) -> None:
    client, server = world(quality).connect()
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    assert read_exactly(server, 8) == b"question"
    assert server.recv(1) == b""
    server.sendall(b"answer")
    assert read_exactly(client, 6) == b"answer"
    server.close()
    assert client.recv(1) == b""


@BOTH_KINDS
def test_an_early_half_close_is_kept_for_the_target(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    client = w.dial(w.entry)
    client.sendall(b"question")
    client.shutdown(socket.SHUT_WR)
    server = w.accept()
    assert read_exactly(server, 8) == b"question"
    assert server.recv(1) == b""


@BOTH_KINDS
@pytest.mark.parametrize("end", [0, 1], ids=["client", "server"])
def test_a_reset_of_one_end_resets_the_other(world: Start, quality: LinkQuality, end: int) -> None:
    ends = world(quality).connect()
    reset(ends[end])
    with pytest.raises(ConnectionResetError):
        ends[1 - end].recv(1)


@BOTH_KINDS
def test_a_refusal_at_the_target_resets_the_client(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    w.server.close()
    client = w.ask(head(w.target))
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    # The reset may come before dial has returned: nothing delays it on an ideal link.
    with pytest.raises(ConnectionResetError):
        w.dial(w.entry).recv(1)


def test_a_closed_forward_refuses_but_keeps_its_connections(world: Start) -> None:
    w = world()
    client = w.dial(w.entry)
    server = w.accept()
    w.relay.close_forward(w.entry)
    with pytest.raises(ConnectionRefusedError):
        w.dial(w.entry)
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"


def test_an_address_in_use_is_named(world: Start) -> None:
    w = world()
    with pytest.raises(OSError, match=f"relay of a cannot listen at {w.entry}"):
        w.relay.open_forward("b", w.entry, w.target, w.tunnel)


def test_an_unknown_destination_is_refused(world: Start) -> None:
    w = world()
    with pytest.raises(KeyError):
        w.relay.open_forward("nowhere", SocketAddress(w.entry.ip, 22999), w.target)


def test_stop_ends_every_connection_and_listener(world: Start) -> None:
    w = world(ONE_MS)
    client, server = w.connect()
    w.relay.stop()
    w.relay.stop()
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    with pytest.raises(ConnectionRefusedError):
        w.dial(w.path)
    with pytest.raises(RuntimeError, match="relay of a is not running"):
        w.relay.lift("cut")


# --- no open proxy -------------------------------------------------------------------------------------------------


def test_an_address_outside_the_destination_is_forbidden(world: Start) -> None:
    w = world()
    elsewhere = w.network.allocate_pod("c", 8080).app
    with socket.create_server((elsewhere.ip, elsewhere.port)) as server:
        client = w.ask(head(elsewhere))
        assert client.recv(1000).startswith(b"HTTP/1.1 403 ")
        assert client.recv(1) == b""
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"CONNECT localhost:80 HTTP/1.1\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"x" * 5000, b"431"),
        (b"CONNECT 127.", b"408"),
    ],
)
def test_a_bad_head_is_refused(world: Start, request_bytes: bytes, status: bytes) -> None:
    # Only who sends too little is to run out of time.
    client = world(head_timeout_s=0.1 if status == b"408" else DEADLINE_S).ask(request_bytes)
    assert client.recv(1000).startswith(b"HTTP/1.1 " + status)


@given(
    st.binary(max_size=60)
    | st.from_regex(rb"CONNECT [0-9.:]{0,20}:[0-9]{0,6} HTTP/1\.1\r\n\r\n", fullmatch=True)
    | st.builds(lambda ip, port: head(SocketAddress(str(ip), port)), st.ip_addresses(v=4), st.integers(0, 70000))
)
@example(head(SocketAddress("127.9.1.2", 8080)))
def test_a_parsed_head_is_an_address_and_port_and_anything_else_an_error(request_bytes: bytes) -> None:
    try:
        target = parse_connect(request_bytes)
    except ValueError:
        return
    assert IPv4Address(target.ip)
    assert 0 < target.port < 65536
    assert f"{target} HTTP/1.1".encode() in request_bytes


# --- quality -------------------------------------------------------------------------------------------------------


def test_a_round_trip_takes_the_delay_of_each_direction_once(world: Start) -> None:
    client, server = world(LinkQuality(delay_s=0.05)).connect()
    assert 0.0999 < min(round_trips_s(client, server, 4)) < 0.15


def test_setting_up_a_connection_takes_a_round_trip(world: Start) -> None:
    w = world(LinkQuality(delay_s=0.1))
    started = monotonic()
    client, server = w.connect()
    assert monotonic() - started > 0.1999

    def one_way_s() -> float:
        began_s = monotonic()
        client.sendall(b"x")
        read_exactly(server, 1)
        return monotonic() - began_s

    assert min(one_way_s() for _ in range(3)) < 0.1999


def test_a_change_of_delay_acts_on_open_connections(world: Start) -> None:
    w = world()
    client, server = w.connect()
    in_effect_s = w.relay.impose("slow", FORWARD, LinkEffect(added_delay_s=0.05))
    assert in_effect_s <= monotonic()
    assert min(round_trips_s(client, server, 3)) > 0.0499
    w.relay.lift("slow")
    assert min(round_trips_s(client, server, 3)) < 0.0499


def test_jitter_spreads_the_delay_and_keeps_the_order(world: Start) -> None:
    w = world(LinkQuality(delay_s=0.002, jitter_s=0.002))
    client, server = w.connect()
    sent = b"".join(b"%07d\n" % number for number in range(2000))
    for start in range(0, len(sent), 80):
        client.sendall(sent[start : start + 80])
    assert read_exactly(server, len(sent)) == sent
    times = round_trips_s(client, server, 30)
    assert max(times) - min(times) > 0.001


def test_bandwidth_limits_all_connections_of_a_link_together(world: Start) -> None:
    w = world(LinkQuality(bandwidth_bits_per_s=16e6))
    pairs = [w.connect(), w.connect()]
    payload = bytes(250_000)
    started = monotonic()
    senders = [threading.Thread(target=client.sendall, args=(payload,)) for client, _ in pairs]
    for sender in senders:
        sender.start()
    for _, server in pairs:
        read_exactly(server, len(payload))
    took_s = monotonic() - started
    for sender in senders:
        sender.join()
    assert 0.23 < took_s < 2.5  # 500 kB at 2 MB/s


def test_full_windows_behind_a_narrow_link_leave_at_once_when_it_is_healed(world: Start) -> None:
    w = world(LinkQuality(delay_s=0.002, bandwidth_bits_per_s=100e6))
    pairs = [w.connect() for _ in range(4)]
    w.relay.impose("narrow", BOTH, LinkEffect(bandwidth_bits_per_s=100e3))
    payload = bytes(500_000)
    senders = [threading.Thread(target=end.sendall, args=(payload,)) for pair in pairs for end in pair]
    for sender in senders:
        sender.start()
    # By the time the first piece is through, which takes seconds, all the others wait. Whose piece that is, is chance.
    with selectors.DefaultSelector() as arrived:
        for end in chain.from_iterable(pairs):
            arrived.register(end, selectors.EVENT_READ)
        assert arrived.select(DEADLINE_S)
    healed_s = w.relay.lift("narrow")
    readers = [threading.Thread(target=read_exactly, args=(end, len(payload))) for pair in pairs for end in pair]
    for reader in readers:
        reader.start()
    for thread in senders + readers:
        thread.join()
    client, server = w.connect()
    client.sendall(b"next")
    read_exactly(server, 4)
    assert monotonic() - healed_s < 5.0  # 2 MB at 12.5 MB/s are 0.16 s, at 100 kbit/s 160 s


def test_loss_costs_time_and_no_bytes(world: Start) -> None:
    w = world(LinkQuality(delay_s=0.0005))
    client, server = w.connect()
    w.relay.impose("lossy", FORWARD, LinkEffect(added_loss=0.3))
    times = round_trips_s(client, server, 9)
    assert max(times) > 0.2
    assert min(times) < 0.2
    w.relay.stop()
    assert sum(s.dropped for s in w.relay.drain_samples() if s.source == "a") > 0


@BOTH_KINDS
def test_a_reader_that_does_not_read_holds_the_writer_back(world: Start, quality: LinkQuality) -> None:
    client, server = world(quality).connect()
    client.setblocking(False)
    sent = 0
    deadline = blocked_since = monotonic()
    while monotonic() - blocked_since < 0.2:
        assert monotonic() - deadline < DEADLINE_S
        try:
            sent += client.send(bytes(65536))
            blocked_since = monotonic()
        except BlockingIOError:
            pass
    assert sent < 64 << 20
    read_exactly(server, sent)
    client.settimeout(DEADLINE_S)
    client.sendall(b"more")
    assert read_exactly(server, 4) == b"more"


# --- services ------------------------------------------------------------------------------------------------------


def service_of(w: World, choose: Choice) -> SocketAddress:
    """The address of a service whose connections go where `choose` says."""
    address = w.network.service_address("a", 0)
    w.relay.open_service(address, choose)
    return address


@BOTH_KINDS
def test_every_connection_to_a_service_goes_where_it_is_led_then(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    here = w.own(socket.create_server((w.network.allocate_pod("a", 8080).app.ip, 8080)))
    near, far = SocketAddress(*here.getsockname()), w.target
    choices = iter([("b", far), ("a", near), ("b", far)])
    address = service_of(w, lambda caller: next(choices))
    for server in (w.server, here, w.server):
        client = w.dial(address)
        client.sendall(b"ping")
        accepted = w.own(server.accept()[0])
        assert read_exactly(accepted, 4) == b"ping"
        accepted.sendall(b"pong")
        assert read_exactly(client, 4) == b"pong"


def test_a_service_that_leads_nowhere_resets(world: Start) -> None:
    w = world()
    address = service_of(w, lambda caller: None)
    with pytest.raises(ConnectionResetError):
        w.dial(address).recv(1)


def test_a_service_takes_the_link_of_the_place_that_it_leads_to(world: Start) -> None:
    w = world(LinkQuality(delay_s=0.02))
    address = service_of(w, lambda caller: ("b", w.target))
    started_s = monotonic()
    client = w.dial(address)
    client.sendall(b"x")
    server = w.accept()
    assert monotonic() - started_s >= 0.019
    server.sendall(read_exactly(server, 1))
    read_exactly(client, 1)
    w.relay.stop()
    assert {(s.source, s.destination) for s in w.relay.drain_samples()} == {("a", "b"), ("b", "a")}


def test_a_connection_to_a_service_behind_a_cut_is_open_and_silent_until_the_cut_ends(world: Start) -> None:
    w = world(ONE_MS)
    address = service_of(w, lambda caller: ("b", w.target))
    w.relay.impose("cut", BOTH, LinkEffect(cut=True))
    client = w.dial(address)
    client.sendall(b"ping")
    assert is_silent(client)
    w.relay.lift("cut")
    assert read_exactly(w.accept(), 4) == b"ping"


def test_a_refused_connection_to_a_service_is_reset(world: Start) -> None:
    w = world(ONE_MS)
    gone = SocketAddress(w.target.ip, w.target.port + 1)
    client = w.dial(service_of(w, lambda caller: ("b", gone)))
    with pytest.raises(ConnectionResetError):
        client.recv(1)
