"""Who may ask a cluster that is up, and which clusters of a user are."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from testbed.emulation.driver import channel, registry
from testbed.emulation.driver.channel import Declined, Unreachable, ask, listening
from testbed.emulation.driver.registry import NameTaken, RegistryUnsafe

HOLDER = """
import sys
from pathlib import Path
from testbed.emulation.driver.registry import registered, socket_of
with registered("mine", Path("runs/mine-1"), "small"):
    socket_of("mine").touch()
    print("there", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def user_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Longer than the address of a Unix socket may be.
    place = tmp_path / ("long" * 30)
    place.mkdir(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
    return place


async def echo(request: dict[str, Any]) -> dict[str, Any]:
    if request["command"] == "refuse":
        raise Declined("no such thing")
    return {"heard": request["command"], "with": request.get("text")}


async def test_what_is_asked_is_answered_in_a_line_of_any_length(tmp_path: Path) -> None:
    text = "é\n" * 500_000
    async with listening(tmp_path / "socket", echo):
        assert (tmp_path / "socket").stat().st_mode & 0o777 == 0o600
        answer = await asyncio.to_thread(ask, tmp_path / "socket", "inject", text=text)
        assert answer == {"heard": "inject", "with": text}
        with pytest.raises(Declined, match="no such thing"):
            await asyncio.to_thread(ask, tmp_path / "socket", "refuse")
    with pytest.raises(Unreachable):
        await asyncio.to_thread(ask, tmp_path / "socket", "inject")


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b"3\n", b"{\n", b"\xff\n", b"{}\n"])
async def test_what_is_no_request_of_this_version_is_declined_and_ends_nothing(tmp_path: Path, line: bytes) -> None:
    async with listening(tmp_path / "socket", echo):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
        writer.write(line)
        assert "declined" in orjson.loads(await reader.readline())
        writer.close()
        assert await asyncio.to_thread(ask, tmp_path / "socket", "status")


async def test_another_version_is_told_which_is_which(tmp_path: Path) -> None:
    async with listening(tmp_path / "socket", echo):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "socket"))
        writer.write(orjson.dumps({"version": "testbed 0.0.9, protocol 1", "command": "status"}) + b"\n")
        told = orjson.loads(await reader.readline())["declined"]
        writer.close()
    assert told == f"the cluster was brought up by {channel._version()}; this is testbed 0.0.9, protocol 1"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
async def test_another_user_is_declined_even_where_the_folder_lets_him_in(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); s.connect('socket'); os.setuid(65534);"
        "s2 = socket.socket(socket.AF_UNIX); s2.connect('socket');"
        "s2.sendall(b'{}\\n'); sys.stdout.buffer.write(s2.makefile('rb').readline())"
    )
    async with listening(tmp_path / "socket", echo):
        tmp_path.chmod(0o711)
        (tmp_path / "socket").chmod(0o777)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
    assert orjson.loads(said) == {"declined": "only the user whose cluster it is may ask"}


@pytest.fixture
def holder() -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has a cluster called mine."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"there\n"
    with process:
        yield process
        process.kill()


def test_a_name_is_one_clusters_as_long_as_its_process_lives(user_place: Path, holder: subprocess.Popen[bytes]) -> None:
    (cluster, state) = registry.found()["mine"]
    assert (cluster.name, cluster.pid, cluster.run_dir, state) == ("mine", holder.pid, "runs/mine-1", "there")
    with pytest.raises(NameTaken), registry.registered("mine", Path("runs/mine-2"), "small"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert registry.socket_of("mine").exists()
    assert {name: state for name, (_, state) in registry.found().items()} == {"mine": "gone"}
    assert registry.found() == {}, "it is told once"
    assert list((user_place / "testbed").iterdir()) == []


def test_the_name_of_a_dead_cluster_is_free(holder: subprocess.Popen[bytes]) -> None:
    holder.kill()
    holder.wait()
    with registry.registered("mine", Path("runs/mine-2"), "small"):
        assert not registry.socket_of("mine").exists()
        assert registry.found()["mine"][0].pid == os.getpid()
    assert registry.found() == {}


def test_a_place_that_others_can_write_to_is_refused(user_place: Path) -> None:
    (user_place / "testbed").mkdir(0o700)
    (user_place / "testbed").chmod(0o777)
    with pytest.raises(RegistryUnsafe, match="closed to others"):
        registry.place()
    (user_place / "testbed").rmdir()
    (user_place / "testbed").symlink_to(user_place)
    with pytest.raises(RegistryUnsafe, match="closed to others"):
        registry.place()


def test_without_a_place_of_the_user_it_is_below_that_of_temporary_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert registry.place() == tmp_path / f"testbed-of-{os.getuid()}"
    assert registry.place().stat().st_mode & 0o777 == 0o700
