"""Rankings of K ≥ 2 answers, ties allowed (InstructGPT §3.5): all C(K,2) pairs, one group.

`responses` is a list of texts, or of {"text", "version", "temperature", "finished"}, of which the
last may be missing; `ranks` gives each its rank, 1 the best, equal ranks a tie. Or `ranking` lists
indices from best to worst, a list of indices being a tie: [2, [0, 3], 1].
"""

from __future__ import annotations

from itertools import combinations

from alignment.config.intake import IntakeConfig
from alignment.preferences.readers import asked
from alignment.preferences.readers.format import (
    SHARED,
    Format,
    Row,
    TaskKeys,
    draft,
    expect,
    label,
    number,
    producer,
)
from alignment.preferences.rows import By, DraftOrError, RowError
from alignment.preferences.schema import text_digest


def _read(row: Row, config: IntakeConfig, _keys: TaskKeys) -> list[DraftOrError]:
    answers: list[str] = []
    by: list[By | None] = []
    for index, response in enumerate(expect(list, row.get("responses"), "responses")):
        where = f"responses.{index}"
        answer = response.get("text") if type(response) is dict else response
        answers.append(expect(str, answer, where).strip())
        said = response if type(response) is dict else {}
        known = said.get("version") is not None or said.get("finished") is False
        by.append(producer(response, where) if known else None)
    if len(answers) < 2:
        raise RowError("missing_field", "responses", "a ranking needs two answers at least")
    conversation, ranks = asked.conversation(row), _ranks(row, len(answers))
    strength = label(row, "strength") or config.strength
    parts = [part for turn in conversation for part in turn]
    group = text_digest([*parts, *answers, *(str(rank) for rank in ranks)])[:16]
    pairs: list[DraftOrError] = []
    for left, right in combinations(range(len(answers)), 2):
        if ranks[left] == ranks[right]:
            pairs.append(RowError("tie", "ranks", f"answers {left} and {right}"))
            continue
        better, worse = (left, right) if ranks[left] < ranks[right] else (right, left)
        pairs.append(
            draft(
                row,
                conversation,
                (answers[better], answers[worse]),
                strength,
                chosen_by=by[better],
                rejected_by=by[worse],
                group=group,
            )
        )
    return pairs


def _ranks(row: Row, count: int) -> list[float]:
    if row.get("ranks") is not None:
        ranks = [number(rank) for rank in expect(list, row["ranks"], "ranks")]
        sound = [rank for rank in ranks if rank is not None]
        if len(ranks) != count or len(sound) != count:
            raise RowError("bad_vote", "ranks", f"{count} numbers are needed")
        return sound
    placed: dict[int, float] = {}
    for place, entry in enumerate(expect(list, row.get("ranking"), "ranking"), 1):
        for index in entry if type(entry) is list else [entry]:
            if type(index) is not int or not 0 <= index < count or index in placed:
                raise RowError("bad_vote", "ranking", f"{index!r} is no index, or is there twice")
            placed[index] = float(place)
    if len(placed) != count:
        raise RowError("bad_vote", "ranking", f"{len(placed)} of {count} answers are placed")
    return [placed[index] for index in range(count)]


def _matches(row: Row) -> bool:
    return "responses" in row and ("ranks" in row or "ranking" in row)


FORMAT = Format(
    "ranking",
    _matches,
    _read,
    SHARED | asked.COLUMNS | {"responses", "ranks", "ranking", "strength"},
)
