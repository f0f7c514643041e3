"""What a finished request proves: ok, failed or unknown.

    ok       Locust counted a success: HTTP below 400, or the locustfile said so
    unknown  the server may have done it: any time-out (to connect, to read, of the whole request), HTTP 504, or the
             connection was lost after the request had been handed to it
    failed   everything else: refused or reset while connecting, HTTP 4xx and 5xx, or the locustfile said so

A request whose client had to ask a router first, and was not told its cell, is what became of that question.

So Locust's failures are the failed and the unknown together.
"""

from __future__ import annotations

import traceback

import gevent
import requests
import urllib3
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from geventhttpclient.useragent import ConnectionError as ClientError
from geventhttpclient.useragent import RetriesExceeded

from loadgen.records import Outcome

_TIMEOUTS = (TimeoutError, gevent.Timeout, requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)
_LOST = (
    OSError,  # also every error of requests but the status ones
    HTTPConnectionClosed,
    HTTPParseError,
    urllib3.exceptions.HTTPError,
    gevent.GreenletExit,  # the run ended before the answer came
)
_GATEWAY_TIMEOUT = 504
# The functions of geventhttpclient and urllib3 that connect. Nothing was sent if the error was raised in one of them;
# the type alone does not tell, ECONNRESET comes from both sides of that line.
_CONNECTING = ("_create_socket", "create_connection")


class NoCell(Exception):
    """A router did not tell a client its cell: the cause is why; without one, its text is what the router said."""


def what_went_wrong(status: int | None, error: BaseException) -> str:
    """In words that do not depend on the address: many requests fail alike, and are counted by it.

    What the locustfile said is what went wrong, also where the status was a good one.
    """
    if isinstance(error, NoCell):
        return f"router: {error if error.__cause__ is None else what_went_wrong(None, error.__cause__)}"
    cause = _cause(error)
    if isinstance(cause, _TIMEOUTS):
        return "timed out"
    # Locust has a class of its own for a bad status, in a module that patches whoever imports it.
    of_client = isinstance(cause, ClientError) and getattr(cause, "code", None) == status
    if status is not None and (of_client or isinstance(cause, requests.exceptions.HTTPError)):
        return f"status {status}"
    return str(cause) or type(cause).__name__


def outcome_of(status: int | None, error: BaseException | None) -> Outcome:
    """`status` is None where no answer came; `error` is what Locust's request event carries."""
    if error is None:
        return "ok"
    if isinstance(error, NoCell):
        return "failed" if error.__cause__ is None else outcome_of(None, error.__cause__)
    cause = _cause(error)
    if isinstance(cause, _TIMEOUTS) or status == _GATEWAY_TIMEOUT:
        return "unknown"
    if isinstance(cause, requests.exceptions.HTTPError) or not isinstance(cause, _LOST):
        return "failed"
    connecting = any(frame.f_code.co_name in _CONNECTING for frame, _ in traceback.walk_tb(cause.__traceback__))
    return "failed" if connecting else "unknown"


def _cause(error: BaseException) -> BaseException:
    original = getattr(error, "original", None) if isinstance(error, RetriesExceeded) else None
    return original if isinstance(original, BaseException) else error
