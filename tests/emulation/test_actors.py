"""The seam to actors, where what is called lives in the caller's own process."""

from __future__ import annotations

import asyncio
import gc
from typing import Any, cast

import pytest

from testbed.emulation.actors import seam
from testbed.emulation.actors.seam import Actor, SharedProcess, ask_together, handle_of, in_process, start_in, tell


class Counter:
    def __init__(self, start: int) -> None:
        self.seen: list[int] = [start]
        self.last = asyncio.Event()

    async def add(self, number: int) -> int:
        self.seen.append(number)
        await asyncio.sleep(0)
        if number == 3:
            self.last.set()
        return len(self.seen)

    async def fail(self) -> None:
        raise OSError("no such program")


async def test_a_call_goes_on_whether_or_not_anybody_waits_for_it_and_calls_begin_in_their_order() -> None:
    counter = Counter(0)
    handle = handle_of(counter)
    for number in (1, 2, 3):
        handle.add.remote(number)
    gc.collect()
    await asyncio.wait_for(counter.last.wait(), 5)
    assert counter.seen == [0, 1, 2, 3]


async def test_the_caller_gets_the_answer_or_the_exception() -> None:
    handle = in_process(Counter, 0)
    assert await handle.add.remote(1) == 2
    with pytest.raises(OSError, match="no such program"):
        await handle.fail.remote()


class Refusing:
    def __init__(self) -> None:
        raise OSError("no such folder")


async def test_objects_of_a_shared_process_are_called_as_if_each_had_its_own() -> None:
    shared = in_process(SharedProcess)
    first, second, third = (start_in(shared, Counter, start) for start in (1, 2, 3))
    assert [await each.add.remote(9) for each in (first, second, first)] == [2, 2, 3]
    with pytest.raises(OSError, match="no such program"):
        await second.fail.remote()
    assert await third.add.remote(9) == 2


async def test_an_object_that_cannot_be_made_says_why_to_whoever_calls_it_and_no_other_does() -> None:
    shared = in_process(SharedProcess)
    refusing, counter = start_in(shared, Refusing), start_in(shared, Counter, 0)
    for _ in range(2):
        with pytest.raises(OSError, match="no such folder"):
            await refusing.add.remote(1)
    assert await counter.add.remote(1) == 2


async def test_a_call_that_comes_before_its_object_waits_for_it() -> None:
    shared = in_process(SharedProcess)
    early = shared.call.remote(7, "add", (1,))
    await asyncio.sleep(0)
    shared.begin.remote(7, Counter, (0,))
    assert await early == 2


class Counted(SharedProcess):
    """Counts the calls of Ray that it would have been."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def call_all(self, *calls: tuple[int, str, tuple[object, ...]]) -> list[Any]:
        self.calls += 1
        return await super().call_all(*calls)


async def test_what_objects_of_a_shared_process_are_told_at_one_moment_is_one_call() -> None:
    process = Counted()
    shared = handle_of(process)
    first, second = (start_in(shared, Counter, start) for start in (1, 2))
    told = [tell(first, "add", 9), tell(second, "fail"), tell(second, "add", 8), tell(first, "add", 7)]
    raised = await asyncio.gather(*told, return_exceptions=True)
    assert [type(each) for each in raised] == [type(None), OSError, type(None), type(None)]
    assert process.calls == 1
    await tell(first, "add", 6)
    assert process.calls == 2
    assert [await each.add.remote(0) for each in (first, second)] == [5, 3]


async def test_who_is_asked_together_answers_in_one_call_and_each_gets_its_own_answer_or_exception() -> None:
    process = Counted()
    shared = handle_of(process)
    first, second = (start_in(shared, Counter, start) for start in (1, 2))
    await ask_together(second, "add", 8)
    asked = [ask_together(first, "add", 9), ask_together(first, "fail"), ask_together(second, "add", 9)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(each) if isinstance(each, OSError) else each for each in answers] == [2, OSError, 3]
    assert "in fail" in "".join(answers[1].__notes__), "it says where"
    assert process.calls == 2


class Handle:
    """As Ray's, with the id of the actor."""

    _actor_id = b"7"

    def __init__(self, process: SharedProcess) -> None:
        self._process = handle_of(process)

    def __getattr__(self, method: str) -> Any:
        return getattr(self._process, method)


async def test_what_is_asked_within_a_shared_process_is_no_call_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Counted()
    first = start_in(cast(Actor, Handle(process)), Counter, 0)
    assert await ask_together(first, "add", 9) == 2
    assert process.calls == 1
    monkeypatch.setitem(seam._here, Handle._actor_id.hex(), process)
    assert await ask_together(first, "add", 9) == 3
    with pytest.raises(OSError, match="no such program"):
        await ask_together(first, "fail")
    assert process.calls == 1


async def test_who_is_told_something_with_others_is_told_it_also_if_one_who_told_has_given_up() -> None:
    process = Counted()
    shared = handle_of(process)
    first, second = (start_in(shared, Counter, start) for start in (1, 2))
    given_up, other = (asyncio.create_task(tell(each, "add", 9)) for each in (first, second))
    await asyncio.sleep(0)
    given_up.cancel()
    await other
    assert process.calls == 1
    assert [await each.add.remote(0) for each in (first, second)] == [3, 3]
