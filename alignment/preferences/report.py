"""The batch report: one dictionary, shown as a table or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.config.vocabulary import STRENGTHS
from alignment.preferences.newer_wins import newer_in_words
from alignment.preferences.rows import CONTRADICTIONS, DROPPED, REASONS, SAY_SO
from alignment.preferences.schema import LLAMA2_BINS

if TYPE_CHECKING:
    from rich.console import Group


@dataclass(frozen=True)
class BatchReport:
    """The outcome of a delivery.

    Attributes:
        values: the figures; the same for the same delivery on every machine.
        directory: directory of the batch.
        already: the same delivery was ingested before; nothing was written.
    """

    values: dict[str, Any]
    directory: Path
    sequence: int
    already: bool

    @property
    def id(self) -> str:
        """The batch's id."""
        return str(self.values["batch"])

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {"already": self.already, "sequence": self.sequence, **self.values}

    def render(self) -> Group:
        """The report for a terminal (rich)."""
        from rich.console import Group

        return Group(*_parts(self))


def _parts(report: BatchReport) -> list[Any]:
    from rich.table import Table
    from rich.text import Text

    values = report.values
    rows = values["rows"]
    state = "was ingested as" if report.already else "is"
    files = ", ".join(source["file"] for source in values["sources"])
    parts: list[Any] = [
        Text(
            f"{files} {state} batch {report.sequence} ({values['batch']})"
            + (", open data" if values.get("data_origin") == "open" else ""),
            style="bold",
        ),
        Text(
            f"{rows['read']:,} read = {rows['accepted']:,} accepted + "
            f"{rows['quarantined']:,} quarantined + {rows['dropped']:,} dropped"
        ),
    ]
    if values["reasons"]:
        table = Table("not accepted", "rows", "fate", box=None, pad_edge=False)
        for reason, count in sorted(values["reasons"].items(), key=lambda entry: -entry[1]):
            fate = "dropped" if reason in DROPPED else "quarantined"
            table.add_row(REASONS[reason], f"{count:,}", fate)
        parts += ["", table, Text(f"see {report.directory / 'quarantine.jsonl'}", style="dim")]
    if any(values["reasons"].get(reason) for reason in CONTRADICTIONS):
        parts.append(Text(SAY_SO, style="yellow"))
    corrections = values.get("corrections", 0)
    if corrections:
        parts.append(Text(f"{corrections:,} verdicts correct earlier ones and take their place"))
    parts += [Text(line, style="yellow") for line in _beside(values)]
    parts += ["", _sides(values), "", _figures(values)]
    parts += _unused(values)
    return parts


def _beside(values: dict[str, Any]) -> list[str]:
    """What stands twice in the store now."""
    beside = values.get("beside", {})
    said = {
        "differ": "contradict other people's of earlier batches: both count",
        "agree": "agree with other people's of earlier batches, on the same pairs: both count",
    }
    return [f"{beside[name]:,} verdicts {line}" for name, line in said.items() if beside.get(name)]


def _unused(values: dict[str, Any]) -> list[Any]:
    """What was seen and not used, and what was changed on reading."""
    from rich.table import Table
    from rich.text import Text

    lines: list[Any] = []
    for source in values["sources"]:
        columns = source.get("unused", {})  # batches of 0.1 have none
        if columns:
            table = Table("column", "rows", "share", box=None, pad_edge=False)
            for name, found in columns.items():
                table.add_row(name, f"{found['rows']:,}", f"{found['share']:.1%}")
            lines += ["", Text(f"{source['file']}: columns seen and not used"), table]
    for note, count in values.get("notes", {}).items():
        lines.append(Text(f"{count:,} rows: {note}"))
    return lines


def _sides(values: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table("domain", "training", "held out", *STRENGTHS, box=None, pad_edge=False)
    for domain, strengths in values["strengths"].items():
        total = sum(strengths.values())
        table.add_row(
            domain,
            f"{values['counts']['training'][domain]:,}",
            f"{values['counts']['heldout'][domain]:,}",
            *(f"{strengths[name] / total:.0%}" for name in STRENGTHS),
        )
    return table


def _figures(values: dict[str, Any]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=False)
    bins = values["safety_bins"]
    labelled = sum(bins.values())
    if labelled:
        shown = " / ".join(f"{bins[name] / labelled:.0%}" for name in LLAMA2_BINS)
        paper = " / ".join(f"{share:.0%}" for share in LLAMA2_BINS.values())
        table.add_row(
            "safety bins", f"{shown} chosen safe / both safe / both unsafe (Llama 2: {paper})"
        )
    missing = values["domains"].get("safety", 0) - labelled
    if missing > 0:
        table.add_row("safety labels", f"{missing:,} safety comparisons have none, so no bin")
    table.add_row("turns", _spread(values["turns"]))
    table.add_row("prompt", f"{_spread(values['prompt_characters'])} characters")
    table.add_row("chosen", f"{_spread(values['chosen_characters'])} characters")
    table.add_row("rejected", f"{_spread(values['rejected_characters'])} characters")
    longer = values["longer_wins"]
    if longer["share"] is not None:
        gap = values["length_gap"]["mean"]
        table.add_row("longer wins", f"{longer['share']:.1%} (mean gap {gap:+.0f} characters)")
    for side in ("chosen", "rejected"):
        made = values[f"{side}_by"]
        if made:
            table.add_row(
                f"{side} by",
                ", ".join(
                    f"{m['version']} T={m['temperature']:g} ({m['comparisons']})" for m in made
                ),
            )
    newer = values["newer_wins"]
    if newer["share"] is not None:
        table.add_row("newer wins", newer_in_words(newer))
    people = values["annotators"]
    if people["agreement"] is not None:
        table.add_row(
            "annotators agree",
            f"{people['agreement']:.1%} on {people['voted_pairs']:,} pairs, ties included",
        )
        alpha = people.get("alpha")  # batches of before have none
        if alpha is not None:
            table.add_row(
                "beyond chance", f"Krippendorff's alpha {alpha:.2f} (1 always, 0 by chance)"
            )
        by_name = people.get("agreement_by_name", {})
        if by_name:
            each = [f"{name} {share:.0%}" for name, share in list(by_name.items())[:12]]
            table.add_row("each with the others", ", ".join(each))
    if people.get("voted_unnamed"):
        table.add_row(
            "unnamed votes",
            f"{people['voted_unnamed']:,} pairs have contradicting rows that name nobody: each row "
            "was a vote, agreement cannot be told",
        )
    if values["rankings"]:
        table.add_row("rankings", f"{values['rankings']:,}")
    leakage = values["leakage"]
    table.add_row(
        "split",
        f"{leakage['rows_with_earlier_prompt']:,} rows with a prompt of an earlier batch, "
        f"{leakage['prompts_on_both_sides']} prompts on both sides",
    )
    return table


def _spread(figures: dict[str, float]) -> str:
    return f"mean {figures['mean']:.1f}, median {figures['median']:.0f}, 95 % {figures['p95']:.0f}"
