"""Sample K answers to each prompt from the newest policy (Llama 2 §3.2.3), at a tuned temperature.

Outputs: samples.parquet; temperature.json (the chosen value, and the search if there was one);
prompts.jsonl (the prompts of this version); engine.json
if a server drew the samples (`policy_engine`).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from alignment.config.sampling import SampleConfig
from alignment.inference.engine import sample_seeds
from alignment.inference.engine_factory import Opened
from alignment.inference.types import SamplingSettings
from alignment.preferences.prompts import Prompt, read_prompts, write_prompts
from alignment.rewards.cache import ScoreCache
from alignment.sampling.best_of import distinct_rate
from alignment.sampling.prompt_sampling import draw_prompts, without_categories
from alignment.sampling.reward_scoring import AnswerToScore, RewardScorer, scoring_bytes
from alignment.sampling.shards import Shards, from_table, to_table, write_table
from alignment.sampling.temperature import best_temperature
from alignment.stages.context import StageContext
from alignment.stages.policy_engine import policy_engine, write_proofs
from alignment.utils import distributed, graceful_stop
from alignment.utils.files import atomic_write_json, digest_json, read_json
from alignment.utils.seeds import derive_seed

CODE_VERSION = "10"
# Since 4 templates with an end other than EOS differ; since 5 temperature searches of programs that
# fine-tune on unfinished answers, since 6 again, since 7 those
# with prompts that the context cuts; 8: answers are drawn in shards by all processes; 9: fresh
# prompts, of which the inputs tell, and fitted thresholds that keep what they promise;
# 10: products by the faster library.
KEEPS = ("4", "5", "6", "7", "8", "9")
READS = ("sample", "combine", "compute", "inference")
SEARCHED = "temperature.json"  # in the scratch directory: a search that is done


def run(ctx: StageContext) -> None:
    """Draw the prompts, find the temperature, and sample shard by shard; see the module."""
    config: SampleConfig = ctx.config.sample
    everything = read_prompts(ctx.inputs["prepare"] / "prompts.jsonl")
    pool = without_categories(everything, config.skip_categories)
    used = _used(ctx)
    prompts = draw_prompts(pool, config.prompts, derive_seed(ctx.seed, "prompts"), used)
    write_prompts(ctx.out / "prompts.jsonl", prompts)
    ids = [prompt.id for prompt in prompts]
    ctx.dataset("sampling prompts", digest_json(ids), len(ids), "prompts")
    searches = config.temperature == "search" and not (ctx.scratch / SEARCHED).is_file()
    beside = scoring_bytes(_reward_stages(ctx), ctx.config.compute) if searches else 0
    settings = SamplingSettings.of(config.generation)
    model = ctx.inputs["policy"] / "model"
    with policy_engine(ctx, "policy", model, config.generation, beside=beside) as opened:
        temperature = _temperature(ctx, opened, settings, pool, prompts, used)
        settings = replace(settings, temperature=temperature)
        table = _sample(ctx, opened, settings, prompts)
    if not distributed.is_first():
        return
    write_table(ctx.out / "samples.parquet", table)
    write_proofs(ctx)
    _figures(ctx, table, temperature)
    _tell_repeats(ctx, prompts, used)


def _used(ctx: StageContext) -> Counter[str]:
    """Prompt id → how many versions before have sampled for it; empty without `fresh_prompts`."""
    return Counter(
        id
        for directory in ctx.inputs_of("earlier").values()
        for id in sorted({prompt.id for prompt in read_prompts(directory / "prompts.jsonl")})
    )


def _tell_repeats(ctx: StageContext, prompts: list[Prompt], used: Counter[str]) -> None:
    if not used:
        return
    repeated = sum(prompt.id in used for prompt in prompts)
    ctx.metric(repeated_prompts=repeated)
    if repeated:
        ctx.progress.say(
            f"earlier versions have sampled for {repeated:,} of the {len(prompts):,} prompts: the "
            "pool has no more fresh ones in their categories"
        )


def sampler_version(version: str) -> str:
    """The version before `version`, whose policy samples for it unless it was rejected."""
    number = int(version.removeprefix("rlhf-v"))
    return "sft" if number == 1 else f"rlhf-v{number - 1}"


def _sample(
    ctx: StageContext, opened: Opened, settings: SamplingSettings, prompts: list[Prompt]
) -> pa.Table:
    config: SampleConfig = ctx.config.sample
    version = ctx.options.get("sampler", sampler_version(ctx.version))
    request = {
        "settings": {**asdict(settings), "stop": list(settings.stop)},
        "prompts": [prompt.id for prompt in prompts],
        "k": config.k,
        "seed": ctx.seed,
        "shard_prompts": config.shard_prompts,
    }
    shards = Shards(ctx.scratch / "shards", request)
    count = -(-len(prompts) // config.shard_prompts)
    for number in shards.claim(count):
        part = prompts[number * config.shard_prompts :][: config.shard_prompts]
        ids = [prompt.id for prompt in part]
        tokens = [opened.renderer.prompt(prompt.messages) for prompt in part]
        seeds = sample_seeds(derive_seed(ctx.seed, "samples"), ids, config.k)
        samples = opened.engine.sample(tokens, seeds, settings, ctx.progress)
        shards.write(number, to_table(ids, samples, settings.temperature, version))
        graceful_stop.stop_if_requested()
    shards.wait()
    return pa.concat_tables(map(shards.read, range(count))).combine_chunks()


def _temperature(
    ctx: StageContext,
    opened: Opened,
    settings: SamplingSettings,
    pool: list[Prompt],
    prompts: list[Prompt],
    used: Counter[str],
) -> float:
    """The configured temperature, or the best of the grid; recorded in temperature.json."""
    config: SampleConfig = ctx.config.sample
    if config.temperature != "search":
        value = float(config.temperature)
        atomic_write_json(ctx.out / "temperature.json", {"temperature": value, "search": None})
        return value
    done = ctx.scratch / SEARCHED
    if done.is_file():
        record = read_json(done)
    else:
        record = _search(ctx, opened, settings, _search_prompts(ctx, pool, prompts, used))
        if distributed.is_first():
            atomic_write_json(done, record)
    atomic_write_json(ctx.out / "temperature.json", record)
    return float(record["temperature"])


def _search_prompts(
    ctx: StageContext, pool: list[Prompt], prompts: list[Prompt], used: Counter[str]
) -> list[Prompt]:
    config: SampleConfig = ctx.config.sample
    own = {prompt.id for prompt in prompts}
    rest = [prompt for prompt in pool if prompt.id not in own]
    if len(rest) < config.search_prompts:
        ctx.progress.say(
            f"the pool has only {len(rest)} prompts besides this version's own, so the temperature "
            "search uses those too"
        )
        rest = pool
    return draw_prompts(rest, config.search_prompts, derive_seed(ctx.seed, "search prompts"), used)


def _search(
    ctx: StageContext, opened: Opened, settings: SamplingSettings, prompts: list[Prompt]
) -> dict[str, Any]:
    config: SampleConfig = ctx.config.sample
    tokens = [opened.renderer.prompt(prompt.messages) for prompt in prompts]
    # The same seeds at every temperature, so that common noise cancels in the differences.
    ids = [prompt.id for prompt in prompts]
    seeds = sample_seeds(derive_seed(ctx.seed, "search"), ids, config.k)
    request = {**asdict(settings), "stop": list(settings.stop), "prompts": ids, "k": config.k}
    shards = Shards(ctx.scratch / "search", {**request, "grid": list(config.grid)})
    for number in shards.claim(len(config.grid)):
        temperature = config.grid[number]
        ctx.progress.say(f"temperature search: {temperature}")
        at = replace(settings, temperature=temperature)
        samples = opened.engine.sample(tokens, seeds, at, ctx.progress)
        shards.write(number, to_table(ids, samples, temperature, ctx.version))
        graceful_stop.stop_if_requested()
    shards.wait()
    drawn = [from_table(shards.read(number)) for number in range(len(config.grid))]
    cache = ScoreCache(ctx.workspace)
    stages = _reward_stages(ctx)
    scorer = RewardScorer.load(*stages, ctx.config.combine, ctx.config.compute, cache)
    answers = [
        AnswerToScore(prompt, sample.text, sample.finished)
        for at in drawn
        for prompt, group in zip(prompts, at, strict=True)
        for sample in group
    ]
    shape = (len(config.grid), len(prompts), config.k)
    rewards = scorer.score(answers).reward.reshape(shape)
    cache.report(ctx.progress)
    finished = np.array([answer.finished for answer in answers]).reshape(shape)
    distinct = [distinct_rate([[sample.text for sample in group] for group in at]) for at in drawn]
    finished_only = ctx.options.get("finished_only", True)
    best, trials = best_temperature(
        config.grid, rewards, finished, distinct, finished_only=finished_only
    )
    count = sum(len(sample.token_ids) for at in drawn for group in at for sample in group)
    return {"temperature": best, "search": [asdict(trial) for trial in trials], "tokens": count}


def _reward_stages(ctx: StageContext) -> tuple[Path, Path]:
    return ctx.inputs["reward_helpfulness"], ctx.inputs["reward_safety"]


def _figures(ctx: StageContext, table: pa.Table, temperature: float) -> None:
    searched = read_json(ctx.out / "temperature.json").get("tokens", 0)
    frame = table.select(["prompt_id", "text", "token_ids", "finished"]).to_pandas()
    texts = frame.groupby("prompt_id", sort=True)["text"].apply(list).tolist()
    tokens = float(frame["token_ids"].map(len).sum())
    ctx.metric(
        temperature=temperature,
        samples=len(frame),
        prompts=len(texts),
        tokens=tokens,
        tokens_generated=tokens + searched,
        mean_tokens=float(frame["token_ids"].map(len).mean()),
        finished=float(frame["finished"].mean()),
        distinct=distinct_rate(texts),
    )
