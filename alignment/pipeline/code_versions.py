"""Detects code changes behind a stage's result that came without a new CODE_VERSION.

A stage's result depends on every module and package of ours that it imports, directly or not. The
lock file `alignment/stages/code_versions.json` holds, for each stage, its
CODE_VERSION and a hash over the syntax trees of those modules (comments, docstrings and layout do
not count). A hash of each module lets the check name the modules that differ. A test compares the
lock with the code. After a change:

    python -m alignment.pipeline.code_versions                      # what changed, for which stages
    python -m alignment.pipeline.code_versions --bump ppo sample    # their results change in bits
    python -m alignment.pipeline.code_versions --neutral "renamed"  # no result changes

`--bump` raises CODE_VERSION in the stage's file. Workspaces then re-run the stage and everything
after it, unless the stage's KEEPS names the old version, whose finished outputs stay valid.
`--neutral` declares that outputs stay the same to the bit; the lock file records the reason.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alignment.pipeline.slices import STAGES, stage_declaration
from alignment.utils.files import atomic_write_json, atomic_write_text, digest_json

ROOT = STAGES.parent
LOCK = STAGES / "code_versions.json"
SHOWN = 5  # changed modules that are named
# These cannot change a result: reporting draws what a stage has computed; errors and progress are
# messages to people.
DISPLAY = ("alignment.reporting", "alignment.errors", "alignment.utils.progress")


@dataclass(frozen=True)
class Change:
    """A stage whose code differs from the lock file although its CODE_VERSION is the same."""

    stage: str
    modules: tuple[str, ...]


def stages() -> list[str]:
    """The names of the stage modules, which are those that declare a CODE_VERSION."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in STAGES.glob("*.py")}
    return sorted(name for name, text in sources.items() if "\nCODE_VERSION = " in text)


def closure(stage: str) -> list[str]:
    """The modules of ours that a stage's result depends on, the stage itself included."""
    waiting, modules = [f"alignment.stages.{stage}"], set()
    while waiting:
        module = waiting.pop()
        if module in modules:
            continue
        modules.add(module)
        waiting += _imports(module)
    return sorted(modules)


def current() -> dict[str, Any]:
    """The contents of a lock file for the present code."""
    closures = {stage: closure(stage) for stage in stages()}
    modules = sorted({module for names in closures.values() for module in names})
    hashes = {module: _hash(module) for module in modules}
    return {
        "stages": {
            stage: {
                "code_version": stage_declaration(stage).code_version,
                "closure": digest_json([[name, hashes[name]] for name in names])[:16],
            }
            for stage, names in closures.items()
        },
        "modules": hashes,
    }


def changes(locked: dict[str, Any]) -> list[Change]:
    """Stages whose code changed under the same CODE_VERSION, with the modules that changed."""
    now = current()
    changed = []
    for stage, entry in now["stages"].items():
        before = locked["stages"].get(stage, {})
        same_version = before.get("code_version") == entry["code_version"]
        if same_version and before.get("closure") != entry["closure"]:
            modules = tuple(
                name
                for name in closure(stage)
                if locked["modules"].get(name) != now["modules"][name]
            )
            changed.append(Change(stage, modules))
    return changed


def bump(stage: str) -> str:
    """Raise CODE_VERSION in the stage's file; returns the new one."""
    path = STAGES / f"{stage}.py"
    text = path.read_text(encoding="utf-8")
    version = str(int(stage_declaration(stage).code_version) + 1)
    bumped = re.sub(r'(?m)^CODE_VERSION = "\d+"$', f'CODE_VERSION = "{version}"', text)
    atomic_write_text(path, bumped)
    read_again()
    return version


def read_again() -> None:
    """Forget what the modules contain: a file has changed."""
    for cached in (stage_declaration, _tree, _imports, _hash):
        cached.cache_clear()


def read_lock() -> dict[str, Any]:
    """The lock file; empty tables if there is none."""
    if not LOCK.is_file():
        return {"stages": {}, "modules": {}, "neutral": []}
    values: dict[str, Any] = json.loads(LOCK.read_text(encoding="utf-8"))
    return values


@cache
def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text(encoding="utf-8"))


def _path(module: str) -> Path:
    path = ROOT.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports(module: str) -> tuple[str, ...]:
    """Modules of ours that `module` imports at run time, inside functions too."""
    found = []
    for node in _run_time(_tree(module)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name imported from a package may itself be a module.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            ours = name.startswith("alignment.") and not name.startswith(DISPLAY)
            if ours and _path(name).is_file():
                found.append(name)
    return tuple(found)


def _run_time(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        yield from _run_time(child)


@cache
def _hash(module: str) -> str:
    body = [line for line in _tree(module).body if not ast.unparse(line).startswith("KEEPS = ")]
    return hashlib.sha256(repr(_shape(body)).encode()).hexdigest()[:12]


def _shape(value: Any) -> Any:
    """A syntax tree as nested lists without positions and docstrings, the same in every Python."""
    if isinstance(value, list):
        return [_shape(item) for item in value if not _is_text(item)]
    if not isinstance(value, ast.AST):
        return repr(value)
    parts = [(name, part) for name, part in ast.iter_fields(value) if part not in (None, [])]
    return [type(value).__name__, *([name, _shape(part)] for name, part in parts)]


def _is_text(node: Any) -> bool:
    """Whether the node is a docstring, or any other string that is an expression of its own."""
    alone = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return alone and isinstance(node.value.value, str)


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns 1 while there are undeclared changes."""
    parser = argparse.ArgumentParser(
        prog="python -m alignment.pipeline.code_versions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--bump", nargs="+", default=[], metavar="STAGE", choices=stages())
    parser.add_argument("--neutral", metavar="REASON", default="")
    options = parser.parse_args(words)
    locked = read_lock()
    for stage in options.bump:
        print(f"{stage}: CODE_VERSION {bump(stage)}")
    undeclared = changes(locked)
    for change in undeclared:
        shown, more = change.modules[:SHOWN], len(change.modules) - SHOWN
        print(f"{change.stage}: {', '.join(shown)}" + (f" and {more} more" if more > 0 else ""))
    if undeclared and not options.neutral.strip():
        print('declare them: --bump STAGE … where results change, --neutral "why not" for the rest')
        return 1
    neutral = locked["neutral"]
    if undeclared:
        names = [change.stage for change in undeclared]
        neutral = [*neutral, {"stages": names, "reason": options.neutral.strip()}]
    atomic_write_json(LOCK, {**current(), "neutral": neutral})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
