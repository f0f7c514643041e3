"""Clients with ids, their cookies, and the requests that they send."""

from __future__ import annotations

from collections import Counter
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.sessions import IdDraw, Session, Sessions, addressed, clients_of
from loadgen.settings import Ids, OpenSource, RequestTemplate

IDS = Ids("header", "x-user-id", session=10, count=1000)


def drawn(ids: Ids, count: int = 20_000, seed: int = 7) -> Counter[str]:
    draw, random = IdDraw(ids), Random(seed)
    return Counter(draw.draw(random) for _ in range(count))


def test_a_client_sends_its_requests_with_one_id_and_is_followed_by_another() -> None:
    sessions = Sessions(IDS, IdDraw(IDS), Random(7), at_once=3)
    turns = [sessions.next() for _ in range(3 * 100)]
    for slot in range(3):
        lengths = Counter(id(turn) for turn in turns[slot::3])
        first, *others = lengths.values()
        assert 1 <= first <= 10
        assert set(others[:-1]) == {10}
    assert len({session.id for session in turns}) > 25


def test_of_many_requests_every_tenth_is_a_first_one_from_the_start() -> None:
    sessions = Sessions(IDS, IdDraw(IDS), Random(7), at_once=100)
    turns = [sessions.next() for _ in range(100)]
    for _ in range(10):
        seen = set(map(id, turns))  # of sessions that are kept: an id is given again otherwise
        turns += [sessions.next() for _ in range(100)]
        assert 1 <= len(set(map(id, turns)) - seen) <= 25


def test_ids_follow_from_the_seed() -> None:
    def ids(seed: int) -> list[str]:
        sessions = Sessions(IDS, IdDraw(IDS), Random(seed), at_once=5)
        return [sessions.next().id for _ in range(100)]

    assert ids(1) == ids(1) != ids(2)


def test_ids_are_drawn_alike_by_zipf_or_from_a_file(tmp_path: Path) -> None:
    uniform = drawn(Ids("header", "x", 1, count=10))
    assert set(uniform) == {str(number) for number in range(10)}
    assert all(count == pytest.approx(2000, rel=0.15) for count in uniform.values())
    zipf = drawn(Ids("header", "x", 1, "zipf", count=1000, exponent=1.0))
    assert zipf["0"] / zipf["1"] == pytest.approx(2, rel=0.15)
    assert zipf["0"] / zipf["9"] == pytest.approx(10, rel=0.25)
    (tmp_path / "ids").write_text("alice\nbob\n\n")
    assert set(drawn(Ids("header", "x", 1, file=tmp_path / "ids"), 100)) == {"alice", "bob"}


def test_an_open_load_has_as_many_clients_as_requests_in_a_second() -> None:
    assert clients_of([OpenSource(0.1)]) == 1
    assert clients_of([OpenSource(40.5), OpenSource(20.0)]) == 61


@pytest.mark.parametrize(
    ("ids", "path", "headers"),
    [
        (IDS, "/cart", {"x-kind": "test", "x-user-id": "17"}),
        (Ids("query", "user", 1), "/cart?user=17", {"x-kind": "test"}),
        (Ids("cookie", "user", 1), "/cart", {"x-kind": "test", "Cookie": "user=17"}),
        (Ids("path", "/u/([0-9]+)", 1), "/cart", {"x-kind": "test"}),
    ],
)
def test_the_id_goes_where_the_key_is(ids: Ids, path: str, headers: dict[str, str]) -> None:
    request = RequestTemplate("r", "GET", "/cart", headers={"x-kind": "test"})
    assert addressed(request, ids, Session("17", 1)) == (path, headers)
    assert request.headers == {"x-kind": "test"}


def test_the_id_stands_in_a_path_and_what_a_request_has_itself_stays() -> None:
    request = RequestTemplate("r", "GET", "/u/{id}?a=1", headers={"X-User-Id": "42", "cookie": "theme=dark"})
    session = Session("17", 1, {"cell": "rz01"})
    assert addressed(request, IDS, session) == (
        "/u/17?a=1",
        {"X-User-Id": "42", "Cookie": "theme=dark; cell=rz01"},
    )
    assert addressed(request, Ids("query", "user", 1), session)[0] == "/u/17?a=1&user=17"


def test_cookies_of_answers_are_kept_the_last_of_a_name() -> None:
    session = Session("17", 1)
    session.take(["cell=rz01; Path=/; HttpOnly", "a=b"])
    session.take(["cell=rz02; Path=/", "nonsense"])
    assert session.cookies == {"cell": "rz02", "a": "b"}


def test_a_cookie_is_kept_for_its_max_age() -> None:
    session = Session("17", 1)
    session.take(["cell=rz01; Path=/; HttpOnly; max-age = 30", "theme=dark; Max-Age=soon"], now=100.0)
    session.drop_expired(129.9)
    assert session.cookies == {"cell": "rz01", "theme": "dark"}
    session.drop_expired(130.0)
    assert session.cookies == {"theme": "dark"}
    session.take(["theme=; Max-Age=0"], now=130.0)
    assert session.cookies == {}


STEPS = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 20)),
    st.tuples(st.just("answer"), st.sampled_from(["rz01", "rz02"]), st.one_of(st.none(), st.integers(-2, 15))),
    st.tuples(st.just("refused")),
)


@given(st.lists(STEPS))
def test_a_client_holds_the_last_answer_until_it_expires_or_is_refused_and_no_longer(
    steps: list[tuple[Any, ...]],
) -> None:
    session, now, held = Session("17", 1), 0.0, ("", 0.0)
    for step in steps:
        match step:
            case ("wait", seconds):
                now += seconds
            case ("answer", cell, max_age):
                session.take([f"cell={cell}; Path=/" + ("" if max_age is None else f"; Max-Age={max_age}")], now)
                held = (cell, inf if max_age is None else now + max_age)
            case _:
                session.drop("cell")
                held = ("", 0.0)
        session.drop_expired(now)
        assert session.cookies == ({"cell": held[0]} if now < held[1] else {})
