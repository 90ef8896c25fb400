"""Sections of the report on where versions come from and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.evaluation.responses import version_order
from alignment.reporting import html
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.cost import TITLES, basis, together
from alignment.utils.files import read_json


def lineage(stages: Stages, found: Comparison) -> str | None:
    """Each version's new batches, parent, reward models, seed and code."""
    manifests = {
        version: {stage: _manifest(path) for stage, path in of_version.items()}
        for version, of_version in sorted(stages.items(), key=lambda item: version_order(item[0]))
    }
    rows = []
    for version, own in manifests.items():
        policy = own.get("ppo") or own.get("finetune")
        if not policy:
            continue
        new = [batch for batch in found.batches if batch.version == version]
        rows.append(
            [
                f"{version} ★" if version == found.champion else version,
                ", ".join(f"{b.id} ({b.training:,} + {b.heldout:,})" for b in new) or "–",
                _source(own.get("sample"), "policy"),
                _source(own.get("finetune"), "start"),
                _digest(own.get("reward_helpfulness")),
                _digest(own.get("reward_safety")),
                _digest(policy),
                str(policy.get("seed", "–")),
                str(policy.get("libraries", {}).get("align-rlhf", "–")),
            ]
        )
    if not rows:
        return None
    head = [
        "version",
        "new batch\n(training + held out)",
        "samples\nfrom",
        "fine-tuned\nfrom",
        "helpfulness\nRM",
        "safety\nRM",
        "policy",
        "seed",
        "code",
    ]
    said = (
        "Reward models learn from all batches up to their version. Digests cover every byte of a "
        "stage's outputs; `align lineage VERSION` shows all of them, `align reproduce VERSION` "
        "makes the version again and compares."
    )
    return html.paragraph(said, "soft") + html.table(head, rows)


def cost(_stages: Stages, found: Comparison) -> str | None:
    """What every version and every stage cost."""
    if not found.costs:
        return None
    head = ["version", *(title for _, title in TITLES)]
    rows = [[version, *together(own.values()).cells()] for version, own in found.costs.items()]
    every = [one for own in found.costs.values() for one in own.values()]
    rows.append(["together", *together(every).cells()])
    by_stage = [
        [f"{version} / {stage}", *one.cells()]
        for version, own in found.costs.items()
        for stage, one in own.items()
    ]
    return (
        html.paragraph(basis(found.cost_config), "soft")
        + html.table(head, rows, marked=[len(rows) - 1])
        + "<details><summary>stage by stage</summary>"
        + html.table(["stage", *head[1:]], by_stage)
        + "</details>"
    )


def _manifest(directory: Path) -> dict[str, Any]:
    path = directory / "manifest.json"
    return dict(read_json(path)) if path.is_file() else {}


def _source(manifest: dict[str, Any] | None, name: str) -> str:
    source = (manifest or {}).get("inputs", {}).get(name, {})
    return str(source.get("version", "–"))


def _digest(manifest: dict[str, Any] | None) -> str:
    return str((manifest or {}).get("digest", "–"))[:12]
