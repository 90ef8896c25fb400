"""Reads a source into checked drafts: finds the format, fills in the domain, checks each row."""

from __future__ import annotations

import fnmatch
from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import DOMAINS, Domain
from alignment.errors import DataError
from alignment.preferences.readers import Format, TaskKeys, choose, named
from alignment.preferences.readers.judged import AnnotatedPair, AnnotatorVerdict
from alignment.preferences.readers.markup import refuse_markup
from alignment.preferences.readers.verdicts import draft_from_verdicts
from alignment.preferences.rows import Draft, RowError, check
from alignment.preferences.sources import ACCEPTED_FILES, Record, Source, records

SAMPLE = 50  # rows that decide the format


@dataclass(frozen=True)
class SourceReader:
    """Reads sources with one set of settings.

    Attributes:
        domain: domain of rows without one; overrides the settings' own rules.
        format: format of every file; overrides `config.format`.
        keys: keys of our own annotation exports.
    """

    config: IntakeConfig
    domain: Domain | None = None
    format: str | None = None
    keys: TaskKeys = field(default_factory=dict)

    def open(
        self, source: Source, unused: Counter[str] | None = None
    ) -> tuple[Format, Iterator[tuple[Record, Draft | RowError]]]:
        """The format of a source, and its comparisons in order: checked drafts or row errors. A row
        with several comparisons yields several pairs; rows of several people on one pair yield one
        comparison, at the first one's place.

        Args:
            unused: counts, while iterating, the rows of each column that is not read.

        Raises:
            DataError: an unknown format, or, while iterating, a broken file.
        """
        rows = records(source, self.config.max_bytes)
        head = list(islice(rows, SAMPLE))
        forced = self.format or self.config.format
        if forced is not None:
            row_format = named(forced)
        else:
            sample = [row.value for row in head if not isinstance(row.value, RowError)]
            if not head:
                raise DataError("the file holds no rows", where=source.name, remedy=ACCEPTED_FILES)
            row_format = choose(sample, source.name)
        return row_format, self._drafts(
            chain(head, rows),
            row_format,
            self._default_domain(source.path),
            Counter() if unused is None else unused,
        )

    def _drafts(
        self, rows: Iterator[Record], row_format: Format, default: str | None, unused: Counter[str]
    ) -> Iterator[tuple[Record, Draft | RowError]]:
        read = self._read if row_format.verdict is None else self._together
        found = read(rows, row_format, unused)
        for record, draft in found:
            if isinstance(draft, RowError) and draft.tied is not None:
                self._complete(draft.tied, default)
            if not isinstance(draft, RowError):
                self._complete(draft, default)
                try:
                    check(draft, self.config.max_characters)
                    refuse_markup(draft, markers=row_format.name not in ("hh", "native"))
                except RowError as error:
                    error.people = draft.people
                    yield record, error
                    continue
            yield record, draft

    def _read(
        self, rows: Iterator[Record], row_format: Format, unused: Counter[str]
    ) -> Iterator[tuple[Record, Draft | RowError]]:
        for record in rows:
            try:
                value = _sound(record, row_format, unused)
                drafts = row_format.read(value, self._unrated, self.keys)
            except RowError as error:
                yield record, error
                continue
            for draft in drafts:
                yield record, draft

    def _together(
        self, rows: Iterator[Record], row_format: Format, unused: Counter[str]
    ) -> Iterator[tuple[Record, Draft | RowError]]:
        """One comparison for all rows on a pair; each further row is counted as `joined`."""
        assert row_format.verdict is not None
        pairs: dict[Hashable, list[tuple[Record, AnnotatedPair, AnnotatorVerdict]]] = {}
        for record in rows:
            try:
                pair, verdict = row_format.verdict(_sound(record, row_format, unused), self.keys)
            except RowError as error:
                yield record, error
                continue
            judged = pairs.setdefault((tuple(pair.conversation), pair.answers, pair.domain), [])
            if any(record.value == other.value for other, _, _ in judged):
                yield record, RowError("duplicate", "row")
            else:
                judged.append((record, pair, verdict))
        for judged in pairs.values():
            (first, pair, _), *others = judged
            for record, _, _ in others:
                yield record, RowError("joined", "row", f"line {first.line}")
            try:
                verdicts = [verdict for _, _, verdict in judged]
                yield first, draft_from_verdicts(pair, verdicts, self.config)
            except RowError as error:
                yield first, error

    @cached_property
    def _unrated(self) -> IntakeConfig:
        """The settings under which a reader gives a row that says no strength none."""
        return self.config.model_copy(update={"strength": ""})

    def _complete(self, draft: Draft, default: str | None) -> None:
        if not draft.strength:
            draft.strength, draft.unrated = self.config.strength, True
        if draft.domain is not None and draft.domain not in DOMAINS and self.domain is not None:
            draft.notes += (f"a domain of its own, replaced by {self.domain}",)
            draft.domain = self.domain
        if draft.domain is None:
            draft.domain = default

    def _default_domain(self, path: Path) -> str | None:
        if self.domain is not None:
            return self.domain
        for name in (path.name.lower(), path.parent.name.lower()):
            for pattern, value in self.config.domains.items():
                if fnmatch.fnmatchcase(name, pattern):
                    return value
        return self.config.domain


def _sound(record: Record, row_format: Format, unused: Counter[str]) -> dict[str, Any]:
    """The row, its columns counted.

    Raises:
        RowError: there is none, or a column says that texts alone are not what was judged.
    """
    if isinstance(record.value, RowError):
        raise record.value
    unused.update(row_format.unused(record.value))
    return record.value
