"""A workspace's records, damaged in any way: read as they were, or refused by file and remedy."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_program import fake_program
from fuzzing import fuzzing
from hypothesis import assume, given
from hypothesis import strategies as st

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, ConfigError
from alignment.pipeline import migrate
from alignment.pipeline.approval import Decisions, decide
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.format import FORMAT
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.node import Node
from alignment.pipeline.workspace import keep_program, kept_program

FIRST = Node("base", "pretrain", "pretrain")
GATE = Node("rlhf-v1", "promote", "promote")
OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
DESCRIBED: dict[str, Any] = {
    "code_version": "1",
    "config": {"rewards": {"margin": "size"}, "ppo": {"kl": {"coefficient": 0.1}}},
    "options": {},
    "inputs": {
        "outside": {"digest": "d"},
        "policy": {"version": "sft", "stage": "finetune", "digest": "d", "fingerprint": OLD},
    },
    "seed": 7,
    "libraries": {"torch": "2"},
    "seconds": 1.5,
    "peak_memory_mb": 10.0,
}
ODD = st.sampled_from(
    [
        *(None, True, 0, -1, 3, 10**30, 1e308, 0.5, "", "x", "\0", "../../..", "/etc", "é\u2028"),
        *("running", "done", OLD, OTHER, "rlhf-v2", "9999-12-31T23:59:59-14:00", "0001-01-01"),
        *([], [1], {}, {"a": {"b": 1}}, {"stage": "x"}, [{}]),
    ]
) | st.text(max_size=4)
RAW = st.sampled_from(
    [b"", b"null", b"[]", b"NaN", b"1e999", b"\xff", b"\0", b'"\\ud800"', b"[" * 3000, b"9" * 5000]
) | st.binary(max_size=4)


def finish(ledger: Ledger, node: Node, key: str, files: dict[str, str]) -> None:
    attempt = ledger.begin(node, key)
    ledger.log_path(attempt).touch()
    for name, text in files.items():
        (ledger.partial_dir(node.version, node.stage, key) / "out" / name).write_text(text)
    ledger.commit(attempt, DESCRIBED)
    ledger.write_attempt(replace(attempt, status="done", ended=attempt.started, seconds=2.0))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished stages, the gate's done twice and begun once more, and a decision."""
    program = fake_program(tmp_path_factory.mktemp("records") / "w", 1)
    program.workspace.mkdir()
    keep_program(program)
    ledger = Ledger(program.workspace)
    finish(ledger, FIRST, OLD, {"model": "x"})
    verdict = {"promoted": True, "verdict": "yes", "champion": "rlhf-v1"}
    for key in (OLD, NEW):
        finish(ledger, GATE, key, {"decision.json": json.dumps(verdict)})
    broken = ledger.begin(GATE, OTHER, {"config": {}, "code_version": "1", "inputs": {}})
    ledger.log_path(broken).touch()
    ledger.write_attempt(replace(broken, status="killed"))
    decide(program.workspace, "rlhf-v1", approved=True, by="ana")
    return program.workspace


@pytest.fixture(scope="module")
def program(workspace: Path) -> ProgramConfig:
    return kept_program(workspace)


class Files(dict[Path, bytes]):
    """Path → contents; a failure does not print them all."""

    def __repr__(self) -> str:
        return f"<{len(self)} files>"


@pytest.fixture(scope="module")
def pristine(workspace: Path) -> Files:
    return Files({path: path.read_bytes() for path in files_below(workspace)})


def files_below(workspace: Path) -> list[Path]:
    return sorted(path for path in workspace.rglob("*") if path.is_file())


def records(pristine: dict[Path, bytes]) -> list[Path]:
    return [path for path in pristine if path.suffix == ".json" or path.name == "current"]


def restore(workspace: Path, pristine: dict[Path, bytes]) -> None:
    for path in files_below(workspace):
        if path not in pristine:
            path.unlink()
    for path, content in pristine.items():
        if not path.is_file() or path.read_bytes() != content:
            path.write_bytes(content)


def look(workspace: Path, known: ProgramConfig | None = None) -> list[Any]:
    """Everything that is read from the records; `known` is the program if its file is whole."""
    migrate._fingerprints.clear()
    program, ledger = known or kept_program(workspace), Ledger(workspace)
    found: list[Any] = [program]
    for node in (FIRST, GATE):
        key = (node.version, node.stage)
        found += [ledger.attempts(*key), ledger.current(*key), ledger.committed(*key)]
        unfinished = ledger.unfinished(*key)
        found.append([replace(item, touched=0.0, seconds=0.0) for item in unfinished])
    decisions = Decisions.load(program)
    found += [decisions, decisions.champion, decisions.accepted("rlhf-v1")]
    done = Fingerprints.load(program, decisions)
    return [*found, *(done.manifest(node.version, node.stage) for node in done.plan)]


def refusal(act: Callable[[], Any]) -> AlignError | None:
    try:
        act()
    except AlignError as error:
        return error
    return None


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value within nested ones."""
    inner = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in inner:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


@st.composite
def damaged(draw: Any, content: bytes) -> bytes:
    """`content` with one mistake, of a disk or of a hand."""
    kind = draw(st.sampled_from(["cut", "bytes", "zeros", "value", "key", "old"]))
    start = draw(st.integers(0, len(content)))
    if kind == "cut":
        return content[:start]
    if kind == "zeros":
        return content[:start] + bytes(len(content) - start)
    if kind == "bytes" or not content.startswith(b"{"):
        end = min(len(content), start + draw(st.integers(0, 9)))
        return content[:start] + draw(RAW) + content[end:]
    values = json.loads(content)
    if kind == "old":
        values["format"] = 1
    *way, last = draw(st.sampled_from(list(places(values))))
    here = values
    for key in way:
        here = here[key]
    if kind == "key":
        del here[last]
    else:
        here[last] = draw(ODD)
    return json.dumps(values, ensure_ascii=False).encode("utf-8", "surrogatepass")


@fuzzing
@given(data=st.data())
def test_a_damaged_record_is_named_and_nothing_is_overwritten(
    workspace: Path, program: ProgramConfig, pristine: Files, data: st.DataObject
) -> None:
    restore(workspace, pristine)
    path = data.draw(st.sampled_from(records(pristine)))
    content = data.draw(damaged(pristine[path]) | st.sampled_from([None, *pristine.values()]))
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    known = None if path.name == "program.json" else program
    begun: list[int] = []
    for act in (
        lambda: look(workspace, known),
        lambda: begun.append(Ledger(workspace).begin(GATE, OTHER).number),
    ):
        error = refusal(act)
        if error is not None:
            gone = content is None and path.name == "program.json"
            assert str(workspace if gone else path) in str(error)
            assert error.remedy or isinstance(error, ConfigError)
    assert begun in ([], [4])
    assert {*pristine} - {path} <= {*files_below(workspace)}
    assert [item.name for item in workspace.parent.iterdir()] == ["w"]


@fuzzing
@given(data=st.data(), name=st.text(max_size=5), value=ODD)
def test_what_a_later_release_adds_is_passed_over_and_a_later_format_is_named(
    workspace: Path,
    program: ProgramConfig,
    pristine: Files,
    data: st.DataObject,
    name: str,
    value: Any,
) -> None:
    restore(workspace, pristine)
    others = [
        path
        for path in records(pristine)
        if b'"format"' in pristine[path] and path.name not in ("program.json", "request.json")
    ]
    path = data.draw(st.sampled_from(others))
    values = json.loads(pristine[path])
    assume(name not in values)
    before = look(workspace, program)
    path.write_text(json.dumps(values | {name: value}, ensure_ascii=False), encoding="utf-8")
    assert look(workspace, program) == before
    newer = values | {"format": FORMAT + data.draw(st.integers(1, 9)), "written_by": "9.9", name: 1}
    path.write_text(json.dumps(newer, ensure_ascii=False), encoding="utf-8")
    with pytest.raises(AlignError, match=r"align 9\.9 wrote this in format") as error:
        look(workspace, program)
    assert error.value.where == str(path)
