"""A workspace on a network file system: what is at risk is said, and SQLite is not made worse."""

from __future__ import annotations

import sqlite3
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from alignment.operations.doctor import examine
from alignment.operations.network_disk import PREFECT_DATABASE, network_notices
from alignment.tracking.store import Store, local_database
from alignment.utils.mounts import NetworkMount, network_mount

Mount = namedtuple("Mount", "mountpoint fstype opts")


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch) -> list[Mount]:
    found = [Mount("/", "ext4", "rw"), Mount("/proc", "proc", "rw")]
    monkeypatch.setattr("psutil.disk_partitions", lambda **_: found)
    for name in ("PREFECT_API_URL", *PREFECT_DATABASE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return found


def test_the_innermost_mount_counts(mounts: list[Mount], tmp_path: Path) -> None:
    assert network_mount(tmp_path) is None
    mounts.append(Mount(str(tmp_path), "nfs4", "rw,vers=4.2"))
    assert network_mount(tmp_path / "not" / "there yet") == NetworkMount("nfs4", True)
    (tmp_path / "local").mkdir()
    mounts.append(Mount(str(tmp_path / "local"), "xfs", "rw"))
    assert network_mount(tmp_path / "local" / "w") is None
    assert network_mount(tmp_path / "locality") is not None
    (tmp_path / "link").symlink_to(tmp_path / "local")
    assert network_mount(tmp_path / "link") is None
    mounts.append(Mount(str(tmp_path / "local"), "fuse.sshfs", "rw"))  # mounted over the other
    assert network_mount(tmp_path / "local") == NetworkMount("sshfs", True)


@pytest.mark.parametrize("kind", ["nfs", "NFS4", "cifs", "smb3", "9p", "lustre", "fuse.rclone"])
def test_network_file_systems_are_known(kind: str, mounts: list[Mount], tmp_path: Path) -> None:
    mounts.append(Mount(str(tmp_path), kind, "rw,nolock"))
    found = network_mount(tmp_path)
    assert found is not None
    assert not found.shares_locks


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk"])
def test_disks_of_this_machine_are_too(kind: str, mounts: list[Mount], tmp_path: Path) -> None:
    mounts.append(Mount(str(tmp_path), kind, "rw"))
    assert network_mount(tmp_path) is None


def test_what_is_at_risk_is_said(
    mounts: list[Mount], make_program: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make_program()
    assert network_notices(program) == []
    mounts.append(Mount(str(program.workspace.parent), "nfs4", "rw,local_lock=all"))
    locks, mlflow, prefect = network_notices(program)
    assert "locks of this machine only" in locks[0]
    assert "MLflow database" in mlflow[0]
    assert "MLFLOW_TRACKING_URI" in mlflow[1]
    assert "Prefect's database" in prefect[0]
    assert all("(nfs4)" in what for what, _ in (locks, mlflow, prefect))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    for name in PREFECT_DATABASE:
        with monkeypatch.context() as one:
            one.setenv(name, "postgresql+asyncpg://db/prefect")
            assert network_notices(program) == [locks]


def test_the_doctor_says_it(mounts: list[Mount], make_program: Any) -> None:
    program = make_program(tracking={"enabled": False})
    program.workspace.mkdir(exist_ok=True)
    mounts.append(Mount(str(program.workspace), "cifs", "rw"))
    (finding,) = (found for found, _ in examine(program, hashes=False))
    assert "(cifs): Prefect's database" in finding.what
    assert finding.harmless


@pytest.mark.parametrize(("kind", "mode"), [("ext4", "wal"), ("nfs4", "delete")])
def test_mlflow_writes_ahead_on_a_local_disk_only(
    kind: str, mode: str, mounts: list[Mount], make_program: Any
) -> None:
    program = make_program()
    program.workspace.mkdir(exist_ok=True)
    mounts.append(Mount(str(program.workspace.resolve()), kind, "rw"))
    Store(program)
    with sqlite3.connect(local_database(program.workspace)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == (mode,)
