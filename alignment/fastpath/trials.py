"""Short pieces of work that measure the passes, see `choice.pays`.

Tokens are made up by rule, so that nothing random is drawn. The larger the model, the fewer of
them, for a trial should take some tenths of a second where the choice is open.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from alignment.fastpath.feature_major import Product
from alignment.fastpath.scoring import LeanScorer
from alignment.fastpath.training import LeanBackbone
from alignment.models.row_layout import Row
from alignment.utils.threads import Together, side_by_side

if TYPE_CHECKING:
    from alignment.fastpath import Decoding

_WORK = 8e9  # floating-point operations of a trial, about


def tokens_for(model: Any, passes: int, *, least: int, most: int) -> int:
    """Tokens of a trial in which each costs `passes` times two operations a parameter."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return int(min(most, max(least, _WORK / (2 * passes * parameters))))


def _ids(model: Any, count: int, start: int = 0) -> list[int]:
    vocabulary = int(model.config.get_text_config().vocab_size)
    return [(5 + 7 * (start + i)) % vocabulary for i in range(count)]


def _context(model: Any) -> int:
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 4096)


def decode(model: Any, way: Decoding) -> Tensor:
    """Logits after a few steps of answers to four prompts; fewer rows or steps would show the fixed
    costs of a step and not the work, and decide wrongly."""
    steps = max(1, min(16, _context(model) // 3))
    length = max(1, min(12, _context(model) - steps))
    rows = tokens_for(model, steps, least=8, most=256) // 4 * 4
    prompts = [_ids(model, length, 100 * number) for number in range(4)]
    device = next(model.parameters()).device
    owners = torch.arange(4, device=device).repeat_interleave(rows // 4)

    def part(where: Tensor) -> Tensor:
        with torch.inference_mode():
            owner = owners[where]
            first, last = int(owner[0]), int(owner[-1])
            stepper = way.stepper(steps)
            logits = stepper.start(prompts[first : last + 1], owner - first)
            for step in range(steps):
                fed = torch.tensor(_ids(model, rows, step), device=device)
                logits = stepper.step(fed[where])
            return logits

    parts = torch.arange(rows, device=device).chunk(way.workers)
    return torch.cat(side_by_side([partial(part, where) for where in parts], way.workers))


def multiply(model: Any, product: Product) -> Tensor:
    """What a layer's weights are multiplied with, forward and backward, in the fast passes."""
    layer = getattr(model, "model", model).layers[0]
    weights = [weight.detach() for weight in layer.parameters() if weight.dim() == 2]
    tokens = tokens_for(model, 6, least=96, most=1024)
    results = []
    for weight in weights:
        x = torch.arange(weight.shape[1] * tokens).view(-1, tokens).sin()
        y = product(weight, x)
        results += [product(weight.t(), y).flatten(), product(y, x.t()).flatten()]
    return torch.cat(results)


def score(model: Any, workers: int, product: Product) -> Tensor:
    """Scores of the same answers by as many scorers as there are threads, at once: there are two
    reward models."""
    rows, longest = _answers(model, workers)

    def one() -> Tensor:
        with torch.inference_mode():
            scores, numbers = LeanScorer(model, longest, product).score(rows)
            return scores[torch.tensor(numbers).argsort()].clone()

    return torch.cat(side_by_side([one] * workers, workers))


def score_plainly(model: Any, times: int, plain: Callable[[Sequence[Row]], Tensor]) -> Tensor:
    """The same, one after the other."""
    rows, _ = _answers(model, times)
    return torch.cat([plain(rows) for _ in range(times)])


def _answers(model: Any, times: int) -> tuple[list[Row], int]:
    """Four answers each to four prompts, and the length of the longest with its prompt."""
    tokens = tokens_for(model, times, least=128, most=1024)
    prompt = max(1, min(12, _context(model) // 2))
    answer = max(4, min(tokens // 16, _context(model) - prompt))
    rows = []
    for number in range(4):
        lengths = range(answer - 3, answer + 1)
        tails = tuple(tuple(_ids(model, size, 31 * number + size)) for size in lengths)
        numbers = tuple(range(4 * number, 4 * number + 4))
        rows.append(Row(tuple(_ids(model, prompt, 100 * number)), tails, numbers))
    return rows, prompt + answer


def train(body: Any, product: Product) -> Tensor | None:
    """Hidden states and gradients of two micro-batches side by side."""
    lean = LeanBackbone(body, product)
    return _learn(body, Together(apart=True), lean.hidden)


def train_plainly(body: Any) -> Tensor | None:
    """The same, one after the other."""

    def hidden(ids: Tensor, places: Tensor) -> Tensor:
        states: Tensor = body(input_ids=ids, use_cache=False).last_hidden_state
        return states.flatten(0, 1)[places]

    return _learn(body, Together(), hidden)


def _learn(
    body: Any, together: Together, hidden: Callable[[Tensor, Tensor], Tensor | None]
) -> Tensor | None:
    parameters = [parameter for parameter in body.parameters() if parameter.requires_grad]
    length = min(48, _context(body))
    rows = max(2, tokens_for(body, 6, least=96, most=1024) // length)
    ids = torch.tensor([_ids(body, length, 11 * row) for row in range(rows)])
    places = torch.arange(ids.numel()).view(ids.shape)[:, length // 2 :].flatten()

    def one(_: int) -> Tensor | None:
        with torch.inference_mode(False), torch.set_grad_enabled(bool(parameters)):
            states = hidden(ids, places)
            if states is not None and parameters:
                torch.autograd.grad(states.square().sum(), parameters, allow_unused=True)
        return None if states is None else states.detach()

    first, second = together.run(
        [lambda: next(together.each(one, [0])), lambda: next(together.each(one, [1]))]
    )
    return None if first is None or second is None else torch.cat([first, second])
