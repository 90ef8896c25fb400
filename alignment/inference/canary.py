"""The canary: does a server serve the very policy that is asked for?

A server at a fixed address goes on serving what it was started with, and its answers look like
anybody's. So before the first draw it draws a few short answers, and the checkpoint says how likely
it finds their tokens. The two must agree; a policy one version older does not.

The comparison goes through the requests that are used later, at a temperature other than 1. So it
also notices a server that computes in another format, or reports log-probabilities of another
distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from alignment.errors import StageError
from alignment.inference.completions import SERVE, Completions
from alignment.inference.types import Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import Dtype, load_policy, weight_bytes
from alignment.utils.memory import give_back

TOLERANCE: dict[Dtype, float] = {"float32": 5e-4, "bfloat16": 0.05, "float16": 0.02}
"""Largest mean difference, nats a token. Measured with vLLM on a CPU: 1e-6 where both compute in
float32, 0.02 where one computes in bfloat16; 0.5 for a policy one version older, trained at large
rates. Two policies that differ by less cannot be told apart from rounding."""

ASKED = (
    "What should I cook tonight?",
    "Tell me a story about a cat and a dog.",
    "How do I fix a bicycle?",
    "Why is the sky blue?",
    "Write a short poem about the sea.",
    "Who are you?",
    "Please explain what a tree is.",
    "Is it safe to play with fire?",
)
_SETTINGS = SamplingSettings(max_new_tokens=24, temperature=1.3)
_ROOM = 1.2  # times its weights: a forward pass of the checkpoint needs a little more

Score = Callable[[Sequence[Sequence[int]], Sequence[Sample]], list[list[float]]]
"""(prompts, answers) → log-probability of each answer's tokens."""


@dataclass(frozen=True)
class Proof:
    """What a server showed before the first draw; differences are nats a token."""

    engine: str
    weights: str
    """Digest of the weights of the checkpoint that it agrees with."""
    dtype: str
    tokens: int
    mean_difference: float
    largest_difference: float
    tolerance: float

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def prove(
    client: Completions,
    model: Path,
    renderer: ChatRenderer,
    dtype: Dtype,
    *,
    context: int | None,
    engine: str,
    score: Score,
    weights: str,
) -> Proof:
    """Compare a server's log-probabilities with the checkpoint's.

    Args:
        context: most tokens of a prompt and its answer; None if nothing limits them.
        score: the checkpoint's opinion, see `score_by`.
        weights: the checkpoint's digest, for the proof.

    Raises:
        StageError: they differ; the server serves another model, or in another format.
    """
    prompts, settings = canaries(renderer, context)
    answers = [client.draw(prompt, seed, settings) for seed, prompt in enumerate(prompts)]
    gaps = [
        abs(ours - theirs)
        for row, answer in zip(score(prompts, answers), answers, strict=True)
        for ours, theirs in zip(row, answer.logprobs, strict=True)
    ]
    proof = Proof(
        engine,
        weights,
        dtype,
        len(gaps),
        sum(gaps) / max(1, len(gaps)),
        max(gaps, default=0.0),
        TOLERANCE[dtype],
    )
    if not gaps or not proof.mean_difference <= proof.tolerance:
        raise StageError(
            "this server serves another model: its log-probabilities differ from those of the "
            f"checkpoint by {proof.mean_difference:.2g} a token on average and by up to "
            f"{proof.largest_difference:.2g} (at most {proof.tolerance:g} is rounding in {dtype})",
            where=client.url,
            remedy=f"start it with: {SERVE.format(model=model, dtype=dtype)}; then align resume (a "
            "server that computes in another format differs as well)",
        )
    return proof


def canaries(
    renderer: ChatRenderer, context: int | None
) -> tuple[list[list[int]], SamplingSettings]:
    """The prompts as ids, and how answers to them are drawn, within a context."""
    settings = _SETTINGS
    if context is not None:
        settings = replace(settings, max_new_tokens=min(settings.max_new_tokens, context // 2))
    limit = None if context is None else context - settings.max_new_tokens
    limits = [value for value in (limit, renderer.max_prompt_tokens) if value is not None]
    return [
        renderer.prompt([{"role": "user", "content": text}], limit=min(limits) if limits else None)
        for text in ASKED
    ], settings


def score_by(
    model: Path, dtype: Dtype, device: torch.device, temperature: float = _SETTINGS.temperature
) -> Score:
    """Scoring by the checkpoint in `model`, which is loaded for the call and freed afterwards.

    It is loaded on the CPU where a server has left no room on the GPU.
    """

    @torch.inference_mode()
    def score(prompts: Sequence[Sequence[int]], answers: Sequence[Sample]) -> list[list[float]]:
        policy = load_policy(model, dtype=dtype, device=_place(model, dtype, device))
        where = next(policy.parameters()).device
        vocabulary = policy.get_output_embeddings().weight.shape[0]
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            if any(token >= vocabulary for token in answer.token_ids):
                return [[-math.inf] * len(answer.token_ids) for answer in answers]
            ids = torch.tensor([[*prompt, *answer.token_ids]], device=where)
            logits = policy(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1]
            scores = torch.log_softmax(logits.float() / temperature, dim=-1)
            rows.append(scores.gather(1, ids[0, len(prompt) :, None])[:, 0].tolist())
        del policy
        give_back()
        return rows

    return score


def _place(model: Path, dtype: Dtype, device: torch.device) -> torch.device:
    if device.type != "cuda":
        return device
    free, _total = torch.cuda.mem_get_info(device)
    return device if weight_bytes(model, dtype) * _ROOM < free else torch.device("cpu")
