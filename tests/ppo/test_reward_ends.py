"""A reward model is asked with the end that it learned, whichever end the policy draws."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chat_templates import family_tokenizer
from model_helpers import tiny_model

from alignment.models.chat_renderer import ChatRenderer, Message, Tokens
from alignment.models.load import load_scalar, save_model
from alignment.rewards.card import CARD, RewardCard
from alignment.rewards.model import RewardModel
from alignment.training.ppo.scoring import Episode, ModelScorer, PromptItem

QUESTION: list[Message] = [{"role": "user", "content": "what is the hat?"}]


@pytest.mark.parametrize("old", [False, True])
def test_every_end_that_is_drawn_scores_as_the_one_that_was_learned(
    old: bool, tmp_path: Path
) -> None:
    tokenizer = family_tokenizer("gemma")
    policy = tiny_model("llama", len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    save_model(policy, tokenizer, tmp_path / "policy")
    made = RewardModel(load_scalar(tmp_path / "policy"), tokenizer, RewardCard("helpfulness"))
    made.save(tmp_path / "reward")
    if old:  # its release ended every answer with EOS, and its card does not say so
        card = json.loads((tmp_path / "reward" / CARD).read_text())
        del card["template_end"]
        (tmp_path / "reward" / CARD).write_text(json.dumps(card))
    model, renderer = RewardModel.load(tmp_path / "reward"), ChatRenderer(tokenizer)
    prompt, answer = renderer.prompt(QUESTION), renderer.response("red", finished=False)
    ends = (renderer.eos, renderer.end) if old else (renderer.end, renderer.eos)
    learned, other = model.score([Tokens(prompt, [*answer, end]) for end in ends])
    assert learned != pytest.approx(other, abs=1e-6)
    assert model.score_texts([(QUESTION, "red", True)]) == pytest.approx([learned])
    item = PromptItem(tuple(prompt), tuple(QUESTION))
    drawn = [Episode(item, Tokens(prompt, [*answer, end]), True) for end in ends]
    cut = Episode(item, Tokens(prompt, answer), False)
    scores = ModelScorer(model, renderer)([*drawn, cut])
    assert scores[:2] == pytest.approx([learned, learned])
    assert scores[2] == pytest.approx(model.score([Tokens(prompt, answer)])[0])
