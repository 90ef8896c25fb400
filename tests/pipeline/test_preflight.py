"""What is missing is told before anything is computed, by the key that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.errors import ConfigError
from alignment.pipeline.preflight import preflight


def program(tmp_path: Path, base: Path | None, intake: dict[str, Any], **more: Any) -> Any:
    given = {"path": str(base)} if base is not None else {}
    values = {"name": "x", "workspace": str(tmp_path / "w"), "intake": intake, **more}
    return check_program(values | {"base": {"source": "path", **given}})


@pytest.mark.parametrize("source", ["inbox", "split"])
def test_data_of_a_given_model(source: str, stories: Path, tmp_path: Path) -> None:
    key = {"inbox": "data.path", "split": "intake.path"}[source]
    with pytest.raises(ConfigError, match="no preference data is named") as caught:
        preflight(program(tmp_path, stories, {"source": source}))
    assert caught.value.where == key
    nowhere = {"path": str(tmp_path / "nowhere" / "x")}
    with pytest.raises(ConfigError, match="no file or directory") as caught:
        preflight(program(tmp_path, stories, {"source": source}, data=nowhere))
    assert caught.value.where == "data.path"
    preflight(program(tmp_path, stories, {"source": source}, data={"path": str(tmp_path)}))


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    data = {"path": str(tmp_path)}
    with pytest.raises(ConfigError) as caught:
        preflight(program(tmp_path, None, {"source": "inbox"}, data=data))
    assert caught.value.where == "base.path"
    with pytest.raises(ConfigError) as caught:
        preflight(program(tmp_path, tmp_path / "none", {"source": "inbox"}, data=data))
    assert caught.value.where == "base.path"


@pytest.mark.parametrize("key", ["sample", "collect", "evaluate", "ppo"])
def test_answers_longer_than_the_model_can_read(key: str, stories: Path, tmp_path: Path) -> None:
    """stories260k reads 512 tokens; the pretrained base as many as it is told."""
    short = {
        name: {"generation": {"max_new_tokens": 20}}
        for name in ("sample", "collect", "evaluate", "ppo")
    }
    data = {"path": str(tmp_path)}

    def limit(tokens: int) -> Any:
        return {"generation": {"max_new_tokens": tokens}}

    def given(tokens: int, *, ppo: bool, own: int | None = None) -> Any:
        version = {"name": "rlhf-v1", "ppo": ppo}
        if own is not None:
            version["set"] = {f"{key}.generation.max_new_tokens": own}
        more = short | {
            key: {"generation": {"max_new_tokens": tokens}},
            "data": data,
            "versions": [version],
        }
        return program(tmp_path, stories, {"source": "inbox"}, **more)

    preflight(given(511, ppo=True))
    for wrong in (given(512, ppo=True), given(20, ppo=True, own=600)):
        with pytest.raises(ConfigError, match="the model's context is 512") as caught:
            preflight(wrong)
        assert caught.value.where == f"{key}.generation.max_new_tokens"
    if key == "ppo":
        preflight(given(600, ppo=False))
    made = {"name": "x", "workspace": str(tmp_path / "w"), **short}
    made["base"] = {"pretrain": {"context": 64, "length": 64}}
    made["versions"] = [{"name": "rlhf-v1", "ppo": True}]
    preflight(check_program(made))
    with pytest.raises(ConfigError, match="the model's context is 64"):
        preflight(check_program(made | {key: limit(64)}))
