"""PPO's pure functions against numbers worked out by hand and plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from alignment.config.ppo import KLConfig
from alignment.training.ppo.advantages import (
    discounted_returns,
    explained_variance,
    generalised_advantages,
    leave_one_out,
)
from alignment.training.ppo.kl import KLCoefficient, kl_per_token
from alignment.training.ppo.losses import entropy, policy_loss, token_logprobs, value_loss
from alignment.training.ppo.masked_ops import masked_mean, masked_variance, whiten
from alignment.training.ppo.rewards import RunningMoments, place, shape_scores
from alignment.training.ppo.weight_average import average, in_place_of, put, snapshot

T, F = True, False


def test_advantages_by_hand() -> None:
    # γ 1, λ 0.5; second row ends after two tokens.
    rewards = torch.tensor([[1.0, 0.0, 2.0], [0.0, 4.0, 9.0]])
    values = torch.tensor([[0.5, 1.0, 1.5], [1.0, 2.0, 7.0]])
    mask = torch.tensor([[T, T, T], [T, T, F]])
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=1.0, lam=0.5)
    # Row 1: δ = 1+1−0.5, 0+1.5−1, 2−1.5 = 1.5, 0.5, 0.5; A = 1.875, 0.75, 0.5.
    # Row 2: δ = 0+2−1, 4−2 = 1, 2; A = 2, 2.
    expected = torch.tensor([[1.875, 0.75, 0.5], [2.0, 2.0, 0.0]])
    torch.testing.assert_close(advantages, expected)
    torch.testing.assert_close(returns, torch.tensor([[2.375, 1.75, 2.0], [3.0, 4.0, 0.0]]))
    # γ 1 and λ 0.95 unless given.
    default, _ = generalised_advantages(rewards, values, mask)
    given, _ = generalised_advantages(rewards, values, mask, gamma=1.0, lam=0.95)
    assert torch.equal(default, given)
    # Answers of one token: A = r − V.
    one, _ = generalised_advantages(rewards[:, :1], values[:, :1], mask[:, :1])
    assert one.tolist() == [[0.5], [-1.0]]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.7), (1.0, 1.0), (1.0, 0.0)])
def test_advantages_equal_the_double_sum(gamma: float, lam: float) -> None:
    random = torch.Generator().manual_seed(0)
    rewards = torch.randn(4, 7, generator=random, dtype=torch.float64)
    values = torch.randn(4, 7, generator=random, dtype=torch.float64)
    lengths = [7, 1, 4, 6]
    mask = torch.arange(7)[None] < torch.tensor(lengths)[:, None]
    advantages, returns = generalised_advantages(rewards, values, mask, gamma=gamma, lam=lam)
    for row, length in enumerate(lengths):
        for i in range(length):
            total = 0.0
            for j in range(i, length):
                after = values[row, j + 1] if j + 1 < length else 0.0
                delta = rewards[row, j] + gamma * after - values[row, j]
                total += (gamma * lam) ** (j - i) * delta
            assert advantages[row, i] == pytest.approx(float(total), abs=1e-12)
            assert returns[row, i] == pytest.approx(float(total + values[row, i]), abs=1e-12)
        assert not advantages[row, length:].any()


def test_with_lambda_one_returns_are_sums_of_rewards() -> None:
    rewards = torch.tensor([[0.1, -0.2, 3.0]])
    values = torch.tensor([[9.0, -4.0, 0.3]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    _, returns = generalised_advantages(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns, torch.tensor([[2.9, 2.8, 3.0]]))


def test_leave_one_out_by_hand() -> None:
    totals = torch.tensor([1.0, 2.0, 6.0, 5.0, 5.0, 5.0])
    expected = torch.tensor([-3.0, -1.5, 4.5, 0.0, 0.0, 0.0])
    torch.testing.assert_close(leave_one_out(totals, 3), expected)


def test_discounted_returns_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0], [3.0, 5.0, 7.0]])
    mask = torch.tensor([[True, True, True], [True, True, False]])
    assert discounted_returns(rewards, mask).tolist() == [[7.0, 6.0, 4.0], [8.0, 5.0, 0.0]]
    half = discounted_returns(rewards, mask, gamma=0.5)
    assert half.tolist() == [[3.0, 4.0, 4.0], [5.5, 5.0, 0.0]]


@pytest.mark.parametrize("length", [100, 400])
def test_a_critic_of_noise_explains_nothing(length: int) -> None:
    """One random value an answer, unrelated to its reward. Of λ-returns it would explain most."""
    torch.manual_seed(length)
    values = torch.randn(64, 1).expand(64, length).contiguous()
    rewards = torch.zeros(64, length)
    rewards[:, -1] = torch.randn(64)
    mask = torch.ones(64, length, dtype=torch.bool)
    _, returns = generalised_advantages(rewards, values, mask, lam=0.95)
    assert float(explained_variance(values, returns, mask)) > 0.5
    came = discounted_returns(rewards, mask)
    assert float(explained_variance(values, came, mask)) < -0.3
    # A critic that knows the reward explains all.
    assert float(explained_variance(came, came, mask)) == 1.0


def test_explained_variance() -> None:
    returns = torch.tensor([[1.0, 2.0, 3.0, 99.0]])
    mask = torch.tensor([[T, T, T, F]])
    assert float(explained_variance(returns.clone(), returns, mask)) == 1.0
    flat = torch.full_like(returns, 7.0)
    assert float(explained_variance(flat, returns, mask)) == pytest.approx(0.0, abs=1e-6)
    assert float(explained_variance(-returns, returns, mask)) == pytest.approx(-3.0, abs=1e-5)
    assert float(explained_variance(returns, flat, mask)) == 0.0
    assert float(explained_variance(returns, returns, mask & False)) == 0.0  # no tokens
    assert explained_variance(returns.double(), flat.double(), mask).dtype == torch.float64


def test_policy_loss_by_hand() -> None:
    old = torch.zeros(1, 5)
    ratio = torch.tensor([[1.0, 1.5, 1.5, 0.5, 0.5]])
    advantages = torch.tensor([[1.0, 2.0, -2.0, 2.0, -2.0]])
    mask = torch.tensor([[T, T, T, T, T]])
    found = policy_loss(ratio.log(), old, advantages, mask, clip=0.2, tokens=5.0)
    # min(ρA, clip A): 1, min(3, 2.4), min(−3, −2.4), min(1, 1.6), min(−1, −1.6).
    assert float(found.loss) == pytest.approx(-(1.0 + 2.4 - 3.0 + 1.0 - 1.6) / 5)
    assert int(found.clipped) == 2
    assert float(found.ratio) == pytest.approx(5.0)
    assert float(found.ratio_error) == pytest.approx(0.5)
    by_hand = sum(r - 1 - math.log(r) for r in (1.0, 1.5, 1.5, 0.5, 0.5))
    assert float(found.approximate_kl) == pytest.approx(by_hand, rel=1e-5)
    # Only real tokens count: here the first two.
    mask = torch.tensor([[T, T, F, F, F]])
    found = policy_loss(ratio.log(), old, advantages, mask, clip=0.2, tokens=2.0)
    assert float(found.loss) == pytest.approx(-(1.0 + 2.4) / 2)
    assert int(found.clipped) == 1
    assert float(found.ratio) == pytest.approx(2.5)
    assert float(found.ratio_error) == pytest.approx(0.5)
    assert float(found.approximate_kl) == pytest.approx(0.5 - math.log(1.5), rel=1e-5)
    nobody = policy_loss(old[:, :0], old[:, :0], old[:, :0], mask[:, :0], clip=0.2, tokens=1.0)
    assert float(nobody.ratio_error) == 0.0


def test_policy_loss_gradient_stops_where_it_is_clipped() -> None:
    logprobs = torch.tensor([math.log(1.5), math.log(1.5)], requires_grad=True)
    advantages = torch.tensor([1.0, -1.0])
    mask = torch.tensor([T, T])
    policy_loss(logprobs, torch.zeros(2), advantages, mask, clip=0.2, tokens=2.0).loss.backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([0.0, 0.75]))


def test_masked_positions_cannot_poison_the_loss() -> None:
    logprobs = torch.tensor([[-1.0, 500.0]], requires_grad=True)
    mask = torch.tensor([[T, F]])
    found = policy_loss(
        logprobs, torch.tensor([[-1.0, 0.0]]), torch.ones(1, 2), mask, clip=0.2, tokens=1.0
    )
    found.loss.backward()
    assert found.loss.item() == -1.0
    assert torch.equal(logprobs.grad, torch.tensor([[-1.0, 0.0]]))


def test_micro_batches_add_up_to_the_mini_batch() -> None:
    random = torch.Generator().manual_seed(1)
    logprobs, old, advantages = (torch.randn(6, 4, generator=random) for _ in range(3))
    mask = torch.rand(6, 4, generator=random) < 0.7
    tokens = float(mask.sum())
    whole = policy_loss(logprobs, old, advantages, mask, clip=0.2, tokens=tokens).loss
    parts = [
        policy_loss(logprobs[r], old[r], advantages[r], mask[r], clip=0.2, tokens=tokens).loss
        for r in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_value_loss_by_hand() -> None:
    values = torch.tensor([1.0, 1.0, 0.0])
    old = torch.tensor([0.5, 1.0, 5.0])
    returns = torch.tensor([2.0, 0.0, 9.0])
    mask = torch.tensor([T, T, F])
    # Token 1: (1−2)² = 1, clipped to 0.7: 1.69. Token 2: inside the clip, 1.
    loss, clipped = value_loss(values, old, returns, mask, clip=0.2, tokens=2.0)
    assert float(loss) == pytest.approx(0.5 * (1.69 + 1.0) / 2)
    assert int(clipped) == 1
    loss, clipped = value_loss(values, old, returns, mask, clip=None, tokens=2.0)
    assert float(loss) == pytest.approx(0.5)
    assert int(clipped) == 0


def test_token_logprobs_and_entropy_by_hand() -> None:
    # Not 3 to 1: ¼ log ¼ = ½ log ½, and the entropy over another axis is the same.
    logits = torch.tensor([[0.0, math.log(4.0)], [0.0, 0.0]])
    taken = token_logprobs(logits, torch.tensor([1, 0]))
    torch.testing.assert_close(taken, torch.tensor([math.log(0.8), math.log(0.5)]))
    expected = [-(0.2 * math.log(0.2) + 0.8 * math.log(0.8)), math.log(2.0)]
    torch.testing.assert_close(entropy(logits), torch.tensor(expected))
    # The vocabulary is the last axis, whatever stands before it: here (episodes, tokens, v).
    episodes = torch.stack([logits, logits.flip(0), logits])
    taken = token_logprobs(episodes, torch.tensor([[1, 0], [0, 0], [0, 1]]))
    by_hand = [[0.8, 0.5], [0.5, 0.2], [0.2, 0.5]]
    torch.testing.assert_close(taken, torch.tensor(by_hand).log())
    rows = torch.tensor([expected, expected[::-1], expected])
    torch.testing.assert_close(entropy(episodes), rows)


def test_kl_estimators_by_hand() -> None:
    logprobs = torch.tensor([[math.log(0.5), math.log(0.2)]])
    reference = torch.tensor([[math.log(0.25), math.log(0.4)]])
    k1 = kl_per_token(logprobs, reference, "k1")
    k3 = kl_per_token(logprobs, reference, "k3")
    torch.testing.assert_close(k1, torch.tensor([[math.log(2.0), -math.log(2.0)]]))
    torch.testing.assert_close(k3, torch.tensor([[0.5 - 1 + math.log(2), 2 - 1 - math.log(2)]]))
    torch.testing.assert_close(kl_per_token(logprobs, reference), k1)  # the default


def test_both_estimators_are_unbiased() -> None:
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    exact = float((p * (p / q).log()).sum())
    for estimator in ("k1", "k3"):
        expectation = (p * kl_per_token(p.log(), q.log(), estimator)).sum()
        assert float(expectation) == pytest.approx(exact, abs=1e-12)
    assert (kl_per_token(p.log(), q.log(), "k3") >= 0).all()


def test_the_coefficient_of_the_kl() -> None:
    fixed = KLCoefficient(KLConfig(coefficient=0.1))
    fixed.update(100.0, 512)
    assert fixed.value == 0.1
    steered = KLConfig(coefficient=0.15, target=6.0, horizon=10_000)
    adaptive = KLCoefficient(steered)
    adaptive.update(60.0, 500)  # error clipped to +0.2: × (1 + 0.2·500/10000)
    assert adaptive.value == pytest.approx(0.15 * 1.01)
    adaptive.update(5.4, 500)  # error −0.1
    assert adaptive.value == pytest.approx(0.15 * 1.01 * 0.995)
    low = KLCoefficient(steered)
    low.update(0.0, 500)  # error −1, clipped to −0.2
    assert low.value == pytest.approx(0.15 * 0.99)


def test_whitening_by_hand() -> None:
    values = torch.tensor([[1.0, 3.0], [5.0, 100.0]])
    mask = torch.tensor([[T, T], [T, F]])
    assert float(masked_mean(values, mask)) == 3.0
    assert float(masked_variance(values, mask)) == pytest.approx(8 / 3)
    deviation = math.sqrt(8 / 3)
    shifted = whiten(values, mask, shift_mean=True)
    torch.testing.assert_close(shifted, torch.tensor([[-2.0, 0.0], [2.0, 0.0]]) / deviation)
    kept = whiten(values, mask, shift_mean=False)
    expected = torch.tensor([[-2 / deviation + 3, 3.0], [2 / deviation + 3, 0.0]])
    torch.testing.assert_close(kept, expected)
    torch.testing.assert_close(whiten(values, mask), shifted)  # the default
    assert float(masked_mean(values, torch.tensor([[F, F], [T, F]]))) == 5.0
    assert float(masked_mean(values, torch.zeros(2, 2, dtype=torch.bool))) == 0.0
    # Values without spread have nothing to be scaled by; they must not become NaN.
    assert whiten(torch.full((2, 2), 3.0), mask).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_the_score_stands_on_the_eos_itself() -> None:
    kl = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 9.0]])
    mask = torch.tensor([[T, T, T], [T, T, F]])
    rewards = place(torch.tensor([2.0, -1.0]), kl, mask, coefficient=0.5)
    expected = torch.tensor([[-0.05, -0.1, 1.85], [-0.2, -1.25, 0.0]])
    torch.testing.assert_close(rewards, expected)
    # Scores of another precision are taken in that of the KL.
    doubles = place(torch.tensor([2.0, -1.0], dtype=torch.float64), kl, mask, coefficient=0.5)
    assert torch.equal(doubles, rewards)


def test_penalties() -> None:
    scores = shape_scores(
        torch.tensor([1.0, 1.0]),
        torch.tensor([10, 4]),
        torch.tensor([F, T]),
        missing_eos_penalty=2.0,
        length_penalty=0.1,
    )
    torch.testing.assert_close(scores, torch.tensor([-2.0, 0.6]))
    # However much the reward models like a missing end, the worst that ended scores higher.
    found = shape_scores(
        torch.tensor([9.0, -2.0, 1.0, -5.0]),
        torch.tensor([3, 3, 3, 3]),
        torch.tensor([F, T, T, F]),
        missing_eos_penalty=0.5,
    )
    torch.testing.assert_close(found, torch.tensor([-2.5, -2.0, 1.0, -5.5]))
    none_ended = shape_scores(
        torch.tensor([9.0, -2.0]),
        torch.tensor([3, 3]),
        torch.tensor([F, F]),
        missing_eos_penalty=0.5,
    )
    torch.testing.assert_close(none_ended, torch.tensor([8.5, -2.5]))
    plain = torch.tensor([1.0, -3.0])
    # In the format of the scores: a third for each token.
    exact = shape_scores(
        plain.double(), torch.tensor([10, 4]), torch.tensor([T, T]), length_penalty=1 / 3
    )
    by_hand = [value - n / 3 for value, n in zip(plain.tolist(), (10, 4), strict=True)]
    assert exact.tolist() == pytest.approx(by_hand, abs=1e-12)
    assert torch.equal(shape_scores(plain, torch.tensor([10, 4]), torch.tensor([F, T])), plain)


def test_running_moments_equal_those_of_everything_seen() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=57)
    moments = RunningMoments()
    assert moments.deviation == 1.0
    for part in np.split(values, [5, 6, 30]):
        moments.update(torch.from_numpy(part))
    assert moments.mean == pytest.approx(values.mean())
    assert moments.deviation == pytest.approx(values.std())
    again = RunningMoments()
    again.restore(moments.state())
    assert again.state() == moments.state()
    normal = moments.normalise(torch.from_numpy(values))
    assert float(normal.mean()) == pytest.approx(0.0, abs=1e-12)


def test_normalising_by_hand() -> None:
    moments = RunningMoments()
    values = torch.tensor([1.0, 5.0])
    assert torch.equal(moments.normalise(values), values)  # nothing was seen yet
    moments.update(values)  # mean 3, deviation 2
    torch.testing.assert_close(
        moments.normalise(torch.tensor([3.0, 7.0])), torch.tensor([0.0, 2.0])
    )


def test_values_are_clipped_on_both_sides() -> None:
    # ε 0.2 around 1; R = 1. Above: max(4, 0.04) = 4, below: max(4, 0.04) = 4; R = 3 from below:
    # V = −1 counts 16, clipped to 0.8 it would count 4.84; R = −1: V = 0 counts 1, clipped 3.24.
    values, returns = torch.tensor([3.0, -1.0, -1.0, 0.0]), torch.tensor([1.0, 1.0, 3.0, -1.0])
    old, mask = torch.ones(4), torch.ones(4, dtype=torch.bool)
    loss, clipped = value_loss(values, old, returns, mask, clip=0.2, tokens=4)
    assert float(loss) == pytest.approx(0.5 * (4 + 4 + 16 + 3.24) / 4)
    assert int(clipped) == 1


def test_a_critic_of_doubles_stays_one() -> None:
    same = torch.ones(3, dtype=torch.float64)
    found = explained_variance(same, same, torch.ones(3, dtype=torch.bool))
    assert found.dtype == torch.float64
    assert float(found) == 0.0


def test_the_average_of_weights_by_hand() -> None:
    module = torch.nn.Linear(2, 1, bias=True)
    module.bias.requires_grad_(False)  # frozen: no part of it
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, -2.0]]))
    mean = snapshot(module)
    assert list(mean) == ["weight"]
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[3.0, 2.0]]))
    assert mean["weight"].tolist() == [[1.0, -2.0]]  # a copy, not a view
    average(mean, module, decay=0.75)  # 0.75·1 + 0.25·3, 0.75·(−2) + 0.25·2
    assert mean["weight"].tolist() == [[1.5, -1.0]]
    average(mean, module, decay=1.0)
    assert mean["weight"].tolist() == [[1.5, -1.0]]
    put(module, mean)
    assert module.weight.tolist() == [[1.5, -1.0]]
    average(mean, module, decay=0.0)
    mean["weight"].zero_()
    assert module.weight.tolist() == [[1.5, -1.0]]
    with in_place_of(module, mean):
        assert module.weight.tolist() == [[0.0, 0.0]]
    assert module.weight.tolist() == [[1.5, -1.0]]
