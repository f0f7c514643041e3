"""The seam to Ray's actors: classes are plain Python, and become actors here. Nothing else creates one."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any, cast

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from testbed.emulation.actors.worker_setup import leave_out_unused_packages

# Modules of actors' classes import this one, or do the same.
leave_out_unused_packages()

Actor = ActorHandle[Any]
"""A handle: `await handle.method.remote(...)`. The actor ends when its last handle is gone and it has
answered what it was asked before, or with the process that started it."""


def start_actor(kind: type, *arguments: object, node_id: str | None = None) -> Actor:
    """A new actor of that class, on the Ray node of that id or on the caller's own.

    Actors ask Ray for no CPU: they supervise, the work is elsewhere. They are pinned, and not restarted: what they
    supervised is gone with them.
    """
    where = NodeAffinitySchedulingStrategy(node_id or ray.get_runtime_context().get_node_id(), soft=False)
    handle: Actor = _actor_class(kind).options(num_cpus=0, scheduling_strategy=where).remote(*arguments)
    return handle


class SharedProcess:
    """An actor for several objects that need no process each. They end with it, or with its last handle."""

    def __init__(self) -> None:
        if ray.is_initialized():
            _here[ray.get_runtime_context().get_actor_id()] = self
        self._objects: dict[int, Any] = {}
        self._failures: dict[int, Exception] = {}
        self._begun: defaultdict[int, asyncio.Event] = defaultdict(asyncio.Event)

    async def begin(self, number: int, kind: type, arguments: tuple[object, ...]) -> None:
        try:
            self._objects[number] = kind(*arguments)
        except Exception as failure:
            # For whoever calls it: nobody waits for this.
            self._failures[number] = failure
        self._begun[number].set()

    async def call(self, number: int, method: str, arguments: tuple[object, ...]) -> Any:
        # Ray keeps no order of what an asynchronous actor is asked.
        await self._begun[number].wait()
        if number in self._failures:
            raise self._failures[number]
        return await getattr(self._objects[number], method)(*arguments)

    async def call_all(self, *calls: _Call) -> list[_Answer]:
        """All of them at once; returns when the last is answered."""
        answers = await asyncio.gather(*(self.call(*call) for call in calls), return_exceptions=True)
        return [_Raised.here(answer) if isinstance(answer, BaseException) else answer for answer in answers]


def start_in(shared: Actor, kind: type, *arguments: object) -> Actor:
    """A new object of that class in a SharedProcess; nothing tells its handle from that of an actor of its own."""
    number = next(_numbers)
    shared.begin.remote(number, kind, arguments)
    return cast(Actor, _Shared(shared, number))


def in_process(kind: type, *arguments: object) -> Actor:
    """The same in the caller's own process: what needs no process of its own is called as if it had one."""
    return handle_of(kind(*arguments))


def handle_of(target: object) -> Actor:
    """A handle for an object of the caller's own process: calls run in the caller's event loop, in their order."""
    return cast(Actor, _InProcess(target))


def is_here(actor: Actor) -> bool:
    """Whether it lives in the caller's own process, and so in its event loop."""
    return isinstance(actor, _InProcess)


def this_actor() -> Actor:
    """The handle of the actor that asks, to hand to others."""
    handle: Actor = ray.get_runtime_context().current_actor
    return handle


async def tell(actor: Actor, method: str, *arguments: object) -> None:
    """Call an actor whose answer does not matter. One that is dead does not hear, which is how it is to be.

    Otherwise as `ask_together`.
    """
    with contextlib.suppress(RayActorError):
        await ask_together(actor, method, *arguments)


async def ask_together(actor: Actor, method: str, *arguments: object) -> Any:
    """Call an actor that answers at once, together with others. Raises what it raises.

    What objects of one shared process are asked in the same turn of the loop goes there in one call of Ray, which costs
    either end a millisecond, and nobody has an answer before all have. In that process itself it is no call of Ray.
    """
    if not isinstance(cast(object, actor), _Shared):
        return await getattr(actor, method).remote(*arguments)
    return await cast(_Shared, actor)._ask(method, arguments)


async def until(due_s: float) -> None:
    """Wait in an actor until a monotonic time; at once where it has passed."""
    await asyncio.sleep(max(0.0, due_s - time.monotonic()))


@cache
def _actor_class(kind: type) -> Any:
    # Once a class: every call would export it to all of Ray again.
    return ray.remote(kind)


_here: dict[str | None, SharedProcess] = {}
"""The one that this process is, if it is one, by the id of its actor."""
_numbers = count()
"""Of objects in shared processes, which only the driver starts."""
_calls: set[asyncio.Future[Any]] = set()
"""Those in this process that are under way: an event loop holds its tasks by weak references only."""


_Call = tuple[int, str, tuple[object, ...]]
"""Of an object in a shared process: its number, method and arguments."""


@dataclass(frozen=True, slots=True)
class _Raised:
    """Instead of an answer."""

    error: BaseException

    @classmethod
    def here(cls, error: BaseException) -> _Raised:
        """With a note of where, as the way to another process takes its traceback."""
        error.add_note("".join(traceback.format_exception(error)))
        return cls(error)


_Answer = Any
"""What a call returned, or that it has _Raised."""


class _Batch:
    """What one shared process is asked in one turn of the loop."""

    def __init__(self, shared: Actor) -> None:
        self._calls: list[_Call] = []
        self._answers = asyncio.ensure_future(self._send(shared))

    async def ask(self, call: _Call) -> Any:
        at = len(self._calls)
        self._calls.append(call)
        answer = (await asyncio.shield(self._answers))[at]
        if isinstance(answer, _Raised):
            raise answer.error
        return answer

    async def _send(self, shared: Actor) -> list[_Answer]:
        del _batches[shared]
        # Each an argument of its own: Ray sends what is larger than 100 kB another way, which takes longer.
        answers: list[_Answer] = await shared.call_all.remote(*self._calls)
        return answers


_batches: dict[Actor, _Batch] = {}
"""Those that can still be added to."""


class _Shared:
    """Goes from one process to the other as handles of Ray do."""

    def __init__(self, shared: Actor, number: int) -> None:
        self._shared = shared
        self._number = number

    def __getattr__(self, name: str) -> _SharedMethod:
        if name.startswith("_"):
            # Asked by pickle, before there are attributes.
            raise AttributeError(name)
        return _SharedMethod(self._shared, self._number, name)

    async def _ask(self, method: str, arguments: tuple[object, ...]) -> Any:
        if _here and (here := _here.get(self._shared._actor_id.hex())) is not None:
            return await here.call(self._number, method, arguments)
        if self._shared not in _batches:
            _batches[self._shared] = _Batch(self._shared)
        return await _batches[self._shared].ask((self._number, method, arguments))


class _SharedMethod:
    def __init__(self, shared: Actor, number: int, name: str) -> None:
        self._shared = shared
        self._number = number
        self._name = name

    def remote(self, *arguments: object) -> Any:
        return self._shared.call.remote(self._number, self._name, arguments)


class _InProcess:
    def __init__(self, target: object) -> None:
        self._target = target

    def __getattr__(self, name: str) -> _Method:
        return _Method(getattr(self._target, name))


class _Method:
    def __init__(self, method: Any) -> None:
        self._method = method

    def remote(self, *arguments: object) -> asyncio.Future[Any]:
        # As with Ray the call goes on whether or not the caller waits for the answer.
        call: asyncio.Future[Any] = asyncio.ensure_future(self._method(*arguments))
        _calls.add(call)
        call.add_done_callback(_calls.discard)
        return call
