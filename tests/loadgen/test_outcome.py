from __future__ import annotations

from typing import Any

import gevent
import pytest
import requests
import urllib3
from geventhttpclient.response import HTTPConnectionClosed, HTTPParseError
from geventhttpclient.useragent import BadStatusCode, RetriesExceeded

from loadgen.outcome import outcome_of, what_went_wrong


def raised_while(function_name: str, error: BaseException) -> BaseException:
    """The error as it looks when a function of that name raised it."""
    namespace: dict[str, Any] = {"error": error}
    exec(f"def {function_name}():\n    raise error", namespace)
    try:
        namespace[function_name]()
    except BaseException as caught:
        return caught
    raise AssertionError


@pytest.mark.parametrize(
    ("status", "error", "outcome"),
    [
        (200, None, "ok"),
        (404, None, "ok"),  # the locustfile said that this was what it wanted
        (200, ValueError("the locustfile said no"), "failed"),
        (503, BadStatusCode("url", code=503), "failed"),
        (503, requests.exceptions.HTTPError("503"), "failed"),
        (504, BadStatusCode("url", code=504), "unknown"),
        (504, requests.exceptions.HTTPError("504"), "unknown"),
        (None, RetriesExceeded("url", 0, original=TimeoutError()), "unknown"),
        (None, RetriesExceeded("url", 0, original=gevent.Timeout(1.0)), "unknown"),
        (None, RetriesExceeded("url", 0, original=BrokenPipeError()), "unknown"),
        (None, requests.exceptions.ReadTimeout(), "unknown"),
        (None, urllib3.exceptions.ConnectTimeoutError(), "unknown"),
        (None, raised_while("_create_socket", TimeoutError()), "unknown"),
        (None, raised_while("_create_socket", ConnectionRefusedError()), "failed"),
        (None, raised_while("_create_socket", ConnectionResetError()), "failed"),
        (None, raised_while("create_connection", ConnectionRefusedError()), "failed"),
        (None, raised_while("sendall", ConnectionResetError()), "unknown"),
        (None, HTTPConnectionClosed("connection closed."), "unknown"),
        (200, HTTPParseError("cut off in its body"), "unknown"),
        (None, gevent.GreenletExit(), "unknown"),
    ],
)
def test_an_outcome_says_what_the_answer_proves(status: int | None, error: BaseException | None, outcome: str) -> None:
    assert outcome_of(status, error) == outcome


@pytest.mark.parametrize(
    ("status", "error", "words"),
    [
        (200, ValueError("wrong content"), "wrong content"),
        (503, ValueError("wrong content"), "wrong content"),
        (200, ValueError(), "ValueError"),
        (503, BadStatusCode("url", code=503), "status 503"),
        (503, requests.exceptions.HTTPError("503 for http://127.1.0.1/"), "status 503"),
        (200, HTTPParseError("cut off in its body"), "cut off in its body"),
        (None, RetriesExceeded("url", 0, original=gevent.Timeout(1.0)), "timed out"),
        (200, TimeoutError(), "timed out"),
    ],
)
def test_an_error_is_what_the_locustfile_said_or_else_the_status_or_the_cause(
    status: int | None, error: BaseException, words: str
) -> None:
    assert what_went_wrong(status, error) == words
