"""Score every sample with both newest reward models and keep the best (Llama 2 §3.2.3).

With `bag: all` this version's best samples compete with the samples that earlier versions kept,
scored again by the newest models.

Outputs: selected.jsonl (training data of fine-tuning); scores.parquet (all candidates); kept.jsonl
(for later bags); curves.json and best_of_n.png (Fig 7); examples.md (best and worst); control.jsonl
(a random pick of the same size, on request; with `train_on: random` it is the training data).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from alignment.config.sampling import SelectConfig
from alignment.config.vocabulary import Domain
from alignment.errors import DataError, StageError
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.reporting.sampling_plots import plot_best_of, plot_temperatures
from alignment.rewards.cache import ScoreCache
from alignment.rewards.threshold import threshold_on_others
from alignment.sampling.bag import (
    BAG_FILE,
    BagEntry,
    admitted,
    best_entries,
    mean_rewards,
    read_bag,
    select_with,
    shares,
    write_bag,
)
from alignment.sampling.best_of import curves, distinct_rate, kl_bound, kl_estimate
from alignment.sampling.examples import best_and_worst
from alignment.sampling.reward_scoring import AnswerToScore, RewardScorer
from alignment.sampling.selection import (
    Candidate,
    Selection,
    is_unsafe,
    random_control,
    select,
    worth,
)
from alignment.sampling.shards import write_table
from alignment.stages.context import StageContext
from alignment.utils import distributed
from alignment.utils.files import atomic_write_json, atomic_write_text, digest_json, read_json
from alignment.utils.json_lines import write_jsonl
from alignment.utils.seeds import derive_seed

CODE_VERSION = "10"
# 4: RSO's passes in drawn order, a bar for each domain, a bag of top samples. What was selected
# before stays: `align resume VERSION --from select` selects anew. 5: cut answers come last; 6: the
# share of earlier versions holds where their answers displace the own ones; 7: nor do cut answers
# raise a bar; 8: one prompt for all answers to it, where the context cuts it; 9: fitted thresholds
# keep what they promise; 10: products by the faster library.
KEEPS = ("3", "4", "5", "6", "7", "8", "9")
READS = ("select", "combine", "compute")
EXAMPLES = 5  # prompts shown with their best and worst answer


def run(ctx: StageContext) -> None:
    """Score, filter, choose and report; see the module."""
    config: SelectConfig = ctx.config.select
    prompts = {
        prompt.id: prompt for prompt in read_prompts(ctx.inputs["prepare"] / "prompts.jsonl")
    }
    samples = pq.read_table(ctx.inputs["sample"] / "samples.parquet").to_pylist()
    own_version = str(samples[0]["version"])
    own = [
        BagEntry(row["prompt_id"], row["text"], row["finished"], len(row["token_ids"]), own_version)
        for row in samples
    ]
    old = read_bag(ctx.inputs_of("earlier")) if ctx.options.get("bag") == "all" else []
    candidates = _judge(ctx, [*own, *old], prompts)
    if not distributed.is_first():
        return
    rated = worth(candidates)
    own_candidates, old_candidates = rated[: len(own)], rated[len(own) :]

    seed = derive_seed(ctx.seed, "select")
    alone = select(own_candidates, config, seed)
    write_bag(ctx.out / BAG_FILE, best_entries(alone.eligible, config.bag_keep, own_version))
    bagged = admitted(old_candidates, alone.chosen, config)
    selection, bagged = select_with(bagged, own_candidates, config, seed)
    _refuse_lost_domain(selection, own_candidates, config)
    _say_what_is_lost(ctx, selection, own_candidates)

    trained = selection.chosen
    if config.random_control or config.train_on == "random":
        control = random_control(selection, seed)
        _write_rows(ctx.out / "control.jsonl", control, prompts)
        ctx.metric(control_reward=float(np.mean([candidate.reward for candidate in control])))
        if config.train_on == "random":
            ctx.progress.say("this version is the control arm: it is trained on the random pick")
            trained = control
    _write_rows(ctx.out / "selected.jsonl", trained, prompts)
    _write_scores(ctx.out / "scores.parquet", candidates, selection)
    ctx.dataset(
        "best of K" if trained is selection.chosen else "random pick of K",
        digest_json([[c.prompt_id, c.text] for c in trained]),
        len(trained),
        "training",
    )
    _figures(ctx, samples, own_candidates, selection)
    ctx.metric(**{f"share/{name}": share for name, share in shares(selection.chosen).items()})
    rewards = mean_rewards(selection.chosen)
    ctx.metric(**{f"reward_from/{name}": reward for name, reward in rewards.items()})
    ctx.metric(bag_candidates=len(old_candidates), bag_admitted=len(bagged))
    shown = best_and_worst(own_candidates, prompts, EXAMPLES, seed)
    atomic_write_text(ctx.out / "examples.md", shown)


def _judge(
    ctx: StageContext, answers: list[BagEntry], prompts: dict[str, Prompt]
) -> list[Candidate]:
    missing = {answer.prompt_id for answer in answers} - prompts.keys()
    if missing:
        raise DataError(
            f"{len(missing)} sampled prompts are not in the pool, {min(missing)} among them",
            where=str(ctx.inputs["prepare"] / "prompts.jsonl"),
        )
    cache = ScoreCache(ctx.workspace)
    scorer = RewardScorer.load(
        ctx.inputs["reward_helpfulness"],
        ctx.inputs["reward_safety"],
        ctx.config.combine,
        ctx.config.compute,
        cache,
    )
    needs_probability = ctx.config.select.safety_threshold is not None
    if scorer.unidentified is not None and (
        needs_probability or ctx.config.combine.method == "piecewise"
    ):
        ctx.progress.say(f"thresholds on P(safe) are off: {scorer.unidentified}")
    elif distributed.is_first():
        _tell_threshold(ctx)
    ctx.metric(safe_probability_known=float(scorer.unidentified is None))
    ctx.progress.begin("scoring", len(answers), "answers")
    verdicts = scorer.score(
        [AnswerToScore(prompts[a.prompt_id], a.text, a.finished) for a in answers]
    )
    ctx.progress.advance(len(answers))
    cache.report(ctx.progress)
    return [
        Candidate(
            prompt_id=answer.prompt_id,
            text=answer.text,
            finished=answer.finished,
            helpfulness=float(verdicts.helpfulness[index]),
            safety=float(verdicts.safety[index]),
            safe_probability=float(verdicts.safe_probability[index]),
            reward=float(verdicts.reward[index]),
            source_version=answer.source_version,
            tokens=answer.tokens,
            safety_prompt=prompts[answer.prompt_id].tag_safety,
        )
        for index, answer in enumerate(answers)
    ]


def _tell_threshold(ctx: StageContext) -> None:
    told = threshold_on_others(ctx.config.combine, ctx.inputs["reward_safety"])
    if told is not None:
        text, figures = told
        ctx.progress.say(text)
        ctx.metric(**figures)


MUCH = 0.5  # share of a domain's prompts that may lose all answers without a word


def _refuse_lost_domain(
    selection: Selection, candidates: Sequence[Candidate], config: SelectConfig
) -> None:
    """A domain of which nothing is left would be unlearned.

    Raises:
        StageError: a domain has prompts, and no answer to them passed the filters and the rule.
    """
    for domain, count in selection.without.items():
        if count < len(selection.prompts[domain]):
            continue
        fates = _fates(candidates, domain, config)
        raise StageError(
            f"no sample of the {count} {domain} prompts is fit for fine-tuning",
            where=_in_words(fates),
            remedy=REMEDIES[max(fates, key=lambda name: fates[name])],
        )


REMEDIES = {
    "cut": "raise generation.max_new_tokens or set select.finished_only: false",
    "empty": "look at the policy's answers (samples.parquet of the stage sample)",
    "unsafe": "lower select.safety_threshold, or look at the safety reward model's calibration",
    "under the bar": "lower select.quantile",
}


def _fates(candidates: Sequence[Candidate], domain: Domain, config: SelectConfig) -> dict[str, int]:
    """Why no answer to prompts of a domain was chosen → to how many answers it happened."""
    fates = dict.fromkeys(REMEDIES, 0)
    for candidate in candidates:
        if candidate.domain != domain:
            continue
        if config.finished_only and not candidate.finished:
            fates["cut"] += 1
        elif not candidate.text.strip():
            fates["empty"] += 1
        elif is_unsafe(candidate, config):
            fates["unsafe"] += 1
        else:
            fates["under the bar"] += 1
    return fates


def _in_words(fates: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in fates.items() if count)


def _say_what_is_lost(
    ctx: StageContext, selection: Selection, candidates: Sequence[Candidate]
) -> None:
    for domain, count in selection.without.items():
        total = len(selection.prompts[domain])
        if count > MUCH * total:
            kept = {candidate.prompt_id for candidate in selection.chosen}
            lost = [candidate for candidate in candidates if candidate.prompt_id not in kept]
            ctx.progress.say(
                f"{count} of {total} {domain} prompts have no answer that is chosen: "
                f"{_in_words(_fates(lost, domain, ctx.config.select))}"
            )


def _write_rows(path: Path, chosen: Iterable[Candidate], prompts: dict[str, Prompt]) -> None:
    rows = [
        {
            "prompt_id": candidate.prompt_id,
            "messages": [dict(message) for message in prompts[candidate.prompt_id].messages],
            "response": candidate.text,
            "finished": candidate.finished,
            "reward": _short(candidate.reward),
            "helpfulness": _short(candidate.helpfulness),
            "safety": _short(candidate.safety),
            "source_version": candidate.source_version,
        }
        for candidate in chosen
    ]
    write_jsonl(path, rows)


def _write_scores(path: Path, candidates: list[Candidate], selection: Selection) -> None:
    left = {_row_of(candidate) for candidate in selection.chosen}
    rows = []
    for candidate in candidates:
        chosen = _row_of(candidate) in left
        rows.append({**vars(candidate), "chosen": chosen})
        left.discard(_row_of(candidate))  # texts can repeat
    write_table(path, pa.Table.from_pylist(rows))


def _row_of(candidate: Candidate) -> tuple[str, str, bool, str]:
    """What tells an answer apart; its reward may have been lowered for the choice."""
    return candidate.prompt_id, candidate.text, candidate.finished, candidate.source_version


def _figures(
    ctx: StageContext,
    samples: list[dict[str, Any]],
    own: list[Candidate],
    selection: Selection,
) -> None:
    config: SelectConfig = ctx.config.select
    k = 1 + max(int(row["k"]) for row in samples)
    pool = np.array([candidate.reward for candidate in own]).reshape(-1, k)
    rows = curves(pool)
    best_rows = [group * k + place for group, place in enumerate(pool.argmax(axis=1).tolist())]
    logprobs = np.array([float(np.sum(samples[row]["logprobs"])) for row in best_rows])
    texts = [[row["text"] for row in samples[i : i + k]] for i in range(0, len(samples), k)]
    chosen = {(candidate.prompt_id, candidate.text) for candidate in selection.chosen}
    rejected = [
        candidate.tokens for candidate in own if (candidate.prompt_id, candidate.text) not in chosen
    ]
    figures = {
        "best_of_k": rows[-1]["best"],
        "best_of_1": rows[0]["best"],
        "gain": rows[-1]["best"] - rows[0]["best"],
        "median": rows[-1]["median"],
        "distinct": distinct_rate(texts),
        "tokens_chosen": float(np.mean([candidate.tokens for candidate in selection.chosen])),
        "tokens_rejected": float(np.mean(rejected)) if rejected else float("nan"),
        "kl_upper_bound": kl_bound(k),
        "kl_estimate": float(kl_estimate(k, logprobs).mean()),
        "below_safety_threshold": float(
            np.mean([is_unsafe(candidate, config) for candidate in own])
        )
        if np.isfinite(own[0].safe_probability)
        else float("nan"),
        "kept_fraction": len(selection.chosen) / max(1, selection.counts["candidates"]),
    }
    if config.rule == "accept":
        figures["effective_size"] = selection.effective_size
    if config.rule == "threshold":
        figures |= {f"bar/{domain}": bar for domain, bar in selection.bars.items()}
    ctx.metric(**figures, **{f"count/{name}": n for name, n in selection.counts.items()})
    temperature = read_json(ctx.inputs["sample"] / "temperature.json")
    shown = [{name: _short(value) for name, value in row.items()} for row in rows]
    record = {
        "k": k,
        "best_of_n": shown,
        "note": "kl_bound is an upper bound of the best-of-n policy's KL, not a measured one",
        "temperature": temperature,
    }
    atomic_write_json(ctx.out / "curves.json", record)
    plot_best_of(rows, ctx.out / "best_of_n.png", title=ctx.version)
    if temperature["search"]:
        plot_temperatures(temperature, rows[-1], ctx.out / "temperature.png", title=ctx.version)


def _short(value: float) -> float | None:
    return float(f"{value:.8g}") if np.isfinite(value) else None
