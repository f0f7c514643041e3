"""The key with which one logs in to labs."""

from __future__ import annotations

import pwd
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from testbed.machines.lab.keys import user_key
from testbed.machines.lab.plan import LabError

pytestmark = pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen here")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pwd, "getpwuid", lambda _: SimpleNamespace(pw_dir=str(tmp_path)))
    return tmp_path


def test_a_public_key_that_is_missing_is_made_of_the_private_one(home: Path) -> None:
    public = user_key(home).with_suffix(".pub")
    kind, key, *_ = public.read_text().split()
    public.unlink()
    assert user_key(home).with_suffix(".pub") == public
    assert public.read_text().split()[:2] == [kind, key]


def test_a_private_key_that_yields_no_public_one_is_told(home: Path) -> None:
    key = user_key(home)
    key.with_suffix(".pub").unlink()
    key.write_text("no key")
    with pytest.raises(LabError, match=r"yields no public key .*: remove it"):
        user_key(home)
    assert not key.with_suffix(".pub").exists()
