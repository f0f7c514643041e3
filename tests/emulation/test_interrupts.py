"""Ctrl-C, SIGTERM and SIGHUP alike, the first and the second, whoever else wants them, with a terminal or without."""

from __future__ import annotations

import fcntl
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

IMPORTS = "import os, signal, sys; from testbed.emulation.driver.interrupts import Interrupts; "
INSTALL = "i = Interrupts(); i.install(); "
SETUP = IMPORTS + "signal.signal(signal.SIGHUP, signal.SIG_DFL); " + INSTALL  # whoever runs the tests may have nohup
RAISE = "os.kill(os.getpid(), signal.{}); "
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


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


def test_one_that_nobody_heard_because_what_it_raised_was_lost_is_told_to_who_listens_next() -> None:
    lost = "exec('class C:\\n def __del__(self): os.kill(os.getpid(), signal.SIGINT)'); sys.stderr = None; C(); "
    listening = "h = i.heard_by(lambda: print('heard')); h.__enter__(); print('went on')"
    assert ends(lost + listening) == (0, "heard\nwent on\n")


@pytest.mark.parametrize("first", SIGNALS)
@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM"])
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


@pytest.mark.parametrize("first", SIGNALS)
def test_a_terminal_that_is_closed_puts_nobody_in_a_hurry(first: str) -> None:
    program = f"h = i.heard_by(lambda: print('heard')); h.__enter__(); {RAISE.format(first)}"
    assert ends(program + 2 * RAISE.format("SIGHUP") + "print('went on')") == (0, "heard\nwent on\n")


def test_nohup_keeps_the_command_going() -> None:
    done = subprocess.run(
        ["nohup", sys.executable, "-c", IMPORTS + INSTALL + RAISE.format("SIGHUP") + "print('went on')"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_a_command_whose_terminal_is_closed_prints_to_nobody_and_ends_in_order(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    program = (
        "import pathlib, time; from testbed.cli.terminal import outlast_terminal; outlast_terminal(); "
        + SETUP
        + "came = []; h = i.heard_by(lambda: came.append(1)); h.__enter__(); print('ready', flush=True);\n"
        "while not came: time.sleep(0.01)\n"
        "print('seen by nobody', flush=True); print('nor this', file=sys.stderr, flush=True)\n"
        f"pathlib.Path({str(ended)!r}).write_text('in order')\n"
    )
    terminal, theirs = pty.openpty()
    command = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    try:
        assert b"ready" in os.read(terminal, 1000)
        os.close(terminal)
        assert command.wait(timeout=30) == 0
    finally:
        command.kill()
    assert ended.read_text() == "in order"
