"""A command on a machine for somebody elsewhere: what it leaves comes home, and nothing stays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testbed.emulation.actors.errand import LEFT, Errand
from testbed.emulation.actors.machine import PIECE_BYTES_MAX, Versions
from tests.emulation.loopback import DEADLINE_S

LEAVES = f"""
import pathlib, sys
left = pathlib.Path({LEFT!r}, "run", "logs")
left.mkdir(parents=True)
(left / "large").write_bytes(b"x" * {PIECE_BYTES_MAX + 5})
(left.parent / "copied").write_text(pathlib.Path("given").read_text())
print("printed"); sys.exit(3)
"""
WAITS = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
print("ready", flush=True)
time.sleep(100)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The machine's folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
async def errand(temporary: Path) -> AsyncIterator[Errand]:
    errand = Errand()
    yield errand
    await errand.close()
    assert list(temporary.iterdir()) == []


async def test_what_a_command_printed_and_left_can_be_fetched_and_then_is_gone(errand: Errand) -> None:
    assert await errand.versions() == Versions.here()
    await errand.start(["-c", LEAVES], {"given": b"to it"})
    code = await errand.wait(DEADLINE_S)
    assert (code, await errand.printed()) == (3, b"printed\n")
    size = PIECE_BYTES_MAX + 5
    assert await errand.left() == {"run/copied": 5, "run/logs/large": size}
    assert await errand.piece("run/copied", 0) == b"to it"
    pieces = [await errand.piece("run/logs/large", offset) for offset in (0, PIECE_BYTES_MAX)]
    assert b"".join(pieces) == b"x" * size


async def test_a_command_can_be_interrupted(errand: Errand) -> None:
    await errand.interrupt()
    await errand.start(["-c", WAITS], {})
    await eventually_printed(errand)
    assert await errand.wait(0.0) is None
    await errand.interrupt()
    assert await errand.wait(DEADLINE_S) == 130


async def test_a_command_that_still_runs_ends_with_the_errand() -> None:
    errand = Errand()
    await errand.start(["-c", WAITS], {})
    await eventually_printed(errand)
    await errand.close()
    assert await errand.wait(DEADLINE_S) == -9


async def eventually_printed(errand: Errand) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await printed(errand):
            await asyncio.sleep(0.02)


async def printed(errand: Errand) -> bytes:
    try:
        return await errand.printed()
    except FileNotFoundError:
        return b""
