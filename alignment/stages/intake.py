"""Takes in the preferences that a version learns from.

* `intake.source: simulated`: annotators of the built-in world judge the pairs that the preceding
  version collected. Their verdicts pass the same reader and checks as any delivery.
* `split`: the arrival with the version's number, made by `base/prepare`.
* `inbox`: all deliveries that no version has taken in yet, from `align ingest` or from the inbox
  (`alignment.preferences.inbox`, which is scanned before a version starts).

With `simulated` and `split`, people's deliveries that no version has taken in yet join the
version's own batch. People's verdicts take precedence: the program's batch is checked against them.

The batches stay in the store. Outputs: batch.json (ids, digests and counts of this version's
batches), excluded.json (their rows that do not count, if there are any), report.json,
report-<id>.png.
"""

from __future__ import annotations

from pathlib import Path

from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.preferences.intake import NothingNewError, ingest
from alignment.preferences.report import BatchReport
from alignment.preferences.store import PreferenceStore
from alignment.preferences.what_counts import (
    EXCLUDED,
    counting,
    domains_lacking,
    excluded_rows,
    in_words,
    taken_back,
)
from alignment.reporting.batch_plots import draw
from alignment.stages.context import StageContext
from alignment.utils.files import (
    atomic_write_json,
    atomic_write_text,
    canonical_json,
    digest_json,
    read_json,
)
from alignment.utils.json_lines import read_jsonl

CODE_VERSION = "15"
# Batches that are in the store stay as they were taken in. 8: gold scores of the new world, whose
# pairs no older one had; 9: null says that an answer ended; 10: gold scores again; 11: a ranking
# says who wrote a cut answer; 12: several verdicts on one pair are put together;
# 13: their rows count in their own files; 14: openings without case and punctuation;
# 15: an interval of how often the newer version won.
KEEPS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14")
READS = ("intake", "world")


def run(ctx: StageContext) -> None:
    """Put this version's batches into the store and record their ids; see the module."""
    store = PreferenceStore(ctx.workspace / "preferences")
    ids = _deliveries(ctx, store)
    if ctx.config.intake.source != "inbox":
        own = _own(ctx, store, ids)
        ids = store.assign(ctx.version, [own, *ids] if own is not None else ids)
    if not ids:
        _go_on_without(ctx, store)
    _write(ctx, store, ids)


def _deliveries(ctx: StageContext, store: PreferenceStore) -> list[str]:
    """Ids of the deliveries that this version takes in.

    A version keeps the deliveries that it has taken in: after a kill, or when it is re-run, it gets
    the same ones, and later deliveries wait for the next version. One from which people took back
    a domain's last data takes in what waits.
    """
    taken = store.assignment(ctx.version)
    lost = taken is not None and taken_back(store, ctx.version, restored=False)
    if taken is None or (lost and domains_lacking(store, [*_earlier(ctx), *taken])):
        waiting = [batch.id for batch in store.unassigned()]
        if waiting:
            taken = store.assign(ctx.version, [*(taken or []), *waiting])
    # Read last: a delivery may have come in between.
    origins = {batch.id: batch.manifest["origin"] for batch in store.batches()}
    for id in taken or []:
        if id not in origins:
            ctx.progress.say(f"batch {id} is no longer in the store; ingest it again if needed")
    return [id for id in taken or [] if origins.get(id) == "delivery"]


def _go_on_without(ctx: StageContext, store: PreferenceStore) -> None:
    """Learn from the earlier versions' batches alone, if they suffice: all own were withdrawn.

    Raises:
        DataError: there is nothing to learn from.
    """
    if store.assignment(ctx.version) is None or domains_lacking(store, _earlier(ctx)):
        words = "; ".join(taken_back(store, ctx.version, restored=False))
        raise DataError(
            f"no new preferences have been delivered{f', and {words}' if words else ''}",
            where=str(store.root),
            remedy="`align ingest FILE ...`, then `align resume`"
            + ("; or `align batches restore BATCH`" if words else ""),
        )
    ctx.progress.say(f"{ctx.version} has no batch of its own: all it took in was withdrawn")


def _own(ctx: StageContext, store: PreferenceStore, delivered: list[str]) -> str | None:
    """Id of the batch that the program makes; None if people have judged all of it already, or
    took it back."""
    for batch in store.batches():
        event = batch.withdrawal if batch.manifest["origin"] != "delivery" else None
        if event is not None and ctx.version in event.versions:
            ctx.progress.say(event.in_words())
            return None
    config: IntakeConfig = ctx.config.intake
    make = _simulated if config.source == "simulated" else _arrival
    delivery = make(ctx, needed=not delivered)
    if delivery is None:
        return None
    # Later versions' deliveries count too: a prompt must never be on both sides of the split.
    facts = [
        batch.id
        for batch in store.batches()
        if batch.manifest["origin"] == "delivery" and batch.withdrawal is None
    ]
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

    Having no pairs is an error if they are `needed`: there is nothing else to learn from.
    """
    from alignment.world.annotators import label_rows

    pairs = read_jsonl(ctx.inputs["collect"] / "pairs.jsonl")
    if not pairs:
        if not needed:
            return None
        raise DataError(
            "no pairs were collected, so there is nothing to judge",
            where="collect.pairs",
            remedy="raise collect.pairs, or its temperatures if both sides are often the same",
        )
    ctx.progress.begin("simulated annotators judging", len(pairs), "pairs")
    rows = label_rows(pairs, ctx.config.world.annotators, ctx.seed)
    ctx.progress.advance(len(pairs))
    # A fixed name, because the batch list and the quarantine show it.
    path = ctx.scratch / f"simulated-{ctx.version}.jsonl"
    atomic_write_text(path, "".join(canonical_json(row) + "\n" for row in rows))
    return path


def _arrival(ctx: StageContext, needed: bool) -> Path | None:
    """The arrival of this version; see `_simulated`."""
    number = int(ctx.version.rpartition("-v")[2])
    path = ctx.inputs["prepare"] / "arrivals" / f"{number:02d}"
    if not path.is_dir():
        if not needed:
            return None
        raise DataError(
            f"there is no arrival for {ctx.version}",
            where="data.arrivals",
            remedy="`align ingest FILE`; or raise data.arrivals, which deals all data anew",
        )
    return path


def _earlier(ctx: StageContext) -> list[str]:
    """Batches of earlier versions, against which new comparisons are checked for duplicates."""
    return [
        batch["id"]
        for directory in ctx.inputs_of("intake").values()
        for batch in read_json(directory / "batch.json")["batches"]
    ]


def _write(ctx: StageContext, store: PreferenceStore, ids: list[str]) -> None:
    for left in ctx.out.iterdir():
        left.unlink()  # by an attempt that was broken off, when other rows may have counted
    batches = []
    reports = []
    totals: dict[str, float] = {}
    excluded = {id: rows for id, rows in excluded_rows(store).items() if id in ids}
    for id in ids:
        batch = store.batch(id)
        report = BatchReport(batch.report, batch.directory, batch.sequence, already=True)
        counts = counting(batch, excluded)
        batches.append(
            {"id": id, "digest": batch.digest, "rows": batch.manifest["rows"], "counts": counts}
        )
        if batch.data_origin != "own":
            batches[-1]["origin"] = batch.data_origin
        reports.append(report.values)
        if batch.comparisons:  # else it only corrects earlier ones to ties
            draw(report.values, ctx.out / f"report-{id}.png")
        content = batch.digest
        if id in excluded:
            content = digest_json([batch.digest, sorted(excluded[id])])
            for line in in_words(excluded[id]):
                ctx.progress.say(f"batch {batch.name}: {line}")
        ctx.dataset(f"preferences {id}", content, sum(counts["training"].values()), "training")
        # A separate name, because MLflow keeps only one of two inputs with equal name and digest.
        heldout = sum(counts["heldout"].values())
        ctx.dataset(f"preferences {id} held out", content, heldout, "evaluation")
        for name, count in batch.manifest["rows"].items():
            totals[name] = totals.get(name, 0) + count
        for side, domains in counts.items():
            for domain, count in domains.items():
                totals[f"{side}/{domain}"] = totals.get(f"{side}/{domain}", 0) + count
    if excluded:
        rows = {id: sorted(found) for id, found in excluded.items()}
        atomic_write_json(ctx.out / EXCLUDED, rows)
        ctx.metric(excluded=sum(map(len, rows.values())))
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
        newer = reports[0]["newer_wins"]
        people = reports[0]["annotators"]
        figures = {
            "longer_wins": longer,
            "newer_wins": newer["share"],
            "newer_wins_low": newer.get("low"),
            "newer_wins_high": newer.get("high"),
            "annotator_agreement": people["agreement"],
            "annotator_alpha": people.get("alpha"),
        }
        ctx.metric(**{name: value for name, value in figures.items() if value is not None})
