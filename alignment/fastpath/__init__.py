"""Hand-written passes for small Llamas, mostly for CPUs; the only module that others import.

Nothing outside imports what lies inside; each function here gives a pass where it is switched on
(`compute.fast_cpu`), covers the model and was measured to pay (`choice`), and None otherwise. Then
the caller does the work through transformers and torch alone. `reference.py` says in plain torch
what all of them compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from alignment.fastpath.choice import SMALL, choices, choosing, is_off, pays
from alignment.models.row_layout import Row
from alignment.models.stepper import ModelStepper, Stepper

if TYPE_CHECKING:
    from alignment.fastpath.feature_major import Product
    from alignment.fastpath.packed_attention import Packing
    from alignment.fastpath.training import LeanBackbone

__all__ = [
    "Decoding",
    "Scorer",
    "choices",
    "choosing",
    "grouping",
    "is_off",
    "keep_memory",
    "packing",
    "pays",
    "use_for_decoding",
    "use_for_scoring",
    "use_for_training",
    "workers_for",
]


@dataclass(frozen=True)
class Decoding:
    """How to decode: `workers` batches at once (`utils.threads.crew`), each by a `stepper` for so
    many steps. Weights may have been copied: ask again after training."""

    workers: int
    stepper: Callable[[int], Stepper]


class Scorer(Protocol):
    """Scores rows of answers.

    Attributes:
        chunk: tokens it takes at a time.
    """

    chunk: int

    def arranged(self, rows: Sequence[Row]) -> list[Row]:
        """Rows in the order and the grouping that suit it best."""

    def score(self, rows: Sequence[Row]) -> tuple[Tensor, list[int]]:
        """A score for each answer, and the answers' numbers."""


@dataclass(frozen=True)
class Grouping:
    """A pass over rows of answers.

    Attributes:
        longest: most tokens of an answer with its prompt.
        hidden: (A, d) after the final norm, of each answer's last token, in the order of rows and
            tails, with a gradient where that is enabled.
    """

    longest: int
    hidden: Callable[[Sequence[Row]], Tensor]


def use_for_decoding(model: Any) -> Decoding | None:
    """The fast decoding of a causal language model in eval mode; None if it does not pay."""
    if is_off():
        return None
    from alignment.fastpath import trials
    from alignment.fastpath.decoding import LeanStepper
    from alignment.fastpath.layers import Lean, why_not

    workers = workers_for(model)
    covered = why_not(model) is None
    if not covered and workers == 1:
        return None

    @cache  # weights are folded once, not in every trial
    def made() -> Decoding:
        if not covered:
            return Decoding(workers, lambda steps: ModelStepper(model, steps))
        lean = Lean(model)
        return Decoding(workers, lambda steps: LeanStepper(lean, steps))

    plain = Decoding(1, lambda steps: ModelStepper(model, steps))
    kind = "decoding" if covered else "decoding in threads"
    faster = pays(
        kind, model, lambda: trials.decode(model, made()), lambda: trials.decode(model, plain)
    )
    return made() if faster else None


def use_for_scoring(
    model: Any, plain: Callable[[Sequence[Row]], Tensor]
) -> Callable[[int], Scorer] | None:
    """For a model with a scalar head: makes a scorer of answers up to a length, prompt included,
    with the weights as they are then. Two reward models then score at once.

    Args:
        plain: how rows are scored without it: scores in the order of the answers' numbers.
    """
    if is_off():
        return None
    from alignment.fastpath import trials
    from alignment.fastpath.scoring import LeanScorer

    if not LeanScorer.covers(model):
        return None
    workers, product = workers_for(model), _product(model)
    faster = pays(
        "scoring",
        model,
        lambda: trials.score(model, workers, product),
        lambda: trials.score_plainly(model, workers, plain),
    )
    return partial(LeanScorer, model, product=product) if faster else None


def use_for_training(body: Any) -> LeanBackbone | None:
    """For a decoder without its head; policy and critic then learn side by side (`Together`).

    `keep_memory` holds from then on, whether it is taken or not.
    """
    if is_off():
        return None
    from alignment.fastpath import trials
    from alignment.fastpath.training import LeanBackbone, why_not

    keep_memory(body)
    if why_not(body) is not None:
        return None
    product = _product(body)
    faster = pays(
        "training",
        body,
        lambda: trials.train(body, product),
        lambda: trials.train_plainly(body),
    )
    return LeanBackbone(body, product) if faster else None


def _product(model: Any) -> Product:
    """How the passes of training and scoring multiply matrices: by the faster of two libraries."""
    from alignment.fastpath import trials
    from alignment.fastpath.feature_major import product_of
    from alignment.fastpath.packed_linear import packs

    if not packs():
        return torch.matmul
    faster = pays(
        "products by oneDNN",
        model,
        lambda: trials.multiply(model, product_of),
        lambda: trials.multiply(model, torch.matmul),
        margin=1.0,
    )
    return product_of if faster else torch.matmul


def keep_memory(model: Any) -> None:
    """Before a small model learns on a CPU, which allocates the same sizes in every step: have the
    C library keep freed memory, for good and in the whole process."""
    if _is_small(model) and not is_off():
        from alignment.fastpath.malloc import keep_freed_memory

        keep_freed_memory()


def packing() -> type[Packing] | None:
    """Many answers in one row of tokens, each seeing its own; whether it pays for a model is for
    the caller to try, who knows the layouts beside it."""
    if is_off():
        return None
    from alignment.fastpath.packed_attention import Packing

    return Packing


def grouping(body: Any) -> Grouping | None:
    """For a decoder without its head: rows of answers, each with what it begins with, to hidden
    states at the answers' ends. Whether it pays is for the caller to try, as with `packing`."""
    if is_off():
        return None
    from alignment.fastpath.groups import of_rows
    from alignment.fastpath.training import LONGEST, LeanBackbone, why_not

    if why_not(body) is not None:
        return None
    lean = LeanBackbone(body, _product(body))

    def hidden(rows: Sequence[Row]) -> Tensor:
        layout = of_rows(rows, int(body.config.hidden_size))
        found = lean.hidden_of(layout, layout.last)
        assert found is not None, f"an answer is longer than {LONGEST}"
        return found

    return Grouping(LONGEST, hidden)


def workers_for(model: Any) -> int:
    """How many threads to give work of their own: all, for a small model on a CPU."""
    return torch.get_num_threads() if _is_small(model) and not is_off() else 1


def _is_small(model: Any) -> bool:
    """Whether it is a small model on a CPU."""
    small = sum(parameter.numel() for parameter in model.parameters()) < SMALL
    return small and next(model.parameters()).device.type == "cpu"
