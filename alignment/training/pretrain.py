"""Pretraining of a small Llama on plain text: RMSNorm, SwiGLU, RoPE, grouped-query attention.

Documents are joined with EOS between them and cut into rows of equal length, as in the Llama
papers, so a row may begin in the middle of a document. The loop is our own, because it must resume
to the same bits, and at this size a general trainer would take more time than the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from alignment.config.finetune import PretrainConfig
from alignment.errors import DataError
from alignment.fastpath import use_for_training
from alignment.models.optimizer import make_optimizer, make_schedule, warmup_steps
from alignment.models.text_ids import encoder_of
from alignment.utils import checkpoint, distributed, graceful_stop
from alignment.utils.finite import stop_if_not_finite
from alignment.utils.metrics_log import Series
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed


def build_model(
    config: PretrainConfig, tokenizer: PreTrainedTokenizerBase, seed: int
) -> LlamaForCausalLM:
    """A freshly initialised Llama of the configured shape, with embeddings tied to the head.

    The deviation of its weights is 0.02 at 256 hidden units and goes with 1/√hidden, as activations
    do: at 64 units, 0.02 made copying from the prompt begin a thousand steps later.
    """
    shape = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        intermediate_size=config.intermediate,
        max_position_embeddings=config.context,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.02 * math.sqrt(256 / config.hidden),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights"))
        return LlamaForCausalLM(shape)


def rows_of(texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, length: int) -> torch.Tensor:
    """Join all documents into one stream and cut it into rows.

    Returns:
        int64 tensor (rows, length + 1). Neighbouring rows share one token, so that every token
        except the first of the stream is predicted once.

    Raises:
        DataError: the corpus is shorter than one row.
    """
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    end, ids_of = int(tokenizer.eos_token_id), encoder_of(tokenizer)
    stream: list[int] = []
    for text in texts:
        stream += [*start, *ids_of(text), end]
    count = (len(stream) - 1) // length
    if count < 1:
        raise DataError(
            f"the corpus has {len(stream)} tokens, fewer than one row of {length}",
            remedy="add text or lower base.pretrain.length",
        )
    flat = torch.tensor(stream[: count * length + 1], dtype=torch.int64)
    return flat.unfold(0, length + 1, length).contiguous()


def pretrain(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    config: PretrainConfig,
    *,
    seed: int,
    scratch: Path,
    series: Series,
    device: torch.device | str = "cpu",
    bf16: bool = False,
    progress: Progress | None = None,
) -> tuple[LlamaForCausalLM, dict[str, float]]:
    """Train from scratch, or resume from the checkpoint in `scratch`.

    Args:
        seed: of weights and order.
        bf16: compute in bfloat16 (autocast); weights and optimiser stay float32.

    Several processes each compute a share of every batch.

    Returns:
        The model in eval mode, and in the first process figures: `loss` (mean of the last tenth of
        the steps, nats per token), `tokens` seen, `parameters`.

    Raises:
        StageError: loss or gradient is not finite; the last good checkpoint is kept.
    """
    progress = progress or SilentProgress()
    device = torch.device(device)
    rows = rows_of(texts, tokenizer, config.length)
    model: Any = build_model(config, tokenizer, seed)
    model = model.to(device).train()
    optimizer = make_optimizer(model.parameters(), config.learning_rate, config.optimizer)
    schedule = make_schedule(
        optimizer,
        steps=config.steps,
        warmup=warmup_steps(config.steps, config.warmup_ratio),
        min_lr_ratio=config.min_lr_ratio,
    )
    state = checkpoint.TrainingState({"model": model}, {"adamw": optimizer}, {"cosine": schedule})
    directory = scratch / "checkpoints"
    done = checkpoint.load(directory, state) if checkpoint.latest(directory) is not None else 0
    series.truncate(done)
    progress.begin("pretrain", config.steps, "step")
    progress.advance(done)
    share = distributed.share(config.batch)
    lean = None if bf16 else use_for_training(model.model)
    for step in range(done, config.steps):
        numbers = batch_rows(step, len(rows), config.batch, seed)[share.start : share.stop]
        lost = 0.0
        if len(numbers):
            batch = rows[numbers].to(device)
            loss = None if lean is None else _lean_loss(lean, model, batch)
            if loss is None:
                with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
                loss = torch.nn.functional.cross_entropy(
                    logits.float().flatten(0, 1), batch[:, 1:].flatten()
                )
            loss = loss * (len(numbers) / config.batch)
            loss.backward()
            lost = loss.item()
        lost = distributed.sum_gradients(model.parameters(), {"loss": lost})["loss"]
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.max_grad_norm)
        figures = {
            "loss": lost,
            "grad_norm": norm.item(),
            "learning_rate": float(schedule.get_last_lr()[0]),
        }
        for name in ("loss", "grad_norm"):
            stop_if_not_finite(
                figures[name],
                f"the {name} of pretraining step {step + 1}",
                remedy="lower base.pretrain.learning_rate",
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if distributed.is_first():
            series.log(step + 1, **figures)
        due = (step + 1) % config.checkpoint_every == 0 or step + 1 == config.steps
        if due or graceful_stop.stop_requested():
            checkpoint.save(directory, step + 1, state)
            graceful_stop.stop_if_requested()
        progress.advance(1, loss=figures["loss"])
    if not distributed.is_first():
        return model.eval(), {}
    last = [row["loss"] for row in series.rows()[-max(1, config.steps // 10) :]]
    return model.eval(), {
        "loss": sum(last) / len(last),
        "tokens": float(config.steps * config.batch * config.length),
        "parameters": float(sum(parameter.numel() for parameter in model.parameters())),
    }


def _lean_loss(lean: Any, model: Any, batch: torch.Tensor) -> torch.Tensor | None:
    """The loss by a hand-written pass; None where it does not cover the batch."""
    ids = batch[:, :-1].contiguous()
    hidden = lean.hidden(ids, torch.arange(ids.numel()))
    if hidden is None:
        return None
    log_probs = lean.token_logprobs(hidden, model.lm_head.weight, batch[:, 1:].flatten(), 1.0)
    loss: torch.Tensor = -log_probs.mean()
    return loss


def batch_rows(step: int, rows: int, batch: int, seed: int) -> torch.Tensor:
    """Row numbers (batch,) of a 0-based step; every pass over the corpus has a new order."""
    places = range(step * batch, (step + 1) * batch)
    return torch.stack([_order(rows, seed, place // rows)[place % rows] for place in places])


@lru_cache(maxsize=2)
def _order(rows: int, seed: int, turn: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", turn))
    return torch.randperm(rows, generator=generator)
