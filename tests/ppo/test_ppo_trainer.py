"""The loop: first ratio, roles that stay, rounding, both algorithms, all knobs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from everything import PROMPTS, build, evens, same, small, weights
from toys import Problem, renderer, tiny_llama, toy_config

from alignment.config.ppo import PPOConfig
from alignment.config.rewards import CombineConfig
from alignment.errors import ConfigError
from alignment.training.ppo.collect import Collector
from alignment.training.ppo.experience import Experience
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import CombinedReward, PlainReward
from alignment.training.ppo.trainer import PPOTrainer


@pytest.mark.parametrize("old", ["auto", "rollout", "forward"])
def test_the_first_ratio_is_one(old: str, way: str) -> None:
    trainer = build(None, old_logprobs=old, critic_warmup_iterations=0)
    for iteration in range(3):
        assert trainer.iterate(iteration)["policy/first_ratio_error"] <= 1e-5


def test_in_bfloat16_small_steps_add_up_and_the_reference_is_the_start(tmp_path: Path) -> None:
    """At 1e-6 a weight in bfloat16 would hardly ever move; its float32 master does."""
    slow = {"learning_rate": 1e-6, "critic_warmup_iterations": 0, "warmup_iterations": 0}
    start = weights(build(None))
    runs = {}
    for dtype in ("float32", "bfloat16"):
        trainer = build(None, dtype, **slow)
        model = trainer.roles.policy.model
        first = trainer.iterate(0)
        if dtype == "bfloat16":
            assert first["kl/k3"] == 0.0, "policy and reference round the same weights"
            assert next(model.parameters()).dtype == torch.bfloat16
        trainer.iterate(1)
        trainer.roles.policy.settle(model)
        runs[dtype] = torch.cat(
            [(p - start[n]).abs().flatten() for n, p in weights(trainer).items()]
        )
    moved = {dtype: float((gaps > 0).float().mean()) for dtype, gaps in runs.items()}
    assert moved["bfloat16"] >= 0.95 * moved["float32"] > 0.5
    assert float(runs["bfloat16"].mean()) == pytest.approx(float(runs["float32"].mean()), rel=0.1)


def note_kept(trainer: PPOTrainer) -> set[str]:
    """Fills with the names of the passes that learning is given."""
    names: set[str] = set()
    learn = trainer._learner.update

    def noting(iteration: int, experience: Experience) -> dict[str, float]:
        names.update(experience.kept)
        return learn(iteration, experience)

    trainer._learner.update = noting  # type: ignore[method-assign]
    return names


def test_passes_kept_for_the_first_step_change_rounding_only(
    monkeypatch: pytest.MonkeyPatch,
    fast: str,
) -> None:
    """Whole-batch steps go on from the passes that gave old log-probabilities and values."""
    found = []
    for keeps in (True, False):
        trainer = build(None, minibatch=16, entropy_coefficient=0.0, critic_warmup_iterations=0)
        if not keeps:
            monkeypatch.setattr(Collector, "_keeps", lambda *_: False)
        taken = note_kept(trainer)
        error = trainer.iterate(0)["policy/first_ratio_error"]
        assert taken == ({"policy", "critic"} if keeps else set())
        assert error == 0.0 if keeps else error <= 1e-5
        found.append(weights(trainer))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=2e-5, rtol=1e-3)


def test_only_the_critic_learns_while_it_warms_up() -> None:
    trainer = build(None, critic_warmup_iterations=2, ptx={"coefficient": 0.0})
    before = weights(trainer)
    assert trainer.roles.critic is not None
    bias = trainer.roles.critic.head.bias.item()
    trainer.iterate(0)
    assert same(before, weights(trainer))
    assert trainer.roles.critic.head.bias.item() != bias
    trainer.iterate(2)
    assert not same(before, weights(trainer))


def test_the_reference_never_moves() -> None:
    trainer = build(None)
    before = {n: p.clone() for n, p in trainer.roles.reference.model.named_parameters()}
    trainer.train()
    after = dict(trainer.roles.reference.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_kl_is_zero_before_the_first_step() -> None:
    figures = build(None).iterate(0)
    assert figures["kl/reference"] == pytest.approx(0.0, abs=1e-5)
    assert figures["kl/k3"] == pytest.approx(0.0, abs=1e-6)


def test_micro_batches_change_rounding_only() -> None:
    found = []
    for size in (8, 10_000):
        trainer = build(None, max_tokens_per_micro_batch=size, critic_warmup_iterations=0)
        trainer.iterate(0)
        found.append(weights(trainer))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=2e-5, rtol=1e-3)


def test_threads_change_rounding_only(way: str) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            trainer = build(None, critic_warmup_iterations=0)
            trainer.iterate(0)
            found.append(weights(trainer))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=2e-5, rtol=1e-3)


def test_safety_share_and_passes_of_the_prompt_stream() -> None:
    trainer = build(None)
    taken = [trainer._stream.take(i) for i in range(6)]
    assert all(sum(p.is_safety for p in batch) == 8 for batch in taken)
    safe = [p.ids for batch in taken for p in batch if p.is_safety]
    tagged = {p.ids for p in PROMPTS if p.is_safety}
    for start in range(0, len(safe) - len(tagged) + 1, len(tagged)):
        assert set(safe[start : start + len(tagged)]) == tagged


def test_what_is_missing_is_said() -> None:
    policy = tiny_llama(10)
    with pytest.raises(ConfigError, match="critic"):
        PPOTrainer(
            full_copies(policy, critic=None),
            renderer(),
            PROMPTS,
            PlainReward(evens),
            PPOConfig(episodes=8, minibatch=8),
            seed=0,
        )
    with pytest.raises(ConfigError, match="no prompts of the kind"):
        PPOTrainer(
            full_copies(policy, critic=tiny_llama(10)),
            renderer(),
            PROMPTS[1:2],
            PlainReward(evens),
            PPOConfig(safety_share=1.0),
            seed=0,
        )
    with pytest.raises(ValueError, match="samples_per_prompt"):
        PPOConfig(algorithm="rloo")


def test_piecewise_whitening_does_not_hide_the_score() -> None:
    reward = CombinedReward(evens, small, CombineConfig(method="piecewise"))
    problem = Problem(4, 2, np.zeros(16))
    trainer = problem.trainer(toy_config(0.1, 2, iterations=1), reward=reward)
    figures = trainer.iterate(0)
    assert figures["score/mean"] != pytest.approx(0.0, abs=1e-3)
    assert 0 <= figures["reward/safety_routed"] <= 1
