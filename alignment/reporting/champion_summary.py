"""Which version is champion, why, and made from what: the sentences at the top of every view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.evaluation.bound_checks import CLEAN
from alignment.reporting.origin import BatchUse, in_words, learned_from

Records = Mapping[str, Mapping[str, Any]]


def champion_lines(
    champion: str | None, decisions: Records, words: Records, batches: list[BatchUse]
) -> list[str]:
    """Who is champion and on whose word; what it learned from; what became of a newer version.

    Args:
        decisions: version → decision.json, in order.
        words: version → a person's decision.
        batches: those of all versions.
    """
    if champion is None:
        return ["There is no champion yet: no version has come before the gate."]
    lines = [f"Champion: {champion}. {_reason(champion, decisions, words)}".strip()]
    gate = decisions.get(champion)
    if gate and gate["promoted"] and CLEAN not in {check["name"] for check in gate["checks"]}:
        lines.append(
            f"The gate of an older release passed {champion} and asked for less: "
            f"`align resume {champion} --from evaluate` has it judged by today's."
        )
    if batches:
        lines.append(f"Made from: {in_words(learned_from(batches, champion))}.")
    newest = next(reversed(list(decisions)), None)
    if newest is not None and newest != champion:
        lines.append(f"Newest: {_reason(newest, decisions, words)}")
    return lines


def _reason(version: str, decisions: Records, words: Records) -> str:
    """A person's word if there is one, and the gate's."""
    sentences = []
    approval = words.get(version)
    if approval is not None:
        what = "Approved" if approval["approved"] else "Rejected"
        because = f": {approval['reason']}" if approval["reason"] else ""
        sentences.append(f"{what} by {approval['by']} on {approval['when'][:10]}{because}.")
    if version in decisions:
        gate = decisions[version]["verdict"]
        sentences.append(f"Gate: {gate}" if approval is not None else gate)
    elif version == "sft" and not sentences:
        sentences.append("It is what the first version has to beat.")
    return " ".join(sentences)
