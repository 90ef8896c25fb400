"""The settings reference that the documentation site makes from the models."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from alignment.config.program import ProgramConfig

HOOK = Path(__file__).resolve().parents[2] / "docs" / "hooks" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> Any:
    spec = importlib.util.spec_from_file_location("generate", HOOK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def leaves(value: Any, prefix: str) -> list[str]:
    """Dotted keys of a section as it is filled by default."""
    if not isinstance(value, BaseModel):
        return [prefix]
    names = type(value).model_fields
    return [key for name in names for key in leaves(getattr(value, name), f"{prefix}.{name}")]


def test_every_setting_has_a_line(generate: Any) -> None:
    page = generate.settings_page()
    for name, field in ProgramConfig.model_fields.items():
        if field.is_required():
            assert f"| `{name}`" in page
            continue
        for key in leaves(field.get_default(call_default_factory=True), name):
            assert f"`{key}`" in page or f"`{key}[]." in page or f"`{key}." in page, key


def test_every_setting_says_what_it_is(generate: Any) -> None:
    silent = [key for key, field in generate.settings(ProgramConfig) if not field.description]
    assert silent == []


def test_a_line_has_key_type_default_and_sentence(generate: Any) -> None:
    page = generate.settings_page()
    line = next(line for line in page.splitlines() if line.startswith("| `versions[].ppo`"))
    assert line.startswith("| `versions[].ppo` | `true or false` | `false` | Finish with PPO")
    assert "| `ppo.checkpoint_every` ◦ |" in page  # in no fingerprint
    assert "| `base.source` | `world or path` | `world` |" in page


def test_links_of_the_roots_pages_lead_into_the_site(generate: Any) -> None:
    text = generate.root_page("README.md")
    assert "](docs/" not in text
    assert "](intake.md)" in text
