"""Which links a fault hits is judged by what they were before the moment at which it comes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import pytest

from testbed.emulation.driver.fleet import Fleet
from testbed.emulation.driver.world import AnnouncedLinks, EmulatedWorld
from testbed.faults.effects import CutPower, ImpairLinks, LinkEffect
from testbed.faults.links import silence
from testbed.objects.places import Locality, Place, Topology

TOPOLOGY = Topology(
    (
        *(Place(f"{zone}-1", Locality("east", zone)) for zone in "abc"),
        Place("control-plane", Locality("east", ""), "control-plane"),
    )
)
DEAD = silence(("a-1",), TOPOLOGY)
BOTH = (("a-1", "b-1"), ("b-1", "a-1"))


CUT = LinkEffect(cut=True)


def cut(to: str, effect: LinkEffect = CUT) -> ImpairLinks:
    return ImpairLinks((("a-1", to), (to, "a-1")), effect)


@pytest.mark.parametrize(
    ("others", "hit"),
    [
        ((), BOTH),
        (((0.0, DEAD),), ()),
        (((0.1, DEAD),), BOTH),
        (((0.0, cut("b-1")),), ()),
        (((0.0, cut("c-1")),), BOTH),
        (((0.0, cut("b-1", LinkEffect(added_delay_s=1.0))),), BOTH),
    ],
    ids=["alone", "dead before", "dies with it", "cut before", "another link", "slow before"],
)
def test_a_cut_hits_the_links_that_were_open(
    others: tuple[tuple[float, ImpairLinks], ...], hit: tuple[tuple[str, str], ...]
) -> None:
    links = AnnouncedLinks(TOPOLOGY)
    for due_s, effect in others:
        links.impair("other", effect, due_s)
    assert links.impair("cut", cut("b-1"), 0.1) == hit


def test_a_link_that_opens_at_the_moment_of_a_cut_is_hit_by_it() -> None:
    links = AnnouncedLinks(TOPOLOGY)
    links.impair("before", cut("b-1"), 0.0)
    links.lift("before", 1.0)
    assert links.impair("cut", cut("b-1"), 1.0) == BOTH


def test_an_effect_that_makes_nothing_worse_hits_nothing() -> None:
    wide = LinkEffect(bandwidth_bits_per_s=1e9)
    links = AnnouncedLinks(TOPOLOGY)
    assert links.impair("narrow", cut("b-1", LinkEffect(bandwidth_bits_per_s=1e6)), 0.0) == BOTH
    assert links.impair("wide", cut("b-1", wide), 1.0) == ()


async def test_what_is_without_power_for_good_is_not_hit() -> None:
    fleet = SimpleNamespace(of=lambda place: SimpleNamespace(powered_off=place == "b-1"))
    world = EmulatedWorld(TOPOLOGY, cast(Fleet, fleet), {}, [])
    impact = await world.apply("cut", (cut("b-1"),), 0.0)
    assert (impact.victims, bool(impact.hit_nothing)) == ((), True)
    assert (await world.apply("other", (cut("c-1"),), 1.0)).victims == ("a-1 > c-1", "c-1 > a-1")
    impact = await world.apply("crash", (silence(("b-1",), TOPOLOGY), CutPower("b-1")), 2.0)
    assert (impact.victims, impact.hit_nothing) == ((), "the machine of node b-1 was off already")
    assert await world.revert("crash", (CutPower("b-1"),), 3.0) == 3.0
