"""Effects reach who carries them out, in their order; what a fault hits is judged by what was there before it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest

from testbed.emulation.driver.fleet import Fleet
from testbed.emulation.driver.member import Resident
from testbed.emulation.driver.world import AnnouncedLinks, EmulatedWorld, Impact
from testbed.faults.effects import CutPower, ImpairLinks, KillPods, LinkEffect
from testbed.faults.links import silence
from testbed.faults.masters import MasterFault
from testbed.faults.nodes import NodeCrash
from testbed.objects.core import Pod
from testbed.objects.places import Locality, Place, Topology
from testbed.objects.workloads import BuiltinWorkload, PodTemplate

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
    world = EmulatedWorld(TOPOLOGY, cast(Fleet, fleet), {}, {}, [])
    impact = await world.apply("cut", (cut("b-1"),), 0.0)
    assert (impact.victims, bool(impact.hit_nothing)) == ((), True)
    assert (await world.apply("other", (cut("c-1"),), 1.0)).victims == ("a-1 > c-1", "c-1 > a-1")
    impact = await world.apply("crash", (silence(("b-1",), TOPOLOGY), CutPower("b-1")), 2.0)
    assert (impact.victims, impact.hit_nothing) == ((), "the machine of node b-1 was off already")
    assert await world.revert("crash", (CutPower("b-1"),), 3.0) == 3.0


DEAD_MASTER = "dead master"


class Party:
    """An actor that notes down what it is asked, on a machine whose clock is 100 s ahead."""

    def __init__(self, name: str, heard: list[tuple[str, str]], pods: tuple[Pod, ...] = ()) -> None:
        self.name = name
        self.heard = heard
        self.pods = pods
        clock = SimpleNamespace(to_local=lambda at_s: at_s - 100.0, to_remote=lambda at_s: at_s + 100.0)
        self.machine = SimpleNamespace(clock=clock, powered_off=False)

    async def ask(
        self, method: str, *arguments: object, within_s: float | None = None, together: bool = False
    ) -> object:
        if method == "running_pods":
            return self.pods
        self.heard.append((self.name, method))
        match method, arguments:
            case "kill", _ if self.name == DEAD_MASTER:
                return None
            case "impose" | "lift" | "kill_pod" | "kill" | "pause" | "resume", (*_, float(due_s)):
                return due_s + 0.001
            case "cut_power", _ if "master" in self.name:
                return 100.5
            case "cut_power", _:
                return 100.5, [pod.name for pod in self.pods]
            case "restore_power", _:
                return 100.7
        raise AssertionError((method, arguments))


def world_of(*pods: Pod, master: str = "master") -> tuple[EmulatedWorld, list[tuple[str, str]]]:
    heard: list[tuple[str, str]] = []
    fleet = SimpleNamespace(of=lambda _: SimpleNamespace(powered_off=False))
    nodes = ("a-1", "b-1", "c-1")
    agents = {name: Party(name, heard, tuple(pod for pod in pods if pod.node == name)) for name in nodes}
    parties = cast(dict[str, Resident], agents)
    masters = {"control-plane": cast(Resident, Party(master, heard))}
    return EmulatedWorld(TOPOLOGY, cast(Fleet, fleet), parties, masters, []), heard


async def test_a_node_dies_when_all_have_silenced_it_and_boots_when_all_hear_it_again() -> None:
    world, heard = world_of(Pod("web-1", "web", PodTemplate("web", BuiltinWorkload()), node="a-1"))
    effects = NodeCrash("a-1").effects(TOPOLOGY)
    impact = await world.apply("crash", effects, 0.0)
    everybody = {"a-1", "b-1", "c-1", "master"}
    assert ({name for name, _ in heard[:4]}, heard[4:]) == (everybody, [("a-1", "cut_power")])
    assert impact.at_s == pytest.approx(0.001)
    assert impact == Impact(impact.at_s, (("web-1", 0.5),), ("a-1",))
    heard.clear()
    assert await world.revert("crash", effects, 1.0) == pytest.approx(1.001)
    assert ({name for name, _ in heard[:4]}, heard[4:]) == (everybody, [("a-1", "restore_power")])


async def test_a_master_dies_behind_silence_or_alone_or_stands_still_and_goes_on() -> None:
    world, heard = world_of()
    crash = MasterFault("control-plane", "crash").effects(TOPOLOGY)
    assert (await world.apply("crash", crash, 0.0)).victims == ("control-plane",)
    assert ([method for _, method in heard[:4]], heard[4:]) == (["impose"] * 4, [("master", "cut_power")])
    await world.revert("crash", crash, 1.0)
    assert heard[-1] == ("master", "restore_power")
    (kill,) = MasterFault("control-plane", "kill").effects(TOPOLOGY)
    assert (await world.apply("kill", (kill,), 2.0)).victims == ("control-plane",)
    pause = MasterFault("control-plane", "pause").effects(TOPOLOGY)
    assert (await world.apply("pause", pause, 3.0)).victims == ("control-plane",)
    assert await world.revert("pause", pause, 4.0) == pytest.approx(4.001)
    assert [method for _, method in heard[-3:]] == ["kill", "pause", "resume"]
    nobody, _ = world_of(master=DEAD_MASTER)
    impact = await nobody.apply("kill", (kill,), 0.0)
    assert (impact.victims, impact.hit_nothing) == ((), "no master was running at control-plane")


async def test_kills_of_one_moment_take_different_pods_of_a_service_and_say_when_there_are_no_more() -> None:
    pods = tuple(Pod(f"web-{number}", "web", PodTemplate("web", BuiltinWorkload()), node="a-1") for number in (2, 1))
    world, _ = world_of(*pods)
    one = (KillPods(service="web", zone="a"),)
    impacts = await asyncio.gather(*(world.apply(f"kill-{number}", one, 0.0) for number in range(3)))
    assert [impact.victims for impact in impacts] == [("web-1",), ("web-2",), ()]
    assert impacts[2].hit_nothing == "no pod of web was running in a"
