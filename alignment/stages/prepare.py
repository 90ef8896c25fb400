"""Make the data that a program starts from: prompts, demonstrations and arrivals of preferences.

`base.source: world` builds the synthetic world's files; `base.source: path` makes them from real
preferences (see `alignment.preferences.prepare_files`).

Outputs: demonstrations.jsonl, prompts.jsonl, stop_prompts.jsonl (drawn by PPO's early stopping
alone), eval_prompts.jsonl; corpus.jsonl and stop_texts.jsonl (world);
arrivals/NN/*.jsonl (`intake.source: split`), skipped.json (real data).
"""

from __future__ import annotations

from alignment.config.intake import DataConfig, IntakeConfig
from alignment.preferences.prepare_files import prepare_files
from alignment.preferences.prompts import read_prompts, write_prompts
from alignment.preferences.stop_set import STOP_FILE, reserve
from alignment.stages.context import StageContext
from alignment.utils.files import sha256_file

CODE_VERSION = "15"
# As with batches: what was taken in stays as it was. Without a stop set (before 5), PPO holds
# prompts of the pool out. 8: no dialogue larger than the stop set; 9: another built-in world, whose
# files have an option of their own in the plan, so that only those are made again;
# 10: no demonstration that was cut; 11: a ranking says who wrote a cut answer;
# 12: other demonstrations where there are fewer than categories; 13: another built-in world;
# 14: openings without case and punctuation; 15: texts for early stopping.
KEEPS = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14")
READS = ("base", "world", "data", "intake")


def run(ctx: StageContext) -> None:
    """Write the data; see the module."""
    ctx.out.mkdir(parents=True, exist_ok=True)
    if ctx.config.base.source == "world":
        from alignment.world.build import build

        counts = build(ctx.config.world, ctx.seed, ctx.out)
    else:
        counts = _real(ctx)
    pool, stop = reserve(read_prompts(ctx.out / "prompts.jsonl"))
    write_prompts(ctx.out / "prompts.jsonl", pool)
    write_prompts(ctx.out / STOP_FILE, stop)
    counts |= {"prompts": len(pool), "stop_prompts": len(stop)}
    ctx.metric(**counts)
    for name, role in (
        ("demonstrations", "training"),
        ("prompts", "prompts"),
        ("stop_prompts", "evaluation"),
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
