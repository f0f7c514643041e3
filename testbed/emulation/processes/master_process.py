"""A master, in a process of its own, so that it can be killed.

Runs as `python -m testbed.emulation.processes.master_process FD`; its supervisor is at the other end of that socket.
What it decides is `control.masters`'; here it has a clock, a disk, and connections to the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from functools import partial
from random import Random
from typing import Any

import orjson

from testbed.consensus.membership import Membership
from testbed.consensus.outputs import Send, Write
from testbed.consensus.storage import Stored
from testbed.control.masters.leading import BUSY_S
from testbed.control.masters.master import Master, Setup
from testbed.control.masters.messages import Answered, Output, PeerMessage, Serves, Tell
from testbed.control.messages import PushConfig, RecordEvent
from testbed.control.views.kube_proxy import ENDPOINT_SLICE
from testbed.emulation.processes.lateness import LoopWatch
from testbed.emulation.processes.master_messages import (
    Asked,
    Begin,
    EncodedPush,
    FromMaster,
    Late,
    Pushed,
    Said,
)
from testbed.emulation.processes.protobuf import shared_to_any
from testbed.emulation.processes.pushed import Contents
from testbed.journal.appender import Appender
from testbed.journal.journal import DAMAGED, Damaged, Journal, Pickled
from testbed.network.wire.peers import Peers
from testbed.network.wire.relay_messages import read_message, write_message

MAIL_S = 0.05
"""What it takes a master that was busy to read what has come in meanwhile."""


class MasterProcess:
    """All of it in the thread of its loop, but for writing to the disk. `tell` is called with what the supervisor is to
    hear, in order."""

    def __init__(self, begin: Begin, journal: Journal, tell: Callable[[FromMaster], None]) -> None:
        self._disk = Appender(journal, partial(print, file=sys.stderr, flush=True))
        self._tell = tell
        setup = Setup(begin.timings, begin.mesh_mode, begin.clients)
        random = Random(f"{begin.seed}/{begin.name}/{journal.stored.term}")
        self.master = Master(begin.name, setup, journal.stored, random, time.monotonic())
        self._listen = begin.listen
        self._peers = Peers(
            begin.name, begin.peers, 2 * begin.timings.election_timeout_s, self._receive, begin.peer_secret
        )
        self._contents = Contents()
        self._timer: asyncio.TimerHandle | None = None
        self._wake_s = 0.0
        self._ticker: asyncio.TimerHandle | None = None
        self._loop_watch = LoopWatch(lambda due_s, late_s: tell(Late(due_s, late_s)))

    async def run(self) -> None:
        """Until it is cancelled. Ends the process when the disk fails."""
        self._loop_watch.start()
        if self._listen is not None:
            await self._peers.open(self._listen)
        self._tick()
        try:
            async for writes in self._disk.durable():
                self._carry_out(self.master.persisted(writes[-1].number, time.monotonic()))
        finally:
            self._loop_watch.stop()
            self._peers.close()
            for timer in (self._timer, self._ticker):
                if timer is not None:
                    timer.cancel()

    def hear(self, message: Said | Asked) -> None:
        now_s = time.monotonic()
        match message:
            case Said(place, session, arrived_s, events):
                self._carry_out(self.master.hear(place, session, events, arrived_s, now_s))
            case Asked(number, method, arguments):
                self._carry_out(self.master.ask(number, method, arguments, now_s))

    def _receive(self, sender: str, data: bytes) -> None:
        message: PeerMessage = pickle.loads(data)
        self._carry_out(self.master.receive(message, time.monotonic()))

    # --- what it wants done ------------------------------------------------------------------------------------------

    def _carry_out(self, outputs: Iterable[Output]) -> None:
        for output in outputs:
            match output:
                case Write():
                    self._disk.add(output)
                case Send(to, message):
                    self._peers.send(to, pickle.dumps(message))
                case Tell(place, session, PushConfig() as push):
                    self._tell(self._encoded(place, session, push))
                case Tell() | Serves() | RecordEvent() | Answered():
                    self._tell(output)
        self._look_ahead()

    def _encoded(self, place: str, session: int, push: PushConfig) -> Pushed:
        encode = orjson.dumps if push.type_url == ENDPOINT_SLICE else shared_to_any
        resources = tuple(encode(each) for each in push.resources)
        encoded = EncodedPush(push.proxy, place, push.type_url, push.version, resources, session)
        return Pushed(encoded, self._contents.digests(push.resources), self._contents.take_new())

    # --- time --------------------------------------------------------------------------------------------------------

    def _look_ahead(self) -> None:
        """Wake up when something is to be decided, and when the log wants to."""
        loop, now_s = asyncio.get_running_loop(), time.monotonic()
        for timer in (self._timer, self._ticker):
            if timer is not None:
                timer.cancel()
        self._timer = None
        self._ticker = loop.call_later(max(0.0, self.master.next_tick() - now_s), self._tick)
        deadline_s = self.master.next_deadline()
        if deadline_s is not None:
            self._wake_s = max(now_s, deadline_s)
            self._timer = loop.call_later(self._wake_s - now_s, self._due, deadline_s)

    def _tick(self) -> None:
        self._carry_out(self.master.tick(time.monotonic()))

    def _due(self, deadline_s: float) -> None:
        self._loop_watch.woke(self._wake_s)
        # Who was too busy to be on time has not read its mail either.
        if time.monotonic() > deadline_s + BUSY_S:
            self._timer = asyncio.get_running_loop().call_later(MAIL_S, self._advance)
        else:
            self._advance()

    def _advance(self) -> None:
        self._carry_out(self.master.advance(time.monotonic()))


def opened(begin: Begin) -> Journal:
    """The disk of a master. Raises Damaged."""
    masters = sorted([begin.name, *(peer.name for peer in begin.peers)])
    return Journal(begin.volume, Stored.nothing(Membership(tuple(masters))), Pickled())


async def _serve(fd: int) -> None:
    reader, writer = await asyncio.open_unix_connection(sock=socket.socket(fileno=fd))
    begin = await read_message(reader)
    try:
        journal = opened(begin)
    except Damaged as damage:
        print(damage, file=sys.stderr, flush=True)
        sys.exit(DAMAGED)
    out: list[FromMaster] = []

    def tell(message: FromMaster) -> None:
        # What is decided at once is one pickle, in which what many proxies are told alike is there once.
        if not out:
            asyncio.get_running_loop().call_soon(send)
        out.append(message)

    def send() -> None:
        write_message(writer, tuple(out))
        out.clear()

    async def hear() -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):  # the supervisor has ended
            while True:
                master.hear(await read_message(reader))

    asyncio.get_running_loop().set_exception_handler(_fail)
    master = MasterProcess(begin, journal, tell)
    running = asyncio.create_task(master.run())
    done, _ = await asyncio.wait({running, asyncio.create_task(hear())}, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


def _fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What goes wrong where nobody waits must not pass for a slow master."""
    error = context.get("exception")
    print("".join(traceback.format_exception(error)) if error else context["message"], file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    with contextlib.suppress(asyncio.IncompleteReadError):  # it was never begun
        asyncio.run(_serve(int(sys.argv[1])))


if __name__ == "__main__":
    main()
