"""Pairs of answers for the next round of annotation (Llama 2 §3.2.1).

The two sides come from this version and the preceding one, at different temperatures. So the sides
differ, and the reward models see the newest policy's answers. Without a preceding policy both sides
come from this version.

Output: pairs.jsonl, unlabelled; annotators see only the texts.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from alignment.config.sampling import CollectConfig
from alignment.inference.types import Sample, SamplingSettings
from alignment.preferences.prompts import read_prompts
from alignment.sampling.pairs import PlannedAnswer, PlannedPair, make_pair, plan_pairs
from alignment.sampling.shards import Shards, from_table, to_table
from alignment.stages.context import StageContext
from alignment.stages.policy_engine import policy_engine, write_proofs
from alignment.utils import distributed, graceful_stop
from alignment.utils.files import digest_json
from alignment.utils.json_lines import write_jsonl

CODE_VERSION = "6"
KEEPS = ("3", "4", "5")
# 4: templates with an end other than EOS; 5: says what was cut; 6: smaller shards, which round
# otherwise in bfloat16
READS = ("collect", "compute", "inference")

SHARD = 256  # most sides drawn between two checkpoints, by one process


def run(ctx: StageContext) -> None:
    """Plan the pairs, draw both sides, write the pairs whose sides differ; see the module."""
    config: CollectConfig = ctx.config.collect
    pool = read_prompts(ctx.inputs["prepare"] / "prompts.jsonl")
    earlier = ctx.options.get("earlier_version", "earlier") if "earlier" in ctx.inputs else None
    planned = plan_pairs(pool, (ctx.version, earlier or ctx.version), config, ctx.seed)
    drawn = _draw(ctx, planned)
    if not distributed.is_first():
        return
    rows, ids, same = [], set(), 0
    for number, pair in enumerate(planned):
        row = make_pair(pair, (drawn[number, 0], drawn[number, 1]), ctx.seed)
        if row is None or row["id"] in ids:
            same += 1
            continue
        ids.add(row["id"])
        rows.append(row)
    write_jsonl(ctx.out / "pairs.jsonl", rows)
    write_proofs(ctx)
    ctx.dataset("pairs to annotate", digest_json([row["id"] for row in rows]), len(rows), "pairs")
    every = [sample for samples in drawn.values() for sample in samples]
    ctx.metric(
        pairs=len(rows),
        dropped_as_same=same,
        safety_pairs=sum(row["domain"] == "safety" for row in rows),
        finished=sum(sample.finished for sample in every) / max(1, len(every)),
        tokens_generated=sum(len(sample.token_ids) for sample in every),
    )


def _draw(ctx: StageContext, planned: Sequence[PlannedPair]) -> dict[tuple[int, int], list[Sample]]:
    """(pair, side) → samples. Sides of one policy and temperature are drawn together."""
    config: CollectConfig = ctx.config.collect
    groups: dict[tuple[str, float], list[tuple[int, int]]] = {}
    for number, pair in enumerate(planned):
        for which, side in enumerate(pair.sides):
            groups.setdefault((side.version, side.temperature), []).append((number, which))
    pieces = [
        (owner, temperature, places)
        for (owner, temperature), group in sorted(groups.items())
        for places in _cut(group)
    ]
    request = {
        "seed": ctx.seed,
        "max_new_tokens": config.generation.max_new_tokens,
        "pairs": [[pair.prompt.id, *(side.temperature for side in pair.sides)] for pair in planned],
        "shards": [len(places) for _, _, places in pieces],
    }
    shards = Shards(ctx.scratch / "shards", request)
    claimed = shards.claim(len(pieces))
    for version in dict.fromkeys(pieces[number][0] for number in claimed):
        source = "policy" if version == ctx.version else "earlier"
        model = ctx.inputs[source] / "model"
        with policy_engine(ctx, source, model, config.generation) as opened:
            for number in claimed:
                owner, temperature, places = pieces[number]
                if owner != version:
                    continue
                settings = SamplingSettings.of(config.generation, temperature=temperature)
                sides: list[PlannedAnswer] = [planned[pair].sides[which] for pair, which in places]
                prompts = [planned[pair].prompt for pair, _ in places]
                drawn = opened.engine.sample(
                    [opened.renderer.prompt(prompt.messages) for prompt in prompts],
                    [side.seeds for side in sides],
                    settings,
                    ctx.progress,
                )
                ids = [prompt.id for prompt in prompts]
                shards.write(number, to_table(ids, drawn, temperature, version))
                graceful_stop.stop_if_requested()
    shards.wait()
    return {
        place: samples
        for number, (_, _, places) in enumerate(pieces)
        for place, samples in zip(places, from_table(shards.read(number)), strict=True)
    }


def _cut(places: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """As few shards as there can be, of like size, so that processes get as much work."""
    count = -(-len(places) // SHARD)
    ends = [len(places) * number // count for number in range(count + 1)]
    return [places[start:end] for start, end in itertools.pairwise(ends)]
