"""Both signals alike, the first and the second, whoever else wants them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

IMPORTS = "import os, signal, sys; from testbed.emulation.driver.interrupts import Interrupts; "
SETUP = IMPORTS + "i = Interrupts(); i.install(); "
RAISE = "os.kill(os.getpid(), signal.{}); "
SIGNALS = ("SIGINT", "SIGTERM")


def ends(program: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", SETUP + program], capture_output=True, text=True, timeout=30, env=dict(os.environ)
    )
    return done.returncode, done.stdout + done.stderr.strip().rpartition("\n")[2]


@pytest.mark.parametrize("name", SIGNALS)
def test_the_first_one_goes_to_the_listener_and_the_command_goes_on(name: str) -> None:
    listening = f"h = i.heard_by(lambda: print('heard')); h.__enter__(); {RAISE.format(name)} print('went on')"
    assert ends(listening) == (0, "heard\nwent on\n")


@pytest.mark.parametrize("name", SIGNALS)
def test_the_first_one_without_a_listener_is_a_keyboard_interrupt(name: str) -> None:
    code, output = ends(RAISE.format(name) + "print('went on')")
    assert (code != 0, output) == (True, "KeyboardInterrupt")


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_one_ends_the_command_at_once(first: str, second: str) -> None:
    program = (
        f"h = i.heard_by(lambda: None); h.__enter__(); {RAISE.format(first)} {RAISE.format(second)} print('went on')"
    )
    assert ends(program) == (130, "")


def test_who_took_a_signal_meanwhile_gives_it_back() -> None:
    taken = "signal.signal(signal.SIGTERM, signal.SIG_IGN); i.install(); "
    assert ends(taken + "h = i.heard_by(lambda: print('heard')); h.__enter__(); " + RAISE.format("SIGTERM")) == (
        0,
        "heard\n",
    )


def test_a_command_that_has_nothing_left_to_interrupt_ends_as_it_would_have() -> None:
    listening = (
        "h = i.heard_by(lambda: print('heard')); h.__enter__(); i.nothing_left(); h.__exit__(None, None, None); "
    )
    assert ends(listening + RAISE.format("SIGTERM") + "print('went on')") == (0, "went on\n")
