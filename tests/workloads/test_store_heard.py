"""Which peers of a replica are there."""

from __future__ import annotations

from testbed.workloads.store.heard import Heard


def test_a_peer_is_there_once_it_was_heard_for_a_whole_time_out_and_until_it_is_silent_for_one() -> None:
    heard = Heard(1.0)
    assert not heard.is_there("a", 0.0)
    for tenth in range(10):
        assert not heard.is_there("a", tenth / 10)
        heard.hear("a", tenth / 10)
    assert heard.is_there("a", 1.0)
    assert heard.is_there("a", 1.89)
    assert not heard.is_there("a", 1.91)
    assert not heard.is_there("b", 1.0)


def test_a_peer_that_was_silent_has_to_be_heard_for_as_long_again() -> None:
    heard = Heard(1.0)
    heard.hear("a", 0.0)
    heard.hear("a", 0.9)
    heard.hear("a", 1.2)
    heard.hear("a", 5.0)
    heard.hear("a", 5.5)
    assert not heard.is_there("a", 5.9)
    assert heard.is_there("a", 6.0)
