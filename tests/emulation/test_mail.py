"""What places of one process report goes in as few calls as possible; only leases, pings and ACKs wait for that."""

from __future__ import annotations

import asyncio
import time

import pytest

from testbed.control.messages import ConfigAcked, Event, LeaseRenewed, Ping, PodStopped, SessionEvent
from testbed.emulation.actors.mail import ACKS_WAIT_S, STALE_S, Mail, mail_to
from testbed.emulation.actors.reports import Letter, Reported
from testbed.emulation.actors.seam import handle_of
from tests.emulation.loopback import eventually

WAIT_S = 0.1


class Master:
    """Takes down its calls, and answers when it may."""

    def __init__(self) -> None:
        self.calls: list[list[Letter]] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def report(self, letters: list[Letter]) -> None:
        self.calls.append(letters)
        await self.answering.wait()

    def places(self) -> list[list[str]]:
        return [[letter.place for letter in call] for call in self.calls]


class Broken(Master):
    async def report(self, letters: list[Letter]) -> None:
        raise KeyError("no such node")


def reported(event: Event | SessionEvent, ago_s: float = 0.0) -> list[Reported]:
    return [Reported(event, time.monotonic() - ago_s)]


def lease(mail: Mail, node: str, ago_s: float = 0.0) -> None:
    mail.post(node, reported(LeaseRenewed(node), ago_s))


async def test_leases_that_are_delivered_within_a_moment_go_in_one_call_each_with_its_own_time() -> None:
    master = Master()
    mail = Mail(handle_of(master), WAIT_S)
    began_s = time.monotonic()
    for node in ("a", "b", "c"):
        lease(mail, node)
    ended_s = time.monotonic()
    await eventually(lambda: master.calls)
    assert time.monotonic() >= began_s + WAIT_S
    assert master.places() == [["a", "b", "c"]]
    times = [letter.delivered_s for letter in master.calls[0]]
    assert began_s <= times[0] < times[1] < times[2] <= ended_s


async def test_a_ping_of_clients_waits_as_leases_do() -> None:
    master = Master()
    mail = Mail(handle_of(master), WAIT_S)
    for place in ("clients/a", "clients/b"):
        mail.post(place, reported(Ping()))
    for _ in range(2):
        await asyncio.sleep(0)
    assert not master.calls
    await eventually(lambda: master.calls)
    assert master.places() == [["clients/a", "clients/b"]]


def acked(mail: Mail, node: str, ago_s: float = 0.0) -> None:
    mail.post(node, reported(ConfigAcked(f"web-{node}", "endpoints", "7"), ago_s))


async def test_acknowledgements_wait_for_those_of_other_proxies_but_not_as_long_as_leases() -> None:
    master = Master()
    mail = Mail(handle_of(master), 10 * WAIT_S)
    began_s = time.monotonic()
    lease(mail, "a")
    acked(mail, "b", ago_s=2 * STALE_S)
    acked(mail, "c")
    await eventually(lambda: master.calls)
    assert began_s + ACKS_WAIT_S <= time.monotonic() < began_s + 10 * WAIT_S
    assert master.places() == [["a", "b", "c"]]


async def test_anything_else_goes_at_once_behind_what_waits() -> None:
    master = Master()
    mail = Mail(handle_of(master), WAIT_S)
    lease(mail, "a")
    mail.post("a", reported(PodStopped("a", "web-1")))
    # Two rounds of the event loop: that of the task, and that of the call.
    for _ in range(2):
        await asyncio.sleep(0)
    assert master.places() == [["a", "a"]]


async def test_a_lease_that_was_held_up_goes_at_once() -> None:
    master = Master()
    mail = Mail(handle_of(master), WAIT_S)
    lease(mail, "a", ago_s=2 * STALE_S)
    for _ in range(2):
        await asyncio.sleep(0)
    assert master.places() == [["a"]]


async def test_what_comes_while_the_master_is_busy_goes_together_and_in_order_when_it_has_answered() -> None:
    master = Master()
    mail = Mail(handle_of(master), WAIT_S)
    master.answering.clear()
    for node in ("a", "b", "c"):
        mail.post(node, reported(PodStopped(node, "web-1")))
        for _ in range(2):
            await asyncio.sleep(0)
    assert master.places() == [["a"]]
    master.answering.set()
    await eventually(lambda: master.places() == [["a"], ["b", "c"]])


async def test_what_the_master_could_not_take_is_told_to_who_reports_next() -> None:
    mail = Mail(handle_of(Broken()), WAIT_S)
    mail.post("a", reported(PodStopped("a", "web-1")))
    for _ in range(4):
        await asyncio.sleep(0)
    with pytest.raises(KeyError, match="no such node"):
        lease(mail, "b")


async def test_nodes_of_one_process_share_a_bag_and_leases_wait_for_a_small_part_of_what_they_may_be_late() -> None:
    master = handle_of(Master())
    assert mail_to(master, 1.5) is mail_to(master, 1.5)
    assert mail_to(master, 1.5) is not mail_to(handle_of(Master()), 1.5)
    assert mail_to(master, 30.0).leases_wait_s == 0.1
    assert mail_to(master, 0.2).leases_wait_s == pytest.approx(0.02)
