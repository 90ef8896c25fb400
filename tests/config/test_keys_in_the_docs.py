"""The docs name settings that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from alignment.config.load import all_keys
from alignment.config.program import ProgramConfig
from alignment.config.renames import leaves

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
KEYS = set(all_keys())
TABLES = {key for key in KEYS if not any(other.startswith(f"{key}.") for other in KEYS)}
DOTTED = re.compile(r"(?<![\w./-])([a-z_]+(?:\.[a-z_0-9]+)+)(?![\w./(*-])")


def quoted(text: str) -> Iterator[str]:
    """Dotted keys in back-quotes, also as `key: value` or `--set key=value`."""
    for code in re.findall(r"`([^`\n]+)`", text):
        yield from DOTTED.findall(code)


def given(text: str) -> Iterator[str]:
    """Dotted keys of the blocks of YAML, and those that `--set` names in blocks of commands."""
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        values = yaml.safe_load(block)
        if isinstance(values, dict):
            yield from (key for key, _ in leaves(values))
    yield from re.findall(r"--set\s+([a-z_.0-9]+)=", text)


def exists(key: str) -> bool:
    """Whether it is a setting, or a word of one that is a table."""
    plain = re.sub(r"\.\d+", "", key)
    return plain in KEYS or plain.rpartition(".")[0] in TABLES


def strangers(text: str) -> list[str]:
    keys = {*quoted(text), *given(text)}
    ours = {key for key in keys if key.partition(".")[0] in ProgramConfig.model_fields}
    return sorted(key for key in ours if not exists(key))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_key_that_a_page_names_exists(page: Path) -> None:
    assert strangers(page.read_text(encoding="utf-8")) == []


def test_a_key_that_is_none_is_found() -> None:
    text = (
        "`ppo.kl.adaptive`, `ppo.kl.target: 6`, `--set sample.kk=3`\n```yaml\nppo: {lam: 1}\n```\n"
    )
    assert strangers(text) == ["ppo.kl.adaptive", "ppo.lam", "sample.kk"]
