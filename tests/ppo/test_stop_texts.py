"""Which held-out texts the stage looks at."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toys import renderer

import alignment.stages.ppo as stage
from alignment.config.ppo import PPOConfig, StopConfig
from alignment.preferences.stop_set import STOP_TEXTS


def looked_at(prepare: Path, longest: int = 9, **stop: Any) -> tuple[list[Any], list[str]]:
    told: list[str] = []
    ctx: Any = SimpleNamespace(
        config=SimpleNamespace(ppo=PPOConfig.model_validate({"stop": stop})),
        inputs={"prepare": prepare},
        progress=SimpleNamespace(say=told.append),
    )
    return stage._stop_texts(ctx, renderer(), longest), told


def write(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def test_the_worlds_own_or_none(tmp_path: Path) -> None:
    texts, (told,) = looked_at(tmp_path)
    assert texts == []
    assert "no texts to tell whether the policy forgets" in told
    write(tmp_path / STOP_TEXTS, ["1 2 3"])
    assert len(looked_at(tmp_path)[0]) == 1
    assert looked_at(tmp_path, forgetting=None) == ([], [])


@pytest.mark.parametrize("setting", [{"look_every": 0}, {"forgetting": None}])
def test_texts_that_nothing_would_read_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="texts are looked at with"):
        StopConfig(texts="texts.jsonl", **setting)


def test_ones_own_are_cut_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "MOST_TEXTS", 2)
    write(tmp_path / STOP_TEXTS, ["4 5"])
    write(tmp_path / "own.jsonl", ["", *("1 2 " * size for size in (1, 9, 2))])
    texts, (told,) = looked_at(tmp_path, 5, texts=str(tmp_path / "own.jsonl"))
    whole = [renderer().response("1 2 " * size) for size in (1, 9)]
    assert [text.ids for text in texts] == [ids[:5] for ids in whole]
    assert all(len(text.prompt) == 1 for text in texts)
    tokens = sum(len(text.response) for text in texts)
    assert told == f"early stopping looks at 2 of 4 texts, {tokens} tokens"
