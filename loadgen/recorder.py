"""Records every request of a Locust process, whatever user class or client sent it, as lines of `records`.

Lines are written without a buffer: a killed process loses nothing that it sent.

There are exactly as many SENT and OWN lines as requests in Locust's own statistics: a request that Locust would not
report (killed at the end, or given up inside a `with`) is reported to it here, through its own request event.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import orjson
from locust.event import EventHook

from loadgen import records
from loadgen.entry import Resolver
from loadgen.operations import Operation
from loadgen.outcome import NoCell, outcome_of, what_went_wrong

REQUEST_ID = "x-request-id"
INTENDED_S = "testbed_intended_s"
TRIP = "testbed_trip"
"""The key of a Trip in the context of a request."""
OPERATION = "testbed_operation"
_RECORD = "testbed_record"
_NOT_FINISHED = "not finished when the load ended"


@dataclass(slots=True, kw_only=True)
class Trip:
    """The way of a request whose client finds out on the way where to send it: known once it is finished."""

    entry_zone: str | None = None
    cell: str | None = None
    map_version: int | None = None
    questions: int = 0
    router_ms: float | None = None


@dataclass(frozen=True, slots=True)
class _Sent:
    id: str
    method: str
    name: str
    intended_s: float
    sent_s: float
    trip: Trip | None
    operation: Operation | None = None


class NotFinished(Exception):
    """What Locust is told about a request without an answer at the end of the load."""


class Recorder:
    """Wraps clients, listens to Locust's request event, and counts: requests, and the locustfile's own events.

    `latencies_s` and `lags_s` (sent - intended) hold what came since the reader last took them with `take`.
    """

    def __init__(
        self,
        path: Path,
        resolver: Resolver,
        request_event: EventHook,
        random: Random,
        partition_header: str | None = None,
    ) -> None:
        """`partition_header` is that of answers which names the partition of the request."""
        self.sent = 0
        self.outcomes: Counter[str] = Counter()
        self.unfinished = 0
        self.own_events = 0
        self.own_failures = 0
        self._latencies_s: list[float] = []
        self._lags_s: list[float] = []
        self._under_way: dict[str, _Sent] = {}
        self._resolver = resolver
        self._request_event = request_event
        self._random = random
        self._partition_header = partition_header
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        request_event.add_listener(self._on_request)

    def attach(self, client: Any) -> None:
        """Record what this client sends, give it a request id, and point it at the current entry.

        `client` is Locust's HttpSession or FastHttpSession: all their methods send through `request`. An intended
        time may come in the request's context under INTENDED_S; otherwise it is the time of sending. A request with a
        Trip finds its entry by itself.
        """
        client.request = self._recorded(client, client.request)

    def _recorded(self, client: Any, send: Callable[..., Any]) -> Callable[..., Any]:
        def request(
            method: str,
            url: str,
            name: str | None = None,
            *args: Any,
            headers: dict[str, str] | None = None,
            context: dict[str, Any] | None = None,
            **options: Any,
        ) -> Any:
            now = time.monotonic()
            entry = self._resolver.resolve(now)
            client.base_url = entry.url
            request_id = self._request_id()
            context = dict(context) if context else {}
            trip = context.get(TRIP)
            elsewhere = trip is not None or url.startswith(("http://", "https://"))
            record = context[_RECORD] = self._write_sent(
                request_id,
                method,
                url,
                name or client.request_name or url,
                context.get(INTENDED_S, now),
                now,
                None if elsewhere else entry.zone,
                trip,
                context.get(OPERATION),
            )
            headers = {**headers, REQUEST_ID: request_id} if headers else {REQUEST_ID: request_id}
            try:
                return send(method, url, name, *args, headers=headers, context=context, **options)
            except NoCell as error:
                self._report(record, error)
                raise
            except BaseException as error:
                # Locust reports what its clients raise, but not what ends a user's greenlet from outside.
                self._give_up(record, error)
                raise

        return request

    def finish_under_way(self) -> None:
        """Finish as unknown what has no answer, at the end."""
        for record in list(self._under_way.values()):
            self._give_up(record, NotFinished(_NOT_FINISHED))

    def take(self) -> tuple[list[float], list[float]]:
        """Latencies from the intended time, and send lags, in seconds, since the last call."""
        taken = self._latencies_s, self._lags_s
        self._latencies_s, self._lags_s = [], []
        return taken

    def _give_up(self, record: _Sent, error: BaseException) -> None:
        if record.id in self._under_way:
            self.unfinished += 1
            self._report(record, error)

    def _report(self, record: _Sent, error: BaseException) -> None:
        """To Locust, which does not do it by itself."""
        self._request_event.fire(
            request_type=record.method,
            name=record.name,
            response_time=(time.monotonic() - record.sent_s) * 1e3,
            response_length=0,
            exception=error,
            context={_RECORD: record},
            response=None,
            start_time=time.time() - (time.monotonic() - record.sent_s),
            url=None,
        )

    def _on_request(
        self,
        request_type: str,
        name: str,
        response_time: float | None,
        response_length: int | None = None,
        context: dict[str, Any] | None = None,
        response: Any = None,
        exception: BaseException | None = None,
        **_: Any,
    ) -> None:
        finished_s = time.monotonic()
        record = context.get(_RECORD) if context else None
        if record is None:
            self._record_own(request_type, name, finished_s, response_time, exception)
            return
        status = getattr(response, "status_code", None) or None
        outcome = "unknown" if isinstance(exception, NotFinished) else outcome_of(status, exception)
        del self._under_way[record.id]
        self.outcomes[outcome] += 1
        self._latencies_s.append(finished_s - record.intended_s)
        message = None if exception is None else what_went_wrong(status, exception)
        self._write(
            {
                records.KIND: records.FINISHED,
                records.ID: record.id,
                records.FINISHED_S: finished_s,
                records.STATUS: status,
                records.OUTCOME: outcome,
                records.ERROR: message,
                records.SENT_BYTES: _body_bytes(response),
                records.RECEIVED_BYTES: None if status is None else response_length,
                records.PARTITION: None if status is None else self._partition(response),
                **({} if record.trip is None else _of_trip(record.trip)),
                **({} if record.operation is None else _answered(record.operation, response, outcome)),
            }
        )

    def _record_own(
        self, request_type: str, name: str, fired_s: float, response_time: float | None, error: BaseException | None
    ) -> None:
        self.own_events += 1
        self.own_failures += error is not None
        message = None if error is None else what_went_wrong(None, error)
        self._write(
            {
                records.KIND: records.OWN,
                records.TYPE: request_type,
                records.NAME: name,
                records.FIRED_S: fired_s,
                records.RESPONSE_TIME_MS: response_time,
                records.ERROR: message,
            }
        )

    def _partition(self, response: Any) -> str | None:
        headers = getattr(response, "headers", None)
        if headers is None or self._partition_header is None:
            return None
        found = headers.get(self._partition_header)
        return None if found is None else str(found)

    def _write_sent(
        self,
        request_id: str,
        method: str,
        path: str,
        name: str,
        intended_s: float,
        sent_s: float,
        zone: str | None,
        trip: Trip | None,
        operation: Operation | None,
    ) -> _Sent:
        self._write(
            {
                records.KIND: records.SENT,
                records.ID: request_id,
                records.METHOD: method,
                records.PATH: path,
                records.NAME: name,
                records.INTENDED_S: intended_s,
                records.SENT_S: sent_s,
                records.ENTRY_ZONE: zone,
                **({} if operation is None else _asked(operation)),
            }
        )
        record = self._under_way[request_id] = _Sent(request_id, method, name, intended_s, sent_s, trip, operation)
        self.sent += 1
        self._lags_s.append(sent_s - intended_s)
        return record

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._fd, orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _request_id(self) -> str:
        """In the form of a UUID version 4: Envoy replaces anything else."""
        digits = f"{self._random.getrandbits(128):032x}"
        variant = "89ab"[int(digits[16], 16) & 3]
        return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _of_trip(trip: Trip) -> dict[str, Any]:
    return {
        records.ENTRY_ZONE: trip.entry_zone,
        records.CELL: trip.cell,
        records.MAP_VERSION: trip.map_version,
        records.QUESTIONS: trip.questions,
        records.ROUTER_MS: trip.router_ms,
    }


def _asked(operation: Operation) -> dict[str, Any]:
    return {records.PROCESS: operation.process, records.KEY: operation.key, records.VALUE: operation.value}


def _answered(operation: Operation, response: Any, outcome: str) -> dict[str, Any]:
    if outcome != "ok":
        return {}
    headers = getattr(response, "headers", None) or {}
    read = (response.text or None) if operation.value is None else None
    return {records.VALUE: read, records.OWNER: headers.get(operation.owner_header)}


def _body_bytes(response: Any) -> int | None:
    """Of the body of the request, from what either client keeps of it; None where it is a stream or was not kept."""
    request = getattr(response, "request", None)
    if request is None:
        return None
    body = request.body if hasattr(request, "body") else request.payload
    if body is None:
        return 0
    return len(body.encode() if isinstance(body, str) else body) if isinstance(body, str | bytes) else None
