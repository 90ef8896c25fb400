"""What the pages name is there: files, functions, the hops of `align run`."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = (
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
    *sorted(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
)
TOPS = ("alignment/", "flows/", "tests/", "docs/", "configs/")


def named(text: str) -> set[str]:
    """Paths between backticks that begin with a folder of ours."""
    words = {word for code in re.findall(r"`([^`\n]+)`", text) for word in code.split()}
    return {word.rstrip(",;") for word in words if word.startswith(TOPS) and "NAME" not in word}


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_a_page_names_exists(page: str) -> None:
    text = (ROOT / page).read_text()
    paths = {path.partition(":")[0] for path in named(text) if "<" not in path}
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_function_that_a_page_names_exists(page: str) -> None:
    missing = []
    for name in named((ROOT / page).read_text()):
        path, colon, function = name.partition(":")
        if colon and not re.search(
            rf"^\s*(def|class|async def) {function}\b|^{function}\b",
            (ROOT / path).read_text(),
            re.M,
        ):
            missing.append(name)
    assert missing == []


@pytest.fixture
def hops(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tests" / "tools"))
    import hops

    return hops


def test_every_hop_of_align_run_leads_to_the_next(hops: Any) -> None:
    steps = hops.HOPS[:-1]
    for (file, function, _), (_, following, _) in zip(steps, hops.HOPS[1:], strict=True):
        tree = ast.parse((ROOT / file).read_text())
        functions = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}
        # Private helpers of the same file are no hop of their own.
        reached, new = set(), {function}
        while new:
            reached |= new
            calls = {
                name
                for one in new
                for node in ast.walk(functions[one])
                for name in [getattr(node, "attr", getattr(node, "id", None))]
                if name
            }
            if following in calls:
                break
            new = (calls & functions.keys()) - reached
        assert new, f"{file}:{function} does not lead to {following}"


def test_the_picture_of_the_hops_is_drawn_anew(hops: Any) -> None:
    assert hops.draw() == hops.PICTURE.read_text(), "run `python -m tests.tools.hops`"
