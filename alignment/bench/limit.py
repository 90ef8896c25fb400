"""What the machine itself allows: the products that a run needs, and how fast products are here.

`of_limit` is the share of the measured time that the products alone would need:

    of_limit = gflop / peak_gflops / seconds

`gflop` counts the products that the *distinct* tokens need. A token is distinct by all that stands
before it: a prompt that several answers share is counted once. With P parameters in the layers'
matrices, without embeddings, A = layers · heads · width of a head, n distinct tokens and s = Σ
(place of the token, from 1), the pairs of query and key under causal attention:

    forward  = 2 P n + 4 A s         (Q·K and weights·V: 2 A each)
    training = 3 forward             (6 P n: backward takes two products for each of forward's)

and where logits are needed, 2 · width · vocabulary for each of these places. Over frozen weights
(adapters) training takes 2 · 2 P n, for these have no gradient; adapters' own products, scalar
heads, norms, softmax and recomputation are not counted.

`peak_gflops` is measured: products of this model's matrices with many tokens, each matrix as often
as the model has it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from alignment.bench.clock import wait_for
from alignment.models.load import backbone
from alignment.utils.threads import side_by_side

_WORK = 2e8  # multiplications of a timed product: tens of milliseconds at most
_TOKENS = (128, 4096)
_SECONDS = 0.04  # for each shape


@dataclass(frozen=True)
class Dimensions:
    """What of a model's shape the products depend on.

    Attributes:
        matrices: (rows, columns) of the layers' weights → how many there are.
        attention: A, layers · heads · width of a head.
        head: width · vocabulary.
    """

    matrices: dict[tuple[int, int], int]
    attention: int
    head: int

    @property
    def parameters(self) -> int:
        """P."""
        return sum(rows * columns * count for (rows, columns), count in self.matrices.items())


@dataclass(frozen=True)
class Distinct:
    """Distinct tokens of some sequences, and the products of attention between them.

    Attributes:
        tokens: n.
        seen: s.
    """

    tokens: int
    seen: int


def dimensions(model: Any) -> Dimensions:
    """Of a decoder with or without a head. A mixture of experts counts all of its experts."""
    body = backbone(model)
    looked_up = {id(module.weight) for module in body.modules() if isinstance(module, nn.Embedding)}
    matrices = Counter(
        (int(weight.shape[0]), int(weight.shape[1]))
        for weight in body.parameters()
        if weight.ndim == 2 and id(weight) not in looked_up
    )
    config = model.config.get_text_config()
    heads = int(config.num_attention_heads)
    width = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    return Dimensions(
        dict(matrices),
        int(config.num_hidden_layers) * heads * width,
        int(config.hidden_size) * int(config.vocab_size),
    )


def distinct(sequences: Iterable[Sequence[int]]) -> Distinct:
    """Tokens that differ, or follow what differs."""
    tokens = seen = 0
    before: tuple[int, ...] = ()
    for ids in sorted(map(tuple, sequences)):
        same = 0
        for one, other in zip(before, ids, strict=False):
            if one != other:
                break
            same += 1
        tokens += len(ids) - same
        seen += (len(ids) * (len(ids) + 1) - same * (same + 1)) // 2
        before = ids
    return Distinct(tokens, seen)


def forward(sizes: Dimensions, work: Distinct, logits: int = 0) -> float:
    """Operations of one pass over `work`, with the language model's head at `logits` places."""
    return 2.0 * (sizes.parameters * work.tokens + sizes.head * logits) + (
        4.0 * sizes.attention * work.seen
    )


def training(sizes: Dimensions, work: Distinct, logits: int = 0, *, frozen: bool = False) -> float:
    """Operations of one pass forward and back."""
    linear = 2.0 * (sizes.parameters * work.tokens + sizes.head * logits)
    return linear * (2 if frozen else 3) + 3 * 4.0 * sizes.attention * work.seen


@dataclass(frozen=True)
class Answered:
    """What drawing answers, and then reading them, needs.

    Attributes:
        fed: tokens that decoding and log-probabilities read: all but the last of each answer.
        whole: with the last one, on which a reward model's score stands.
        draws: places whose logits are needed.
    """

    fed: Distinct
    whole: Distinct
    draws: int


def answered(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> Answered:
    """The work of one answer to each prompt; repeat a prompt for more."""
    rows = [(*prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
    fed = distinct(row[:-1] for row in rows)
    different = set(map(tuple, prompts))
    return Answered(fed, distinct(rows), fed.tokens - distinct(different).tokens + len(different))


def beside(model: Any, operations: float, seconds: float) -> dict[str, Any]:
    """`dtype`, `gflop`, `peak_gflops` and `of_limit` of a run that took `seconds`."""
    first = next(model.parameters())
    speed = peak(dimensions(model), first.dtype, first.device)
    return {
        "dtype": str(first.dtype).removeprefix("torch."),
        "gflop": round(operations / 1e9, 3),
        "peak_gflops": round(speed / 1e9, 2),
        "of_limit": round(operations / speed / seconds, 4),
    }


def peak(sizes: Dimensions, dtype: torch.dtype, device: torch.device) -> float:
    """Operations per second of products with the layers' matrices, in a short measurement.

    On a CPU every thread has products of its own, in its own time: other load does not count.
    """
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    seconds = 0.0
    for (rows, columns), count in sizes.matrices.items():
        width = int(min(max(_WORK / (rows * columns), _TOKENS[0]), _TOKENS[1]))
        product = partial(_time, rows, columns, width, dtype, device)
        seconds += count * max(side_by_side([product] * workers, workers)) / width
    return 2.0 * workers * sizes.parameters / seconds


def _time(rows: int, columns: int, width: int, dtype: torch.dtype, device: torch.device) -> float:
    """Seconds of (rows, columns) · (columns, width), the best of some."""
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    weight = torch.ones(rows, columns, dtype=dtype, device=device)
    states = torch.ones(columns, width, dtype=dtype, device=device)
    target = torch.empty(rows, width, dtype=dtype, device=device)

    def once() -> float:
        began = clock()
        torch.mm(weight, states, out=target)
        wait_for(device)
        return clock() - began

    once()
    found, started = once(), clock()
    while clock() - started < _SECONDS:
        found = min(found, once())
    return found
