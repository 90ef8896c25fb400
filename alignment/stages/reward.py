"""Train and measure one reward model (`options.domain`: helpfulness or safety).

Training starts from the chat checkpoint (`rewards.init`) and uses the mixture of all batches so
far. The model is measured on the held-out part of every batch, beside the earlier versions' models,
none of which has seen the new batch. With `options.guard` it is the guard model, which learns from
prompts that the main model never sees and from spoilt answers (`rewards.guard_spoilt`). One
departure from Llama 2: the scale (mean, deviation) is stored with the model.

Outputs: model/ with reward.json (a LoRA model is a PEFT adapter with its head), mixture.jsonl (its
training rows), evaluation.json (all figures), accuracy.png, calibration.png, growth.png (from the
second version on), series.jsonl.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from alignment.config.vocabulary import DOMAINS
from alignment.errors import DataError
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import context_of, load_tokenizer, resolve_device
from alignment.models.sharding import autocast_format, gather, is_sharded, shard
from alignment.preferences.near_copies import near_copies, question
from alignment.preferences.store import PreferenceStore
from alignment.preferences.what_counts import recorded_exclusions
from alignment.reporting.reward_plots import accuracy_picture, calibration_picture, growth_picture
from alignment.rewards.adapter import inject
from alignment.rewards.cache import ScoreCache
from alignment.rewards.card import RewardCard
from alignment.rewards.evaluate import beside_near_copies, evaluate, moved, safe_labels, separation
from alignment.rewards.examples import Elements, build
from alignment.rewards.guard_split import agreement, share_out
from alignment.rewards.heldout_sample import sampled
from alignment.rewards.heldout_scores import Measured, cut_scores_higher, measure
from alignment.rewards.identified import unidentified
from alignment.rewards.initial import initial_model
from alignment.rewards.learning_curve import growth
from alignment.rewards.mixture import Source, is_core, mix, write_mixture
from alignment.rewards.model import RewardModel
from alignment.rewards.reference_set import demonstrations, reference_answers
from alignment.rewards.stage_metrics import metrics, plain
from alignment.rewards.synthetic_negatives import spoilt
from alignment.rewards.threshold import write_labelled
from alignment.rewards.train import Report, train
from alignment.stages.context import StageContext
from alignment.utils import distributed
from alignment.utils.files import atomic_write_bytes, atomic_write_json, digest_json, read_json
from alignment.utils.memory import give_back
from alignment.utils.metrics_log import Series
from alignment.utils.seeds import derive_seed

CODE_VERSION = "25"
# 5: the learning-rate schedule ends one step later; 6: the end of answers that the template writes,
# and no comparison beyond the context of the model; 7: the card says which end was learned, which
# one of version 6 does not; 8: the card counts labels, intervals are over openings;
# 9: which know two spellings of an accent as one, as the guard's share does; 10: held-out
# comparisons are measured batch by batch, which moves the last bits of their scores; 11: the
# scale rests on both domains of the whole first version; 12: an answer that was cut has no end;
# 13: long comparisons lose old turns; 14: wider intervals over few openings;
# 15: one long answer takes no sound pair of its ranking along, spoilt copies of cut answers are
# cut; 16: long answers stay that fit with their short prompts; 17: mixtures over origins, which
# batches of before do not have; 18: Wilson's intervals; 19: a head in float32, calibrated in the
# format in which it is asked; 20: a model that is sharded is measured so, which rounds otherwise;
# 21: shards compute in bfloat16 by themselves; 22: openings without case and punctuation, accuracy
# beside near copies; 23: of many held-out comparisons a random sample is measured, was the first
# ones; labels say whose answers they are; 24: near copies by what users ask, without the system's
# message; 25: grouped rows, products by the faster library
KEEPS = (
    "4", "5", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "17", "18", "19", "20", "21",
    "22", "23", "24",
)  # fmt: skip
BFLOAT16_KEEPS = ("21", "22", "23", "24")
READS = ("rewards", "compute")
REFERENCE_ROWS = 256  # demonstrations that fix the bias, and answers that fix the deviation
FEW_ANSWERS = 64  # answers of a domain below which the scale is said to be rough
MEASURE_ROWS = 2000  # most held-out comparisons measured per batch and domain
CUT_ROWS = 200  # held-out answers that are scored without their end too
BOOTSTRAP_SAMPLES = 1000  # resamples behind every interval
SHOWN_PAIRS = 600  # dots in the plot of lengths


def run(ctx: StageContext) -> None:
    """Choose the comparisons, train, calibrate, save and measure; see the module."""
    settings = ctx.config.rewards
    domain = ctx.options["domain"]
    training, heldout, versions, in_all = _comparisons(ctx)
    if len(heldout) < sum(in_all.values()):
        ctx.progress.say(
            f"{len(heldout):,} of {sum(in_all.values()):,} held-out comparisons are measured: "
            f"at most {MEASURE_ROWS:,} of a batch and domain, drawn at random"
        )
    training = share_out(training, settings.guard_share, guard=_is_guard(ctx))
    if _is_guard(ctx):
        spoilt_pairs = spoilt(training, settings.guard_spoilt, ctx.seed)
        training += spoilt_pairs
        ctx.metric(spoilt=len(spoilt_pairs))
    rows = mix(domain, training, settings.mixture, ctx.seed)
    rest = [row for row, core in zip(rows, is_core(domain, rows), strict=True) if not core]
    ctx.metric(mixture_rest=len(rest), mixture_open=sum(row.origin == "open" for row in rest))
    available, used = (sum(row.origin == "open" for row in each) for each in (training, rows))
    if used < available:
        ctx.progress.say(
            f"{available - used:,} of {available:,} open comparisons are not used: beside own "
            "ones, rewards.mixture takes no more"
        )
    start = _start(ctx)
    tokenizer = load_tokenizer(start)
    limit: int | None = ctx.options.get("max_prompt_tokens")
    renderer = ChatRenderer(tokenizer, limit, context_of(start))
    built = _elements(ctx, rows, renderer, context_of(start))
    demos = demonstrations(ctx.inputs["prepare"] / "demonstrations.jsonl", renderer, REFERENCE_ROWS)
    first = {
        batch for batch, version in versions.items() if version == next(iter(versions.values()))
    }
    reference = reference_answers(heldout, first, renderer, REFERENCE_ROWS)  # may fail: not later
    model, report = _train(ctx, built, start, renderer)
    card = RewardCard(
        domain=domain,
        margin=settings.margin_name,
        max_length=settings.max_length,
        max_prompt_tokens=limit,
        versions=tuple(dict.fromkeys(versions.values())),
        pairs=built.pairs,
        guard=_is_guard(ctx),
        labelled=built.labelled,
    )
    reward = None if model is None else RewardModel(model, tokenizer, card)
    saved = ctx.first_out / "model"
    if reward is not None and distributed.is_first():
        if settings.lora is not None:
            reward.save_adapter(start, saved)
        else:
            reward.save(saved)
    distributed.barrier()
    if reward is None or ctx.config.compute.dtype != "float32" or distributed.size() > 1:
        # Calibrated and measured as it will be asked: in that format, on the device, by all.
        del model, reward
        give_back()
        reward = RewardModel.of_stage(saved, ctx.config.compute)
    reward.cache = cache = ScoreCache(ctx.workspace)
    for name in DOMAINS:
        if (count := len(reference.get(name, ()))) < FEW_ANSWERS:
            ctx.progress.say(
                f"the scale of the reward models rests on {count} held-out {name} answers of "
                f"{card.versions[0]}; under {FEW_ANSWERS} it is rough"
            )
    reward.calibrate(demos, [item for answers in reference.values() for item in answers])
    reward.card = replace(reward.card, reference={d: len(a) for d, a in reference.items()})
    _save_card(reward)
    write_mixture(ctx.out / "mixture.jsonl", rows)
    ctx.progress.begin("measure", None, "comparison")
    measured = measure(reward, heldout, settings.max_tokens_per_micro_batch)
    if domain == "safety":
        reward.card = replace(reward.card, separation=separation(measured))
        _save_card(reward)
        if (reason := unidentified(reward.card)) is not None:
            ctx.progress.say(f"thresholds on P(safe) are off with this model: {reason}")
    figures = evaluate(measured, domain, seed=ctx.seed, samples=BOOTSTRAP_SAMPLES)
    figures["cut"] = _without_end(ctx, reward, heldout)
    figures["versions"] = versions
    figures["near_copies"] = _near_training(ctx, measured, heldout, rows)
    figures["available"] = in_all
    figures["training"] = {
        "pairs": built.pairs,
        "labelled": built.labelled,
        "dropped_long": built.dropped_long,
        "cut_prompts": built.cut_prompts,
        "dropped_same": built.dropped_same,
        "steps": report.steps,
        "first_loss": report.first_loss,
        "last_loss": report.last_loss,
        "updated_share": report.updated_share,
        "notes": report.notes,
    }
    figures |= _beside_others(ctx, reward, measured, heldout, cache)
    if not distributed.is_first():
        return
    _write(ctx, figures, measured)
    _notes(ctx, figures, rows, built.tokens * settings.epochs)
    cache.report(ctx.progress)


def _is_guard(ctx: StageContext) -> bool:
    return bool(ctx.options.get("guard", False))


def _save_card(reward: RewardModel) -> None:
    if distributed.is_first():
        reward.save_card()


def _elements(
    ctx: StageContext, rows: list[Source], renderer: ChatRenderer, context: int | None
) -> Elements:
    """What is trained on; `context` is the most tokens that the model takes, if it says so."""
    settings = ctx.config.rewards
    domain = ctx.options["domain"]
    longest = min(settings.max_length, context or settings.max_length)
    built = build(
        [row.comparison for row in rows],
        renderer,
        margins=settings.margin_table,
        max_length=longest,
        labels=domain == "safety" and settings.auxiliary_weight > 0,
    )
    if not built.elements:
        raise DataError(
            f"no comparison is left to train the {domain} reward model on",
            where=f"{len(rows)} rows, {built.dropped_long} over {longest} tokens",
            remedy="raise rewards.max_length, or deliver comparisons of this domain",
        )
    if built.dropped_long:
        ctx.progress.say(
            f"left out {built.dropped_long} of {len(rows)} comparisons, whose answers leave a "
            f"prompt that must be cut less than a quarter of {longest} tokens"
        )
    if built.cut_prompts:
        ctx.progress.say(f"{built.cut_prompts} of {len(rows)} prompts were cut at the front")
    return built


def _train(
    ctx: StageContext, built: Elements, start: Path, renderer: ChatRenderer
) -> tuple[Any, Report]:
    """The trained model, with its adapter not merged, and the report of the training.

    A model that was sharded is whole again in the first process, and gone in the others.
    """
    settings = ctx.config.rewards
    device = resolve_device(ctx.config.compute.device)
    compute = ctx.config.compute.dtype
    sharded = ctx.config.compute.sharding == "full" and distributed.size() > 1

    def initial(*, by_rows: bool, place: torch.device = device) -> PreTrainedModel:
        head = derive_seed(ctx.seed, "head")
        model = initial_model(
            start, ctx.scratch, seed=head, dtype=compute, device=place, sharded=by_rows
        )
        if settings.lora is not None:
            inject(model, settings.lora, seed=derive_seed(ctx.seed, "adapter"))
        return model

    model = initial(by_rows=sharded and settings.lora is None)
    if sharded and not is_sharded(model):
        shard(model, None if compute == "float32" else getattr(torch, compute))
    series = Series(ctx.scratch / "series.jsonl") if distributed.is_first() else None
    report = train(
        model,
        built.elements,
        settings,
        pad=renderer.pad,
        seed=ctx.seed,
        checkpoints=ctx.scratch / "checkpoints",
        series=series,
        progress=ctx.progress,
        auxiliary_weight=settings.auxiliary_weight if ctx.options["domain"] == "safety" else 0.0,
        amp=autocast_format(model, compute),
    )
    if series is not None:
        shutil.copyfile(series.path, ctx.series.path)
    if sharded:
        weights = gather(model)
        del model
        give_back()
        if not distributed.is_first():
            return None, report
        model = initial(by_rows=False, place=torch.device("cpu"))  # to be saved only
        model.load_state_dict(weights)
    return model, report


def _comparisons(
    ctx: StageContext,
) -> tuple[list[Source], list[Source], dict[str, str], dict[str, int]]:
    """Training comparisons and those to measure of all batches, oldest first; batch → version;
    domain → held-out comparisons, of which a sample is measured."""
    store = PreferenceStore(ctx.workspace / "preferences")
    training: list[Source] = []
    heldout: list[Source] = []
    available: dict[str, int] = dict.fromkeys(DOMAINS, 0)
    batches = [
        (batch, version)
        for version, directory in ctx.inputs_of("intake").items()
        for batch in read_json(directory / "batch.json")["batches"]
    ]
    versions = {batch["id"]: version for batch, version in batches}
    origins = {batch["id"]: batch.get("origin", "own") for batch, _ in batches}
    excluded = recorded_exclusions(ctx.inputs_of("intake").values())
    for id in versions:
        rows = store.training([id], beside=list(versions), excluded=excluded)
        training += [Source(id, row, origins[id]) for row in rows]
        for domain in DOMAINS:
            rows = store.heldout([id], domain=domain, excluded=excluded)
            available[domain] += len(rows)
            every = [Source(id, row, origins[id]) for row in rows]
            heldout += sampled(every, MEASURE_ROWS, "measured")
    return training, heldout, versions, available


def _start(ctx: StageContext) -> Path:
    """The checkpoint to start from."""
    init = ctx.config.rewards.init
    if init in ("latest", "sft", "base"):
        return ctx.inputs["init"] / "model"
    return Path(init).expanduser()


def _beside_others(
    ctx: StageContext,
    reward: RewardModel,
    measured: Measured,
    heldout: list[Source],
    cache: ScoreCache,
) -> dict[str, Any]:
    """Figures that compare this model with the earlier versions', and a guard with the main model.

    All are measured on the same held-out comparisons of this model's domain.
    """
    sampling = {"seed": ctx.seed, "samples": BOOTSTRAP_SAMPLES}
    sources = [source for source in heldout if source.comparison.domain == reward.domain]
    own = measured.where(measured.domain == reward.domain)
    figures: dict[str, Any] = {}
    earlier = {
        name: _other(ctx, path, sources, cache)
        for name, path in ctx.inputs.items()
        if name == "previous_reward" or name.startswith("earlier_reward/")
    }
    newest = heldout[-1].batch if heldout else ""
    fresh = own.batch == newest
    before = earlier["previous_reward"][1] if "previous_reward" in earlier else None
    figures["newest"] = {
        "batch": newest,
        **moved(own.where(fresh), before.where(fresh) if before else None, **sampling),
    }
    models = dict(
        sorted((card.versions[-1], (card.pairs, rows)) for card, rows in earlier.values())
    )
    figures["growth"] = growth(
        {**models, reward.card.versions[-1]: (reward.card.pairs, own)}, **sampling
    )
    if "reward" in ctx.inputs:
        main = _other(ctx, ctx.inputs["reward"], sources, cache)[1]
        figures["agreement"] = agreement(main, own)
    return figures


def _other(
    ctx: StageContext, stage: Path, sources: list[Source], cache: ScoreCache
) -> tuple[RewardCard, Measured]:
    """Measure another stage's model on the same comparisons; cached scores are reused."""
    model = RewardModel.of_stage(stage / "model", ctx.config.compute, cache)
    return model.card, measure(model, sources, ctx.config.rewards.max_tokens_per_micro_batch)


def _without_end(ctx: StageContext, reward: RewardModel, heldout: list[Source]) -> dict[str, Any]:
    """How often an answer scores higher without its end, on held-out answers of the domain."""
    own = [source for source in heldout if source.comparison.domain == reward.domain]
    own = sampled(own, CUT_ROWS, "cut")
    higher = cut_scores_higher(reward, own, ctx.config.rewards.max_tokens_per_micro_batch)
    if len(higher) and higher.mean() > 0.5:
        ctx.progress.say(
            f"{higher.mean():.0%} of {len(higher)} held-out answers score higher without their "
            "end: selection and PPO never rate a cut answer above one that ended"
        )
    return {"higher": float(higher.mean()) if len(higher) else None, "answers": len(higher)}


def _near_training(
    ctx: StageContext, measured: Measured, heldout: list[Source], rows: list[Source]
) -> dict[str, Any]:
    """Accuracy on prompts that training has almost the same of, and on the others."""
    own = np.flatnonzero(measured.domain == ctx.options["domain"])
    asked = [question(heldout[number].comparison.conversation) for number in own]
    learned = (question(row.comparison.conversation) for row in rows)
    figures = beside_near_copies(measured.where(own), near_copies(asked, learned))
    near, far = figures["near"], figures["far"]
    if near["count"] and far["count"] and near["low"] > far["high"]:
        ctx.progress.say(
            f"{near['count']:.0f} of {len(own)} held-out comparisons are about a prompt that is "
            f"almost one of the training data's: of these {near['accuracy']:.1%} are ranked right, "
            f"of the others {far['accuracy']:.1%}, which is what to expect of new prompts"
        )
    return figures


def _write(ctx: StageContext, figures: dict[str, Any], measured: Measured) -> None:
    own = measured.where(measured.domain == figures["domain"])
    order = np.random.default_rng(derive_seed("shown pairs")).permutation(len(own))
    own = own.where(np.sort(order[:SHOWN_PAIRS]))
    lengths = (own.chosen_tokens - own.rejected_tokens).tolist()
    gaps = list(zip(lengths, (own.chosen - own.rejected).tolist(), strict=True))
    atomic_write_json(ctx.out / "evaluation.json", plain(figures))
    if figures["domain"] == "safety":
        write_labelled(ctx.out, *safe_labels(measured))
    pictures = {
        "accuracy.png": accuracy_picture(figures, figures["versions"]),
        "calibration.png": calibration_picture(figures, gaps),
    }
    if len(figures["growth"]["points"]) > 1:
        pictures["growth.png"] = growth_picture(figures["growth"], figures["domain"])
    for name, picture in pictures.items():
        atomic_write_bytes(ctx.out / name, picture)


def _notes(ctx: StageContext, figures: dict[str, Any], rows: list[Source], tokens: int) -> None:
    ctx.metric(**metrics(figures), tokens_trained=tokens)
    ids = [row.comparison.id for row in rows]
    ctx.dataset(f"{ctx.options['domain']} mixture", digest_json(ids), len(ids), "training")
