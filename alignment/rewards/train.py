"""The training loop of a reward model, with shared prefixes and exact resume.

We do not use transformers' Trainer, because batches here are cut into pieces by length and share
prefixes, and because training must resume after `kill -9` to the same bits. Settings are Llama 2's
(§3.2.2).

Several processes (`distributed`) each take a part of every batch and sum their gradients; the first
one writes. Up to rounding the steps are the same as in one process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from alignment.config.rewards import RewardsConfig
from alignment.fastpath import keep_memory
from alignment.models.enough_steps import check_steps
from alignment.models.optimizer import make_optimizer, make_schedule, warmup_steps
from alignment.models.row_layout import Inputs, Row
from alignment.models.sharding import clip_gradients, rounds
from alignment.models.update_share import UpdateShare, lost_updates
from alignment.rewards.adapter import dropouts
from alignment.rewards.batches import Batcher, GroupedInputs, forward
from alignment.rewards.examples import Element
from alignment.rewards.losses import label_loss, ranking_loss
from alignment.utils import checkpoint, distributed, graceful_stop
from alignment.utils.finite import stop_if_not_finite
from alignment.utils.metrics_log import Series
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed


@dataclass
class Report:
    """A summary of a training run."""

    steps: int
    first_loss: float = float("nan")
    last_loss: float = float("nan")
    updated_share: float = 1.0
    """Share of the parameters with a gradient that a step changes, in the mean over the steps."""
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """Figures of one optimiser step, before the gradient is clipped."""

    loss: float
    """The minimised loss: mean over elements."""
    ranking: float
    """The ranking part of the loss."""
    accuracy: float
    """Share of pairs ranked right (ties count a half); each element has the same weight."""


def micro_batches(
    batcher: Batcher, elements: Sequence[Element]
) -> Iterator[tuple[list[int], Inputs | GroupedInputs]]:
    """Element numbers and inputs of each forward pass. An element is never split.

    Answers are numbered through the elements of the micro-batch, in order.
    """
    units = [batcher.rows(e.sequences, range(len(e.sequences))) for e in elements]
    for numbers in batcher.cut(units):
        renumbered, start = [], 0
        for number in numbers:
            for row in units[number]:
                answers = tuple(start + answer for answer in row.answers)
                renumbered.append(Row(row.prefix, row.tails, answers))
            start += len(elements[number].sequences)
        yield numbers, batcher.inputs(renumbered)


def backward(
    model: PreTrainedModel,
    elements: Sequence[Element],
    batcher: Batcher,
    *,
    auxiliary_weight: float = 0.0,
    batch: int | None = None,
) -> Figures:
    """Accumulate the gradient of the mean loss over a batch; returns the step's figures.

    Each element weighs 1/B: its pairs 1/(B·pairs), its labelled answers 1/(B·answers).

    Args:
        elements: this process's part of the batch.
        batch: B, if `elements` are only a part of the batch.
    """
    device = model.device
    size = batch or len(elements)
    total = torch.zeros(3, dtype=torch.float64, device=device)
    batches = list(micro_batches(batcher, elements))
    idle = rounds(model, len(batches)) - len(batches)
    for numbers, inputs in batches:
        chosen, rejected, margins, weights = [], [], [], []
        labelled, labels, label_weights = [], [], []
        start = 0
        for number in numbers:
            element = elements[number]
            for pair in element.pairs:
                chosen.append(start + pair.chosen)
                rejected.append(start + pair.rejected)
                margins.append(pair.margin)
                weights.append(1.0 / (size * len(element.pairs)))
            with_label = [n for n, label in enumerate(element.labels) if label is not None]
            labelled += [start + n for n in with_label]
            labels += [float(element.labels[n] or 0.0) for n in with_label]
            label_weights += [1.0 / (size * max(1, len(with_label)))] * len(with_label)
            start += len(element.sequences)
        with batcher.running():
            raw = forward(model, inputs)
            places = torch.tensor(inputs.answers, device=device)
            scores = raw.new_empty(start).index_copy(0, places, raw)
            r_c, r_r = scores[chosen], scores[rejected]
            weight = torch.tensor(weights, device=device)
            ranking = (weight * ranking_loss(r_c, r_r, torch.tensor(margins, device=device))).sum()
            loss = ranking
            if auxiliary_weight > 0 and labelled:
                own = label_loss(scores[labelled], torch.tensor(labels, device=device))
                own = (torch.tensor(label_weights, device=device) * own).sum()
                loss = loss + auxiliary_weight * own
            loss.backward()
        right = (weight * ((r_c > r_r).float() + 0.5 * (r_c == r_r).float())).sum()
        total += torch.stack([loss, ranking, right]).detach().double()
    for _ in range(idle):  # other processes have more
        with batcher.running():
            (0.0 * forward(model, batcher.nothing()).sum()).backward()
    values = total.tolist()
    return Figures(*values)


def train(
    model: PreTrainedModel,
    elements: Sequence[Element],
    settings: RewardsConfig,
    *,
    pad: int,
    seed: int,
    checkpoints: Path | None = None,
    series: Series | None = None,
    progress: Progress | None = None,
    auxiliary_weight: float = 0.0,
    amp: torch.dtype | None = None,
) -> Report:
    """Train `model` in place. Dropout is off, except an adapter's own.

    Args:
        seed: of the order of elements and of dropout.
        checkpoints: directory of checkpoints, from which a killed run resumes.
        series: the training curve, truncated to the loaded checkpoint.
        auxiliary_weight: weight of the loss on safety labels.
        amp: number format of autocast; None computes in that of the weights.

    Raises:
        ConfigError: the batches are so large that there are too few steps.
        StageError: loss or gradient is not finite.
    """
    progress = progress or SilentProgress()
    keep_memory(model)
    batcher = Batcher(
        model.eval(),
        pad=pad,
        tokens_per_batch=settings.max_tokens_per_micro_batch,
        max_length=settings.max_length,
        share=settings.prefix_sharing,
        amp=amp,
        recompute=settings.gradient_checkpointing,
    )
    refusal = batcher.style.refusal
    if refusal:
        progress.say(f"prefix sharing is off: {refusal}")
    if settings.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.train()
        _no_dropout(model)
    drops = settings.lora is not None and settings.lora.dropout > 0
    if drops:
        for module in dropouts(model):
            module.train()
    steps = math.ceil(len(elements) / settings.batch) * settings.epochs
    check_steps(
        steps,
        len(elements),
        settings.epochs,
        what="the reward model",
        key="rewards.batch",
        say=progress.say,
    )
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(trained, settings.learning_rate, settings.optimizer)
    schedule = make_schedule(
        optimizer,
        steps=steps,
        warmup=warmup_steps(steps, settings.warmup_ratio, settings.warmup_steps),
        min_lr_ratio=settings.min_lr_ratio,
    )
    update = UpdateShare(trained)
    state = checkpoint.TrainingState({"model": model}, {"adamw": optimizer}, {"cosine": schedule})
    done = 0
    if checkpoints is not None and checkpoint.latest(checkpoints) is not None:
        done = checkpoint.load(checkpoints, state)
    if series is not None:
        series.truncate(done)
    progress.begin("reward model", steps, "step")
    progress.advance(done)
    for step in range(done, steps):
        batch = _batch(elements, settings.batch, step, seed)
        own = [batch[i] for i in distributed.share(len(batch))]
        if drops:  # seeded by step and process, so that checkpoints need no random states
            torch.manual_seed(derive_seed(seed, "dropout", step, distributed.rank()))
        part = backward(model, own, batcher, auxiliary_weight=auxiliary_weight, batch=len(batch))
        figures = Figures(**distributed.sum_gradients(trained, vars(part)))
        norm = clip_gradients(trained, settings.optimizer.max_grad_norm)
        for name, figure in (("loss", figures.loss), ("gradient", norm)):
            stop_if_not_finite(
                figure,
                f"the {name} of step {step + 1} of the reward model",
                remedy="lower rewards.learning_rate",
            )
        rate = float(schedule.get_last_lr()[0])
        update.before_step()
        optimizer.step()
        share = update.after_step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        state.extra.setdefault("first_loss", figures.loss)
        state.extra["last_loss"] = figures.loss
        before = state.extra.get("updated_share", share)
        state.extra["updated_share"] = before + (share - before) / (step + 1)
        if series is not None:
            series.log(
                step + 1,
                loss=figures.loss,
                ranking_loss=figures.ranking,
                accuracy=figures.accuracy,
                learning_rate=rate,
                gradient_norm=norm,
                updated_share=share,
            )
        progress.advance(1, loss=figures.loss, accuracy=figures.accuracy)
        due = (step + 1) % settings.checkpoint_every == 0 or step + 1 == steps
        if checkpoints is not None and (due or graceful_stop.stop_requested()):
            checkpoint.save(checkpoints, step + 1, state)
            graceful_stop.stop_if_requested()
    if settings.gradient_checkpointing:
        model.activation_checkpointing_disable()
    model.eval()
    report = Report(steps, **state.extra, notes=[refusal] if refusal else [])
    if (lost := lost_updates(report.updated_share)) is not None:
        progress.say(f"{lost} (rewards.learning_rate)")
        report.notes.append(lost)
    return report


def _batch(elements: Sequence[Element], size: int, step: int, seed: int) -> list[Element]:
    """The batch of step `step`. Every epoch has its own order; its last batch may be short."""
    epoch, place = divmod(step, math.ceil(len(elements) / size))
    order = _order(len(elements), seed, epoch)
    return [elements[i] for i in order[place * size : (place + 1) * size]]


@lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)


def _no_dropout(model: torch.nn.Module) -> None:
    """Turn dropout off in a model that gradient checkpointing needs in train mode."""
    for module in model.modules():
        for name in ("p", "dropout", "attention_dropout", "attn_dropout", "hidden_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
