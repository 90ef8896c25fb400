"""Draws answers from the policy, with the log-probability of every token.

It uses the engine of sampling. An answer's seed comes from (iteration, episode), so that it depends
neither on the other answers of its batch nor on the number of processes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from alignment.errors import ConfigError
from alignment.inference.types import Engine, SamplingSettings
from alignment.models.chat_renderer import Tokens
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
    share: range | None = None,
) -> Answers:
    """Draw one answer to each prompt (repeat a prompt for more); processes share the prompts.

    They exchange answers on the CPU: those that wait leave their GPUs to a server.

    Args:
        engine: the policy's engine, with its weights active.
        seed: of this iteration.
        device: of the answers' tensors.
        share: what this process draws; None: its equal share.

    Raises:
        ConfigError: a prompt is empty, or exceeds the model's context with its answer.
        StageError: the policy's probabilities are not finite.
    """
    if not prompts:
        raise ConfigError("PPO needs prompts")
    share = distributed.share(len(prompts)) if share is None else share
    seeds = [[derive_seed(seed, "episode", i)] for i in share]
    samples = [sample for [sample] in engine.sample([prompts[i] for i in share], seeds, settings)]
    shape = (len(prompts), settings.max_new_tokens)
    tokens, logprobs = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    ends = np.zeros((len(prompts), 2), np.int64)
    for i, sample in zip(share, samples, strict=True):
        length = len(sample.token_ids)
        tokens[i, :length], logprobs[i, :length] = sample.token_ids, sample.logprobs
        ends[i] = length, sample.finished
    tokens, logprobs = distributed.merged(tokens), distributed.merged(logprobs)
    lengths, finished = distributed.merged(ends).T
    mask = np.arange(lengths.max())[None] < lengths[:, None]
    return Answers(
        [row[:length].tolist() for row, length in zip(tokens, lengths, strict=True)],
        torch.from_numpy(logprobs[:, : lengths.max()]).to(device),
        torch.from_numpy(mask).to(device),
        torch.from_numpy(finished.astype(bool)).to(device),
    )
