"""Whoever depends on an actor hears of its end, of its silence and of what goes wrong in it."""

from __future__ import annotations

import asyncio

import pytest
from ray.exceptions import RayActorError, RayTaskError

from testbed.emulation.actors import vigil
from testbed.emulation.actors.seam import in_process
from testbed.emulation.actors.vigil import ActorLost, Attended, Watched, in_short

SOON_S = 30.0


class Supervisor(Attended):
    """Whatever is to happen to it can be told to it."""

    def __init__(self) -> None:
        super().__init__("the supervisor of pod web-1")
        self.end = asyncio.Event()
        self.stopped = False

    async def vigil(self, for_s: float) -> list[str]:
        if self.stopped:
            await asyncio.Event().wait()
        answer = asyncio.ensure_future(super().vigil(for_s))
        ended = asyncio.ensure_future(self.end.wait())
        await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
        if self.end.is_set():
            raise RayActorError
        return answer.result()

    async def start(self) -> str:
        return "started"

    async def hang(self) -> None:
        await asyncio.Event().wait()

    async def fail(self) -> None:
        raise RayTaskError("fail", "Traceback, in red", KeyError("web-9")).as_instanceof_cause()


class World:
    def __init__(self) -> None:
        handle = in_process(Supervisor)
        self.supervisor: Supervisor = handle._target  # type: ignore[attr-defined]
        self.heard: list[str] = []
        self.watched = Watched(handle, "the supervisor of pod web-1", self.heard.append)

    async def hears(self, words: str) -> bool:
        async with asyncio.timeout(SOON_S):
            while not any(words in heard for heard in self.heard):
                await asyncio.sleep(0.01)
        return True


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(vigil, "VIGIL_S", 0.05)
    monkeypatch.setattr(vigil, "SILENT_AFTER_S", 1.5)
    world = World()
    assert await world.watched.ask("start") == "started"
    return world


async def test_an_actor_that_dies_unasked_is_named_at_once_and_asked_no_more(world: World) -> None:
    world.supervisor.end.set()
    assert await world.hears("the supervisor of pod web-1 died")
    with pytest.raises(ActorLost, match="web-1 died"):
        await world.watched.ask("start")


async def test_an_actor_that_is_stuck_is_named_and_whoever_waits_for_it_is_told(world: World) -> None:
    waiting = asyncio.ensure_future(world.watched.ask("hang"))
    world.supervisor.stopped = True
    with pytest.raises(ActorLost, match="web-1 does not answer"):
        await asyncio.wait_for(waiting, SOON_S)
    assert len(world.heard) == 1


async def test_a_question_without_an_answer_ends_at_its_own_time_though_the_actor_lives(world: World) -> None:
    with pytest.raises(ActorLost, match=r"does not answer \(for 0.1 s by now\)"):
        await world.watched.ask("hang", within_s=0.1)


async def test_an_actor_that_is_well_is_left_alone(world: World) -> None:
    await asyncio.sleep(10 * vigil.VIGIL_S)
    assert world.heard == []
    assert await world.watched.ask("start") == "started"


async def test_what_goes_wrong_in_an_actor_is_told_once_and_it_lives_on(world: World) -> None:
    world.supervisor.report_defect("the supervisor of pod web-1 (sidecar) on node east-a-1 died")
    assert await world.hears("on node east-a-1 died")
    assert await world.watched.ask("start") == "started"
    assert len(world.heard) == 1


async def test_an_exception_comes_home_as_what_it_was_and_not_as_a_page_of_ray(world: World) -> None:
    with pytest.raises(KeyError) as raised:
        await world.watched.ask("fail")
    assert "Traceback" not in in_short(raised.value)
    assert in_short(raised.value).startswith("KeyError: 'web-9'")
    assert world.heard == []


async def test_who_is_dismissed_may_end_without_a_word(world: World) -> None:
    world.watched.dismiss()
    world.supervisor.end.set()
    await asyncio.sleep(0.2)
    assert world.heard == []
