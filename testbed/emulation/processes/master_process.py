"""A master: the control plane with the log that it decides by, in a process of its own, so that it can be killed.

Runs as `python -m testbed.emulation.processes.master_process FD`; its supervisor is at the other end of that socket.
What changes in the store is an entry of the log (as a write is one of etcd's), and what follows from it leaves the
process only when the disk has it. So whoever begins where it ended, with its disk, has decided all that anybody heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

import orjson

from testbed.consensus.log import Entry
from testbed.consensus.membership import Membership
from testbed.consensus.outputs import Accepted, Apply, Restore, Role, RoleChanged, Write
from testbed.consensus.replica import Outputs, Replica
from testbed.consensus.settings import Settings
from testbed.consensus.storage import Stored
from testbed.control.api_server import Refused
from testbed.control.messages import Command, Delete, Event, PushConfig
from testbed.control.overview import Overview
from testbed.control.plane import Behind, ControlPlane
from testbed.control.store import Store, Writes
from testbed.control.views.kube_proxy import ENDPOINT_SLICE
from testbed.control.waiting import Waiting
from testbed.emulation.processes.lateness import LoopWatch
from testbed.emulation.processes.master_messages import (
    Answered,
    Asked,
    Begin,
    Decided,
    EncodedPush,
    FromMaster,
    Late,
    Leads,
    Pushed,
    Told,
)
from testbed.emulation.processes.protobuf import shared_to_any
from testbed.emulation.processes.pushed import Contents
from testbed.journal.appender import Appender
from testbed.journal.journal import DAMAGED, Damaged, Journal, Pickled
from testbed.network.wire.relay_messages import read_message, write_message
from testbed.objects.cells import Layer
from testbed.objects.cluster import Declared
from testbed.objects.core import Pod
from testbed.objects.workloads import Deployment

BUSY_S = 0.05
"""A deadline that is met later than that was met by a busy master."""
MAIL_S = 0.05
"""What it then takes to read what has come in meanwhile."""
ALONE = Settings(election_timeout_s=10.0, heartbeat_s=1.0)
"""There is nobody to wait for, nor to be heard by."""
SNAPSHOT_ENTRIES = 2000


class MasterProcess:
    """All of it in the thread of its loop, but for writing to the disk. `tell` is called with what the supervisor is to
    hear, in order."""

    def __init__(self, begin: Begin, journal: Journal, tell: Callable[[FromMaster], None]) -> None:
        self._begin = begin
        self._disk = Appender(journal, partial(print, file=sys.stderr, flush=True))
        self._tell = tell
        self._committed = Store()
        """What the log says as far as it is durable, in its order."""
        stored = journal.stored
        if isinstance(stored.snapshot.state, Writes):
            self._committed.redo(stored.snapshot.state)
        # Who is alone need not wait to see whether anybody leads: it begins as if it had.
        waited_s = time.monotonic() - 2 * ALONE.election_timeout_s
        self._replica = Replica(begin.name, stored, ALONE, Random(f"{begin.seed}/{begin.name}"), waited_s)
        self._plane: ControlPlane | None = None
        """While it leads: what it decides may be ahead of what is committed."""
        self._asked: list[Asked] = []
        """Until it leads."""
        self._held: deque[tuple[int, list[FromMaster]]] = deque()
        """What follows from the entry of that index, and is told once that is durable."""
        self._last_index = 0
        self._contents = Contents()
        self._now_s = 0.0
        """What the control plane was last told is the time."""
        self._timer: asyncio.TimerHandle | None = None
        self._wake_s = 0.0
        self._heartbeat: asyncio.TimerHandle | None = None
        self._loop_watch = LoopWatch(lambda due_s, late_s: tell(Late(due_s, late_s)))

    async def run(self) -> None:
        """Until it is cancelled. Ends the process when the disk fails."""
        self._loop_watch.start()
        self._carry_out(self._replica.tick(time.monotonic()))
        try:
            async for writes in self._disk.durable():
                self._carry_out(self._replica.persisted(writes[-1].number, time.monotonic()))
        finally:
            self._loop_watch.stop()
            for timer in (self._timer, self._heartbeat):
                if timer is not None:
                    timer.cancel()

    def hear(self, message: Told | Asked) -> None:
        match message:
            case Told(_, arrived_s, events) if self._plane is not None:
                self._take_in(self._plane, events, arrived_s)
            case Told():
                pass
            case Asked() if self._plane is None:
                self._asked.append(message)
            case Asked(number, method, arguments):
                try:
                    self._hold(Answered(number, getattr(self, method)(self._plane, *arguments)))
                except Refused as refused:
                    self._hold(Answered(number, error=refused))

    # --- what can be asked -------------------------------------------------------------------------------------

    def apply(self, plane: ControlPlane, objects: Sequence[Declared]) -> None:
        """Create or change objects, as `kubectl apply` does. Raises Refused; then nothing has changed."""
        self._decide(plane, plane.apply(objects, self._advanced_s(plane)))

    def delete(self, plane: ControlPlane, kind: type[Declared] | type[Pod], name: str, namespace: str) -> None:
        """As `kubectl delete` does. Raises Refused where there is no such object."""
        self._decide(plane, plane.handle(Delete(kind, name, namespace), self._advanced_s(plane)))

    def readiness(self, plane: ControlPlane) -> tuple[int, int, tuple[Waiting, ...]]:
        """How many pods are ready, of how many, and what is waited for."""
        pods, wanted = plane.pods(), plane.store.list(Deployment)
        total = sum(deployment.replicas for deployment in wanted)
        return sum(pod.ready for pod in pods), total, tuple(plane.not_ready())

    def overview(self, plane: ControlPlane) -> Overview:
        return plane.overview()

    def behind(self, plane: ControlPlane, layer: Layer) -> Behind:
        return plane.behind(layer)

    # --- deciding ----------------------------------------------------------------------------------------------

    def _lead(self) -> None:
        store = Store()
        store.redo(self._committed.everything())
        begin = self._begin
        plane = self._plane = ControlPlane(begin.timings, begin.mesh_mode, begin.clients, store)
        self._tell(Leads(self._replica.term))
        self._now_s = time.monotonic()
        self._decide(plane, plane.resume(self._now_s))
        asked, self._asked = self._asked, []
        for each in asked:
            self.hear(each)

    def _take_in(self, plane: ControlPlane, events: Sequence[Event], arrived_s: float) -> None:
        # A control plane that is too busy to read its mail at once must not hold that against the nodes: a lease counts
        # from when it arrived, and nobody is given up while what arrived before is unread.
        self._now_s = max(self._now_s, min(arrived_s, time.monotonic()))
        for event in events:
            self._decide(plane, plane.handle(event, self._now_s))

    def _advanced_s(self, plane: ControlPlane) -> float:
        """The time for what a user asks: now, unless there is mail of before to be read first."""
        deadline_s, now_s = plane.next_deadline(), time.monotonic()
        if deadline_s is None or now_s <= deadline_s + BUSY_S:
            self._now_s = now_s
        return self._now_s

    def _decide(self, plane: ControlPlane, commands: Sequence[Command]) -> None:
        """What was written goes to the log, and what follows from it out behind that."""
        if writes := plane.store.take_writes():
            self._carry_out(self._replica.propose(None, writes, time.monotonic()))
        self._hold(*(self._encoded(each) for each in commands))
        self._look_ahead(plane)

    def _encoded(self, command: Command) -> Decided:
        if not isinstance(command, PushConfig):
            return command
        encode = orjson.dumps if command.type_url == ENDPOINT_SLICE else shared_to_any
        resources = tuple(encode(each) for each in command.resources)
        push = EncodedPush(command.proxy, command.place, command.type_url, command.version, resources)
        return Pushed(push, self._contents.digests(command.resources), self._contents.take_new())

    def _hold(self, *messages: FromMaster) -> None:
        if messages:
            self._held.append((self._last_index, list(messages)))
            self._let_go()

    def _let_go(self) -> None:
        while self._held and self._held[0][0] <= self._replica.applied_index:
            for message in self._held.popleft()[1]:
                self._tell(message)

    def _look_ahead(self, plane: ControlPlane) -> None:
        """Wake up at the control plane's next deadline."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline_s = plane.next_deadline()
        if deadline_s is not None:
            now_s = time.monotonic()
            self._wake_s = max(now_s, deadline_s)
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._wake_s - now_s, self._due, plane, deadline_s)

    def _due(self, plane: ControlPlane, deadline_s: float) -> None:
        self._loop_watch.woke(self._wake_s)
        # Who was too busy to be on time has not read its mail either.
        if time.monotonic() > deadline_s + BUSY_S:
            self._timer = asyncio.get_running_loop().call_later(MAIL_S, self._advance, plane)
        else:
            self._advance(plane)

    def _advance(self, plane: ControlPlane) -> None:
        self._now_s = time.monotonic()
        self._decide(plane, plane.handle(None, self._now_s))

    # --- the log -------------------------------------------------------------------------------------------------

    def _carry_out(self, outputs: Outputs) -> None:
        for output in outputs:
            match output:
                case Write():
                    self._disk.add(output)
                case Accepted(_, index, _):
                    self._last_index = index
                case Apply(entries):
                    for entry in entries:
                        self._apply(entry)
                    self._let_go()
                    self._take_snapshot_if_due()
                case Restore(snapshot):
                    assert isinstance(snapshot.state, Writes)
                    self._committed = Store()
                    self._committed.redo(snapshot.state)
                case RoleChanged(role):
                    assert role in (Role.LEADER, Role.CANDIDATE, Role.PRE_CANDIDATE), "who is alone leads"
                case _:
                    raise AssertionError(f"who is alone was to {output}")
        if self._heartbeat is not None:
            self._heartbeat.cancel()
        wait_s = max(0.0, self._replica.next_deadline() - time.monotonic())
        self._heartbeat = asyncio.get_running_loop().call_later(wait_s, self._tick)

    def _tick(self) -> None:
        self._carry_out(self._replica.tick(time.monotonic()))

    def _apply(self, entry: Entry) -> None:
        if isinstance(entry.command, Writes):
            self._committed.redo(entry.command)
        elif self._replica.role is Role.LEADER and entry.term == self._replica.term and self._plane is None:
            # With the entry by which it begins its term, all that was before is there.
            self._last_index = entry.index
            self._lead()

    def _take_snapshot_if_due(self) -> None:
        replica = self._replica
        if replica.applied_index - replica.log.snapshot.index >= SNAPSHOT_ENTRIES:
            self._carry_out(replica.compact(replica.applied_index, self._committed.everything(), time.monotonic()))


def opened(begin: Begin) -> Journal:
    """The disk of a master, which is the only one. Raises Damaged."""
    return Journal(begin.volume, Stored.nothing(Membership((begin.name,))), Pickled())


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
