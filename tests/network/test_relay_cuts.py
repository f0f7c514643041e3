"""What a cut hides, and what comes out when it ends."""

from __future__ import annotations

import socket

import pytest

from testbed.objects.places import LinkQuality
from tests.network.conftest import (
    BACKWARD,
    BOTH,
    BOTH_KINDS,
    CUT,
    DEADLINE_S,
    FORWARD,
    ONE_MS,
    OPENED,
    Start,
    head,
    is_silent,
    read_exactly,
    reset,
    round_trips_s,
    wait_until,
)


@BOTH_KINDS
def test_a_cut_is_silent_and_what_was_sent_arrives_after_it(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    client, server = w.connect()
    w.relay.impose("cut", BOTH, CUT)
    client.sendall(b"ping")
    server.sendall(b"pong")
    assert is_silent(client)
    assert is_silent(server)
    w.relay.lift("cut")
    assert read_exactly(server, 4) == b"ping"
    assert read_exactly(client, 4) == b"pong"


def test_bytes_under_way_when_the_cut_begins_wait_for_its_end(world: Start) -> None:
    w = world(LinkQuality(delay_s=0.1))
    client, server = w.connect()
    client.sendall(b"ping")
    w.relay.impose("cut", FORWARD, CUT)
    assert is_silent(server, 0.3)
    w.relay.lift("cut")
    assert read_exactly(server, 4) == b"ping"


def test_a_cut_of_one_direction_leaves_the_other(world: Start) -> None:
    w = world(ONE_MS)
    client, server = w.connect()
    w.relay.impose("cut", BACKWARD, CUT)
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"
    server.sendall(b"pong")
    assert is_silent(client)
    w.relay.lift("cut")
    assert read_exactly(client, 4) == b"pong"


@BOTH_KINDS
def test_a_reset_behind_a_cut_arrives_after_it(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    client, server = w.connect()
    w.relay.impose("cut", BOTH, CUT)
    reset(server)
    assert is_silent(client)
    client.sendall(b"into the dark")
    assert is_silent(client)
    w.relay.lift("cut")
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@BOTH_KINDS
def test_an_end_of_stream_behind_a_cut_arrives_after_it(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    client, server = w.connect()
    w.relay.impose("cut", BOTH, CUT)
    server.sendall(b"last words")
    server.close()
    assert is_silent(client)
    w.relay.lift("cut")
    assert read_exactly(client, 10) == b"last words"
    assert client.recv(1) == b""


@pytest.mark.parametrize("pairs", [BOTH, FORWARD, BACKWARD], ids=["both", "forward", "backward"])
def test_a_connect_hangs_during_a_cut_and_succeeds_after_it(world: Start, pairs: tuple[tuple[str, str], ...]) -> None:
    w = world()
    w.relay.impose("cut", pairs, CUT)
    for address in (w.path, w.entry):
        with pytest.raises(TimeoutError):
            socket.create_connection((address.ip, address.port), timeout=0.2)
    pending = w.own(socket.socket())
    pending.setblocking(False)
    pending.connect_ex((w.path.ip, w.path.port))
    with pytest.raises(OSError, match="not connected"):
        pending.getpeername()
    w.relay.lift("cut")
    w.connect()

    def connected() -> bool:
        try:
            pending.getpeername()
        except OSError:
            return False
        return True

    wait_until(connected)  # when the kernel repeats the SYN, within seconds
    pending.settimeout(DEADLINE_S)
    pending.sendall(head(w.target))
    assert read_exactly(pending, len(OPENED)) == OPENED


def test_many_cuts_in_a_row_leave_a_working_listener(world: Start) -> None:
    w = world()
    for _ in range(20):
        w.relay.impose("cut", BOTH, CUT)
        w.relay.lift("cut")
    client, server = w.connect()
    assert round_trips_s(client, server, 1)


def test_overlapping_cuts_end_with_the_last(world: Start) -> None:
    w = world()
    client, server = w.connect()
    w.relay.impose("one", BOTH, CUT)
    w.relay.impose("two", BOTH, CUT)
    w.relay.lift("one")
    client.sendall(b"ping")
    assert is_silent(server)
    w.relay.lift("two")
    assert read_exactly(server, 4) == b"ping"


def test_a_listener_opened_during_a_cut_is_silent_until_it_ends(world: Start) -> None:
    w = world()
    w.relay.impose("cut", BOTH, CUT)
    late = w.network.client_entry("a", 1)
    w.relay.open_forward("b", late, w.target, w.tunnel)
    with pytest.raises(TimeoutError):
        socket.create_connection((late.ip, late.port), timeout=0.2)
    w.relay.lift("cut")
    w.dial(late).sendall(b"ping")
    assert read_exactly(w.accept(), 4) == b"ping"


def test_a_head_that_is_not_answered_when_the_cut_begins_waits(world: Start) -> None:
    w = world(ONE_MS)
    client = w.dial(w.path)
    request = head(w.target)
    client.sendall(request[:20])
    w.relay.impose("cut", BOTH, CUT)
    client.sendall(request[20:])
    assert is_silent(client)
    w.relay.lift("cut")
    w.accept()
    assert read_exactly(client, len(OPENED)) == OPENED


def test_a_client_that_gives_up_behind_a_cut_does_not_disturb_the_others(world: Start) -> None:
    w = world(ONE_MS)
    client, server = w.connect()
    impatient = w.dial(w.path)
    w.relay.impose("cut", BOTH, CUT)
    impatient.sendall(head(w.target))
    reset(impatient)
    w.relay.lift("cut")
    assert round_trips_s(client, server, 1)


def test_a_relay_stops_in_the_middle_of_a_cut(world: Start) -> None:
    w = world(ONE_MS)
    client, _ = w.connect()
    opening = w.dial(w.path)
    w.relay.impose("cut", BOTH, CUT)
    client.sendall(b"held")
    opening.sendall(head(w.target))
    w.relay.stop()
    for end in (client, opening):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
