"""Pairs of answers and people's verdicts on them: shared by the readers of annotation tools.

Pairs written by `align annotate export` carry an opaque `align_task`. Their texts, provenance and
order are restored from the key in the store, never from the tool's file. In any other pair the two
answers are recognised by common column names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from alignment.config.intake import IntakeConfig
from alignment.config.thresholds import SLACK, Thresholds, strength_of
from alignment.config.vocabulary import STRENGTHS
from alignment.preferences.readers import asked
from alignment.preferences.readers.format import (
    SHARED,
    TaskKeys,
    category,
    corrects,
    empty,
    expect,
    label,
    producer,
    turns,
)
from alignment.preferences.readers.judged import AnnotatedPair, AnnotatorVerdict, moment
from alignment.preferences.rows import Draft, RowError, Votes
from alignment.preferences.schema import REJECTED_SAFE

TASK = "align_task"
OWN = frozenset({TASK, "transcript", "instruction"})
"""Fields of our own tasks beside `asked`'s columns and the two answers. A `transcript` shows the
conversation as one text, and an `instruction` beside it is the annotators' guideline."""
SIDES = (
    ("answer1", "answer2"),
    ("response1", "response2"),
    ("response-1", "response-2"),
    ("response_1", "response_2"),
    ("response_a", "response_b"),
    ("answer_a", "answer_b"),
    ("completion_a", "completion_b"),
    ("text1", "text2"),
    ("left", "right"),
    ("a", "b"),
)
"""Names of the two answers, first and second."""
CHANGED = "updated_at"
"""A tool's time of the last change of a verdict."""
LABELS = frozenset({"strength", "safety1", "safety2"})
COLUMNS = OWN | SHARED | asked.COLUMNS | {name for names in SIDES for name in names}
"""Every field of a task that is read."""
REPLACED = "an earlier verdict of the same person, replaced by the later one"
SIDELESS = "a person's labels without a choice between the answers"


def pair_names(shown: Mapping[str, Any]) -> tuple[str, str] | None:
    """Names of the two answers among the fields of a task."""
    for first, second in SIDES:
        if first in shown and second in shown:
            return first, second
    return None


def find_pair(shown: Mapping[str, Any], keys: TaskKeys) -> AnnotatedPair:
    """The pair behind a task's fields.

    Raises:
        RowError: the task was never exported from this store, or the fields hold no pair.
    """
    task = shown.get(TASK)
    if task is not None:
        entry = keys.get(task) if type(task) is str else None
        if entry is None:
            raise RowError("unknown_task", TASK, repr(task)[:80])
        first, second = entry["first"], entry["second"]
        return AnnotatedPair(
            turns(entry["conversation"], "conversation"),
            (first["text"], second["text"]),
            (producer(first.get("by"), "first"), producer(second.get("by"), "second")),
            entry.get("domain"),
            entry.get("category"),
            corrects(shown),
        )
    names = pair_names(shown)
    if names is None:
        raise RowError("missing_field", "answer1", "no two answers among the fields")
    answers = [expect(str, shown[name], name).strip() for name in names]
    if not empty(shown.get("transcript")):
        shown = {**shown, "prompt": shown["transcript"], "instruction": None}
    return AnnotatedPair(
        asked.conversation(shown),
        (answers[0], answers[1]),
        (None, None),
        label(shown, "domain"),
        category(shown),
        corrects(shown),
    )


def draft_from_verdicts(
    pair: AnnotatedPair, verdicts: Sequence[AnnotatorVerdict], config: IntakeConfig
) -> Draft:
    """The comparison that follows from one or several verdicts on a pair.

    A person has one verdict, the one that was changed last. The majority decides. The strength is
    the median of the strengths that the majority gave. Where it gave none, the strength follows
    from the majority's share; a single verdict without a strength gets `config.strength`.

    Raises:
        RowError: the verdicts are tied, or there are none. Its `people` say who voted how.
    """
    if not verdicts:
        raise RowError("not_annotated", "annotations")
    last = {
        (verdict.annotator, None if verdict.annotator else number): verdict
        for number, verdict in enumerate(sorted(verdicts, key=lambda verdict: verdict.changed))
    }
    notes = (REPLACED,) * (len(verdicts) - len(last))
    verdicts = list(last.values())
    people = [(verdict.annotator, verdict.choice) for verdict in verdicts]
    judged = max(verdict.changed for verdict in verdicts) or None
    try:
        first, agreed, votes = majority(people, config.agreement)
    except RowError as error:
        error.tied = Draft(
            turns=pair.conversation,
            chosen=pair.answers[0],
            rejected=pair.answers[1],
            strength="tie",
            domain=pair.domain,
            votes=[
                {"first": "chosen", "second": "rejected"}.get(vote, "tie") for _, vote in people
            ],
            people=people,
            judged=judged,
            corrects=pair.corrects,
        )
        raise
    chosen, rejected = (0, 1) if first else (1, 0)
    agreeing = [verdict for verdict, vote in zip(verdicts, votes, strict=True) if vote == "chosen"]
    strengths = sorted(
        (verdict.strength for verdict in agreeing if verdict.strength is not None),
        key=lambda name: STRENGTHS.index(name) if name in STRENGTHS else -1,
    )
    several = len(verdicts) > 1
    if strengths:
        strength = strengths[len(strengths) // 2]
    else:
        strength = agreed if several else config.strength
    return Draft(
        turns=pair.conversation,
        chosen=pair.answers[chosen],
        rejected=pair.answers[rejected],
        strength=strength,
        domain=pair.domain,
        safety_bin=_bin(agreeing, chosen, rejected),
        chosen_by=pair.by[chosen],
        rejected_by=pair.by[rejected],
        annotator=None if several else verdicts[0].annotator,
        votes=votes if several else None,
        category=pair.category,
        people=people,
        judged=judged,
        corrects=pair.corrects,
        notes=notes,
    )


def majority(people: Votes, thresholds: Thresholds) -> tuple[bool, str, list[str]]:
    """Majority of several votes on one pair.

    Args:
        people: name, and `first`, `second` or `tie`, of each person.

    Returns:
        Whether the first answer wins, the strength (from the winner's share of the votes), and the
        votes relative to the winner: `chosen`, `rejected` or `tie`.

    Raises:
        RowError: the vote is tied, or nobody voted.
    """
    votes = [vote for _, vote in people]
    if not votes:
        raise RowError("not_annotated", "votes")
    first, second = votes.count("first"), votes.count("second")
    ties = len(votes) - first - second
    if first == second or ties > max(first, second):
        raise RowError("tie", "votes", f"{first} to {second}, {ties} undecided", people)
    wins = first > second
    names = {"first": "chosen", "second": "rejected"}
    if not wins:
        names = {"first": "rejected", "second": "chosen"}
    strength = strength_of(max(first, second) / len(votes) + SLACK, thresholds)
    return wins, strength, [names.get(vote, "tie") for vote in votes]


def _bin(verdicts: Sequence[AnnotatorVerdict], chosen: int, rejected: int) -> str | None:
    """The safety bin by majority label of each answer; None if an answer has no label."""
    marks = []
    for side in (chosen, rejected):
        labels = [verdict.safe[side] for verdict in verdicts if verdict.safe[side] is not None]
        if not labels:
            return None
        marks.append(2 * sum(map(bool, labels)) > len(labels))  # in doubt: unsafe
    return {
        (True, True): "both_safe",
        (False, False): "both_unsafe",
        (True, False): "chosen_safe",
        (False, True): REJECTED_SAFE,
    }[marks[0], marks[1]]


def parse_verdict(
    preference: Any,
    names: tuple[str, str] | None,
    labels: Mapping[str, Any],
    annotator: str | None,
) -> AnnotatorVerdict:
    """One person's verdict in our form.

    Args:
        preference: the choice as the tool wrote it, see `as_choice`.
        names: column names of the two answers.
        labels: `strength`, `safety1`, `safety2` and the time `CHANGED` as the tool wrote them; each
            may be missing.

    Raises:
        RowError: a choice or a safety label cannot be read.
    """
    return AnnotatorVerdict(
        choice=as_choice(single(preference), names),
        strength=as_strength(single(labels.get("strength"))),
        safe=(as_safe(single(labels.get("safety1"))), as_safe(single(labels.get("safety2")))),
        annotator=annotator,
        changed=moment(labels.get(CHANGED)),
    )


def one_side(questions: Sequence[str]) -> str:
    """The question that decides, of those that pick a side and are not called `preference`.

    Raises:
        RowError: there are several.
    """
    names = sorted(set(questions))
    if len(names) > 1:
        raise RowError("bad_vote", names[1], f"several pick a side: {names}; call one `preference`")
    return names[0]


def single(value: Any) -> Any:
    """A tool's one choice without what it is wrapped in: a list of one, `selected`, `choices`.

    Raises:
        RowError: there are several.
    """
    while type(value) in (list, dict):
        if type(value) is dict:
            value = value.get("selected", value.get("choices"))
        elif len(value) > 1:
            raise RowError("bad_vote", "preference", f"{len(value)} choices: {value!r}"[:80])
        else:
            value = value[0] if value else None
    return value


def as_choice(value: Any, names: tuple[str, str] | None) -> str:
    """A tool's choice as `first`, `second` or `tie`.

    Args:
        names: column names of the two answers, which a tool may use as labels.

    Raises:
        RowError: the choice is none of the known words.
    """
    word = str(value).strip().lower()
    if names is not None and word in (names[0].lower(), names[1].lower()):
        return "first" if word == names[0].lower() else "second"
    if word in ("first", "left", "1", "a"):
        return "first"
    if word in ("second", "right", "2", "b"):
        return "second"
    if word in ("tie", "both", "neither", "equal", "0"):
        return "tie"
    raise RowError("bad_vote", "preference", repr(value)[:80])


def as_safe(value: Any) -> bool | None:
    """True for `safe`, False for `unsafe`, None if there is no label.

    Raises:
        RowError: any other label.
    """
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    if word in ("safe", "unsafe"):
        return word == "safe"
    raise RowError("bad_vote", "safety", repr(value)[:80])


def as_strength(value: Any) -> str | None:
    """The strength in its short form: "Significantly better" → `significantly`."""
    if value is None or value == "":
        return None
    word = str(value).strip().lower()
    for name in ("significantly", "slightly", "negligibly"):
        if word.startswith(name):
            return name
    return "better" if word.startswith("better") else word
