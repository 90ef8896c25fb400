"""Reads a source into checked drafts: finds the format, fills in the domain, checks each row."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import Domain
from alignment.preferences.readers import Format, TaskKeys, choose, named
from alignment.preferences.rows import Draft, RowError, check
from alignment.preferences.sources import Record, Source, records

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

    def open(self, source: Source) -> tuple[Format, Iterator[tuple[Record, Draft | RowError]]]:
        """The format of a source, and its comparisons in order: checked drafts or row errors. A row
        with several comparisons yields several pairs.

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
            row_format = choose(sample, source.name)
        return row_format, self._drafts(
            chain(head, rows), row_format, self._default_domain(source.path)
        )

    def _drafts(
        self, rows: Iterator[Record], row_format: Format, default: str | None
    ) -> Iterator[tuple[Record, Draft | RowError]]:
        config, limit = self.config, self.config.max_characters
        for record in rows:
            value = record.value
            if isinstance(value, RowError):
                yield record, value
                continue
            try:
                drafts = row_format.read(value, config, self.keys)
            except RowError as error:
                yield record, error
                continue
            for draft in drafts:
                if isinstance(draft, RowError):
                    yield record, draft
                    continue
                if draft.domain is None:
                    draft.domain = default
                try:
                    check(draft, limit)
                except RowError as error:
                    yield record, error
                else:
                    yield record, draft

    def _default_domain(self, path: Path) -> str | None:
        if self.domain is not None:
            return self.domain
        for name in (path.name.lower(), path.parent.name.lower()):
            for pattern, value in self.config.domains.items():
                if fnmatch.fnmatchcase(name, pattern):
                    return value
        return self.config.domain
