"""What pages and errors tell people to install is there to be installed."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def test_an_extra_is_installed_from_the_checkout() -> None:
    """No index has this project, and only the extra bounds the version of what it brings."""
    files = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    files += [file for room in ("alignment", "flows") for file in (ROOT / room).rglob("*.py")]
    found = []
    for file in files:
        for words in re.findall(r"pip install ([^`,\"\n]+)", file.read_text()):
            named = {re.split(r"[\[<>=]", word.strip("'"))[0] for word in words.split()}
            if named & {"align-rlhf", *EXTRAS}:
                found.append(f"{file.relative_to(ROOT)}: {words}")
            for extra in re.findall(r"\.\[(\w+)\]", words):
                assert extra in EXTRAS, f"{file.relative_to(ROOT)}: {words}"
    assert found == []
