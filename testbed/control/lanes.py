"""Which machines of a cluster carry runs side by side: lanes, each of which has one run at a time and machines of its
own."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Collection, Sequence

from testbed.control.placement import Machine

Lane = tuple[Machine, ...]


def lanes(
    machines: Sequence[Machine],
    zones: Collection[str],
    carries: Callable[[Lane], bool],
    machines_per_run: int | None = None,
) -> tuple[Lane, ...]:
    """As many lanes as there can be, of as few machines each as that takes, or of so many; only those that `carries`
    says can carry a run. Machines that come late in the order are the first to stay out.

    Where labels say which of the `zones` a machine is for, every lane has some of each. Where no two runs find room
    beside each other, and nobody has said how many machines are for one, it is a single lane of all.
    """
    best: tuple[Lane, ...] = ()
    for number in (machines_per_run,) if machines_per_run else range(1, len(machines) + 1):
        if len(machines) // number <= len(best):
            break  # nor will there be more of larger ones
        found = tuple(lane for lane in _dealt(machines, zones, number) if carries(lane))
        if len(found) > len(best):
            best = found
    if len(best) > 1 or machines_per_run is not None:
        return best
    return (tuple(machines),) if carries(tuple(machines)) else ()


def _dealt(machines: Sequence[Machine], zones: Collection[str], number: int) -> list[Lane]:
    """So many machines for each lane: of every label in turn, and last of those that have none."""
    by_label: dict[str, deque[Machine]] = defaultdict(deque)
    for machine in machines:
        by_label[machine.zone if machine.zone is not None and machine.zone in zones else ""].append(machine)
    labels = sorted(by_label, key=lambda label: (not label, label))
    dealt: list[Lane] = []
    for _ in range(len(machines) // number):
        lane: list[Machine] = []
        while len(lane) < number:
            there = [label for label in labels if by_label[label]][: number - len(lane)]
            lane += [by_label[label].popleft() for label in there]
        dealt.append(tuple(lane))
    return dealt
