"""The fixed reference set that puts two reward models on one scale."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from alignment.config.vocabulary import DOMAINS, Domain
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


def reference_answers(
    heldout: Sequence[Source], batches: Collection[str], renderer: ChatRenderer, rows: int
) -> dict[Domain, list[Tokens]]:
    """Both answers of held-out comparisons of the first version, up to `rows` / 2 of each domain.

    Every version has these batches, and none trains on their held-out part, so the scale stays the
    same from version to version. Unlike demonstrations, these answers are good and bad ones.

    Args:
        batches: ids of the first version's batches. Deliveries are often of one domain each.

    Returns:
        domain → answers; without held-out comparisons (`intake.heldout_share: 0`) none.

    Raises:
        DataError: one domain has none, so that both models would be scaled on the other's answers.
    """
    answers: dict[Domain, list[Tokens]] = {}
    first = [source for source in heldout if source.batch in batches]
    for domain in DOMAINS if first else ():
        own = [source for source in first if source.comparison.domain == domain]
        if not own:
            raise DataError(
                f"the first version has no held-out {domain} comparison to scale its reward models",
                where=f"{len(batches)} batches: {', '.join(sorted(batches))}",
                remedy="deliver more of that domain, or raise intake.heldout_share",
            )
        order = np.random.default_rng(derive_seed("reference", domain)).permutation(len(own))
        picked = [own[n] for n in order[: max(1, rows // 4)]]
        answers[domain] = [item for source in picked for item in _both(source, renderer)]
    return answers


def _both(source: Source, renderer: ChatRenderer) -> Iterator[Tokens]:
    row = source.comparison
    for answer, finished in row.answers:
        yield renderer.tokens(row.conversation, answer, finished=finished)
