"""The fixed reference set that puts two reward models on one scale."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from alignment.config.vocabulary import DOMAINS
from alignment.errors import DataError
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.rewards.mixture import Source
from alignment.utils.json_lines import read_jsonl
from alignment.utils.seeds import derive_seed


def demonstrations(path: Path, renderer: ChatRenderer, rows: int) -> list[Tokens]:
    """At most `rows` demonstrations spread evenly over the file.

    Raises:
        DataError: a line is not a demonstration.
    """
    found = read_jsonl(path)
    picks = np.unique(np.linspace(0, len(found) - 1, min(rows, len(found))).astype(int))
    items = []
    for number in picks if found else []:
        row = found[number]
        try:
            items.append(renderer.tokens(row["messages"], row["response"]))
        except (KeyError, TypeError) as error:
            raise DataError(
                f"not a demonstration: {error!r}",
                where=f"{path.name} line {number + 1}",
                remedy='each line needs "messages" and "response"',
            ) from None
    return items


def reference_answers(heldout: Sequence[Source], renderer: ChatRenderer, rows: int) -> list[Tokens]:
    """Both answers of held-out comparisons of the first batch, half from each domain.

    Every version has the first batch, and none trains on its held-out part, so the scale stays the
    same from version to version. Unlike demonstrations, these answers are good and bad ones.
    """
    first = heldout[0].batch if heldout else ""
    answers: list[Tokens] = []
    for domain in DOMAINS:
        own = [s for s in heldout if s.batch == first and s.comparison.domain == domain]
        order = np.random.default_rng(derive_seed("reference", domain)).permutation(len(own))
        answers += [item for n in order[: max(1, rows // 4)] for item in _both(own[n], renderer)]
    return answers


def _both(source: Source, renderer: ChatRenderer) -> Iterator[Tokens]:
    row = source.comparison
    for answer in (row.chosen, row.rejected):
        yield renderer.tokens(row.conversation, answer)
