"""Takes in the preferences that a version learns from.

* `intake.source: simulated`: the built-in world's annotators judge what the preceding version's
  `collect` sampled, and their verdicts go through the same reader and checks as any delivery;
* `split`: the arrival with the version's number, made by `base/prepare`;
* `inbox`: every delivery that no version has taken in yet, from `align ingest` and from the
  directory `intake.path`.

The batches stay in the store. Outputs: batch.json (ids, digests and counts of this version's
batches), report.json, report-<id>.png.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.files import atomic_write_json, atomic_write_text, canonical_json, read_json
from alignment.preferences.intake import ingest
from alignment.preferences.report import BatchReport
from alignment.preferences.sources import complete_files
from alignment.preferences.store import PreferenceStore
from alignment.stages.context import StageContext

CODE_VERSION = "1"
READS = ("intake", "world")


def run(ctx: StageContext) -> None:
    """Bring this version's batches into the store and note which they are; see the module."""
    store = PreferenceStore(ctx.workspace / "preferences")
    config: IntakeConfig = ctx.config.intake
    if config.source == "inbox":
        ids = _inbox(ctx, store, config)
    else:
        delivery = _simulated(ctx) if config.source == "simulated" else _arrival(ctx)
        report = ingest(store, [delivery], config, against=_earlier(ctx), progress=ctx.progress)
        ids = [report.id]
    store.assign(ctx.version, ids)
    _write(ctx, store, ids)


def _simulated(ctx: StageContext) -> Path:
    """Have the world's annotators judge the collected pairs; returns their delivery."""
    from alignment.world.annotators import label_rows
    from alignment.world.judge import World

    pairs = _json_lines(ctx.inputs["collect"] / "pairs.jsonl")
    if not pairs:
        raise DataError(
            "no pairs were collected, so there is nothing to judge",
            where="collect.pairs",
            remedy="raise collect.pairs, or its temperatures where both sides say the same",
        )
    ctx.progress.begin("simulated annotators judging", len(pairs), "pairs")
    rows = label_rows(pairs, World(ctx.config.world, ctx.seed), ctx.seed)
    ctx.progress.advance(len(pairs))
    # A fixed name: it is shown in the batch list and stands in the quarantine.
    path = ctx.scratch / f"simulated-{ctx.version}.jsonl"
    atomic_write_text(path, "".join(canonical_json(row) + "\n" for row in rows))
    return path


def _arrival(ctx: StageContext) -> Path:
    """The arrival that belongs to this version."""
    number = int(ctx.version.rpartition("-v")[2])
    path = ctx.inputs["prepare"] / "arrivals" / f"{number:02d}"
    if not path.is_dir():
        raise DataError(
            f"there is no arrival for {ctx.version}",
            where="data.arrivals",
            remedy=f"set data.arrivals to {number} or more",
        )
    return path


def _inbox(ctx: StageContext, store: PreferenceStore, config: IntakeConfig) -> list[str]:
    """Ids of the deliveries that this version takes in.

    What a version has taken in stays its own: killed after that, or run again, it gets the same
    batches, and what came in the meantime waits for the next version.
    """
    taken = store.assignment(ctx.version)
    if taken is not None:
        return taken
    if config.path is not None:
        directory = Path(config.path)
        if not directory.is_dir():
            raise DataError(
                f"no directory {directory}", where="intake.path", remedy="create it, or unset it"
            )
        for path in complete_files(directory):
            ingest(store, [path], config, progress=ctx.progress)
    ids = [batch.id for batch in store.unassigned()]
    if not ids:
        raise DataError(
            "no new preferences have been delivered",
            where=config.path or str(store.root),
            remedy="`align ingest FILE ...`, then `align resume`",
        )
    return ids


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
        report.picture(ctx.out / f"report-{id}.png")
        trained = sum(batch.counts["training"].values())
        held = sum(batch.counts["heldout"].values())
        ctx.dataset(f"preferences {id}", batch.digest, trained, "training")
        ctx.dataset(f"preferences {id}", batch.digest, held, "evaluation")
        for name, count in batch.manifest["rows"].items():
            totals[name] = totals.get(name, 0) + count
        for side, counts in batch.counts.items():
            for domain, count in counts.items():
                totals[f"{side}/{domain}"] = totals.get(f"{side}/{domain}", 0) + count
    atomic_write_json(ctx.out / "batch.json", {"version": ctx.version, "batches": batches})
    atomic_write_json(ctx.out / "report.json", {"batches": reports})
    ctx.metric(batches=len(ids), **totals)
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
