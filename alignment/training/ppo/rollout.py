"""Draws answers from the policy, with the log-probability of every token.

It uses the engine of sampling. An answer's seed comes from (iteration, episode), so that it depends
neither on the other answers of its batch nor on the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment.errors import ConfigError
from alignment.inference.types import Engine, SamplingSettings
from alignment.models.chat_renderer import Tokens
from alignment.models.padding import pad
from alignment.utils import distributed
from alignment.utils.seeds import derive_seed

LEAST_ROWS = 64
"""Fewest rows per thread: with fewer, a second thread costs more than it gains."""


@dataclass(frozen=True)
class Answers:
    """The answers to prompts, in the order of the prompts.

    Attributes:
        responses: token ids, including the EOS if it was drawn.
        logprobs: (b, t) float32 log π at the sampling temperature, 0 on padding.
        mask: (b, t) bool.
        finished: (b,) bool, ended with EOS.
    """

    responses: list[list[int]]
    logprobs: Tensor
    mask: Tensor
    finished: Tensor

    def tokens(self, prompts: Sequence[Sequence[int]]) -> list[Tokens]:
        """Prompts and answers together."""
        return [Tokens(list(p), r) for p, r in zip(prompts, self.responses, strict=True)]


def rollout(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    seed: int,
    device: torch.device,
) -> Answers:
    """Draw one answer to each prompt (repeat a prompt for more); processes share the prompts.

    Args:
        engine: the policy's engine, with its weights active.
        seed: of this iteration.
        device: of the answers' tensors, the same kind in all processes.

    Raises:
        ConfigError: a prompt is empty, or exceeds the model's context with its answer.
        StageError: the policy's probabilities are not finite.
    """
    if not prompts:
        raise ConfigError("PPO needs prompts")
    share = distributed.share(len(prompts))
    seeds = [[derive_seed(seed, "episode", i)] for i in share]
    samples = [sample for [sample] in engine.sample([prompts[i] for i in share], seeds, settings)]
    width = settings.max_new_tokens
    tokens, logprobs, lengths, finished = (
        distributed.gather_rows(part.to(device), len(prompts))
        for part in (
            pad([sample.token_ids for sample in samples], 0, width=width),
            pad([sample.logprobs for sample in samples], 0.0, width=width),
            torch.tensor([len(sample.token_ids) for sample in samples], dtype=torch.long),
            torch.tensor([sample.finished for sample in samples], dtype=torch.bool),
        )
    )
    longest = int(lengths.max())
    mask = torch.arange(longest, device=device)[None] < lengths[:, None]
    rows = zip(tokens.tolist(), lengths.tolist(), strict=True)
    return Answers([row[:length] for row, length in rows], logprobs[:, :longest], mask, finished)
