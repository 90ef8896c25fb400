"""Small files that stand where a large one should be, told by their first bytes."""

from __future__ import annotations

LOGIN = "download it again; the address may want a login"
STAND_INS: dict[bytes, tuple[str, str]] = {
    b"version https://git-lfs.github.com/spec/": (
        "a Git LFS pointer",
        "fetch the files where the repository was cloned: `git lfs install`, then `git lfs pull`",
    ),
    b"/annex/objects/": (
        "a git-annex pointer",
        "fetch the files where the repository was cloned: `git annex get`",
    ),
    b"<!DOCTYPE": ("a web page", LOGIN),
    b"<!doctype": ("a web page", LOGIN),
    b"<html": ("a web page", LOGIN),
}
"""First bytes → what the file is, and what to do."""
LONGEST = max(map(len, STAND_INS))


def stand_in(head: bytes) -> tuple[str, str] | None:
    """What a file that begins with `head` is in place of what it should be, and what to do."""
    return next((found for magic, found in STAND_INS.items() if head.startswith(magic)), None)
