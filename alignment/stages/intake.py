"""Takes in the preferences that a version learns from.

* `intake.source: simulated`: the built-in world's annotators judge what the preceding version's
  `collect` sampled, and their verdicts go through the same reader and checks as any delivery;
* `split`: the arrival with the version's number, made by `base/prepare`;
* `inbox`: every delivery that no version has taken in yet, from `align ingest` or from
  the inbox (`alignment.preferences.inbox`, which whoever starts a version looks through first).

With `simulated` and `split`, deliveries by people that no version has taken in yet join the
version's own batch: a person's verdict stands, and what the program makes is checked against it.

The batches stay in the store. Outputs: batch.json (ids, digests and counts of this version's
batches), report.json, report-<id>.png.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.preferences.intake import NothingNewError, ingest
from alignment.preferences.report import BatchReport
from alignment.preferences.store import PreferenceStore
from alignment.reporting.batch_plots import draw
from alignment.stages.context import StageContext
from alignment.utils.files import atomic_write_json, atomic_write_text, canonical_json, read_json

CODE_VERSION = "2"
READS = ("intake", "world")


def run(ctx: StageContext) -> None:
    """Bring this version's batches into the store and note which they are; see the module."""
    store = PreferenceStore(ctx.workspace / "preferences")
    ids = _deliveries(ctx, store)
    if ctx.config.intake.source == "inbox":
        if not ids:
            raise DataError(
                "no new preferences have been delivered",
                where=str(store.root),
                remedy="`align ingest FILE ...`, then `align resume`",
            )
    else:
        own = _own(ctx, store, ids)
        ids = [own, *ids] if own is not None else ids
        store.assign(ctx.version, ids)
    _write(ctx, store, ids)


def _deliveries(ctx: StageContext, store: PreferenceStore) -> list[str]:
    """Ids of the deliveries that this version takes in.

    What a version has taken in stays its own: killed after that, or run again, it gets the same
    batches, and what came in the meantime waits for the next version.
    """
    taken = store.assignment(ctx.version)
    if taken:
        known = {batch.id: batch for batch in store.batches()}
        for id in taken:
            if id not in known:
                ctx.progress.say(f"batch {id} is no longer in the store; ingest it again if needed")
        origins = {id: batch.manifest["origin"] for id, batch in known.items()}
        return [id for id in taken if origins.get(id) == "delivery"]
    ids = [batch.id for batch in store.unassigned()]
    if ids:
        store.assign(ctx.version, ids)
    return ids


def _own(ctx: StageContext, store: PreferenceStore, delivered: list[str]) -> str | None:
    """Id of the batch that the program makes itself; None if people judged all of it before."""
    config: IntakeConfig = ctx.config.intake
    make = _simulated if config.source == "simulated" else _arrival
    delivery = make(ctx, needed=not delivered)
    if delivery is None:
        return None
    # Deliveries of later versions too: one prompt must not stand on both sides, ever.
    facts = [batch.id for batch in store.batches() if batch.manifest["origin"] == "delivery"]
    against = list(dict.fromkeys([*_earlier(ctx), *facts]))
    try:
        return ingest(store, [delivery], config, against=against, progress=ctx.progress).id
    except NothingNewError as error:
        if not delivered:
            raise
        ctx.progress.say(f"{error.message}; {ctx.version} takes in what people delivered")
        return None


def _simulated(ctx: StageContext, needed: bool) -> Path | None:
    """Have the world's annotators judge the collected pairs; returns their delivery.

    Args:
        needed: there is nothing else to learn from, so that no pairs at all are an error.
    """
    from alignment.world.annotators import label_rows
    from alignment.world.gold_scorer import GoldScorer

    pairs = _json_lines(ctx.inputs["collect"] / "pairs.jsonl")
    if not pairs and not needed:
        return None
    if not pairs:
        raise DataError(
            "no pairs were collected, so there is nothing to judge",
            where="collect.pairs",
            remedy="raise collect.pairs, or its temperatures where both sides say the same",
        )
    ctx.progress.begin("simulated annotators judging", len(pairs), "pairs")
    rows = label_rows(pairs, GoldScorer(ctx.config.world, ctx.seed), ctx.seed)
    ctx.progress.advance(len(pairs))
    # A fixed name: it is shown in the batch list and stands in the quarantine.
    path = ctx.scratch / f"simulated-{ctx.version}.jsonl"
    atomic_write_text(path, "".join(canonical_json(row) + "\n" for row in rows))
    return path


def _arrival(ctx: StageContext, needed: bool) -> Path | None:
    """The arrival that belongs to this version; see `_simulated`."""
    number = int(ctx.version.rpartition("-v")[2])
    path = ctx.inputs["prepare"] / "arrivals" / f"{number:02d}"
    if not path.is_dir() and not needed:
        return None
    if not path.is_dir():
        raise DataError(
            f"there is no arrival for {ctx.version}",
            where="data.arrivals",
            remedy=f"set data.arrivals to {number} or more, or `align ingest FILE`",
        )
    return path


def _earlier(ctx: StageContext) -> list[str]:
    """Batches of the versions before this one: what is new is new beside them."""
    return [
        batch["id"]
        for name, directory in ctx.inputs.items()
        if name.startswith("intake/")
        for batch in read_json(directory / "batch.json")["batches"]
    ]


def _write(ctx: StageContext, store: PreferenceStore, ids: list[str]) -> None:
    batches = []
    reports = []
    totals: dict[str, float] = {}
    for id in ids:
        batch = store.batch(id)
        report = BatchReport(batch.report, batch.directory, batch.sequence, already=True)
        batches.append(
            {
                "id": id,
                "digest": batch.digest,
                "rows": batch.manifest["rows"],
                "counts": batch.counts,
            }
        )
        reports.append(report.values)
        draw(report.values, ctx.out / f"report-{id}.png")
        trained = sum(batch.counts["training"].values())
        held = sum(batch.counts["heldout"].values())
        ctx.dataset(f"preferences {id}", batch.digest, trained, "training")
        # MLflow keeps one of two inputs with the same name and digest: hence a name of its own.
        ctx.dataset(f"preferences {id} held out", batch.digest, held, "evaluation")
        for name, count in batch.manifest["rows"].items():
            totals[name] = totals.get(name, 0) + count
        for side, counts in batch.counts.items():
            for domain, count in counts.items():
                totals[f"{side}/{domain}"] = totals.get(f"{side}/{domain}", 0) + count
    leaked = store.leaked([*_earlier(ctx), *ids])
    if leaked:
        ctx.progress.say(
            f"{leaked} prompts are held out in one batch and trained on in another, made under "
            "other settings; no reward model is trained on them"
        )
    atomic_write_json(ctx.out / "batch.json", {"version": ctx.version, "batches": batches})
    atomic_write_json(ctx.out / "report.json", {"batches": reports})
    ctx.metric(batches=len(ids), leaked_prompts=leaked, **totals)
    if len(reports) == 1:
        longer = reports[0]["longer_wins"]["share"]
        newer = reports[0]["newer_wins"]["share"]
        ctx.metric(
            **{
                name: value
                for name, value in (("longer_wins", longer), ("newer_wins", newer))
                if value is not None
            }
        )


def _json_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
