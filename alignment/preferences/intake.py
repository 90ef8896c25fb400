"""Takes a delivery in as one batch: reads, checks, deduplicates, splits, commits.

Every row is accepted, quarantined or dropped, and counted: accepted + quarantined + dropped = read.
The unit is the comparison: a ranking of K answers counts as its C(K,2) pairs. A process that dies
anywhere leaves no batch; the same delivery again is recognised by its digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import DOMAINS, Domain
from alignment.errors import AlignError, DataError, StoreError
from alignment.preferences.batch import Batch
from alignment.preferences.exports import load_keys
from alignment.preferences.identity import Seen, identify
from alignment.preferences.reading import Reading
from alignment.preferences.report import BatchReport
from alignment.preferences.rows import DISPUTED, DROPPED, REASONS, RowError
from alignment.preferences.sources import Record, Source, find_sources
from alignment.preferences.split import Sides, split
from alignment.preferences.store import PreferenceStore
from alignment.preferences.tally import Tally
from alignment.preferences.writer import BatchWriter
from alignment.utils.files import atomic_write_json, digest_json, sha256_file
from alignment.utils.progress import Progress, SilentProgress

STEP = 2000  # rows between two signs of life


class NothingNewError(DataError):
    """A delivery in which every sound row is in the store already, or nothing was decided."""


def ingest(
    store: PreferenceStore,
    paths: Sequence[str | Path],
    config: IntakeConfig,
    *,
    domain: Domain | None = None,
    format: str | None = None,
    against: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> BatchReport:
    """Take files in as one batch.

    Args:
        domain: of comparisons whose rows do not say; before `config.domains` and `config.domain`.
        format: reader to use for every file; before `config.format`; unset: detected.
        against: ids of the batches that count as earlier. `None`: all that stand, as for a delivery
            by people. A stage names those of its own lineage, so that its batch does not depend on
            what was made under other settings.

    Returns:
        The report; `already` is set where the same delivery was taken in before.

    Raises:
        DataError: unreadable or broken files, an unknown format, or too large a share of bad rows.
            The store is unchanged then.
        NothingNewError: every sound row is in the store already.
        StoreError: what the store holds already is damaged.
        AlignError: the store cannot be written (a full disk).
    """
    progress = progress or SilentProgress()
    sources = find_sources(paths)
    reading = Reading(config, domain, format, load_keys(store.root))
    try:
        return _take_in(store, sources, reading, against, progress)
    except OSError as error:
        raise AlignError(
            f"the delivery was not taken in: {error}",
            where=str(store.root),
            remedy="nothing of it stays behind; free some space or mend the directory, then again",
        ) from error


def _take_in(
    store: PreferenceStore,
    sources: Sequence[Source],
    reading: Reading,
    against: Sequence[str] | None,
    progress: Progress,
) -> BatchReport:
    identity = _identity(sources, reading, against)
    with store.writing(progress.say) as work:
        for batch in store.batches():
            if batch.manifest["identity"] == identity:
                return _known(batch)
        earlier = store.standing() if against is None else list(against)
        index = store.index(earlier)
        intake = _Intake(reading, Seen(index["id"]), BatchWriter(work))
        try:
            for number, source in enumerate(sources):
                intake.take(source, number, progress)
            sides = Sides.of(index["opening"], index["heldout"])
            heldout = intake.split(sides)
            intake.writer.finish(heldout)
        finally:
            intake.writer.close()
        intake.check_share(store, work, identity)
        leakage = _leakage(intake, sides, heldout)
        rows = intake.rows()
        counts = intake.counts(heldout)
        report: dict[str, Any] = {
            "batch": identity[:12],
            "sources": intake.sources,
            "rows": rows,
            "reasons": dict(sorted(intake.reasons.items())),
            "counts": counts,
            **intake.tally.to_dict(),
            "leakage": leakage,
        }
        atomic_write_json(work / "report.json", report)
        files = {
            name: sha256_file(work / name)
            for name in ("comparisons.parquet", "index.parquet", "quarantine.jsonl", "report.json")
        }
        batch = store.commit(
            work,
            {
                "identity": identity,
                "digest": digest_json([files["comparisons.parquet"], files["index.parquet"]]),
                "origin": "delivery" if against is None else "stage",
                "against": None if against is None else list(against),
                "sources": intake.sources,
                "rows": rows,
                "counts": counts,
                "files": files,
            },
        )
    return BatchReport(report, batch.directory, batch.sequence, already=False)


def _identity(sources: Sequence[Source], reading: Reading, against: Sequence[str] | None) -> str:
    """Digest of a delivery: its files' bytes; for a stage's, also all that shapes the batch."""
    delivered = sorted(source.digest for source in sources)
    if against is None:
        return digest_json(delivered)
    shape = reading.config.model_dump(mode="json", exclude={"path", "source"})
    return digest_json([delivered, shape, reading.domain, reading.format, list(against)])


def _known(batch: Batch) -> BatchReport:
    return BatchReport(batch.report, batch.directory, batch.sequence, already=True)


@dataclass
class _Intake:
    """One delivery on its way in."""

    reading: Reading
    seen: Seen
    writer: BatchWriter
    tally: Tally = field(default_factory=Tally)
    reasons: Counter[str] = field(default_factory=Counter)
    accepted: int = 0
    sources: list[dict[str, Any]] = field(default_factory=list)
    first: dict[str, str] = field(default_factory=dict)

    def take(self, source: Source, number: int, progress: Progress) -> None:
        """Read one source to its end."""
        reader, found = self.reading.open(source)
        progress.begin(f"reading {source.name}", None, "rows")
        before, line = self.accepted + sum(self.reasons.values()), 0
        for count, (record, draft) in enumerate(found, 1):
            if count % STEP == 0:
                progress.advance(STEP)
            line = record.line
            if isinstance(draft, RowError):
                self._refuse(draft, record, source.name)
                continue
            try:
                identity = identify(draft)
                self.seen.meet(identity)
            except RowError as error:
                self._refuse(error, record, source.name)
                continue
            self.writer.accept(draft, identity, number, line)
            self.tally.add(draft)
            self.accepted += 1
        read = self.accepted + sum(self.reasons.values()) - before
        progress.advance(read % STEP)
        self.sources.append(
            {
                "file": source.name,
                "sha256": source.digest,
                "bytes": source.size,
                "format": reader.name,
                "read": read,
            }
        )

    def _refuse(self, error: RowError, record: Record, file: str) -> None:
        self.reasons[error.reason] += 1
        self.first.setdefault(error.reason, f"{file}:{record.line}, field {error.field}")
        self.writer.refuse(error, file, record.line, record.raw, record.value)

    def rows(self) -> dict[str, int]:
        """accepted + quarantined + dropped = read."""
        dropped = sum(count for reason, count in self.reasons.items() if reason in DROPPED)
        refused = sum(self.reasons.values())
        return {
            "read": self.accepted + refused,
            "accepted": self.accepted,
            "quarantined": refused - dropped,
            "dropped": dropped,
        }

    def split(self, sides: Sides) -> np.ndarray:
        """Mask of held-out comparisons."""
        config = self.reading.config
        return split(
            self.writer.openings,
            self.writer.safety,
            sides,
            rows=config.heldout_rows,
            share=config.heldout_share,
        )

    def counts(self, heldout: np.ndarray) -> dict[str, dict[str, int]]:
        """Side → domain → comparisons."""
        safety = self.writer.safety
        return {
            side: {
                domain: int((mask & (safety == (domain == "safety"))).sum()) for domain in DOMAINS
            }
            for side, mask in (("training", ~heldout), ("heldout", heldout))
        }

    def check_share(self, store: PreferenceStore, work: Path, identity: str) -> None:
        """Refuse the delivery whole where too much is bad, or nothing is left.

        Raises:
            DataError: says which reasons, where first, and where the bad rows are kept.
        """
        rows = self.rows()
        limit = self.reading.config.max_quarantine
        bad = rows["quarantined"] - sum(self.reasons[reason] for reason in DISPUTED)
        share = bad / rows["read"] if rows["read"] else 0.0
        if share <= limit and self.accepted > 0:
            return
        atomic_write_json(
            work / "report.json", {"rows": rows, "reasons": dict(sorted(self.reasons.items()))}
        )
        kept = store.keep_refusal(work, identity)
        told = "; ".join(
            f"{count} × {REASONS[reason]} (first: {self.first[reason]})"
            for reason, count in self.reasons.most_common(5)
        )
        if share > limit:
            raise DataError(
                f"the delivery is refused: {bad} of {rows['read']} rows are bad "
                f"({share:.1%}, {limit:.1%} may be): {told}",
                where=str(kept / "quarantine.jsonl"),
                remedy=self._remedy(),
            )
        raise NothingNewError(
            f"nothing new in this delivery: {told or 'no rows at all'}",
            where=str(kept / "quarantine.jsonl"),
            remedy="the same comparisons are in the store already, or nothing was decided",
        )

    def _remedy(self) -> str:
        commonest = self.reasons.most_common(1)[0][0]
        if commonest == "unknown_domain":
            return "say what it is about: --domain safety (or intake.domain, intake.domains)"
        return (
            "mend the rows and send it again, force its format (intake.format, --format), or raise "
            "intake.max_quarantine: a refused file of the inbox is read again when it or intake's "
            "settings change"
        )


def _leakage(intake: _Intake, sides: Sides, heldout: np.ndarray) -> dict[str, int]:
    """Prompts known from earlier batches, and the proof that none stands on both sides."""
    openings = intake.writer.openings
    known, was_heldout = sides.look_up(openings)
    both = np.intersect1d(openings[heldout], openings[~heldout]).size
    across = int((known & (was_heldout != heldout)).sum())
    if both or across:  # cannot happen; if it does, no figure of this batch could be trusted
        raise StoreError(f"{both + across} prompts stand on both sides of the split")
    return {
        "rows_with_earlier_prompt": int(known.sum()),
        "rows_following_earlier_heldout": int(was_heldout.sum()),
        "prompts_on_both_sides": int(both) + across,
    }
