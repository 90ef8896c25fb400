"""Ingests a delivery as one batch: reads, checks, deduplicates, splits, commits.

Every row is counted as accepted, quarantined or dropped: accepted + quarantined + dropped = read.
The unit is the comparison: a ranking of K answers counts as its C(K,2) pairs. A process that dies
midway leaves no batch. A repeated delivery is recognised by its digest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import DOMAINS, Domain, Origin
from alignment.errors import AlignError, DataError, StoreError
from alignment.preferences.corrections import Standing
from alignment.preferences.exports import load_keys
from alignment.preferences.gather import Gathering, Repeats, Row, combined
from alignment.preferences.identity import identify
from alignment.preferences.refusals import Refusals
from alignment.preferences.report import BatchReport
from alignment.preferences.rows import CONTRADICTIONS, SAY_SO, Draft, RowError
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import Record, Source, find_sources
from alignment.preferences.split import EarlierSplit, split
from alignment.preferences.store import Batch, PreferenceStore, read_index
from alignment.preferences.tally import Tally, printable
from alignment.preferences.what_counts import excluded_rows
from alignment.preferences.writer import BatchWriter
from alignment.utils.files import atomic_write_json, digest_json, sha256_file
from alignment.utils.progress import Progress, SilentProgress

MAX_COLUMNS = 200  # of those that the report lists as not used
STEP = 2000  # rows between two updates of the progress bar


class NothingNewError(DataError):
    """A delivery without a new comparison: all rows are duplicates, ties or not annotated."""


class WithdrawnError(DataError):
    """A delivery that was taken in before, and withdrawn since."""

    def __init__(self, batch: Batch):
        assert batch.withdrawal is not None
        super().__init__(
            f"this delivery was taken in before, and {batch.withdrawal.in_words()}",
            where=str(batch.directory),
            remedy=f"`align batches restore {batch.sequence}` if it shall count after all; a "
            "corrected file is a new delivery",
        )


def ingest(
    store: PreferenceStore,
    paths: Sequence[str | Path],
    config: IntakeConfig,
    *,
    domain: Domain | None = None,
    format: str | None = None,
    against: Sequence[str] | None = None,
    correct: bool = False,
    origin: Origin = "own",
    progress: Progress | None = None,
) -> BatchReport:
    """Ingest files as one batch.

    Args:
        paths: files or directories of preferences, or names of hub datasets.
        domain: domain of rows without one; overrides `config.domains` and `config.domain`.
        format: format of every file; overrides `config.format`. None: detected for each file.
        against: ids of the batches that count as earlier. None: all current batches, as for a
            delivery by people. A stage names the batches of its own lineage, so that its batch does
            not depend on results made under other settings.
        correct: every verdict that differs from the same person's earlier one corrects it.
        origin: where the comparisons come from, for the reward models' mixtures.

    Returns:
        The report; `already` is set if the same delivery was ingested before.

    Raises:
        DataError: unreadable or broken files, an unknown format, or too large a share of bad rows.
            The store is unchanged then.
        NothingNewError: the delivery holds no new comparison.
        WithdrawnError: the same delivery was taken in and withdrawn; it stays so.
        StoreError: the store is damaged.
        AlignError: the store cannot be written (a full disk).
    """
    progress = progress or SilentProgress()
    sources = find_sources(paths)
    reader = SourceReader(config, domain, format, load_keys(store.root))
    try:
        return _take_in(store, sources, reader, against, correct, origin, progress)
    except OSError as error:
        raise AlignError(
            f"the delivery was not taken in: {error}",
            where=str(store.root),
            remedy="free some space or repair the directory, then try again; nothing was stored",
        ) from error


def _take_in(
    store: PreferenceStore,
    sources: Sequence[Source],
    reader: SourceReader,
    against: Sequence[str] | None,
    correct: bool,
    origin: Origin,
    progress: Progress,
) -> BatchReport:
    with store.writing(progress.say) as work:
        if against is not None:
            against = _as_before(store, sources, reader, against)
        identity = _identity(store, sources, reader, against, correct, origin)
        for batch in store.batches():
            if batch.manifest["identity"] == identity:
                if batch.withdrawal is not None and against is None:
                    raise WithdrawnError(batch)
                return BatchReport(batch.report, batch.directory, batch.sequence, already=True)
        intake, heldout, sides = _read(store, sources, reader, against, correct, progress, work)
        standing = intake.standing
        intake.check_share(store, work, identity)
        leakage = _leakage(intake, sides, heldout)
        rows = intake.rows()
        counts = intake.counts(heldout)
        report: dict[str, Any] = {
            "batch": identity[:12],
            "sources": intake.sources,
            "rows": rows,
            "reasons": dict(sorted(intake.refusals.reasons.items())),
            "counts": counts,
            **intake.tally.to_dict(),
            "leakage": leakage,
        }
        if origin != "own":
            report["data_origin"] = origin
        if standing.corrections:
            report["corrections"] = standing.corrections
        if standing.beside.total():
            report["beside"] = dict(standing.beside)
        atomic_write_json(work / "report.json", report)
        files = {path.name: sha256_file(path) for path in sorted(work.iterdir())}
        manifest: dict[str, Any] = {
            "identity": identity,
            "digest": digest_json([files["comparisons.parquet"], files["index.parquet"]]),
            "origin": "delivery" if against is None else "stage",
            "data_origin": origin,
            "against": None if against is None else list(against),
            "sources": intake.sources,
            "rows": rows,
            "counts": counts,
            "files": files,
        }
        if standing.replaced:
            manifest["replaces"] = standing.replaced
        batch = store.commit(work, manifest)
    return BatchReport(report, batch.directory, batch.sequence, already=False)


def _read(
    store: PreferenceStore,
    sources: Sequence[Source],
    reader: SourceReader,
    against: Sequence[str] | None,
    correct: bool,
    progress: Progress,
    work: Path,
) -> tuple[_Intake, np.ndarray, EarlierSplit]:
    """The delivery as read, with its files in `work`, its held-out rows and the earlier split."""
    repeats = Repeats()
    while True:
        standing, sides = _earlier(store, against)
        intake = _Intake(reader, standing, BatchWriter(work), Gathering(repeats), correct)
        try:
            for number in range(len(sources)):
                intake.take(sources, number, progress)
            repeats = standing.repeats
            if repeats.several:  # after a second reading there are none
                progress.say(
                    f"{len(repeats.several):,} pairs have several verdicts: reading once more to "
                    "put them together"
                )
                continue
            heldout = intake.split(sides)
            intake.writer.finish(heldout)
            return intake, heldout, sides
        finally:
            intake.writer.close()


def _earlier(
    store: PreferenceStore, against: Sequence[str] | None
) -> tuple[Standing, EarlierSplit]:
    """What a delivery is compared with, and the sides of the split that it must keep to."""
    excluded = excluded_rows(store)
    if against is None:
        batches = store.known()
    else:
        by_id = {batch.id: batch for batch in store.batches()}
        batches = [by_id[id] for id in against]
    counting = [batch for batch in batches if batch.withdrawal is None]
    standing = Standing(
        batches,
        [read_index(batch).column("id").to_numpy() for batch in batches],
        excluded,
        everything=[batch.id for batch in batches if batch.withdrawal is not None],
        correcting=against is None,
    )
    index = store.index([batch.id for batch in counting])
    return standing, EarlierSplit.of(index["opening"], index["heldout"])


def _identity(
    store: PreferenceStore,
    sources: Sequence[Source],
    reader: SourceReader,
    against: Sequence[str] | None,
    correct: bool,
    origin: Origin = "own",
) -> str:
    """Digest of a delivery's bytes; a stage's delivery adds all settings that shape the batch."""
    delivered = sorted(source.digest for source in sources)
    if against is None:
        # The same files once more, now as corrections or of another origin, are another delivery.
        marks = ["corrections"] * correct + ["open"] * (origin == "open")
        return digest_json([delivered, *marks] if marks else delivered)
    shape = reader.config.model_dump(mode="json", exclude={"path", "source"})
    excluded = {id: sorted(rows) for id, rows in excluded_rows(store).items() if id in against}
    more = [excluded] if excluded else []
    return digest_json([delivered, shape, reader.domain, reader.format, list(against), *more])


def _as_before(
    store: PreferenceStore, sources: Sequence[Source], reader: SourceReader, against: Sequence[str]
) -> Sequence[str]:
    """What a stage's delivery is compared with: without the deliveries that came after its batch,
    if it has one in use. They were compared with that when they came, and may correct it."""
    batches = store.batches()
    for batch in batches:
        then = batch.manifest["against"]
        if then is not None and batch.versions:
            later = {
                other.id
                for other in batches
                if other.sequence > batch.sequence and other.manifest["origin"] == "delivery"
            }
            same = then == [id for id in against if id in then or id not in later]
            if same and batch.manifest["identity"] == _identity(
                store, sources, reader, then, correct=False
            ):
                return list(then)
    return against


@dataclass
class _Intake:
    """State of one delivery while it is read."""

    reader: SourceReader
    standing: Standing
    writer: BatchWriter
    gathering: Gathering
    correct: bool = False
    tally: Tally = field(default_factory=Tally)
    refusals: Refusals = field(default_factory=Refusals)
    accepted: int = 0
    sources: list[dict[str, Any]] = field(default_factory=list)

    def take(self, sources: Sequence[Source], number: int, progress: Progress) -> None:
        """Read one of the sources to its end."""
        source = sources[number]
        unused: Counter[str] = Counter()
        row_format, drafts = self.reader.open(source, unused)
        progress.begin(f"reading {source.name}", None, "rows")
        read, line, records = 0, 0, 0
        for record, draft in drafts:
            read += 1  # `self.read` counts rows of gathered pairs with the last, in another file
            if read % STEP == 0:
                progress.advance(STEP)
            records += record.line != line
            line = record.line
            try:
                if isinstance(draft, RowError):
                    if draft.tied is not None:
                        self._tie(draft.tied)
                    raise draft
                draft.corrects = draft.corrects or self.correct
                identity = identify(draft)
                row = Row(draft, identity, record, number)
                if self.gathering.wants(identity):
                    self.standing.judge(draft, identity)
                    self._together(self.gathering.add(row), sources)
                else:
                    self._accept(row)
            except RowError as error:
                self._refuse(error, record, source.name)
        progress.advance(read % STEP)
        self.sources.append(
            {
                "file": source.name,
                "sha256": source.digest,
                "bytes": source.size,
                "format": row_format.name,
                "read": read,
                "unused": {
                    printable(name)[:200]: {"rows": rows, "share": round(rows / records, 4)}
                    for name, rows in unused.most_common(MAX_COLUMNS)
                },
            }
        )

    def _accept(self, row: Row, *, named: bool = True) -> None:
        """Raises the `RowError` if the store or the batch has it."""
        draft, identity, record, source = row
        self.standing.add(draft, identity)
        self.writer.accept(draft, identity, source, record.line)
        self.tally.add(draft, opening=identity.opening, named=named)
        self.accepted += 1

    def _together(self, rows: Sequence[Row], sources: Sequence[Source]) -> None:
        """Make one comparison of all rows on a pair, at the first one's place."""
        if not rows:
            return
        first, *others = rows
        for row in others:
            error = RowError(
                "joined", "row", f"line {first.record.line} of {sources[first.source].name}"
            )
            self._refuse(error, row.record, sources[row.source].name)
        try:
            draft = combined([row.draft for row in rows], self.reader.config)
            # Copies cannot be told from people who agree where nobody is named, and copies of
            # unanimous pairs are dropped: agreement is only measured where people are named.
            named = all(name is not None for name, _ in draft.people or [])
            self._accept(first._replace(draft=draft, identity=identify(draft)), named=named)
        except RowError as error:
            if error.tied is not None:
                self._tie(error.tied)
            if any(name is None for name, _ in error.people or []):
                error.people = None
            self._refuse(error, first.record, sources[first.source].name)

    def _tie(self, draft: Draft) -> None:
        """A tie takes the place of an earlier verdict that it corrects."""
        draft.corrects = draft.corrects or self.correct
        try:
            identity = identify(draft)
        except RowError:
            return  # broken text, which no batch has
        row = self.standing.tie(draft, identity)
        if row is not None:
            self.writer.tie(draft, row)

    def _refuse(self, error: RowError, record: Record, file: str) -> None:
        self.refusals.add(error, file, record.line)
        if error.people is not None:
            self.tally.add_people(error.people)
        self.writer.refuse(error, file, record.line, record.raw, record.value)

    @property
    def read(self) -> int:
        """Number of rows so far."""
        return self.accepted + self.refusals.reasons.total()

    def rows(self) -> dict[str, int]:
        """Counts of rows: accepted + quarantined + dropped = read."""
        dropped = self.refusals.dropped
        return {
            "read": self.read,
            "accepted": self.accepted,
            "quarantined": self.read - self.accepted - dropped,
            "dropped": dropped,
        }

    def split(self, sides: EarlierSplit) -> np.ndarray:
        """Mask of held-out comparisons."""
        config = self.reader.config
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

    def _contradicts(self) -> bool:
        """Whether rows are quarantined because another verdict stands."""
        return any(self.refusals.reasons[reason] for reason in CONTRADICTIONS)

    def check_share(self, store: PreferenceStore, work: Path, identity: str) -> None:
        """Refuse the whole delivery if too many rows are bad or none is accepted.

        Raises:
            DataError: too many bad rows; names the reasons, their first rows and the quarantine.
            NothingNewError: no row is accepted.
        """
        limit = self.reader.config.max_quarantine
        where = str(store.refusal_dir(identity) / "quarantine.jsonl")
        try:
            self.refusals.check_share(self.read, limit, where)
            if self.accepted + self.standing.corrections == 0:
                raise NothingNewError(
                    f"nothing new in this delivery: {self.refusals.summary() or 'it has no rows'}",
                    where=where,
                    remedy="all its comparisons are in the store already, tied or not annotated"
                    + (f"; {SAY_SO}" if self._contradicts() else ""),
                )
        except DataError:
            reasons = dict(sorted(self.refusals.reasons.items()))
            atomic_write_json(work / "report.json", {"rows": self.rows(), "reasons": reasons})
            store.keep_refusal(work, identity)
            raise


def _leakage(intake: _Intake, sides: EarlierSplit, heldout: np.ndarray) -> dict[str, int]:
    """Counts of prompts from earlier batches; checks that no prompt is on both sides.

    Raises:
        StoreError: a prompt is on both sides, which would be a bug.
    """
    openings = intake.writer.openings
    is_earlier, was_heldout = sides.look_up(openings)
    both = np.intersect1d(openings[heldout], openings[~heldout]).size
    across = int((is_earlier & (was_heldout != heldout)).sum())
    if both or across:  # a bug: no figure of this batch could be trusted
        raise StoreError(f"{both + across} prompts are on both sides of the split")
    return {
        "rows_with_earlier_prompt": int(is_earlier.sum()),
        "rows_following_earlier_heldout": int(was_heldout.sum()),
        "prompts_on_both_sides": int(both) + across,
    }
