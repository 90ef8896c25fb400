"""Which file system a directory lies on: some that machines share cannot hold a database."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

NETWORK = frozenset(
    {
        *("nfs", "nfs3", "nfs4", "cifs", "smb2", "smb3", "smbfs", "9p", "afs", "afpfs", "davfs"),
        *("ceph", "lustre", "gpfs", "beegfs", "glusterfs", "pvfs2", "orangefs", "panfs", "wekafs"),
        *("sshfs", "s3fs", "gcsfuse", "rclone", "juicefs", "goofys", "blobfuse", "blobfuse2"),
        *("moosefs", "mfs", "lizardfs", "quobyte", "webdav", "osxfuse.sshfs", "macfuse.sshfs"),
    }
)
"""Types of file systems that several machines may write to."""
_LOCAL_LOCKS = frozenset({"nolock", "local_lock=all", "local_lock=flock"})


@dataclass(frozen=True)
class NetworkMount:
    """A network file system.

    Attributes:
        kind: its type, as `nfs4`.
        shares_locks: False where it is mounted so that locks hold on this machine only.
    """

    kind: str
    shares_locks: bool


def network_mount(path: Path) -> NetworkMount | None:
    """The network file system that `path` lies on, or None: a disk of this machine."""
    import psutil

    here = path.resolve()
    holding = [
        (len(Path(mount.mountpoint).parts), number, mount)
        for number, mount in enumerate(psutil.disk_partitions(all=True))
        if here.is_relative_to(mount.mountpoint)
    ]
    if not holding:
        return None
    mount = max(holding)[2]  # of two at one place the later covers the other
    kind = mount.fstype.lower().removeprefix("fuse.")
    if kind not in NETWORK:
        return None
    return NetworkMount(kind, not _LOCAL_LOCKS & {*mount.opts.split(",")})
