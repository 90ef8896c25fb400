"""Whether the kernel killed a process for want of memory, or somebody else did.

Both send SIGKILL. The kernel counts its own: per control group (exact for what runs in ours, a
container's processes), else for the whole machine.
"""

from __future__ import annotations

from pathlib import Path

_COUNTER = "oom_kill"


def oom_kills(root: Path = Path("/")) -> int | None:
    """How many processes the kernel has killed for want of memory so far; None if it does not say.

    Counted before the signal is sent: whoever sees the process dead sees the new number.

    Args:
        root: where `proc` and `sys` are.
    """
    for path in _files(root):
        try:
            text = path.read_text(encoding="utf-8")
        except OSError:
            continue
        for line in text.splitlines():
            name, _, count = line.partition(" ")
            if name == _COUNTER:
                return int(count)
    return None


def _files(root: Path) -> list[Path]:
    """Where the counter may stand, the most exact first."""
    groups = root / "sys/fs/cgroup"
    found = []
    try:
        ours = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        ours = []
    for line in ours:
        _, controllers, group = line.split(":", 2)
        if controllers == "":  # version 2
            found.append(groups / group.lstrip("/") / "memory.events")
        elif "memory" in controllers.split(","):
            found.append(groups / "memory" / group.lstrip("/") / "memory.oom_control")
    return [*found, root / "proc/vmstat"]
