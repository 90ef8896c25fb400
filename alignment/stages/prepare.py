"""Make the data that a program starts from: prompts, demonstrations and arrivals of preferences.

`base.source: world` builds the synthetic world's files; `base.source: path` makes them from real
preferences (see `alignment.preferences.prepare_files`).

Outputs: demonstrations.jsonl, prompts.jsonl, eval_prompts.jsonl; corpus.jsonl (world);
arrivals/NN/*.jsonl (`intake.source: split`), skipped.json (real data).
"""

from __future__ import annotations

from alignment.config.intake import DataConfig, IntakeConfig
from alignment.preferences.prepare_files import prepare_files
from alignment.stages.context import StageContext
from alignment.utils.files import sha256_file

CODE_VERSION = "4"
KEEPS = ("1", "2", "3")  # as with batches: what was taken in stays as it was
READS = ("base", "world", "data", "intake")


def run(ctx: StageContext) -> None:
    """Write the data; see the module."""
    ctx.out.mkdir(parents=True, exist_ok=True)
    if ctx.config.base.source == "world":
        from alignment.world.build import build

        counts = build(ctx.config.world, ctx.seed, ctx.out)
    else:
        counts = _real(ctx)
    ctx.metric(**counts)
    for name, role in (
        ("demonstrations", "training"),
        ("prompts", "prompts"),
        ("eval_prompts", "evaluation"),
    ):
        path = ctx.out / f"{name}.jsonl"
        ctx.dataset(name, sha256_file(path), counts[name], role)


def _real(ctx: StageContext) -> dict[str, int]:
    data: DataConfig = ctx.config.data
    intake: IntakeConfig = ctx.config.intake
    path, _ = data.location(intake)
    split = intake.source == "split"
    return prepare_files(
        [path], data, intake, ctx.seed, ctx.out, arrivals=split, progress=ctx.progress
    )
