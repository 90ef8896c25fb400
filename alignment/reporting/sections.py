"""Sections of the report that draw on single stages; each returns None where there are no data."""

from __future__ import annotations

from typing import Any

from alignment.evaluation.responses import (
    AXES,
    SCORES,
    TEXTS,
    read_table,
    side_title,
    split_sides,
    version_order,
)
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.reporting import html, plots
from alignment.reporting.comparison import Comparison, Stages
from alignment.utils.metrics_log import Series


def versions_with(stages: Stages, stage: str) -> list[str]:
    """Versions that have done `stage`, in order."""
    return sorted((name for name, found in stages.items() if stage in found), key=version_order)


def histogram(stages: Stages, found: Comparison) -> str | None:
    """Llama 2, Fig 20."""
    scores = read_table(stages[found.newest]["evaluate"] / SCORES)
    if "rm_helpfulness" not in scores:
        return None
    shown = {entry.side for entry in found.policies}
    sides = {s: t for s, t in split_sides([scores]).items() if s in shown}
    pictures = []
    for axis in AXES:
        values = {
            plots.short(side): table.loc[table.domain == axis, f"rm_{axis}"].to_numpy(float)
            for side, table in sides.items()
        }
        if all(len(found_values) for found_values in values.values()):
            picture = plots.histograms(
                values,
                title=f"{axis}, by the reward model of {plots.short(found.newest)}",
                x="standardised reward",
            )
            pictures.append(html.image(picture, f"{axis} rewards of all versions"))
    if not pictures:
        return None
    said = "The answers of all versions, scored by the newest reward models: they should move right"
    return html.paragraph(f"{said} (Llama 2, Figure 20).", "soft") + html.row(*pictures)


PPO_CURVES = (
    ("score/mean", "reward of the answers"),
    ("kl/reference", "KL from the start, nats per answer"),
    ("answer/tokens", "tokens per answer"),
    ("policy/entropy", "entropy, nats per token"),
)


def ppo(stages: Stages, _found: Comparison) -> str | None:
    """What PPO did, step by step."""
    parts = []
    for name in versions_with(stages, "ppo"):
        rows = Series(stages[name]["ppo"] / "series.jsonl").rows()
        for key, title in PPO_CURVES:
            curve = [(row["step"], row[key]) for row in rows if key in row]
            if len(curve) > 1:
                series = {plots.short(name): curve}
                if key == "score/mean":
                    guard = [(r["step"], r["guard/score"]) for r in rows if "guard/score" in r]
                    series |= {"guard": guard} if len(guard) > 1 else {}
                picture = plots.lines(
                    series,
                    title=f"{plots.short(name)}: {title}",
                    x="iteration",
                    y=title,
                    markers=False,
                )
                parts.append(html.image(picture, title))
    return html.row(*parts) if parts else None


TEXT_FIGURES = (
    ("length", "tokens\nper answer", 1, "{:.1f}"),
    ("length_p90", "longest\ntenth from", 1, "{:.0f}"),
    ("no_eos", "without\nEOS, %", 100, "{:.1f}"),
    ("entropy", "entropy,\nnats/token", 1, "{:.2f}"),
    ("distinct_1", "distinct\nwords, %", 100, "{:.1f}"),
    ("distinct_2", "distinct\npairs, %", 100, "{:.1f}"),
    ("self_bleu", "Self-BLEU", 1, "{:.3f}"),
    ("repeated_4grams", "repeated\n4-grams, %", 100, "{:.1f}"),
    ("refusal_harmful", "refused,\nharmful, %", 100, "{:.1f}"),
    ("false_refusal", "refused,\nborderline, %", 100, "{:.1f}"),
    ("refusal_helpful", "refused,\nother, %", 100, "{:.1f}"),
    ("harmful", "harmful\nadvice, %", 100, "{:.1f}"),
)


def texts(_stages: Stages, found: Comparison) -> str | None:
    """Counts that tell collapse, looping, refusing everything, and growing answers."""
    shown = [
        row for row in TEXT_FIGURES if any(e.figures.get(row[0]) is not None for e in found.entries)
    ]
    rows = []
    for entry in found.entries:
        cells = [entry.title]
        for name, _, scale, form in shown:
            value = entry.figures.get(name)
            cells.append("–" if value is None else form.format(scale * value))
        rows.append(cells)
    return html.table(["version", *(title for _, title, _, _ in shown)], rows)


def samples(stages: Stages, found: Comparison, per_category: int = 1) -> str | None:
    """Answers of all versions to the same prompts, side by side."""
    tables: dict[str, Any] = {}
    for entry in found.entries:
        rows = read_table(stages[entry.version]["evaluate"] / TEXTS)
        tables[entry.side] = rows[rows.side == entry.side].set_index("prompt_id")
    chosen = _chosen_prompts(stages, found, tables, per_category)
    if not chosen:
        return None
    head = "".join(f"<th>{html.escape(side_title(side))}</th>" for side in tables)
    body = []
    for prompt in chosen:
        ask = html.escape(_asked(prompt))
        label = html.escape(f"{prompt.domain} / {prompt.category}")
        cells = [f'<td class="ask">{ask}<br><small>{label}</small></td>']
        for table in tables.values():
            row = table.loc[prompt.id]
            cut = "" if row.finished else " <small>(cut)</small>"
            cells.append(f"<td>{html.escape(row.text)}{cut}<br><small>{_judged(row)}</small></td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return (
        '<div class="wide"><table class="texts"><thead><tr><th>prompt</th>'
        f"{head}</tr></thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def _chosen_prompts(
    stages: Stages, found: Comparison, tables: dict[str, Any], per_category: int
) -> list[Prompt]:
    """The first prompts, by id, of every category that all versions answered: not the best."""
    path = stages[found.newest]["evaluate"] / "prompts.jsonl"
    if not path.is_file():
        return []
    common = set.intersection(*(set(table.index) for table in tables.values()))
    by_category: dict[tuple[str, str], list[Prompt]] = {}
    for prompt in sorted(read_prompts(path), key=lambda prompt: prompt.id):
        if prompt.id in common:
            by_category.setdefault((prompt.domain, prompt.category), []).append(prompt)
    # Real data may have hundreds of categories; a page need not.
    keys = sorted(by_category)[:24]
    count = per_category if len(keys) > 4 else 4
    return [prompt for key in keys for prompt in by_category[key][:count]]


def _asked(prompt: Prompt, limit: int = 600) -> str:
    if len(prompt.messages) == 1:
        text = prompt.messages[0]["content"]
    else:
        text = "\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt.messages)
    return text if len(text) <= limit else f"… {text[-limit:]}"


def _judged(row: Any) -> str:
    column = f"gold_{row.domain}"
    return f"gold {row[column]:.2f}" if column in row.index else ""
