"""The access log formats: every line says of what kind it is, and readiness calls leave none."""

from __future__ import annotations

from collections.abc import Callable

import orjson
import pytest

from testbed.control.views.envoy.access_log import ATTEMPT, KIND, CallKind, attempt_log, call_log, called_service


def test_the_formats_of_a_gateway_call_and_of_a_failed_try(golden: Callable[[str, str], None]) -> None:
    logs = {"call": call_log("gateway", "gateway-1", unlogged_path="/ready"), "attempt": attempt_log("gateway-1")}
    golden("access_log.json", orjson.dumps(logs, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode())


@pytest.mark.parametrize("kind", ["outbound", "inbound", "gateway"])
def test_every_kind_of_call_has_the_same_fields(kind: CallKind) -> None:
    fields = call_log(kind, "web-1")["typed_config"]["log_format"]["json_format"]
    assert fields[KIND] == kind
    assert fields.keys() == call_log("gateway", "web-1")["typed_config"]["log_format"]["json_format"].keys()


def test_calls_are_all_logged_unless_a_path_is_excluded() -> None:
    assert "filter" not in call_log("outbound", "web-1")


def test_only_tries_that_failed_are_logged() -> None:
    log = attempt_log("gateway-1")
    kinds = [next(iter(each)) for each in log["filter"]["or_filter"]["filters"]]
    assert kinds == ["response_flag_filter", "status_code_filter", "status_code_filter"]
    assert log["typed_config"]["log_format"]["json_format"][KIND] == ATTEMPT


@pytest.mark.parametrize(
    ("cluster", "service"), [("outbound|80||order-book", "order-book"), ("orders", "orders"), ("-", None), (None, None)]
)
def test_a_cluster_names_the_service_that_was_called(cluster: str | None, service: str | None) -> None:
    assert called_service(cluster) == service
