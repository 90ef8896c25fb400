"""A directory with the training and the test part of a data set: one of them is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.errors import DataError
from alignment.pipeline.external_inputs import external_digest
from alignment.preferences.sources import find_sources, part_of

ROW = json.dumps({"prompt": "q", "chosen": "yes", "rejected": "no"}) + "\n"


def made(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(ROW)
    return folder


def names(location: Any) -> list[str]:
    return [source.name for source in find_sources([location])]


@pytest.mark.parametrize(
    "files",
    [
        ("train-00000.jsonl", "train-00001.jsonl", "test-00000.jsonl"),
        ("data/train-00000.jsonl", "data/train-00001.jsonl", "data/test-00000.jsonl"),
        ("train/train-00000.jsonl", "train/train-00001.jsonl", "test/test-00000.jsonl"),
    ],
)
def test_one_part_is_named(files: tuple[str, ...], tmp_path: Path) -> None:
    folder = made(tmp_path / "hh", *files)
    with pytest.raises(DataError, match="training and the test part") as caught:
        find_sources([folder])
    assert caught.value.remedy is not None
    assert f"{folder}:train" in caught.value.remedy
    assert names(f"{folder}:train") == ["train-00000.jsonl", "train-00001.jsonl"]
    assert names(f"{folder}:test") == ["test-00000.jsonl"]
    with pytest.raises(DataError, match="of the part 'dev'") as caught:
        find_sources([f"{folder}:dev"])
    assert caught.value.remedy == "its parts are test, train"


def test_a_colon_in_a_name_is_a_colon(tmp_path: Path) -> None:
    folder = made(tmp_path / "run:train", "a.jsonl")
    assert part_of(folder) == (folder, None)
    assert names(folder) == ["a.jsonl"]
    assert part_of("owner/name:train") == (Path("owner/name:train"), None)


def test_a_program_may_name_a_part(tmp_path: Path) -> None:
    """The stage that reads it notices when the directory changes."""
    folder = made(tmp_path / "hh", "train.jsonl", "test.jsonl")
    program = check_program(
        {
            "name": "x",
            "workspace": str(tmp_path / "w"),
            "base": {"source": "path", "path": "somewhere"},
            "intake": {"source": "split", "path": f"{folder}:train"},
        }
    )
    before = external_digest(program, "prepare")
    assert before is not None
    (folder / "train.jsonl").write_text(ROW + ROW)
    assert external_digest(program, "prepare") != before
