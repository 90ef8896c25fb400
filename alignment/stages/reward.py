"""Train and measure one reward model (`options.domain`: helpfulness or safety).

From the chat checkpoint (`rewards.init`), on the mixture of all batches so far; measured on the
held-out part of every batch beside the previous version's reward model, which has not yet seen
the new batch. Departures from Llama 2: the scale (mean, deviation) is stored with the model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from alignment.errors import DataError
from alignment.files import atomic_write_json, digest_json, read_json
from alignment.models.chat import ChatRenderer
from alignment.models.load import load_tokenizer, resolve_device
from alignment.preferences.schema import DOMAINS
from alignment.preferences.store import PreferenceStore
from alignment.rewards.adapter import inject, merge
from alignment.rewards.elements import build
from alignment.rewards.evaluate import Measured, evaluate, headline, measure
from alignment.rewards.initial import initial_model
from alignment.rewards.mixture import Source, mix, write_mixture
from alignment.rewards.model import RewardCard, RewardModel
from alignment.rewards.reference import demonstrations, reference_answers
from alignment.rewards.train import train
from alignment.seeds import derive_seed
from alignment.series import Series
from alignment.stages.context import StageContext

CODE_VERSION = "2"
READS = ("rewards", "compute")


def run(ctx: StageContext) -> None:
    """Write `model/` with `reward.json`, `mixture.jsonl`, `evaluation.json` and the curve."""
    settings = ctx.config.rewards
    domain = ctx.options["domain"]
    device = resolve_device(ctx.config.compute.device)
    amp = torch.bfloat16 if ctx.config.compute.dtype == "bfloat16" else None
    training, heldout, versions = _comparisons(ctx)
    rows = mix(domain, training, settings.mixture, ctx.seed)
    start = _start(ctx)
    tokenizer = load_tokenizer(start)
    renderer = ChatRenderer(tokenizer)
    built = build(
        [row.comparison for row in rows],
        renderer,
        margins=settings.margin_table,
        max_length=settings.max_length,
        labels=domain == "safety" and settings.auxiliary_weight > 0,
    )
    if not built.elements:
        raise DataError(
            f"no comparison is left to train the {domain} reward model on",
            where=f"{len(rows)} rows, {built.dropped_long} over {settings.max_length} tokens",
            remedy="raise rewards.max_length, or deliver comparisons of this domain",
        )
    if built.dropped_long:
        ctx.progress.say(
            f"{built.dropped_long} of {len(rows)} comparisons are longer than "
            f"{settings.max_length} tokens and left out"
        )
    model = initial_model(start, ctx.scratch, seed=derive_seed(ctx.seed, "head"), device=device)
    inject(model, settings.adapter, seed=derive_seed(ctx.seed, "adapter"))
    series = Series(ctx.scratch / "series.jsonl")
    report = train(
        model,
        built.elements,
        settings,
        pad=renderer.pad,
        seed=ctx.seed,
        checkpoints=ctx.scratch / "checkpoints",
        series=series,
        progress=ctx.progress,
        auxiliary_weight=settings.auxiliary_weight if domain == "safety" else 0.0,
        amp=amp,
    )
    if settings.adapter.method == "lora":
        merge(model)
    shutil.copyfile(series.path, ctx.series.path)
    card = RewardCard(
        domain=domain,
        margin=settings.margin,
        max_length=settings.max_length,
        versions=tuple(versions),
        pairs=built.pairs,
    )
    reward = RewardModel(model, tokenizer, card)
    demos = demonstrations(
        ctx.inputs["prepare"] / "demonstrations.jsonl", renderer, settings.reference_rows
    )
    reward.calibrate(demos, reference_answers(heldout, renderer, settings.reference_rows))
    reward.save(ctx.out / "model")
    write_mixture(ctx.out / "mixture.jsonl", rows)
    ctx.progress.begin("measure", None, "comparison")
    measured = measure(reward, heldout, settings.tokens_per_batch)
    figures = evaluate(measured, domain, seed=ctx.seed, samples=settings.bootstrap_samples)
    figures["training"] = {
        "pairs": built.pairs,
        "dropped_long": built.dropped_long,
        "dropped_same": built.dropped_same,
        "tokens": sum(len(s) for e in built.elements for s in e.sequences) * settings.epochs,
        "steps": report.steps,
        "first_loss": report.first_loss,
        "last_loss": report.last_loss,
        "notes": report.notes,
    }
    figures["newest"] = _against_previous(ctx, domain, training, heldout, measured)
    atomic_write_json(ctx.out / "evaluation.json", _plain(figures))
    _notes(ctx, figures, rows)


def _comparisons(ctx: StageContext) -> tuple[list[Source], list[Source], list[str]]:
    """Training and held-out comparisons of all batches so far, oldest first, and the versions."""
    store = PreferenceStore(ctx.workspace / "preferences")
    settings = ctx.config.rewards
    training: list[Source] = []
    heldout: list[Source] = []
    versions = []
    for name, directory in ctx.inputs.items():
        if not name.startswith("intake/"):
            continue
        versions.append(name.removeprefix("intake/"))
        for batch in read_json(directory / "batch.json")["batches"]:
            name = batch["id"]
            training += [Source(name, row) for row in store.training([name])]
            for domain in DOMAINS:
                held = store.heldout([name], domain=domain)[: settings.measure_rows]
                heldout += [Source(name, row) for row in held]
    return training, heldout, versions


def _start(ctx: StageContext) -> Path:
    """The checkpoint to start from."""
    init = ctx.config.rewards.init
    if init in ("latest", "sft", "base"):
        return ctx.inputs["init"] / "model"
    return Path(init).expanduser()


def _against_previous(
    ctx: StageContext,
    domain: str,
    training: list[Source],
    heldout: list[Source],
    measured: Measured,
) -> dict[str, Any]:
    """How far the world has moved: the previous model on the newest batch, which it never saw."""
    newest = (training or heldout)[-1].batch
    own = measured.where((measured.batch == newest) & (measured.domain == domain))
    found: dict[str, Any] = {
        "batch": newest,
        "accuracy": float(own.right.mean()) if len(own) else float("nan"),
    }
    if "previous_reward" in ctx.inputs:
        previous = RewardModel.load(ctx.inputs["previous_reward"] / "model")
        rows = [s for s in heldout if s.batch == newest and s.comparison.domain == domain]
        before = measure(previous, rows, ctx.config.rewards.tokens_per_batch)
        found["previous_accuracy"] = float(before.right.mean()) if len(before) else float("nan")
    return found


def _notes(ctx: StageContext, figures: dict[str, Any], rows: list[Source]) -> None:
    training = figures["training"]
    ctx.metric(
        **headline(figures),
        pairs=training["pairs"],
        tokens_trained=training["tokens"],
        dropped=training["dropped_long"] + training["dropped_same"],
        first_loss=training["first_loss"],
        last_loss=training["last_loss"],
        new_batch_accuracy=figures["newest"]["accuracy"],
    )
    if "previous_accuracy" in figures["newest"]:
        ctx.metric(previous_accuracy=figures["newest"]["previous_accuracy"])
    ids = [row.comparison.id for row in rows]
    ctx.dataset(f"{ctx.options['domain']} mixture", digest_json(ids), len(ids), "training")


def _plain(value: Any) -> Any:
    """JSON has no NaN: an undefined figure is null; digits beyond the eighth are noise."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.8g}") if abs(value) < float("inf") else None
    return value
