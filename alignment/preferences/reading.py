"""From a source to checked drafts: format, domain and checks of every row."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from alignment.config.intake import IntakeConfig
from alignment.config.vocabulary import Domain
from alignment.preferences.readers import Format, Keys, choose, named
from alignment.preferences.rows import Draft, RowError, check
from alignment.preferences.sources import Record, Source, records

SAMPLE = 50  # rows that decide the format


@dataclass(frozen=True)
class Reading:
    """How files are read.

    Attributes:
        domain: of comparisons whose rows do not say; before the settings' own rules.
        format: reader to use for every file; before `config.format`.
    """

    config: IntakeConfig
    domain: Domain | None = None
    format: str | None = None
    keys: Keys = field(default_factory=Keys)

    def open(self, source: Source) -> tuple[Format, Iterator[tuple[Record, Draft | RowError]]]:
        """The format of a source, and its comparisons in order: checked drafts, or why there is
        none. A row that stands for several comparisons comes several times.

        Raises:
            DataError: an unknown format; while iterating: a broken file.
        """
        rows = records(source, self.config.max_bytes)
        head = list(islice(rows, SAMPLE))
        forced = self.format or self.config.format
        if forced is not None:
            reader = named(forced)
        else:
            sample = [row.value for row in head if not isinstance(row.value, RowError)]
            reader = choose(sample, source.name)
        return reader, self._found(chain(head, rows), reader, self._default_domain(source.path))

    def _found(
        self, rows: Iterator[Record], reader: Format, default: str | None
    ) -> Iterator[tuple[Record, Draft | RowError]]:
        config, limit = self.config, self.config.max_characters
        for record in rows:
            value = record.value
            if isinstance(value, RowError):
                yield record, value
                continue
            try:
                found = reader.read(value, config, self.keys)
            except RowError as error:
                yield record, error
                continue
            for draft in found:
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
