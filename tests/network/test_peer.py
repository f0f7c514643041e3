"""Who is at the other end, and that a relay serves no other user."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest

from testbed.network.wire.peer import PeerOwners
from testbed.objects.places import LinkQuality
from tests.network.conftest import BOTH_KINDS, DEADLINE_S, Start, read_exactly, wait_until

NOBODY = 65534
ASK = r'exec 3<>/dev/tcp/$0/$1; printf "GET / HTTP/1.1\r\n\r\n" >&3; head -c 1 <&3 | wc -c'
"""In bash, whose interpreter every user can read. Prints how many bytes were answered."""
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")


def test_the_owner_of_a_connection_is_known_until_its_end_is_closed() -> None:
    owners = PeerOwners()
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname(), timeout=DEADLINE_S)
        with server.accept()[0] as accepted:
            assert owners.uid(accepted) == os.geteuid()
            client.close()
            assert owners.uid(accepted) is None
    owners.close()


@as_root
@BOTH_KINDS
def test_a_relay_resets_connections_of_another_user_and_serves_its_own(world: Start, quality: LinkQuality) -> None:
    w = world(quality)
    for number, door in enumerate((w.entry, w.path), start=1):
        command = ["/bin/bash", "-c", ASK, door.ip, str(door.port)]
        answered = subprocess.run(command, user=NOBODY, capture_output=True, timeout=30, check=False).stdout
        assert answered.strip() in (b"", b"0")
        wait_until(lambda number=number: w.relay.place.refused == number)
    w.server.setblocking(False)
    with pytest.raises(BlockingIOError):
        w.server.accept()
    w.server.settimeout(DEADLINE_S)
    client, server = w.connect()
    client.sendall(b"ping")
    assert read_exactly(server, 4) == b"ping"
