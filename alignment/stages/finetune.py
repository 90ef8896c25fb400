"""Supervised fine-tuning: SFT on demonstrations, RLHF versions on the best of K samples.

The input `start` gives the initial weights; `finetune.sft` or `finetune.rejection` sets how they
are trained. Outputs: model/ (full checkpoint or adapter), series.jsonl (the loss curve).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alignment.config.finetune import FinetuneConfig
from alignment.errors import DataError
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_tokenizer, resolve_device
from alignment.models.sharding import autocast_format
from alignment.stages.context import StageContext
from alignment.training.policy import save_policy, trainable_policy
from alignment.training.sft import Example, finetune
from alignment.utils import distributed
from alignment.utils.files import sha256_file
from alignment.utils.json_lines import read_jsonl
from alignment.utils.seeds import derive_seed

CODE_VERSION = "7"
KEEPS = ("2", "3", "4", "5", "6")
# 3: templates with an end other than EOS; 4: long answers stay that fit with their short prompts;
# 5: the share of parameters that a step changes; saved in float32, which bfloat16 had rounded;
# 6: dropout is seeded by step and process; shards compute in bfloat16 by themselves;
# 7: several processes repeat no row in a short last batch
BFLOAT16_KEEPS = ()
READS = ("finetune", "compute")


def run(ctx: StageContext) -> None:
    """Train on answers; see the module."""
    sections = ctx.config.finetune
    config: FinetuneConfig = sections.rejection if "select" in ctx.inputs else sections.sft
    compute = ctx.config.compute
    start = ctx.inputs["start"] / "model"
    examples = _examples(ctx, config)
    tokenizer = load_tokenizer(start)
    model = trainable_policy(
        start,
        config.lora,
        dtype=compute.dtype,
        device=resolve_device(compute.device),
        seed=derive_seed(ctx.seed, "adapter"),
        sharded=compute.sharding == "full" and distributed.size() > 1,
    )
    figures = finetune(
        model,
        ChatRenderer(tokenizer),
        examples,
        config,
        seed=ctx.seed,
        scratch=ctx.scratch,
        series=ctx.series,
        bf16=autocast_format(model, compute.dtype) is not None,
        progress=ctx.progress,
        key=f"finetune.{'rejection' if 'select' in ctx.inputs else 'sft'}.batch",
    )
    save_policy(model, tokenizer, ctx.out / "model", start=start)
    if not distributed.is_first():
        return
    ctx.metric(**figures)
    if figures:
        ctx.metric(tokens_trained=config.epochs * figures["answer_tokens"])


def _examples(ctx: StageContext, config: FinetuneConfig) -> list[Example]:
    demonstrations = ctx.inputs["prepare"] / "demonstrations.jsonl"
    if "select" not in ctx.inputs:
        return _read(ctx, demonstrations, "demonstrations")
    selected = _read(ctx, ctx.inputs["select"] / "selected.jsonl", "selected")
    count = round(config.demonstrations * len(selected))
    if count == 0:
        return selected
    mixed = _read(ctx, demonstrations, "demonstrations")
    generator = np.random.default_rng(derive_seed(ctx.seed, "demonstrations"))
    picked = generator.permutation(len(mixed))[:count]
    ctx.metric(demonstrations=len(picked), selected=len(selected))
    return selected + [mixed[index] for index in sorted(picked)]


def _read(ctx: StageContext, path: Path, name: str) -> list[Example]:
    examples = [
        Example(row["messages"], row["response"], bool(row.get("finished", True)))
        for row in read_jsonl(path)
    ]
    if not examples:
        raise DataError(
            f"there is nothing to train on: {path.name} is empty",
            where=str(path),
            remedy="the report of the stage that wrote it says what was left out and why",
        )
    ctx.dataset(name, sha256_file(path), len(examples), "training")
    return examples
