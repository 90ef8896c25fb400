"""KL estimates against a policy whose distribution can be written down, and against enumeration."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignment.evaluation.divergence import measure
from alignment.models.chat_renderer import Tokens

VOCABULARY = 4
EOS = 3


class Bigram(torch.nn.Module):
    """Next-token logits that depend on the last token alone."""

    def __init__(self, seed):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.table = torch.nn.Parameter(torch.randn(VOCABULARY, VOCABULARY, generator=generator))

    def forward(self, input_ids, attention_mask, use_cache):
        assert attention_mask.shape == input_ids.shape
        assert use_cache is False
        return SimpleNamespace(logits=self.table[input_ids])


def answers(limit=3):
    """All answers of at most `limit` tokens; those that reach it may lack EOS."""
    for length in range(1, limit + 1):
        for body in itertools.product(range(EOS), repeat=length - 1):
            yield [*body, EOS]
    yield from (list(body) for body in itertools.product(range(EOS), repeat=limit))


def probability(model, answer, temperature=1.0):
    last, total = 0, 0.0
    for token in answer:
        total += torch.log_softmax(model.table[last] / temperature, 0)[token].item()
        last = token
    return math.exp(total)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("batch_tokens", [1, 20, 10_000])
def test_every_estimator_has_the_enumerated_kl_as_its_mean(temperature, batch_tokens):
    policy, reference = Bigram(1), Bigram(2)
    every = list(answers())
    p = np.array([probability(policy, answer, temperature) for answer in every])
    q = np.array([probability(reference, answer, temperature) for answer in every])
    assert p.sum() == pytest.approx(1)
    truth = (p * np.log(p / q)).sum()
    found = measure(
        policy,
        {"sft": reference, "self": policy},
        [Tokens([1, 0], answer) for answer in every],
        pad=EOS,
        temperature=temperature,
        batch_tokens=batch_tokens,
    )
    assert np.exp(found.logprob) == pytest.approx(p, rel=1e-5)
    distance = found.references["sft"]
    assert (p * distance.k1).sum() == pytest.approx(truth, rel=1e-5)
    assert (p * distance.exact).sum() == pytest.approx(truth, rel=1e-5)
    assert (p * distance.k3).sum() == pytest.approx(truth, rel=1e-4)
    assert (distance.k3 >= 0).all()
    spread = [np.sqrt((p * (x - truth) ** 2).sum()) for x in (distance.exact, distance.k1)]
    assert spread[0] < spread[1]
    for values in vars(found.references["self"]).values():
        assert values == pytest.approx(np.zeros(len(every)), abs=1e-6)


def test_entropy_by_hand():
    policy = Bigram(1)
    with torch.no_grad():
        policy.table.zero_()
    found = measure(policy, {}, [Tokens([0], [1, EOS]), Tokens([0], [])], pad=EOS)
    assert found.entropy == pytest.approx([math.log(VOCABULARY), 0.0])
    assert found.logprob == pytest.approx([-2 * math.log(VOCABULARY), 0.0])


def test_padding_does_not_leak_on_a_real_model(stories):
    from alignment.models.load import load_policy

    model = load_policy(stories)
    items = [Tokens([1, 5, 9], [4, 8, 15, 2]), Tokens([1], [16, 23]), Tokens([1, 7], [42] * 9)]
    together = measure(model, {"self": model}, items, pad=0)
    for index, item in enumerate(items):
        alone = measure(model, {}, [item], pad=0)
        assert together.logprob[index] == pytest.approx(alone.logprob[0], abs=1e-4)
        assert together.entropy[index] == pytest.approx(alone.entropy[0], abs=1e-4)
