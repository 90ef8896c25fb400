"""The workspace is made and tried out, also by two commands at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alignment.errors import AlignError
from alignment.pipeline.workspace import make_workspace


def test_many_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "workspace"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make_workspace, [path] * 400))
    assert list(path.iterdir()) == []


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    with pytest.raises(AlignError, match="cannot write the workspace"):
        make_workspace(tmp_path / "taken")
