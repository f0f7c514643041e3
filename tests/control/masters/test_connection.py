"""Whom a place is connected to: the nearest that answers, and nobody else is heard."""

from __future__ import annotations

from testbed.control.masters.connection import Connection, nearest_first
from testbed.objects.places import LinkQuality, Locality, Place, Topology

MASTERS = ("control-plane-1", "control-plane-2", "control-plane-3")


def connection() -> Connection:
    made = Connection(MASTERS, patience_s=0.5)
    made.begin(0.0)
    return made


def test_who_owes_an_answer_for_too_long_is_left_for_the_next() -> None:
    of = connection()
    assert (of.master, of.session, of.next_deadline()) == ("control-plane-1", 1, 0.5)
    of.hear(1)
    assert of.next_deadline() is None
    of.ask(3.0)
    assert not of.give_up(3.4)
    assert of.give_up(3.5)
    assert (of.master, of.session) == ("control-plane-2", 2)
    of.hear(1)
    assert of.next_deadline() == 4.0, "the former master is not heard any more"


def test_whatever_a_master_says_in_the_session_is_an_answer_and_what_it_says_in_another_is_not_heard() -> None:
    of = connection()
    assert not of.hear(2)
    assert of.next_deadline() == 0.5
    assert of.hear(1)
    assert of.next_deadline() is None


def test_who_finds_none_quick_enough_waits_longer_in_each_round_until_it_was_calm_for_a_while() -> None:
    of, now_s, waited_s = connection(), 0.0, []
    for _ in range(15):
        due_s = of.next_deadline()
        assert due_s is not None
        waited_s.append(due_s - now_s)
        assert of.give_up(due_s)
        now_s = due_s
    assert waited_s == [0.5] * 3 + [1.0] * 3 + [2.0] * 3 + [4.0] * 6
    of.hear(of.session)
    of.ask(now_s + 4.9)
    assert of.next_deadline() == now_s + 8.9
    of.hear(of.session)
    of.ask(now_s + 5.1)
    assert of.next_deadline() == now_s + 5.6


def test_another_leader_has_a_place_list_again_what_it_has_and_a_master_that_forgot_it_has_it_connect_anew() -> None:
    of = connection()
    assert of.take_lead("control-plane-1", 1, 1.0) == "list"
    assert of.take_lead("control-plane-3", None, 1.0) is None, "it is connected"
    assert of.take_lead("control-plane-1", None, 2.0) == "connect"
    assert (of.master, of.session) == ("control-plane-1", 2)


def test_a_place_that_nobody_answers_goes_to_the_first_that_serves() -> None:
    of = connection()
    assert of.take_lead("control-plane-3", None, 0.2) == "connect"
    assert (of.master, of.session) == ("control-plane-3", 2)


def test_a_connection_that_is_closed_is_one_with_the_next_and_only_its_own_master_can_close_it() -> None:
    of = connection()
    assert not of.close("control-plane-2", None, 1.0)
    assert not of.close("control-plane-1", 7, 1.0)
    assert of.close("control-plane-1", None, 1.0)
    assert (of.master, of.session) == ("control-plane-2", 2)
    assert of.close("control-plane-2", 2, 1.0)
    assert of.master == "control-plane-3"


def test_nobody_moves_on_from_the_only_master() -> None:
    only = Connection(("control-plane",), patience_s=0.5)
    only.begin(0.0)
    assert only.next_deadline() is None
    assert only.take_lead("control-plane", None, 1.0) == "connect"
    assert (only.master, only.session) == ("control-plane", 2)


def test_a_place_begins_with_the_master_of_its_zone() -> None:
    zones = ("east-a", "east-b", "east-c")
    nodes = tuple(Place(f"{zone}-1", Locality("east", zone)) for zone in zones)
    masters = tuple(
        Place(name, Locality("east", zone), "control-plane") for name, zone in zip(MASTERS, zones, strict=True)
    )
    topology = Topology((*nodes, *masters), same_region=LinkQuality(delay_s=0.001))
    first = {node.name: nearest_first(node.name, MASTERS, topology)[0] for node in nodes}
    assert first == dict(zip(("east-a-1", "east-b-1", "east-c-1"), MASTERS, strict=True))
