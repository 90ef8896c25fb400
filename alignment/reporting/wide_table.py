"""A table that is printed in several parts, one below the other, where it is too wide for one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderableType
from rich.table import Table
from rich.text import Text

GAP = 2


class WideTable:
    """Columns that keep their whole text: those that do not fit go below, with the labels again.

    Args:
        heads: titles of the columns.
        labels: so many columns at the left name the row.
    """

    def __init__(self, *heads: str, labels: int = 1):
        self._heads = heads
        self._labels = labels
        self._rows: list[tuple[Sequence[str], str | None]] = []

    def add_row(self, *cells: str, style: str | None = None) -> None:
        """As `rich.table.Table.add_row`."""
        padded = (*cells, *[""] * (len(self._heads) - len(cells)))
        self._rows.append((padded, style))

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        for number, part in enumerate(self._parts(options.max_width)):
            if number:
                yield Text()
            yield self._table(part)

    def _parts(self, width: int) -> list[list[int]]:
        """The columns of every part: as many as fit beside the labels, at least one."""
        widths = [
            max(Text(cells[column]).cell_len for cells in self._cells()) + GAP
            for column in range(len(self._heads))
        ]
        labels = list(range(self._labels))
        free = width + GAP - sum(widths[: self._labels])  # the last column needs no gap
        parts: list[list[int]] = [[]]
        for column in range(self._labels, len(self._heads)):
            if parts[-1] and sum(widths[one] for one in [*parts[-1], column]) > free:
                parts.append([])
            parts[-1].append(column)
        return [labels + part for part in parts]

    def _cells(self) -> Iterator[Sequence[str]]:
        yield self._heads
        for cells, _ in self._rows:
            yield cells

    def _table(self, columns: Sequence[int]) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, GAP, 0, 0))
        for column in columns:
            justify = "left" if column < self._labels else "right"
            table.add_column(self._heads[column], justify=justify, no_wrap=True)  # type: ignore[arg-type]
        for cells, style in self._rows:
            table.add_row(*(cells[column] for column in columns), style=style)
        return table
