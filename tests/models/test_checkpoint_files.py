"""Files of a checkpoint that are not what their names say are recognised as what they are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from alignment.errors import ConfigError
from alignment.models.import_checkpoint import import_checkpoint
from alignment.models.load import load_tokenizer

STAND_INS = [
    (
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        "Git LFS pointer",
        "lfs",
    ),
    ("/annex/objects/SHA256E-s1056248--00.safetensors\n", "git-annex pointer", "git annex get"),
    ("<!DOCTYPE html>\n<html><title>401</title></html>\n", "web page", "login"),
]


@pytest.fixture
def model(stories: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(stories, tmp_path / "given"))


def refused(model: Path, match: str) -> ConfigError:
    with pytest.raises(ConfigError, match=match) as caught:
        import_checkpoint(str(model), model.parent / "out", where="base.path")
    assert caught.value.where == "base.path"
    return caught.value


@pytest.mark.parametrize(("content", "what", "remedy"), STAND_INS)
@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_what_stands_in_place_of_a_file(
    model: Path, name: str, content: str, what: str, remedy: str
) -> None:
    (model / name).write_text(content)
    error = refused(model, f"{name} is a {what}")
    assert remedy in str(error.remedy)
    with pytest.raises(ConfigError, match=what):
        load_tokenizer(model)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_empty_files_and_links_to_nothing(model: Path, name: str) -> None:
    (model / name).write_bytes(b"")
    refused(model, f"{name} is empty")
    (model / name).unlink()
    (model / name).symlink_to(model / "blobs" / "gone")
    refused(model, f"{name} is a link to a file that is not there")


def test_a_model_without_a_tokenizer(model: Path) -> None:
    for file in model.glob("tokenizer*"):
        file.unlink()
    refused(model, "holds no tokenizer: none of tokenizer.json")
