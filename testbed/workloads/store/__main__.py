"""The container of a store's replica: `PUT /KEY` and `GET /KEY`, answered by the leader, whichever replica is asked.

Runs as `python -m testbed.workloads.store`, configured by `TESTBED_STORE`. A write is answered with 200 once it is
committed, and names in `x-store-owner` who took it; a read with 200 and the value, or 204 where nothing was written
yet, and names there the follower that answered it, if one did. 503: not done. 504: nobody knows. Answers name the
partition of the key. Who operates the store asks for leaders by `PATCH /GROUP`: the body is the replicas' names in
JSON, the first choice first; 204 once that one leads.

In modes isr and async its body is a JSON list of the group's partitions of which this replica is to take no writes from
now on, or null for no change of that; in mode async it may be an object, `{"leader": "data-r2", "epoch": 2}`, too: that
replica leads the group from then on. The answer is how many writes each follower lacks, in JSON, or null from who does
not lead.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping

import orjson
import uvloop

from testbed.consensus.membership import Membership
from testbed.consensus.storage import Stored
from testbed.journal.journal import DAMAGED, Damaged, Journal
from testbed.objects.cells import ENTRY_PARTITION_HEADER
from testbed.workloads.http1 import BODY_BYTES_MAX, Request, Response, ServerProtocol
from testbed.workloads.settings import STORE_OWNER_HEADER
from testbed.workloads.store.commands import NO_KEY, Get, Put
from testbed.workloads.store.driver import Driver
from testbed.workloads.store.encoding import Json
from testbed.workloads.store.isr import IsrDriver
from testbed.workloads.store.settings import SETTINGS_VARIABLE, StoreSettings

REQUEST_ID = b"x-request-id"
OWNER = STORE_OWNER_HEADER.encode()
PARTITION = ENTRY_PARTITION_HEADER.encode()


async def answer(driver: Driver | IsrDriver, settings: StoreSettings, request: Request) -> Response:
    path = request.path.partition(b"?")[0]
    if path == b"/healthz":
        return Response(200) if driver.ready else Response(503, b"no leader was known yet")
    try:
        key, value = path.rpartition(b"/")[2].decode(), request.body.decode()
    except UnicodeDecodeError:
        return Response(400, b"keys and values are UTF-8")
    if request.method == b"PATCH":
        return order(driver, key, value) if isinstance(driver, IsrDriver) else await prefer(driver, key, value)
    if not key:
        return Response(NO_KEY, b"a path ends with the key: PUT /KEY or GET /KEY")
    partition = settings.partition_of(key)
    if partition is None:
        return Response(NO_KEY, b"the rule of partitions makes none of this key")
    match request.method:
        case b"GET" | b"HEAD":
            found = await driver.do(partition, Get(key))
        case b"PUT" | b"POST" if len(value) > BODY_BYTES_MAX:
            return Response(413, b"a value has 1 MiB at most")
        case b"PUT" | b"POST":
            # Without an id, a write that is repeated on its way is two.
            write_id = request.headers.get(REQUEST_ID, b"").decode(errors="replace") or os.urandom(16).hex()
            found = await driver.do(partition, Put(write_id, key, value))
        case _:
            return Response(405, b"PUT and GET only")
    owner = ((OWNER, found.owner.encode()),) if found.owner else ()
    return Response(found.status, found.body.encode(), ((PARTITION, b"%d" % partition), *owner))


def order(driver: IsrDriver, group: str, what: str) -> Response:
    try:
        wanted = orjson.loads(what)
        if isinstance(wanted, dict):
            driver.lead(int(group), str(wanted["leader"]), int(wanted["epoch"]))
        elif wanted is not None:
            driver.forbid_writes(int(group), frozenset(map(int, wanted)))
        return Response(200, orjson.dumps(driver.lags(int(group))))
    except (KeyError, ValueError, TypeError):
        known = b"a JSON list of its partitions, null, or in mode async an object with leader and epoch"
        return Response(400, b"the path is the number of a group, the body " + known)


async def prefer(driver: Driver, group: str, names: str) -> Response:
    try:
        leads = await driver.prefer(int(group), tuple(map(str, orjson.loads(names))))
    except (ValueError, IndexError, TypeError):
        return Response(400, b"the path is the number of a group, the body a JSON list of its replicas")
    return Response(204) if leads else Response(503, b"it does not lead, as far as is known here")


async def serve(settings: StoreSettings, journals: Mapping[int | None, Journal]) -> None:
    """Serve until SIGTERM. `journals` are those of groups in their order, and of the controllers (None)."""
    loop = asyncio.get_running_loop()
    driver: Driver | IsrDriver
    if settings.workload.mode == "quorum":
        driver = Driver(settings, list(journals.values()))
    else:
        driver = IsrDriver(settings, journals)
    running = loop.create_task(driver.run())
    loop.add_signal_handler(signal.SIGTERM, running.cancel)
    server = await loop.create_server(
        lambda: ServerProtocol(lambda request: answer(driver, settings, request)),
        settings.host,
        settings.port,
        backlog=1024,
    )
    try:
        await running
    except asyncio.CancelledError:
        server.close()


def open_journals(settings: StoreSettings) -> dict[int | None, Journal]:
    """Raises Damaged."""
    workload = settings.workload
    first = Stored.nothing(Membership(tuple(sorted(each.name for each in workload.replicas))))
    folders = {number: settings.volume / f"group-{number}" for number in range(len(workload.groups))}
    if workload.mode == "quorum":
        return {number: Journal(folder, first, Json()) for number, folder in folders.items()}
    if workload.mode == "async":
        return {number: Journal(folder, Stored.nothing(), Json()) for number, folder in folders.items()}
    journals: dict[int | None, Journal] = {None: Journal(settings.volume / "controllers", first, Json())}
    for number, folder in folders.items():
        if workload.replica in workload.groups[number].replicas:
            journals[number] = Journal(folder, Stored.nothing(), Json())
    return journals


def main() -> None:
    settings = StoreSettings.from_json(os.environ[SETTINGS_VARIABLE])
    try:
        journals = open_journals(settings)
    except Damaged as damage:
        print(damage, flush=True)
        sys.exit(DAMAGED)
    for journal in journals.values():
        if journal.cut_off_bytes:
            print(f"{journal.path}: a crash had torn the last record; its {journal.cut_off_bytes} bytes are cut off")
    uvloop.run(serve(settings, journals))


if __name__ == "__main__":
    main()
