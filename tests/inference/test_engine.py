"""The engine draws what it should, and the same in any company."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sampling_fixtures import sample
from scipy import stats
from transformers.generation.logits_process import (
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from alignment.errors import ConfigError, StageError
from alignment.fastpath import Decoding
from alignment.fastpath.decoding import LeanStepper
from alignment.fastpath.layers import Lean, why_not
from alignment.inference import decode as decode_module
from alignment.inference.counter_noise import GumbelNoise, step_keys
from alignment.inference.draw import doubtful_masks, draw, keep_mask
from alignment.inference.engine import TransformersEngine, sample_seeds
from alignment.inference.types import Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.stepper import ModelStepper
from alignment.utils.progress import SilentProgress


def _prompts(renderer: ChatRenderer, prompts: list[Any]) -> list[list[int]]:
    return [renderer.prompt(prompt.messages) for prompt in prompts]


def _flat(groups: list[list[Sample]]) -> list[Sample]:
    return [one for group in groups for one in group]


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(temperature=1.0),
        SamplingSettings(temperature=0.6, top_k=4),
        SamplingSettings(temperature=1.7, top_p=0.8),
    ],
)
def test_frequencies_follow_the_distribution(settings: SamplingSettings) -> None:
    torch.manual_seed(1)
    logits = torch.randn(12) * 1.5
    draws = 40_000
    keys = step_keys(range(draws // 4), 4).reshape(draws, 2)
    drawn = draw(logits.repeat(draws, 1), keys, GumbelNoise(12, torch.device("cpu")), settings)
    scores = logits / settings.temperature
    keep = keep_mask(scores[None], settings.top_k, settings.top_p)
    if keep is not None:
        scores = scores.masked_fill(~keep[0], -torch.inf)
    expected = scores.softmax(-1).double().numpy()
    seen = np.bincount(drawn.tokens.numpy(), minlength=12)
    assert seen[expected == 0].sum() == 0
    kept = expected > 0
    expected = expected[kept] / expected[kept].sum() * draws
    assert stats.chisquare(seen[kept], expected).pvalue > 1e-3


def test_noise_is_uniform_and_independent_between_steps_tokens_and_seeds() -> None:
    gumbel = GumbelNoise(64, torch.device("cpu"))
    keys = step_keys(range(500), 8)
    noise = torch.stack([gumbel.exponential(keys[:, t]) for t in range(8)])
    assert stats.kstest(noise.flatten().numpy(), "expon").pvalue > 1e-3
    flat = noise.numpy()
    pairs = {
        "tokens": (flat[:, :, :-1], flat[:, :, 1:]),
        "steps": (flat[:-1], flat[1:]),
        "seeds": (flat[:, :-1], flat[:, 1:]),
    }
    for left, right in pairs.values():
        correlation = np.corrcoef(left.ravel(), right.ravel())[0, 1]
        assert abs(correlation) < 4 / np.sqrt(left.size)


def test_a_longer_run_has_the_keys_of_the_shorter_one() -> None:
    assert torch.equal(step_keys([3, 9], 20)[:, :7], step_keys([3, 9], 7))


@pytest.mark.parametrize(("top_k", "top_p"), [(5, 1.0), (0, 0.7), (8, 0.9), (0, 0.05)])
def test_truncation_equals_transformers(top_k: int, top_p: float) -> None:
    torch.manual_seed(2)
    logits = torch.randn(50, 40) * 3
    scores = TemperatureLogitsWarper(0.7)(None, logits)
    expected = scores
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(top_p)(None, expected)
    keep = keep_mask(logits / 0.7, top_k, top_p)
    assert keep is not None
    assert torch.equal(keep, torch.isfinite(expected))
    masks = doubtful_masks(logits / 0.7, top_k, top_p, 1e-4)
    assert masks is not None
    maybe, surely = masks
    assert bool((keep <= maybe).all())
    assert bool((surely <= keep).all())
    assert (maybe ^ surely).float().mean() < 0.01


@pytest.mark.parametrize(("top_k", "top_p"), [(6, 1.0), (0, 0.8), (10, 0.9)])
def test_doubtful_masks_cover_what_noise_can_do(top_k: int, top_p: float) -> None:
    torch.manual_seed(3)
    slack = 0.05
    logits = torch.randn(200, 30)
    masks = doubtful_masks(logits, top_k, top_p, slack)
    assert masks is not None
    for _ in range(50):
        noisy = logits + (torch.rand_like(logits) * 2 - 1) * slack
        keep = keep_mask(noisy, top_k, top_p)
        assert keep is not None
        assert bool((keep <= masks[0]).all())
        assert bool((masks[1] <= keep).all())


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_equal_transformers(
    policy: Any, renderer: ChatRenderer, prompts: list[Any], temperature: float
) -> None:
    ids = _prompts(renderer, prompts)
    seeds = sample_seeds(5, [prompt.id for prompt in prompts], 3)
    settings = SamplingSettings(max_new_tokens=12, temperature=temperature, batch_size=16)
    for prompt, group in zip(ids, sample(policy, renderer, ids, settings, seeds), strict=True):
        for one in group:
            with torch.no_grad():
                logits = policy(torch.tensor([prompt + one.token_ids])).logits[0] / temperature
            expected = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            expected = expected.gather(-1, torch.tensor(one.token_ids)[:, None])[:, 0]
            assert np.allclose(one.logprobs, expected.numpy(), atol=1e-5)
            assert one.finished == (one.token_ids[-1] == renderer.eos)
            assert renderer.eos not in one.token_ids[:-1]
            assert one.text == renderer.text(one.token_ids)


def test_same_text_for_any_batch_and_any_subset(
    policy: Any, renderer: ChatRenderer, prompts: list[Any]
) -> None:
    ids = _prompts(renderer, prompts)
    seeds = sample_seeds(5, [prompt.id for prompt in prompts], 4)
    texts = []
    for size in (1, 7, 64, 500):
        found = sample(
            policy, renderer, ids, SamplingSettings(max_new_tokens=20, batch_size=size), seeds
        )
        texts.append([[one.token_ids for one in group] for group in found])
    assert texts[0] == texts[1] == texts[2] == texts[3]
    order = [5, 2, 9]
    settings = SamplingSettings(max_new_tokens=20)
    found = sample(policy, renderer, [ids[i] for i in order], settings, [seeds[i] for i in order])
    assert [[one.token_ids for one in group] for group in found] == [texts[0][i] for i in order]


def test_the_referee_undoes_noise(
    policy: Any,
    renderer: ChatRenderer,
    prompts: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With logits disturbed as much as the slack allows, unrefereed text changes, refereed not."""
    ids = _prompts(renderer, prompts)
    seeds = sample_seeds(6, [prompt.id for prompt in prompts], 8)
    clean = sample(policy, renderer, ids, SamplingSettings(max_new_tokens=30), seeds)
    monkeypatch.setattr("alignment.inference.batch_invariance.FIRST_SLACK", 0.08)

    class Noisy(LeanStepper):
        def start(self, *given: Any) -> torch.Tensor:
            return self._disturbed(super().start(*given))

        def step(self, tokens: torch.Tensor) -> torch.Tensor:
            return self._disturbed(super().step(tokens))

        def _disturbed(self, logits: torch.Tensor) -> torch.Tensor:
            return logits + (torch.rand_like(logits) * 2 - 1) * 0.019

    noisy = Decoding(1, lambda steps: Noisy(Lean(policy), steps))
    monkeypatch.setattr("alignment.inference.engine.use_for_decoding", lambda _: noisy)

    def texts(exact: bool) -> list[list[list[int]]]:
        settings = SamplingSettings(max_new_tokens=30, exact=exact)
        found = sample(policy, renderer, ids, settings, seeds)
        return [[one.token_ids for one in group] for group in found]

    expected = [[one.token_ids for one in group] for group in clean]
    assert texts(exact=True) == expected
    assert texts(exact=False) != expected


def test_the_slack_widens_when_the_noise_comes_near(policy: Any, renderer: ChatRenderer) -> None:
    from alignment.inference.batch_invariance import Referee, alone

    said: list[str] = []

    class Listener(SilentProgress):
        def say(self, message: str) -> None:
            said.append(message)

    gumbel = GumbelNoise(policy.config.vocab_size, torch.device("cpu"))
    referee = Referee(policy, gumbel, SamplingSettings(), Listener())
    with torch.inference_mode():
        scores = alone(policy, [5, 6, 7])
        referee.measure(scores, scores + 1e-3)
    assert referee.slack == pytest.approx(8e-3, rel=0.01)
    assert len(said) == 1


def _family(tokenizer: Any, name: str) -> Any:
    """A small model of another shape: biases, plain heads, sliding window, learned positions."""
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        MistralConfig,
        Qwen2Config,
        Qwen3Config,
    )

    common: dict[str, Any] = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 128,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
    }
    config = {
        "qwen2": lambda: Qwen2Config(**common, num_key_value_heads=1),
        "qwen3": lambda: Qwen3Config(**common, num_key_value_heads=2, head_dim=16),
        "mistral": lambda: MistralConfig(**common, num_key_value_heads=2, sliding_window=None),
        "window": lambda: MistralConfig(**common, num_key_value_heads=2, sliding_window=8),
        "gpt2": lambda: GPT2Config(
            vocab_size=len(tokenizer),
            n_positions=128,
            n_embd=32,
            n_layer=2,
            n_head=4,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.eos_token_id,
        ),
    }[name]()
    torch.manual_seed(4)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "norm" not in key and "ln" not in key:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


@pytest.mark.parametrize(
    ("name", "lean"),
    [("qwen2", True), ("mistral", True), ("qwen3", False), ("window", False), ("gpt2", False)],
)
def test_other_architectures(
    name: str, lean: bool, way: str, tokenizer: Any, renderer: ChatRenderer, prompts: list[Any]
) -> None:
    model = _family(tokenizer, name)
    assert (why_not(model) is None) == lean
    ids = _prompts(renderer, prompts)[:8]
    seeds = sample_seeds(5, [prompt.id for prompt in prompts[:8]], 3)
    found = {}
    for size in (24, 5):
        settings = SamplingSettings(max_new_tokens=24, batch_size=size)
        found[size] = sample(model, renderer, ids, settings, seeds)
    for prompt, left, right in zip(ids, found[24], found[5], strict=True):
        for one, other in zip(left, right, strict=True):
            assert one.token_ids == other.token_ids
            with torch.no_grad():
                logits = model(torch.tensor([prompt + one.token_ids])).logits[0]
            expected = logits.log_softmax(-1)[len(prompt) - 1 : -1]
            expected = expected.gather(-1, torch.tensor(one.token_ids)[:, None])[:, 0]
            assert np.allclose(one.logprobs, expected.numpy(), atol=1e-5)


def test_both_steppers_agree(policy: Any) -> None:
    torch.manual_seed(0)
    prompts = [[5, 6, 7], [8, 9, 10, 11, 12], [4]]
    owner = torch.tensor([0, 0, 0, 1, 1, 2])
    with torch.inference_mode():
        lean, plain = LeanStepper(Lean(policy), 80), ModelStepper(policy, 80)
        assert torch.allclose(lean.start(prompts, owner), plain.start(prompts, owner), atol=1e-5)
        rows = 6
        for step in range(80):
            tokens = torch.randint(2, 26, (rows,))
            assert torch.allclose(lean.step(tokens), plain.step(tokens), atol=1e-4)
            if step in (3, 20, 40):
                staying = {3: [0, 2, 3, 4, 5], 20: [1, 2, 4], 40: [2]}[step]
                for stepper in (lean, plain):
                    stepper.select(torch.tensor(staying))
                rows = len(staying)


def test_greedy_is_the_likeliest_token(
    policy: Any, renderer: ChatRenderer, prompts: list[Any]
) -> None:
    ids = _prompts(renderer, prompts)[:3]
    settings = SamplingSettings(max_new_tokens=10, temperature=0.0)
    for prompt, group in zip(ids, sample(policy, renderer, ids, settings, [[1]] * 3), strict=True):
        tokens = list(prompt)
        for token in group[0].token_ids:
            with torch.no_grad():
                assert int(policy(torch.tensor([tokens])).logits[0, -1].argmax()) == token
            tokens.append(token)


def test_stop_text_ends_an_answer_and_is_cut(
    policy: Any, renderer: ChatRenderer, prompts: list[Any]
) -> None:
    ids = _prompts(renderer, prompts)
    seeds = sample_seeds(5, [prompt.id for prompt in prompts], 4)
    free = sample(policy, renderer, ids, SamplingSettings(max_new_tokens=30), seeds)
    words = [word for group in free for one in group for word in one.text.split()[1:]]
    stop = max(set(words), key=words.count)
    settings = SamplingSettings(max_new_tokens=30, stop=(stop,))
    stopped = sample(policy, renderer, ids, settings, seeds)
    hits = 0
    for left, right in zip(_flat(free), _flat(stopped), strict=True):
        if stop in left.text:
            hits += 1
            assert right.finished
            assert right.token_ids == left.token_ids[: len(right.token_ids)]
            assert right.text == SamplingSettings(stop=(stop,)).cut(left.text)
        else:
            assert right.token_ids == left.token_ids
    assert hits > 3


def test_out_of_memory_halves_the_batch_and_says_so(
    policy: Any, renderer: ChatRenderer, prompts: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    class Listener(SilentProgress):
        def say(self, message: str) -> None:
            said.append(message)

    ids = _prompts(renderer, prompts)
    seeds = sample_seeds(5, [prompt.id for prompt in prompts], 4)
    expected = sample(policy, renderer, ids, SamplingSettings(max_new_tokens=8), seeds)
    real = decode_module.decode

    def small(model: Any, rows: Any, *rest: Any) -> Any:
        if len(rows) > 10:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")
        return real(model, rows, *rest)

    monkeypatch.setattr("alignment.inference.engine.decode", small)
    settings = SamplingSettings(max_new_tokens=8, batch_size=64)
    found = sample(policy, renderer, ids, settings, seeds, Listener())
    tokens = [[one.token_ids for one in group] for group in found]
    assert tokens == [[one.token_ids for one in group] for group in expected]
    assert [message for message in said if "out of memory" in message]

    def never(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("alignment.inference.engine.decode", never)
    with pytest.raises(StageError, match="one sequence alone"):
        sample(policy, renderer, ids, settings, seeds)


def test_impossible_requests_are_refused(policy: Any, renderer: ChatRenderer) -> None:
    with pytest.raises(ConfigError, match="context"):
        sample(policy, renderer, [[5] * 100], SamplingSettings(max_new_tokens=100), [[1]])
    with pytest.raises(ConfigError, match="empty prompt"):
        sample(policy, renderer, [[]], SamplingSettings(), [[1]])
    with pytest.raises(ValueError, match="shorter"):
        sample(policy, renderer, [[5], [6]], SamplingSettings(max_new_tokens=4), [[1]])
    with pytest.raises(ConfigError, match="top_p"):
        SamplingSettings(top_p=0.0)


def test_a_broken_policy_is_reported(tokenizer: Any, renderer: ChatRenderer, policy: Any) -> None:
    import copy

    broken = copy.deepcopy(policy)
    with torch.no_grad():
        broken.lm_head.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="not finite"):
        sample(broken, renderer, [[5, 6]], SamplingSettings(max_new_tokens=4), [[1]])


def test_a_real_model_in_any_batch(stories: Any) -> None:
    from alignment.models.load import load_policy, load_tokenizer

    model, tokenizer = load_policy(stories), load_tokenizer(stories)
    engine = TransformersEngine(model, ChatRenderer(tokenizer))
    texts = ["Once upon a time", "The dog", "Lily and Tom went to the park because it was"]
    ids = [tokenizer.encode(text) for text in texts]
    seeds = sample_seeds(1, texts, 8)
    found = [
        engine.sample(ids, seeds, SamplingSettings(max_new_tokens=32, batch_size=size))
        for size in (24, 3)
    ]
    assert [[one.text for one in g] for g in found[0]] == [
        [one.text for one in g] for g in found[1]
    ]
    assert engine.noise < 1e-4
