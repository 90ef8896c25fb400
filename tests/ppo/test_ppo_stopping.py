"""When the loop ends early: budgets, looks at held-out prompts and texts, and what is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from everything import EVERYTHING, PROMPTS, build, evens, same, weights
from toys import renderer, tiny_llama

from alignment.config.ppo import PPOConfig
from alignment.errors import StageError
from alignment.models.chat_renderer import Tokens
from alignment.training.ppo.early_stopping import StopSet
from alignment.training.ppo.experience import Experience
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import PlainReward
from alignment.training.ppo.trainer import Outcome, PPOTrainer


def test_a_kl_budget_ends_the_run() -> None:
    trainer = build(
        None,
        iterations=50,
        learning_rate=5e-2,
        stop={"look_every": 0, "kl_budget": 0.2},
        kl={"coefficient": 0.0},
        ptx={"coefficient": 0.0},
    )
    outcome = trainer.train()
    assert outcome.iterations < 50
    assert "budget" in str(outcome.stopped)
    assert outcome.history[-1]["kl/reference"] > 0.2


def train_against_the_stop_set(keep: str) -> tuple[PPOTrainer, Outcome]:
    """The stop set likes what the reward punishes, so the start is best."""
    policy = tiny_llama(10)
    config = PPOConfig.model_validate(
        {
            **EVERYTHING,
            "ema": None,
            "ptx": {"coefficient": 0.0},
            "iterations": 30,
            "critic_warmup_iterations": 0,
            "episodes": 32,
            "stop": {"look_every": 5, "patience": 3, "keep": keep},
        }
    )
    trainer = PPOTrainer(
        full_copies(policy, critic=tiny_llama(10, 4)),
        renderer(),
        PROMPTS,
        PlainReward(evens),
        config,
        seed=1,
        stop_set=StopSet(PROMPTS * 8, lambda episodes: -evens(episodes)),
        ends=(),
    )
    return trainer, trainer.train()


def test_the_stop_set_ends_early_and_the_best_weights_are_kept() -> None:
    start = {n: p.detach().clone() for n, p in tiny_llama(10).named_parameters()}
    trainer, outcome = train_against_the_stop_set("best")
    assert outcome.iterations == 15
    assert outcome.kept == 0
    assert same(weights(trainer), start)
    assert {v.name: v.level for v in outcome.verdicts}["held_out"] == "bad"
    last, _ = train_against_the_stop_set("last")
    assert not same(weights(last), start)


def test_the_training_reward_of_the_look_must_be_confirmed(tmp_path: Path) -> None:
    stop = {"look_every": 2, "heldout_prompts": 4, "patience": None, "confirm": 0.9}
    trainer = build(tmp_path, iterations=8, stop=stop)
    outcome = trainer.train()
    looks = [row for row in outcome.history if "look/score" in row]
    left = [row["look/score"] - 0.9 * row["look/training_reward"] for row in looks]
    assert len(looks) == 5
    assert outcome.kept == 2 * int(np.argmax(left))
    # A resumed run compares with the same best.
    again = build(tmp_path, iterations=8, stop=stop)
    assert again.train().kept == outcome.kept
    assert again._stopping.best == pytest.approx(max(left))


TEXTS = [Tokens([1], [2, 3, 0]), Tokens([4, 5], [6]), Tokens([7], [1, 0, 3, 3])]


def test_the_loss_on_texts_is_that_of_transformers() -> None:
    trainer = build(None)
    expected = []
    for text in TEXTS:
        logits = tiny_llama(10)(torch.tensor([text.ids])).logits[0, len(text.prompt) - 1 : -1]
        chosen = logits.log_softmax(-1)[range(len(text.response)), text.response]
        expected += (-chosen).tolist()
    assert trainer.text_loss() is None
    trainer.stop_set = StopSet(PROMPTS, None, TEXTS)
    assert trainer.text_loss() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_loss_on_texts_that_is_not_finite_is_refused() -> None:
    trainer = build(None)
    trainer.stop_set = StopSet(PROMPTS, None, TEXTS)
    with torch.no_grad():
        trainer.roles.policy.model.get_input_embeddings().weight[6] = float("nan")
    with pytest.raises(StageError, match="texts of early stopping is not finite"):
        trainer.text_loss()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_that_forgets_stops_and_keeps_the_weights_of_before(
    tmp_path: Path, keep: str
) -> None:
    stop = {"look_every": 2, "heldout_prompts": 4, "patience": None, "keep": keep}

    def run(directory: Path, iterations: int, **more: Any) -> tuple[PPOTrainer, Outcome]:
        changes = {"stop": stop | more, "ema": None, "ptx": {"coefficient": 0.0}}
        trainer = build(directory, iterations=iterations, learning_rate=0.02, **changes)
        rising = iter(range(100))
        trainer.stop_set = StopSet(
            PROMPTS[:3], lambda episodes: np.full(len(episodes), float(next(rising))), TEXTS
        )
        return trainer, trainer.train()

    _, free = run(tmp_path / "free", 8, forgetting=None)
    losses = [row["look/text_loss"] for row in free.history if "look/text_loss" in row]
    over = next(n for n, loss in enumerate(losses) if loss > 1.001 * losses[0])
    assert over >= 1
    trainer, outcome = run(tmp_path / "held", 8, forgetting=0.001)
    assert outcome.iterations == 2 * over
    assert outcome.kept == 2 * (over - 1)
    assert "forgetting" in str(outcome.stopped)
    assert trainer.text_loss() == pytest.approx(losses[over - 1], rel=1e-6)
    again, same_outcome = run(tmp_path / "held", 8, forgetting=0.001)  # from its last checkpoint
    assert (same_outcome.kept, same_outcome.stopped) == (outcome.kept, outcome.stopped)
    assert same(weights(again), weights(trainer))


def test_a_look_rates_no_cut_answer_above_one_that_ended() -> None:
    """Else a policy that never ends would look best to a guard that likes missing ends."""
    cut = {}

    def likes_cut(episodes: Any) -> np.ndarray:
        scores = np.array([0.0 if episode.finished else 9.0 for episode in episodes])
        cut[len(episodes)] = float(scores.mean())
        return scores

    for penalty in (1.0, 0.0):
        trainer = build(None, reward={"missing_eos_penalty": penalty})
        trainer.stop_set = StopSet(PROMPTS, likes_cut)
        trainer.reward = PlainReward(likes_cut)
        figures = trainer._look(0)
        assert 0.0 < cut[len(PROMPTS)] < 9.0  # some were cut, some were not
        expected = 0.0 if penalty else cut[len(PROMPTS)]
        assert figures["look/score"] == figures["look/training_reward"] == expected


def test_a_look_at_the_training_reward_pays_for_tokens_as_training_does() -> None:
    """Else early stopping is against shorter answers, to which training leads."""
    trainer = build(None, reward={"length_penalty": 0.5})
    trainer.reward = PlainReward(lambda episodes: np.full(len(episodes), 3.0))
    trainer.stop_set = StopSet(PROMPTS, None)
    alone = trainer._look(0)
    assert alone["look/tokens"] > 0
    assert alone["look/score"] == pytest.approx(3.0 - 0.5 * alone["look/tokens"])
    assert alone["look/training_reward"] == alone["look/score"]
    trainer.stop_set = StopSet(PROMPTS, lambda episodes: np.full(len(episodes), 2.0))
    judged = trainer._look(0)
    assert (judged["look/score"], judged["look/training_reward"]) == (2.0, alone["look/score"])


def test_a_look_measures_the_average_that_is_kept() -> None:
    trainer = build(None, stop={"look_every": 1, "patience": None}, ema=0.7)
    assert trainer.stop_set is not None
    rising = iter(range(0, 10_000, 100))  # the last look is best
    trainer.stop_set = StopSet(
        trainer.stop_set.prompts, lambda episodes: np.full(len(episodes), float(next(rising)))
    )
    seen: list[dict[str, torch.Tensor]] = []
    raw: list[dict[str, torch.Tensor]] = []
    answer, update = trainer._collector.answer, trainer._learner.update

    def recorded(prompts: Any, seed: int) -> Any:
        assert trainer.stop_set is not None
        if prompts is trainer.stop_set.prompts:
            seen.append(weights(trainer))
        return answer(prompts, seed)

    def updated(iteration: int, experience: Experience) -> dict[str, float]:
        figures = update(iteration, experience)
        raw.append(weights(trainer))
        return figures

    trainer._collector.answer = recorded  # type: ignore[method-assign]
    trainer._learner.update = updated  # type: ignore[method-assign]
    outcome = trainer.train()
    assert outcome.kept == outcome.iterations > 1
    assert same(weights(trainer), seen[outcome.kept])
    assert not same(weights(trainer), raw[-1])
    # By hand: the mean moves 0.3 of the way to the weights at each iteration.
    mean = seen[0]
    for own, average in zip(raw, seen[1:], strict=True):
        mean = {name: value + 0.3 * (own[name] - value) for name, value in mean.items()}
        for name, value in average.items():
            torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-6)
