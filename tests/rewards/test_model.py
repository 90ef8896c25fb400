"""RewardModel: scales, determinism, save and load."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from reward_helpers import random_elements, tiny, word_tokenizer
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alignment.config.rewards import RewardsConfig
from alignment.errors import DataError
from alignment.models.chat_renderer import Tokens
from alignment.preferences.schema import Comparison
from alignment.rewards.card import RewardCard
from alignment.rewards.examples import build
from alignment.rewards.heldout_scores import cut_scores_higher, measure
from alignment.rewards.initial import distinct_pad
from alignment.rewards.mixture import Source
from alignment.rewards.model import RewardModel


def a_model(kind: str = "llama") -> RewardModel:
    return RewardModel(tiny(kind), word_tokenizer(), RewardCard("helpfulness"))


def many_answers(prompts: int, answers: int, seed: int = 0) -> list[Tokens]:
    items = []
    for element in random_elements(prompts, seed, answers):
        # The prompt has at least five tokens; what is behind it counts as the answer.
        items += [Tokens(list(ids[:5]), list(ids[5:])) for ids in element.sequences]
    return items


@pytest.mark.parametrize("kind", ["llama", "gpt2", "mistral"])
def test_score_is_the_models_own(kind: str) -> None:
    reward = a_model(kind)
    items = many_answers(6, 3)
    with torch.no_grad():
        want = [reward.model(torch.tensor([item.ids])).logits.item() for item in items]
    assert reward.score(items).tolist() == pytest.approx(want, abs=1e-5)


def test_score_does_not_depend_on_order_or_repetition() -> None:
    reward = a_model()
    items = many_answers(8, 4)
    first = reward.score(items, tokens_per_batch=300)
    order = np.random.default_rng(1).permutation(len(items))
    again = reward.score([items[i] for i in order] + items[:5], tokens_per_batch=300)
    assert np.array_equal(again[: len(items)], first[order])
    assert np.array_equal(again[len(items) :], first[:5])
    assert reward.score([]).shape == (0,)


def test_calibration_fixes_the_scale() -> None:
    reward = a_model()
    demonstrations, reference = many_answers(10, 1, seed=1), many_answers(20, 2, seed=2)
    before = reward.score(reference)
    reward.calibrate(demonstrations, reference)
    assert reward.score(demonstrations).mean() == pytest.approx(0.0, abs=1e-6)
    standard = reward.standardise(reward.score(reference))
    assert standard.mean() == pytest.approx(0.0, abs=1e-6)
    assert standard.std() == pytest.approx(1.0, abs=1e-5)
    # A shift changes no pair's order.
    assert np.array_equal(np.argsort(before), np.argsort(reward.score(reference)))
    # P(safe) is σ of the head's own output, whatever the bias.
    assert reward.probability(reward.score(reference)) == pytest.approx(
        1 / (1 + np.exp(-before)), abs=1e-6
    )


def test_save_and_load(tmp_path: Path) -> None:
    reward = a_model()
    items = many_answers(4, 2)
    reward.calibrate(items[:4], items)
    reward.save(tmp_path / "model")
    loaded = RewardModel.load(tmp_path / "model")
    assert loaded.card == reward.card
    assert np.array_equal(loaded.score(items), reward.score(items))
    assert loaded.digest() == RewardModel.load(tmp_path / "model").digest()
    text = (tmp_path / "model" / "config.json").read_text()
    assert str(tmp_path) not in text


def test_a_directory_without_card_is_no_reward_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"reward\.json"):
        RewardModel.load(tmp_path)


def test_longer_than_the_positions_is_cut_in_front() -> None:
    reward = a_model("gpt2")
    ids = np.random.default_rng(0).integers(2, 60, size=200).tolist()
    short = Tokens(ids[72:150], ids[150:])
    assert reward.score([Tokens(ids[:150], ids[150:])]) == pytest.approx(reward.score([short]))


def test_scores_of_texts_end_at_eos() -> None:
    reward = a_model()
    messages = [{"role": "user", "content": "what is the sky ?"}]
    found = reward.score_texts([(messages, "blue", True), (messages, "blue", False)])
    whole = reward.renderer.tokens(messages, "blue")
    assert whole.response[-1] == 1
    cut = Tokens(whole.prompt, whole.response[:-1])
    assert found == pytest.approx(reward.score([whole, cut]))
    assert found[0] != pytest.approx(found[1], abs=1e-6)


def cut_pair(number: int) -> Comparison:
    return Comparison(
        conversation=[{"role": "user", "content": "what is the sky ?"}],
        chosen="blue " * (number + 1),
        rejected="hot",
        domain="helpfulness",
        chosen_by={"version": "sft", "temperature": 1.0, "finished": number > 0},
    )


def test_an_answer_that_was_cut_has_no_end_in_training_and_in_measurement() -> None:
    reward = a_model()
    pairs = [cut_pair(0), cut_pair(1)]
    margins = RewardsConfig().margin_table
    built = build(pairs, reward.renderer, margins=margins, max_length=64)
    ends = [[ids[-1] == 1 for ids in element.sequences] for element in built.elements]
    assert ends == [[False, True], [True, True]]
    sources = [Source("batch", pair) for pair in pairs]
    measured = measure(reward, sources, 1024)
    rows = [(pair.conversation, *answer) for pair in pairs for answer in pair.answers]
    want = reward.score_texts(rows).reshape(2, 2)
    assert np.array_equal(np.stack([measured.chosen, measured.rejected], 1), want)
    # The first has no end to leave out.
    with_end, without = reward.score_texts(
        [(pairs[1].conversation, "blue blue ", e) for e in (True, False)]
    )
    assert cut_scores_higher(reward, sources, 1024).tolist() == [without > with_end]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_transformers_own_classifier_gives_the_same_scores(kind: str, tmp_path: Path) -> None:
    """Where EOS is all there is to pad with, too: the score stands at EOS, not before it."""
    tokenizer = word_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    model = tiny(kind)
    model.config.pad_token_id = tokenizer.eos_token_id
    reward = RewardModel(model, tokenizer, RewardCard("helpfulness"))
    reward.save(tmp_path / "model")
    rows = [
        ([{"role": "user", "content": "what is the sky ?"}], "blue", True),
        ([{"role": "user", "content": "tell me a thing"}], "fire is hot and the sea is wet", True),
        ([{"role": "user", "content": "stop now please"}], "no", False),
    ]
    want = RewardModel.load(tmp_path / "model").score_texts(rows)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.pad_token_id not in (None, loaded.eos_token_id)
    ids = [reward.renderer.tokens(m, text, finished=done).ids for m, text, done in rows]
    batch = loaded.pad({"input_ids": ids}, return_tensors="pt")
    with torch.no_grad():
        found = plain(**batch).logits[:, 0]
    assert found.tolist() == pytest.approx(want.tolist(), abs=1e-5)


def test_a_pad_that_never_ends_an_answer() -> None:
    tokenizer = word_tokenizer()
    assert distinct_pad(tokenizer) == 0
    tokenizer.pad_token = None
    assert distinct_pad(tokenizer) == tokenizer.unk_token_id
    tokenizer.pad_token = tokenizer.unk_token = tokenizer.eos_token
    # Nothing special is left: the last word of the vocabulary, which is no EOS.
    assert distinct_pad(tokenizer) == len(tokenizer) - 1 != tokenizer.eos_token_id
