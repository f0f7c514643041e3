"""Whether an actor still lives and answers, for whoever depends on it.

One question is always under way to every actor: it answers after some seconds that all is well, or at once with what
has gone wrong in it. An actor that dies breaks the question off, one that is stuck leaves it open too long. Whoever
waits for another answer of the same actor is told then, so that nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import traceback
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

from ray.exceptions import RayActorError, RayTaskError

from testbed.emulation.actors.seam import Actor, ask_together

VIGIL_S = 5.0
"""How long an actor to which nothing happens leaves the question open."""
SILENT_AFTER_S = 10.0
"""An actor that is later than that is stuck: no emulation on this machine could be believed."""
ANSWERS_WITHIN_S = 30.0
"""Every other question, where whoever asks names no time of its own."""


class ActorLost(Exception):
    """A process of the testbed ended or does not answer, though its machine lives; the message names it."""


def in_short(error: BaseException) -> str:
    """An unexpected exception in one line: what, and in which lines of the code, the innermost first."""
    words = (str(error).strip() or "no message").splitlines()[0]
    frames = reversed(traceback.extract_tb(error.__traceback__)[-3:])
    where = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return f"{type(error).__name__}: {words}" + (f" ({where})" if where else "")


class Attended:
    """What every actor's class has for those who watch it. `title` is what a person calls the actor."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._defects: list[str] = []
        self._defective = asyncio.Event()
        self._spawned: set[asyncio.Task[None]] = set()

    async def vigil(self, for_s: float) -> list[str]:
        """What has gone wrong in here since the last answer: at once if anything has, else nothing after `for_s`."""
        if not self._defective.is_set():
            try:
                await asyncio.wait_for(self._defective.wait(), for_s)
            except TimeoutError:
                return []
        self._defective.clear()
        defects, self._defects = self._defects, []
        return defects

    def report_defect(self, what: str) -> None:
        """Tell whoever watches."""
        self._defects.append(what)
        self._defective.set()

    @contextlib.contextmanager
    def failing_loudly(self) -> Iterator[None]:
        """Around what nobody waits for (timers, reports): what goes wrong must not pass for a slow cluster."""
        try:
            yield
        except Exception as error:
            self._report_error(error)
            raise

    @contextlib.contextmanager
    def failing_alone(self, which: str) -> Iterator[None]:
        """Around what concerns one of many, where the others go on: what goes wrong is told with its name, and not
        raised."""
        try:
            yield
        except Exception as error:
            self.report_failed(which, error)

    def report_failed(self, which: str, error: BaseException) -> None:
        self.report_defect(f"a defect of {self._title} ({which}): {in_short(error)}")

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """The same for a task."""
        task = asyncio.get_running_loop().create_task(work)
        self._spawned.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._spawned.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._report_error(error)

    def _report_error(self, error: BaseException) -> None:
        self.report_defect(f"a defect of {self._title}: {in_short(error)}")


class Watched:
    """The handle of an actor, and the watch over it, which begins with its first answer: until then it is starting.

    `title` is what a person calls it; `broken(what)` is told, once each, that it was lost and what went wrong in it.
    """

    def __init__(self, actor: Actor, title: str, broken: Callable[[str], None]) -> None:
        self.actor = actor
        self.title = title
        self._broken = broken
        self._lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.Task[None] | None = None

    @property
    def has_answered(self) -> bool:
        return self._watch is not None

    async def ask(self, method: str, *arguments: object, within_s: float | None = None, together: bool = False) -> Any:
        """Call it, `together` with others that are asked now (`seam.ask_together`). Raises ActorLost instead of waiting
        for one that ended or does not answer `within_s`, what it was lost to if that was something else, and what the
        call itself raises."""
        if self._lost.done():
            raise _again(self._lost.result())
        if within_s is None and self.has_answered:
            within_s = ANSWERS_WITHIN_S
        answer_of = ask_together if together else _answer
        call = asyncio.ensure_future(answer_of(self.actor, method, *arguments))
        try:
            await asyncio.wait({call, self._lost}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if not call.done() and not self._lost.done():
                self.lose(ActorLost(f"{self.title} does not answer (for {within_s:g} s by now)"))
            if not call.done():
                raise _again(self._lost.result())
            answer = call.result()
        except RayTaskError as error:
            raise _met_there(error) from None
        except RayActorError as error:
            await self._find_out_why()
            self.lose(ActorLost(f"{self.title} died"))
            raise _again(self._lost.result()) from error
        finally:
            call.cancel()
        if self._watch is None:
            self._watch = asyncio.create_task(self._keep_vigil())
        return answer

    def lose(self, why: Exception) -> None:
        """It is no use any more: whoever waits for an answer is told."""
        if not self._lost.done():
            self._lost.set_result(why)
            if isinstance(why, ActorLost):
                self._broken(str(why))

    def dismiss(self) -> None:
        """It may end now."""
        if self._watch is not None:
            self._watch.cancel()

    async def _find_out_why(self) -> None:
        """Time for `lose` to be called with a better reason than that it died."""

    async def _keep_vigil(self) -> None:
        try:
            while True:
                for defect in await self.ask("vigil", VIGIL_S, within_s=VIGIL_S + SILENT_AFTER_S):
                    self._broken(defect)
        except Exception as error:
            if not self._lost.done():
                self._broken(f"{self.title} cannot be watched: {in_short(error)}")


async def _answer(actor: Actor, method: str, *arguments: object) -> Any:
    return await getattr(actor, method).remote(*arguments)


def _met_there(error: RayTaskError) -> BaseException:
    """The exception that the actor raised, with Ray's account of where as a note."""
    cause = error.cause
    if not isinstance(cause, Exception):
        return error
    cause.add_note(str(error))
    return cause


def _again(why: Exception) -> Exception:
    return type(why)(*why.args)
