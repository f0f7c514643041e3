"""The process of a link relay, and what is asked of it over a Unix socket.

Every place has a connection of its own, which is its attachment: when it ends, because the place is done or its process
has died, all that the place has here is closed. Whoever started the process has one too, over which faults come.

`relay_client` is the other end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import uvloop

from testbed.faults.effects import LinkEffect
from testbed.network.links import LinkSample, LinkTable, Pairs
from testbed.network.wire.attachment import Attachment
from testbed.network.wire.loop_thread import Tasks
from testbed.network.wire.relay import LinkRelay
from testbed.network.wire.relay_messages import PathTo, read_message, write_message
from testbed.network.wire.scheduling import ask_to_be_punctual
from testbed.network.wire.services import Endpoints, ServiceRules
from testbed.network.wire.tunnel import Tunnel
from testbed.objects.addresses import SocketAddress
from testbed.objects.places import Topology


class _Process:
    """What all connections share. The relay is there as soon as its owner has said which places there are."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.tasks = Tasks(loop)
        self.relay: asyncio.Future[LinkRelay] = loop.create_future()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = _Visit(self)
        try:
            while True:
                number, method, arguments = await read_message(reader)
                self.tasks.keep(_answer(writer, number, getattr(visit, method), arguments))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            await visit.detach()
            writer.close()


async def _answer(writer: asyncio.StreamWriter, number: int, method: Any, arguments: tuple[Any, ...]) -> None:
    answer: Any = None
    error: Exception | None = None
    try:
        answer = await method(*arguments)
    except Exception as raised:
        error = raised
    write_message(writer, (number, answer, error))


class _Visit:
    """What can be asked over one connection. Questions are taken in their order; only faults wait for their time."""

    def __init__(self, process: _Process) -> None:
        self._process = process
        self._attachment: Attachment | None = None
        self._rules: ServiceRules | None = None

    # --- by the owner ------------------------------------------------------------------------------------------

    async def begin(self, topology: Topology) -> None:
        """All places that there may be, and their links."""
        self._process.relay.set_result(LinkRelay(LinkTable(topology), self._process.tasks))

    async def impose(self, fault: str, pairs: Pairs, effect: LinkEffect, due_s: float) -> float:
        """At `due_s`; returns when it was in effect. Both in seconds of `time.monotonic`."""
        relay = await self._process.relay
        await relay.timer.sleep(due_s - monotonic())
        return relay.impose(fault, pairs, effect)

    async def lift(self, fault: str, due_s: float) -> float:
        """As `impose`."""
        relay = await self._process.relay
        await relay.timer.sleep(due_s - monotonic())
        return relay.lift(fault)

    async def samples(self) -> list[LinkSample]:
        """Of all places, since the last call."""
        return (await self._process.relay).drain_samples()

    async def ping(self) -> None:
        """It lives."""

    # --- by a place --------------------------------------------------------------------------------------------

    async def attach(self, place: str, seed: int) -> None:
        """The first of all questions of a place."""
        self._attachment = (await self._process.relay).attach(place, seed=seed)

    async def open_paths(self, paths: Sequence[PathTo]) -> None:
        """As `Attachment.open_path`. Raises OSError."""
        for path in paths:
            self._attached.open_path(path.destination, path.listen, path.network, path.tunnel)

    async def open_forward(
        self, destination: str, listen: SocketAddress, target: SocketAddress, tunnel: Tunnel | None
    ) -> None:
        """As `Attachment.open_forward`, in place of what was opened there before. Raises OSError."""
        if self._attached.listens_at(listen):
            self._attached.close_forward(listen)
        self._attached.open_forward(destination, listen, target, tunnel)

    async def open_services(self, name: str, seed: int, log: Path, listeners: Mapping[str, SocketAddress]) -> None:
        """Listen for each service; what is chosen is what `name`, `seed` and `lead` say. Raises OSError."""
        if self._rules is None:
            self._rules = ServiceRules(name, seed, log)
        for service, listen in listeners.items():
            self._attached.open_service(listen, partial(self._rules.choose, service))

    async def lead(self, endpoints: Mapping[str, Endpoints]) -> None:
        """As `ServiceRules.lead`."""
        assert self._rules is not None, "open_services() comes first"
        self._rules.lead(endpoints)

    async def detach(self) -> None:
        """Close all that the place has here; callers are reset. May be called twice."""
        attachment, self._attachment = self._attachment, None
        if attachment is not None:
            (await self._process.relay).detach(attachment)
        rules, self._rules = self._rules, None
        if rules is not None:
            rules.close()

    @property
    def _attached(self) -> Attachment:
        assert self._attachment is not None, "attach() comes first"
        return self._attachment


async def _serve(listening: socket.socket) -> None:
    process = _Process(asyncio.get_running_loop())
    # What was imported is never collected: looking through it would hold up bytes.
    gc.freeze()
    server = await asyncio.start_unix_server(process.serve, sock=listening)
    await server.serve_forever()


def main() -> None:
    """Serve on the listening socket whose descriptor is the argument, until somebody ends the process."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    ask_to_be_punctual()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(socket.socket(fileno=int(sys.argv[1]))))


if __name__ == "__main__":
    main()
