"""The token that the user's other Rays take: whether it is closed to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.emulation.driver.local_ray import open_token


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".ray").mkdir()
    path = tmp_path / ".ray" / "auth_token"
    path.write_text("secret")
    path.chmod(0o600)
    return path


def test_a_closed_token_or_none_is_nothing_to_speak_of(token: Path) -> None:
    assert open_token() is None
    token.unlink()
    assert open_token() is None


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_an_open_token_is_told_with_the_command_that_closes_it(token: Path, mode: int) -> None:
    token.chmod(mode)
    said = open_token()
    assert said is not None
    assert said.startswith(f"{token} has mode {mode:04o}, ")
    assert said.endswith(f" chmod 600 {token}")
    assert token.stat().st_mode & 0o777 == mode


def test_it_is_the_file_that_ray_would_take(token: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token.chmod(0o644)
    other = tmp_path / "other token"
    other.touch(0o644)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(other))
    said = open_token()
    assert said is not None
    assert said.endswith(f" chmod 600 '{other}'")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert open_token() is None
