"""`~` and `$` in every setting that names a place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment.config.load import load_program
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError
from alignment.pipeline.work import UNKNOWN_PARAMETERS, base_size
from alignment.tracking.store import store_uri

PLACES = ["workspace", "intake.path", "data.path", "data.borderline", "tracking.uri"]
CHECKPOINTS = ["base.path", "rewards.init", "finetune.student.path"]


def load(tmp_path: Path, *overrides: str) -> ProgramConfig:
    path = tmp_path / "program.yaml"
    path.write_text("name: x\nworkspace: w\nbase: {source: path, path: m}\nintake: {source: split}")
    return load_program(path, overrides)


@pytest.mark.parametrize("key", [*PLACES, *CHECKPOINTS])
@pytest.mark.parametrize("value", ["$HOME/x", "${HOME}/x", "a/$(pwd)/x", "~nobody-of-that-name/x"])
def test_what_only_a_shell_could_read_is_refused(tmp_path: Path, key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, f"{key}={value}")
    assert caught.value.message.startswith(f"{key}: ")
    assert "write the path out" in caught.value.message
    assert caught.value.where == f"--set {key}={value}"


@pytest.mark.parametrize("key", [key for key in PLACES if key != "tracking.uri"])
def test_home_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    section, _, name = key.rpartition(".")
    program = load(tmp_path, f"{key}=~/x")
    assert str(getattr(getattr(program, section) if section else program, name)) == str(
        tmp_path / "x"
    )


def test_what_is_no_variable_and_no_home_stays(tmp_path: Path) -> None:
    program = load(tmp_path, "base.path=hub/name", "data.path=a~b/$")
    assert program.base.path == "hub/name"
    assert program.data.path == "a~b/$"


@pytest.mark.parametrize("uri", ["sqlite:///~/m.db", "file:~/runs", "~/runs"])
def test_a_store_names_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    with pytest.raises(ConfigError, match="write the path out"):
        load(tmp_path, f"tracking.uri={uri}")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(ConfigError) as caught:
        store_uri(load(tmp_path))
    assert "MLFLOW_TRACKING_URI" in (caught.value.where or "")


def test_the_size_of_a_model_below_home_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shape = {"hidden_size": 8, "num_hidden_layers": 2, "vocab_size": 32}
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(shape))
    named, written = (load(tmp_path, f"base.path={p}/model") for p in ("~", str(tmp_path)))
    assert base_size(named) == base_size(written)
    assert base_size(named).parameters < UNKNOWN_PARAMETERS
