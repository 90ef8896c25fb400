"""Sections of the report that look at the answers themselves."""

from __future__ import annotations

from typing import Any

from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.responses import (
    SCORES,
    TEXTS,
    is_constant,
    read_table,
    side_title,
    split_sides,
)
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.plots import Picture, histograms, short

TEXT_FIGURES = (
    ("length", "tokens\nper answer", 1, "{:.1f}"),
    ("length_p90", "longest\ntenth from", 1, "{:.0f}"),
    ("no_eos", "without\nEOS, %", 100, "{:.1f}"),
    ("entropy", "entropy,\nnats/token", 1, "{:.2f}"),
    ("distinct_1", "distinct\nwords, %", 100, "{:.1f}"),
    ("distinct_2", "distinct\npairs, %", 100, "{:.1f}"),
    ("self_bleu_per_prompt", "Self-BLEU\nwithin a prompt", 1, "{:.3f}"),
    ("repeated_4grams", "repeated\n4-grams, %", 100, "{:.1f}"),
    ("empty", "empty,\n%", 100, "{:.1f}"),
    ("alike", "all alike,\n%", 100, "{:.1f}"),
    ("copied", "copied,\n%", 100, "{:.1f}"),
    ("looping", "looping,\n%", 100, "{:.1f}"),
    ("other_language", "other\nlanguage, %", 100, "{:.1f}"),
    ("refusal_harmful", "refused,\nharmful, %", 100, "{:.1f}"),
    ("false_refusal", "false\nrefusals, %", 100, "{:.1f}"),
    ("judged_false_refusal", "false refusals\nby judge, %", 100, "{:.1f}"),
    ("judged_partial_refusal", "partial, by\njudge, %", 100, "{:.1f}"),
    ("judged_refusal_harmful", "refused, harm-\nful, judge, %", 100, "{:.1f}"),
    ("refusal_helpful", "refused,\nother, %", 100, "{:.1f}"),
    ("harmful", "harmful\nadvice, %", 100, "{:.1f}"),
)
MOST_CATEGORIES = 24  # real data may have hundreds; a page need not show them


def rewards(stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """Rewards of all versions' answers by the newest reward models (Llama 2, Fig 20)."""
    scores = read_table(stages[comparison.newest]["evaluate"] / SCORES)
    if "rm_helpfulness" not in scores:
        return None
    shown = {entry.side for entry in comparison.policies}
    sides = {side: table for side, table in split_sides([scores]).items() if side in shown}
    pictures = []
    for axis in DOMAINS:
        values = {
            short(side): table.loc[table.domain == axis, f"rm_{axis}"].to_numpy(float)
            for side, table in sides.items()
        }
        if all(map(len, values.values())):
            picture = histograms(
                values,
                title=f"{axis}, by the reward model of {short(comparison.newest)}",
                x="standardised reward",
            )
            pictures.append(Picture(picture, f"{axis} rewards of all versions"))
    return {"pictures": pictures} if pictures else None


def texts(_stages: Stages, comparison: Comparison) -> dict[str, Any]:
    """Counts that tell collapse, looping, refusing everything, and growing answers."""
    entries = comparison.entries
    columns = [
        column
        for column in TEXT_FIGURES
        if any(entry.figures.get(column[0]) is not None for entry in entries)
    ]
    rows = []
    for entry in entries:
        values = [(entry.figures.get(name), scale, form) for name, _, scale, form in columns]
        cells = ["–" if v is None else form.format(scale * v) for v, scale, form in values]
        rows.append([entry.title, *cells])
    return {"head": ["version", *(title for _, title, _, _ in columns)], "rows": rows}


def samples(stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """Answers of all versions to the same prompts, side by side."""
    tables: dict[str, Any] = {}
    for entry in comparison.entries:
        if is_constant(entry.side):
            continue
        table = read_table(stages[entry.version]["evaluate"] / TEXTS)
        tables[entry.side] = table[table.side == entry.side].set_index("prompt_id")
    rows = [
        (
            {"text": _question(prompt), "category": f"{prompt.domain} / {prompt.category}"},
            [_answer(table.loc[prompt.id]) for table in tables.values()],
        )
        for prompt in _chosen_prompts(stages, comparison, tables)
    ]
    return {"titles": [side_title(side) for side in tables], "rows": rows} if rows else None


def _chosen_prompts(stages: Stages, comparison: Comparison, tables: dict[str, Any]) -> list[Prompt]:
    """The first prompts, by id, of every category that all versions answered: not the best."""
    path = stages[comparison.newest]["evaluate"] / "prompts.jsonl"
    if not path.is_file():
        return []
    common = set.intersection(*(set(table.index) for table in tables.values()))
    by_category: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in sorted(read_prompts(path), key=lambda prompt: prompt.id):
        if prompt.id in common:
            by_category.setdefault((prompt.domain, prompt.category), []).append(prompt)
    categories = sorted(by_category)[:MOST_CATEGORIES]
    count = 1 if len(categories) > 4 else 4
    return [prompt for category in categories for prompt in by_category[category][:count]]


def _question(prompt: Prompt, limit: int = 600) -> str:
    if len(prompt.messages) == 1:
        text = prompt.messages[0]["content"]
    else:
        text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt.messages)
    return text if len(text) <= limit else f"… {text[-limit:]}"


def _answer(row: Any) -> dict[str, Any]:
    gold = row.get(f"gold_{row.domain}")
    score = "" if gold is None else f"gold {gold:.2f}"
    return {"text": row.text, "cut": not row.finished, "score": score}
