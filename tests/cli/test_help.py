"""Every verb shows how it is used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
from cyclopts import App

from alignment.cli.main import VERBS


def commands() -> Iterator[tuple[str, Any]]:
    """Name and function of every verb and of every verb's own verbs."""
    for verb, (target, _) in VERBS.items():
        module, _, name = target.partition(":")
        found = getattr(import_module(f"alignment.cli.{module}"), name)
        if not isinstance(found, App):
            yield verb, found
            continue
        if found.default_command is not None:
            yield verb, found.default_command
        for below in found:
            if not below.startswith("-"):
                yield f"{verb} {below}", found[below].default_command


def test_every_verb_has_an_example_that_calls_it() -> None:
    without = []
    for name, function in commands():
        text = function.__doc__ or ""
        # "Examples:" would be taken for a section of the docstring and not be shown.
        if "\n    For example:\n\n    ```\n" not in text or f"\n    align {name}" not in text:
            without.append(name)
    assert without == []
    assert len(list(commands())) >= len(VERBS)


def test_help_shows_the_example() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "alignment.cli.main", "plan", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "align plan configs/demo.yaml" in shown


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["--workspace", "X y", "status"], "align status --workspace 'X y'"),
        (["-w", "X", "batches", "restore", "3"], "align batches restore 3 -w X"),
        (["--workspace", "X"], "align VERB ..."),
    ],
)
def test_an_option_before_the_verb_is_told_where_it_belongs(words: list[str], meant: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "alignment.cli.main", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert f"{words[0]} stands before the verb" in done.stderr
    assert f"remedy: {meant}\n" in done.stderr
