"""PPO-ptx reads the world's corpus as it goes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from toys import renderer

import alignment.stages.ppo as stage
from alignment.config.ppo import PPOConfig
from alignment.models.chat_renderer import ChatRenderer, Tokens

TEXTS = ["1 2 3", "", "4 5", "  \n", "1", "6 " * 20]
LONGEST = 7


def read(prepare: Path) -> tuple[Any, list[Any]]:
    rows = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (prepare / "corpus.jsonl").write_text(rows)
    datasets: list[Any] = []
    ctx: Any = SimpleNamespace(
        inputs={"prepare": prepare}, dataset=lambda *about: datasets.append(about)
    )
    config = PPOConfig.model_validate({"ptx": {"coefficient": 1.0, "source": "corpus"}})
    return stage._texts(ctx, config, renderer(), LONGEST), datasets


def test_they_are_all_that_have_words_cut_to_length(tmp_path: Path) -> None:
    texts, ((name, _, count, _),) = read(tmp_path)
    whole = [renderer().response(text)[:LONGEST] for text in ("1 2 3", "4 5", "1", "6 " * 20)]
    assert list(texts) == [Tokens(ids[:1], ids[1:]) for ids in whole]
    assert all(text.response for text in texts)
    assert max(map(len, texts)) == LONGEST
    assert (name, count) == ("ptx_corpus", len(texts)) == ("ptx_corpus", 4)
    assert texts[-1] == texts[3]
    assert texts[1:3] == [texts[1], texts[2]]


def test_only_what_is_read_is_tokenised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    response = ChatRenderer.response

    def counted(self: ChatRenderer, text: str, **settings: Any) -> list[int]:
        asked.append(text)
        return response(self, text, **settings)

    monkeypatch.setattr(ChatRenderer, "response", counted)
    texts, _ = read(tmp_path)
    assert texts
    assert asked == []
    assert texts[1].ids
    assert asked == ["4 5"]
