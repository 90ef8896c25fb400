"""Rollouts: log-probabilities, left padding, ends, independence of company."""

from __future__ import annotations

import pytest
import torch
from toys import renderer, tiny_llama

from alignment.errors import ConfigError
from alignment.inference.engine import TransformersEngine
from alignment.inference.types import SamplingSettings
from alignment.models.chat_renderer import Tokens
from alignment.training.ppo.forward import logprobs, pack, passes, pieces, table, values
from alignment.training.ppo.roles import LanguageRole, critic_from
from alignment.training.ppo.rollout import rollout

PROMPTS = [(1, 2, 3), (4,), (5, 6, 7, 1, 2), (3, 3)]


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return tiny_llama(vocabulary=12, layers=2)


def roll(model, prompts, *, ends=(), batch_size=64, temperature=1.0, length=9):
    settings = SamplingSettings(
        max_new_tokens=length, temperature=temperature, batch_size=batch_size, exact=False
    )
    engine = TransformersEngine(model, renderer(), ends=ends)
    return rollout(engine, prompts, settings, seed=5, device=torch.device("cpu"))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_a_plain_forward_pass(model, temperature: float, way: str) -> None:
    answers = roll(model, PROMPTS, temperature=temperature, ends=(0,))
    for row, prompt in enumerate(PROMPTS):
        answer = answers.responses[row]
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        logs = torch.log_softmax(logits / temperature, -1)
        expected = [float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)]
        found = answers.logprobs[row, : len(answer)].tolist()
        assert found == pytest.approx(expected, abs=1e-5)
        assert not answers.logprobs[row, len(answer) :].any()
        assert answers.mask[row].sum() == len(answer)


def test_an_answer_ends_with_its_eos_or_at_the_limit(model) -> None:
    answers = roll(model, PROMPTS * 16, ends=(0,), length=12)
    assert 0 < int(answers.finished.sum()) < 64
    for answer, finished in zip(answers.responses, answers.finished.tolist(), strict=True):
        assert 0 not in answer[:-1]
        assert finished == (answer[-1] == 0)
        assert finished or len(answer) == 12


def test_without_ends_every_answer_has_the_full_length(model) -> None:
    answers = roll(model, PROMPTS)
    assert {len(answer) for answer in answers.responses} == {9}
    assert not answers.finished.any()


def test_batch_size_changes_nothing(model) -> None:
    together = roll(model, PROMPTS * 4, ends=(0,))
    alone = roll(model, PROMPTS * 4, ends=(0,), batch_size=3)
    assert together.responses == alone.responses
    torch.testing.assert_close(together.logprobs, alone.logprobs, atol=1e-5, rtol=0)


def test_an_answer_is_its_episodes_own(model) -> None:
    many, few = roll(model, PROMPTS * 4, ends=(0,)), roll(model, PROMPTS, ends=(0,), length=5)
    assert [answer[:5] for answer in many.responses[:4]] == few.responses
    assert len({tuple(answer) for answer in many.responses[::4]}) == 4  # one prompt, four draws


def test_empty_prompts_and_long_ones_are_refused(model) -> None:
    with pytest.raises(ConfigError, match="empty"):
        roll(model, [(1,), ()])
    with pytest.raises(ConfigError, match="exceed the model's context"):
        roll(model, [(1,) * 60])


def test_packing_reaches_each_answer_token_once(model) -> None:
    episodes = [Tokens([1, 2], [3, 4, 5]), Tokens([6], [7]), Tokens([1, 1, 1], [2, 0])]
    packed = pack(episodes, [2, 0], torch.device("cpu"))
    assert packed.targets.tolist() == [2, 0, 3, 4, 5]
    assert packed.episode.tolist() == [2, 2, 0, 0, 0]
    assert packed.place.tolist() == [0, 1, 0, 1, 2]
    assert packed.column.tolist() == [2, 3, 1, 2, 3]
    batches = pieces(episodes, [0, 1, 2], 10)
    assert sorted(i for batch in batches for i in batch) == [0, 1, 2]
    assert batches == [[1, 0], [2]]


def test_values_come_from_the_state_before_each_token(model) -> None:
    critic = critic_from(tiny_llama(12, 3))
    with torch.no_grad():
        critic.head.weight.normal_()
    episode = Tokens([1, 2], [3, 4])
    found = values(critic, pack([episode], [0], torch.device("cpu")))
    hidden = critic.body(input_ids=torch.tensor([[1, 2, 3, 4]])).last_hidden_state[0]
    torch.testing.assert_close(found, critic.head(hidden[1:3]))


def test_passes_fill_a_padded_table(model) -> None:
    role = LanguageRole(model, [])
    episodes = [Tokens([1, 2], [3, 4, 5]), Tokens([6], [7])]
    cpu = torch.device("cpu")
    results = passes(role, episodes, temperature=1.0, limit=5, device=cpu)
    filled = table(results, 2, 3, cpu)
    one, _ = logprobs(role, pack(episodes, [1], cpu), 1.0)
    assert filled[1].tolist() == pytest.approx([float(one.detach()), 0.0, 0.0])
    assert (filled[0] < 0).all()


def test_renderer_of_the_toys_spells_what_it_reads() -> None:
    assert renderer().text([3, 4, 0]) == "3 4"
