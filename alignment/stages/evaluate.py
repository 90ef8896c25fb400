"""Compare this version with all earlier ones on both axes, and measure its costs.

It samples one answer to each fixed evaluation prompt from the policy, and 25 to a few of them,
which shows how far it has collapsed. If the version ends with PPO, it also samples from the
checkpoint before PPO (Llama 2, Fig 11, shows V5 both ways), and from the smaller student if there
is one. This version's reward models score the answers of all earlier versions again, so that one
judge makes every comparison (Fig 20). In the built-in world two constant answers are compared too:
what manners or refusals alone are worth.

Outputs: responses.parquet (own answers), scores.parquet (all sides by the newest judges),
winrates.json (every pair of sides), standings.json (figures of every side), forgetting.json,
prompts.jsonl (the prompts), leaks.json (prompts left out because they occur in a batch), path.png
(all versions on helpfulness × safety axes), and verdicts.jsonl if a language-model judge is
configured, with refusal_classes.jsonl if it says what refuses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.answering import Arm, ArmAnswers, answer, choose_prompts, prompts_digest
from alignment.evaluation.degenerate import degenerate_figures
from alignment.evaluation.forgetting import forgetting
from alignment.evaluation.judging import all_win_rates, find_rate
from alignment.evaluation.leaks import (
    LEAKS,
    Conversation,
    Leak,
    find_leaks,
    training_conversations,
    without_leaks,
)
from alignment.evaluation.llm_rates import JUDGE, carried_rates, judged_rates
from alignment.evaluation.position_bias import in_words
from alignment.evaluation.refusal_classes import (
    CLASSES_FILE,
    class_figures,
    read_classes,
    write_classes,
)
from alignment.evaluation.refusals import RefusalDetector
from alignment.evaluation.responses import (
    CONSTANT,
    FINAL,
    NO_PPO,
    SCORES,
    STUDENT,
    TEXTS,
    is_constant,
    is_student,
    judges_of,
    read_sides,
    side_name,
    split_sides,
    write_table,
)
from alignment.evaluation.scoring import add_gold, add_refusals, add_reward_scores, subjects_of
from alignment.evaluation.standings import (
    carried_figures,
    category_metrics,
    json_figures,
    rate_metrics,
    refusal_figures,
    refusal_rises,
    score_figures,
    text_figures,
)
from alignment.evaluation.winrate import LEVEL
from alignment.models.load import resolve_device
from alignment.preferences.near_copies import near_copies, question
from alignment.preferences.prompts import Prompt, read_prompts, write_prompts
from alignment.preferences.store import PreferenceStore
from alignment.reporting.comparison import Comparison, Entry
from alignment.rewards.cache import ScoreCache
from alignment.stages.context import StageContext
from alignment.stages.policy_engine import policy_engine, write_proofs
from alignment.utils import distributed
from alignment.utils.files import atomic_write_bytes, atomic_write_json, read_json
from alignment.utils.seeds import derive_seed

CODE_VERSION = "24"
# 4: the KL in other batches; 5: more figures; 6: the end of answers that templates write; 7: the
# degenerate answers of scripts without spaces; 8: leaks in another spelling of accents; 9: the
# interval of nothing but ties; 10: no rate at equal length where lengths cannot identify it; 11: a
# category is forgotten on ten common prompts; 12: other gold scores and constants, which only
# programs of the new world meet, as those of 13; 14: no cut answer wins by reward
# models; 15: which read answers to one prompt behind one, where the context cuts it; 16: Self-BLEU
# within prompts; 17: refusals in fourteen languages; 18: intervals that hold what they promise;
# 19: refusals of earlier versions by today's phrases; 20: the rise of false refusals prompt by
# prompt, ratios of lengths, and intervals over first questions where dialogues share them;
# 21: openings without case and punctuation, near copies are counted; 22: the position bias of a
# language-model judge; 23: near copies by what users ask, without the system's message;
# 24: products by the faster library
KEEPS = (
    "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19",
    "20", "21", "22", "23",
)  # fmt: skip
READS = ("base", "world", "evaluate", "compute", "inference")


def run(ctx: StageContext) -> None:
    """Answer, score and compare; see the module."""
    config = ctx.config.evaluate
    every = read_prompts(ctx.inputs["prepare"] / "eval_prompts.jsonl")
    chosen = choose_prompts(every, config.prompts_per_domain)
    leaks, near = _leaks(ctx, chosen)
    prompts = without_leaks(chosen, leaks, config.max_leaked, ctx.progress)
    atomic_write_json(ctx.out / LEAKS, [asdict(leak) for leak in leaks])
    ctx.dataset("evaluation prompts", prompts_digest(prompts), len(prompts), "evaluation")
    answered = {side_name(arm.version, arm.name): _answer(ctx, arm, prompts) for arm in _arms(ctx)}
    for answers in answered.values():
        _describe(ctx, answers.table, prompts)
    ctx.metric(
        tokens_generated=sum(answers.tokens for answers in answered.values()),
        leaked_prompts=len(chosen) - len(prompts),
        near_copies=near,
    )
    own = pd.concat([answers.table for answers in answered.values()], ignore_index=True)
    write_table(ctx.out / TEXTS, own)
    write_prompts(ctx.out / "prompts.jsonl", prompts)

    earlier = ctx.inputs_of("earlier")
    prompt_ids = {prompt.id for prompt in prompts}
    sides = {
        name: table[table.prompt_id.isin(prompt_ids)].reset_index(drop=True)
        for name, table in read_sides(earlier).items()
    }
    if ctx.config.base.source != "world":
        for table in sides.values():  # by today's phrases: an older release had others
            _describe(ctx, table, prompts)
    sides |= split_sides([own])
    policies = list(sides)
    if ctx.config.base.source == "world":
        sides |= _constants(prompts)
    _reward(ctx, sides, every)
    if not distributed.is_first():
        return
    for table in sides.values():
        table["chars"] = table.text.str.len()
    scored = pd.concat([sides[name] for name in policies], ignore_index=True)
    write_table(ctx.out / SCORES, scored.drop(columns=["text"]))
    judged, about = judged_rates(
        ctx.version,
        sides,
        prompts,
        config,
        ctx.champion(ctx.inputs.get("verdict")),
        seed=derive_seed("evaluation"),
        scratch=ctx.scratch,
        out=ctx.out,
        progress=ctx.progress,
    )
    ctx.metric(**{f"judge/{name}": value for name, value in about.items()})
    for line in in_words(about):
        ctx.progress.say(line)
    for side, answers in answered.items():
        answers.figures.update(_classes(ctx, side, sides[side], prompts))
    if (ctx.scratch / CLASSES_FILE).exists():
        write_classes(ctx.out / CLASSES_FILE, read_classes(ctx.scratch / CLASSES_FILE))
    _report(ctx, sides, answered, earlier, judged, about, prompts)
    write_proofs(ctx)


def _leaks(ctx: StageContext, prompts: list[Prompt]) -> tuple[list[Leak], int]:
    """Prompts that any version so far was trained on, and the number of near copies of others."""
    intakes = list(ctx.inputs_of("intake").values())
    store = PreferenceStore(ctx.workspace / "preferences")
    asked: set[str] = set()

    def training() -> Iterator[tuple[str, Conversation]]:
        for found in training_conversations(ctx.inputs["prepare"], intakes, store):
            asked.add(question(found[1]))
            yield found

    leaks = find_leaks(prompts, training())
    leaked = {leak.prompt_id for leak in leaks}
    others = [question(prompt.messages) for prompt in prompts if prompt.id not in leaked]
    near = int(near_copies(others, asked).sum())
    if near and ctx.config.base.source != "world":  # that one's prompts are made from patterns
        ctx.progress.say(
            f"{near} of {len(others)} evaluation prompts are almost one of the training data's; "
            "they stay in the evaluation"
        )
    return leaks, near


def _arms(ctx: StageContext) -> list[Arm]:
    references = {"sft": ctx.inputs["sft_policy"] / "model"}
    if "parent_policy" in ctx.inputs:
        references["parent"] = ctx.inputs["parent_policy"] / "model"
    arms = [Arm(ctx.version, FINAL, ctx.inputs["policy"] / "model", references)]
    if "no_ppo" in ctx.inputs:
        arms.insert(0, Arm(ctx.version, NO_PPO, ctx.inputs["no_ppo"] / "model", references))
    if "student" in ctx.inputs:
        # The student may have another vocabulary, so it is measured against its own SFT model.
        own = {"sft": ctx.inputs["sft_student"] / "model"}
        arms.append(Arm(ctx.version, STUDENT, ctx.inputs["student"] / "model", own))
    return arms


def _answer(ctx: StageContext, arm: Arm, prompts: list[Prompt]) -> ArmAnswers:
    return answer(
        arm,
        prompts,
        subjects_of(prompts, world=ctx.config.base.source == "world"),
        ctx.config.evaluate,
        lambda: policy_engine(
            ctx, arm.name, arm.policy, ctx.config.evaluate.generation, section="evaluate"
        ),
        seed=ctx.seed,
        dtype=ctx.config.compute.dtype,
        device=resolve_device(ctx.config.compute.device),
        sharded=ctx.config.compute.sharding == "full" and distributed.size() > 1,
        scratch=ctx.scratch,
        progress=ctx.progress,
    )


def _classes(
    ctx: StageContext, side: str, table: pd.DataFrame, prompts: Sequence[Prompt]
) -> dict[str, float]:
    """Shares of refusals by the language-model judge, if it is asked for them."""
    judge = ctx.config.evaluate.judge
    if judge is None or not judge.refusals:
        return {}
    return class_figures(
        side,
        table,
        {prompt.id: prompt for prompt in prompts},
        judge,
        seed=derive_seed("evaluation"),
        scratch=ctx.scratch,
        progress=ctx.progress,
    )


def _constants(prompts: list[Prompt]) -> dict[str, pd.DataFrame]:
    """Side → one answer to every prompt, with gold scores."""
    from alignment.world.constants import CONSTANTS

    tables = {}
    for name, text in CONSTANTS.items():
        table = pd.DataFrame([prompt.model_dump(exclude={"messages"}) for prompt in prompts])
        table = table.rename(columns={"id": "prompt_id"}).assign(text=text, finished=True)
        add_gold(table, prompts)
        tables[side_name(CONSTANT, name)] = table
    return tables


def _describe(ctx: StageContext, table: pd.DataFrame, prompts: list[Prompt]) -> None:
    """Add gold scores or refusals, which do not change with later reward models."""
    if ctx.config.base.source == "world":
        add_gold(table, prompts)
    else:
        add_refusals(table, prompts, RefusalDetector(ctx.config.evaluate.refusal_phrases))


def _reward(ctx: StageContext, sides: dict[str, pd.DataFrame], prompts: list[Prompt]) -> None:
    for judge, stage in (("rm", "reward"), ("guard", "guard")):
        models: dict[str, Path] = {
            axis: ctx.inputs[f"{stage}_{axis}"] / "model"
            for axis in DOMAINS
            if f"{stage}_{axis}" in ctx.inputs
        }
        if len(models) < len(DOMAINS):
            continue  # SFT has no reward models yet; later versions score its answers.
        add_reward_scores(
            sides,
            prompts,
            models,
            judge=judge,
            compute=ctx.config.compute,
            batch_tokens=ctx.config.evaluate.max_tokens_per_micro_batch,
            progress=ctx.progress,
            cache=ScoreCache(ctx.workspace),
        )


def _report(
    ctx: StageContext,
    sides: dict[str, pd.DataFrame],
    answered: dict[str, ArmAnswers],
    earlier: dict[str, Path],
    judged: list[dict[str, Any]],
    about_judge: dict[str, float],
    prompts: Sequence[Prompt],
) -> None:
    config = ctx.config.evaluate
    turns = {prompt.id: [turn["content"] for turn in prompt.messages] for prompt in prompts}
    # All versions share one seed, so that a figure such as V1's gold win rate keeps its interval in
    # every later table.
    resampling: dict[str, Any] = {
        "seed": derive_seed("evaluation"),
        "samples": config.bootstrap_samples,
    }
    judges = judges_of(sides[ctx.version])
    rates = all_win_rates(sides)
    extra = carried_rates(earlier) + judged
    scoring = judges[0] if judges else None  # forgetting needs a judge that gives scores
    rates += extra
    if extra or (config.judge is not None and len(sides) > 1):
        judges.append(JUDGE)  # even if it compared nothing, so that the gate can say so
    carried = carried_figures(earlier)
    standings = {}
    for side, table in sides.items():
        figures = score_figures(table, **resampling)
        if side in answered:
            figures |= text_figures(table)
            figures |= refusal_figures(table)
            figures |= answered[side].figures
            if side == ctx.version:
                figures |= refusal_rises(table, {name: sides[name] for name in earlier})
        elif is_constant(side):
            figures |= refusal_figures(table)
        else:
            figures |= carried[side]
            if "harmful" not in table:  # phrases decide
                figures |= refusal_figures(table)
        # Of all sides anew: an evaluation by an older release has none.
        figures |= degenerate_figures(
            list(table.text), list(table.refused), [turns[name] for name in table.prompt_id]
        )
        for judge in judges:
            figures |= _against_sft(rates, side, judge, primary=judge == judges[0])
        standings[side] = figures
    forgotten = _forgetting(sides, answered, scoring, resampling)
    atomic_write_json(
        ctx.out / "winrates.json",
        {
            "version": ctx.version,
            "judges": judges,
            "primary": judges[0] if judges else None,
            "level": LEVEL,
            "temperature": config.generation.temperature,
            "judge_accuracy": _judge_accuracy(ctx),
            **({"lm_judge": json_figures(about_judge)} if about_judge else {}),
            "rows": [_rounded(row) for row in rates],
        },
    )
    atomic_write_json(
        ctx.out / "standings.json",
        [{"side": side, "figures": json_figures(figures)} for side, figures in standings.items()],
    )
    atomic_write_json(ctx.out / "forgetting.json", [_rounded(row) for row in forgotten])
    _draw_path(ctx, standings, judges)
    for side in answered:
        arm = side.partition("/")[2]
        prefix = f"{arm}/" if arm else ""
        figures = {
            **standings[side],
            **rate_metrics(rates, side, [name for name in sides if name != side]),
            **category_metrics([row for row in forgotten if row["side"] == side]),
        }
        ctx.metric(**{f"{prefix}{name}": value for name, value in figures.items()})


def _judge_accuracy(ctx: StageContext) -> dict[str, dict[str, Any]]:
    """Judge → axis → accuracy, interval and count on its held-out comparisons, for judges that are
    reward models."""
    found: dict[str, dict[str, Any]] = {}
    for judge, stage in (("rm", "reward"), ("guard", "guard")):
        for axis in DOMAINS:
            path = ctx.inputs.get(f"{stage}_{axis}", ctx.out) / "evaluation.json"
            if path.is_file():
                cells = read_json(path)["by_strength"][axis]
                found.setdefault(judge, {})[axis] = cells["all"]
    return found


def _draw_path(
    ctx: StageContext, standings: dict[str, dict[str, float]], judges: list[str]
) -> None:
    from alignment.reporting.pareto_plot import panels, path_picture

    entries = [
        Entry(side, side.partition("/")[0], False, json_figures(figures), {})
        for side, figures in standings.items()
    ]
    comparison = Comparison(ctx.version, judges, LEVEL, entries, [])
    if panels(comparison):
        atomic_write_bytes(ctx.out / "path.png", path_picture(comparison))


def _against_sft(
    rates: list[dict[str, Any]], side: str, judge: str, primary: bool
) -> dict[str, float]:
    """Win rates against SFT on both axes; `win_<axis>` for the primary judge.

    SFT against itself is ½ by definition, which gives curves over the versions a first point.
    """
    figures: dict[str, float] = {}
    for axis in DOMAINS:
        row = find_rate(rates, side, "sft", judge, axis)
        if row is not None:
            values = (row["win_rate"], row["low"], row["high"])
        elif side == "sft":
            values = (0.5, 0.5, 0.5)
        else:
            continue
        for suffix, value in zip(("", "_low", "_high"), values, strict=True):
            figures[f"win/{judge}/{axis}{suffix}"] = value
            if primary:
                figures[f"win_{axis}{suffix}"] = value
    return figures


def _forgetting(
    sides: dict[str, pd.DataFrame],
    answered: dict[str, ArmAnswers],
    judge: str | None,
    resampling: dict[str, Any],
) -> list[dict[str, Any]]:
    if judge is None:
        return []
    rows = []
    for side in answered:
        past = {
            name: table
            for name, table in sides.items()
            if name not in answered
            and not is_constant(name)
            and is_student(name) == is_student(side)
        }
        rows += forgetting(side, {**past, side: sides[side]}, judge, **resampling)
    return rows


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: value for name, value in row.items() if isinstance(value, float)}
    return {**row, **json_figures(numbers)}
