"""A TCP listener that can fall silent, as a machine that lost its power or its cable does.

Owns the listening socket and the trick that keeps the kernel from answering for it. Not what becomes of a connection.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable

from testbed.objects.addresses import SocketAddress

_log = logging.getLogger(__name__)

_BACKLOG = 1024
_FILLERS = 3
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST_S = 0.1


class Listener:
    """Hands every accepted client to `accepted`; silent, with a connect neither refused nor accepted, until `resume`.

    The kernel completes handshakes on its own as long as the backlog has room. So the backlog of a silent listener is
    made tiny (`listen(0)` leaves room for one) and kept full by connections of its own, the fillers: then Linux drops
    every SYN, and clients repeat it until they give up or `resume` is called.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: SocketAddress, accepted: Callable[[socket.socket], object]
    ) -> None:
        """Bind, which raises OSError; nothing listens before `resume` or `silence`."""
        self.address = address
        self.silent = True
        self._loop = loop
        self._accepted = accepted
        self._fillers: list[socket.socket] = []
        self._filler_addresses: set[tuple[str, int]] = set()
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            self._socket.bind((address.ip, address.port))
        except OSError:
            self._socket.close()
            raise

    def resume(self) -> None:
        """Accept again; what the fillers took of the backlog is thrown away."""
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._socket.listen(_BACKLOG)
        self._accept()
        # From here on a client may come from the port of a former filler.
        self._filler_addresses.clear()
        self.silent = False
        self._loop.add_reader(self._socket, self._accept)

    def silence(self) -> None:
        """Stop answering. Who has connected already is accepted first: its handshake was before the silence."""
        if not self.silent:
            self._loop.remove_reader(self._socket)
            self._accept()
        self.silent = True
        self._socket.listen(0)
        for _ in range(_FILLERS):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((self.address.ip, self.address.port))
            self._fillers.append(filler)
            self._filler_addresses.add(filler.getsockname())

    def close(self) -> None:
        """Stop listening for good; accepted connections are not touched."""
        if not self.silent:
            self._loop.remove_reader(self._socket)
        for filler in self._fillers:
            filler.close()
        self._fillers.clear()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, address = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                _log.error("cannot accept at %s: %s", self.address, error)
                self._rest()
                return
            if address in self._filler_addresses:
                client.close()
            else:
                client.setblocking(False)
                self._accepted(client)

    def _rest(self) -> None:
        """Do not spin on a socket that stays readable while the process is out of descriptors."""
        if self.silent:
            return
        self._loop.remove_reader(self._socket)

        def again() -> None:
            if not self.silent and self._socket.fileno() >= 0:
                self._loop.add_reader(self._socket, self._accept)

        self._loop.call_later(_REST_S, again)
