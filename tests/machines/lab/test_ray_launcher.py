"""What `ray up` remembers of machines that are no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.machines.lab.ray_launcher import forget_cluster


def test_only_clusters_with_this_head_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    folder = tmp_path / "ray"
    folder.mkdir()
    (folder / "cluster-mine.state").write_text('{"198.18.0.11": {"state": "running"}}')
    (folder / "cluster-mine.lock").touch()
    (folder / "cluster-other.state").write_text('{"192.0.2.1": {"state": "running"}}')
    (folder / "cluster-broken.state").write_text("{")
    forget_cluster("198.18.0.11")
    assert sorted(path.name for path in folder.iterdir()) == ["cluster-broken.state", "cluster-other.state"]
