import pytest
from hypothesis import given
from hypothesis import strategies as st

from testbed.control.entry import RISE, EntryTable
from testbed.objects.places import LinkQuality, Locality, Place, Topology, ZoneLink
from testbed.objects.timings import Timings

ZONES = (("west-a", "west"), ("east-c", "east"), ("east-b", "east"), ("east-a", "east"))
TOPOLOGY = Topology(
    tuple(Place(f"{zone}-1", Locality(region, zone)) for zone, region in ZONES),
    same_region=LinkQuality(delay_s=0.001),
    cross_region=LinkQuality(delay_s=0.015),
    zone_links=(ZoneLink(("east-a", "east-c"), LinkQuality(delay_s=0.004)),),
)
GATEWAYS = tuple((zone, f"gateway-{zone}") for zone, _ in ZONES)
NEAREST_FIRST = ("east-a", "east-b", "east-c", "west-a")


def table() -> EntryTable:
    return EntryTable(TOPOLOGY, "east-a", GATEWAYS, Timings())


def test_the_answer_lists_own_zone_then_own_region_by_delay_then_others() -> None:
    assert table().answer() == NEAREST_FIRST


def test_a_gateway_leaves_after_three_failures_in_a_row_and_returns_after_two_successes() -> None:
    entry = table()
    assert [entry.handle_check("east-a", ok, 0.0) for ok in (False, False, True, False, False)] == [None] * 5
    assert entry.handle_check("east-a", False, 0.0) == ("east-b", "east-c", "west-a")
    assert entry.handle_check("east-a", True, 0.0) is None
    assert entry.handle_check("east-a", True, 0.0) == NEAREST_FIRST


def test_when_no_gateway_is_healthy_the_answer_is_all_of_them() -> None:
    entry = table()
    answers = [entry.handle_check(zone, False, 0.0) for zone in NEAREST_FIRST for _ in range(3)]
    assert answers[8] == ("west-a",)
    assert answers[-1] == NEAREST_FIRST == entry.answer()


def test_the_answer_can_be_asked_for_among_some_zones_only() -> None:
    entry = table()
    cell = ("west-a", "east-b")
    assert entry.answer(cell) == ("east-b", "west-a")
    for _ in range(3):
        entry.handle_check("east-b", False, 0.0)
    assert entry.answer(cell) == ("west-a",)
    assert entry.answer(("east-b",)) == ("east-b",), "none is healthy: then a try is worth more than a check"


def test_checks_are_due_at_once_and_then_every_interval() -> None:
    entry = table()
    assert entry.next_deadline() == 0.0
    assert entry.due_checks(0.5) == tuple((zone, f"gateway-{zone}") for zone in NEAREST_FIRST)
    assert (entry.next_deadline(), entry.due_checks(10.4)) == (10.5, ())
    assert len(entry.due_checks(10.5)) == 4


def test_a_table_without_gateways_answers_nothing_and_a_zone_without_one_is_an_error() -> None:
    empty = EntryTable(TOPOLOGY, "east-a", (), Timings())
    assert (empty.answer(), empty.next_deadline()) == ((), None)
    with pytest.raises(KeyError, match="east-z"):
        table().handle_check("east-z", True, 0.0)


@given(st.lists(st.tuples(st.sampled_from(NEAREST_FIRST), st.booleans())))
def test_the_answer_follows_the_last_run_of_equal_results(checks: list[tuple[str, bool]]) -> None:
    entry = table()
    answer = entry.answer()
    for zone, ok in checks:
        answer = entry.handle_check(zone, ok, 0.0) or answer
        assert answer == entry.answer()
        assert answer == tuple(zone for zone in NEAREST_FIRST if zone in answer), "always nearest first"
        results = [result for checked, result in checks if checked == zone]
        if len(results) >= max(RISE, 3) and all(results):
            assert zone in answer
