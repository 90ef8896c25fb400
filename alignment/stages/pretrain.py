"""Train the base model of the built-in world: a tokenizer and a small Llama.

Outputs: model/ (checkpoint with tokenizer), series.jsonl (the loss curve).
"""

from __future__ import annotations

from alignment.config.finetune import PretrainConfig
from alignment.errors import DataError
from alignment.models.load import resolve_device, save_model
from alignment.stages.context import StageContext
from alignment.training.pretrain import pretrain
from alignment.utils import distributed
from alignment.utils.files import sha256_file
from alignment.utils.json_lines import read_jsonl
from alignment.world.tokenizer import train_tokenizer

CODE_VERSION = "7"
# 3: start weights of a deviation that goes with the width; 4: shared by several processes; 6: with
# hand-written passes where they pay; 7: which multiply by the faster library
KEEPS = ("2", "3", "4", "5", "6")
READS = ("base", "compute")


def run(ctx: StageContext) -> None:
    """Train; see the module."""
    pretrain_world(ctx, ctx.config.base.pretrain)


def pretrain_world(ctx: StageContext, settings: PretrainConfig) -> None:
    """Train a model of this shape on the corpus that `prepare` wrote."""
    corpus = ctx.inputs["prepare"] / "corpus.jsonl"
    texts = [row["text"] for row in read_jsonl(corpus)]
    if not texts:
        raise DataError("the corpus is empty", where=str(corpus))
    ctx.dataset("corpus", sha256_file(corpus), len(texts), "training")
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    compute = ctx.config.compute
    model, figures = pretrain(
        texts,
        tokenizer,
        settings,
        seed=ctx.seed,
        scratch=ctx.scratch,
        series=ctx.series,
        device=resolve_device(compute.device),
        bf16=compute.dtype == "bfloat16",
        progress=ctx.progress,
    )
    if not distributed.is_first():
        return
    save_model(model, tokenizer, ctx.out / "model")
    ctx.metric(**figures, tokens_trained=figures["tokens"])
