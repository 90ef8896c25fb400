"""Sections of the report on where versions come from and what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alignment.config.vocabulary import version_order
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.cost import TITLES, basis, together
from alignment.utils.files import MANIFEST, read_json


def lineage(stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """Each version's new batches, parent, reward models, seed and code."""
    rows = []
    for version in sorted(stages, key=version_order):
        manifests = {stage: _manifest(path) for stage, path in stages[version].items()}
        policy = manifests.get("ppo") or manifests.get("finetune")
        if not policy:
            continue
        new = [batch for batch in comparison.batches if batch.version == version]
        rows.append(
            [
                f"{version} ★" if version == comparison.champion else version,
                ", ".join(f"{b.id} ({b.training:,} + {b.heldout:,})" for b in new) or "–",
                _source(manifests.get("sample"), "policy"),
                _source(manifests.get("finetune"), "start"),
                _digest(manifests.get("reward_helpfulness")),
                _digest(manifests.get("reward_safety")),
                _digest(policy),
                policy.get("seed", "–"),
                policy.get("libraries", {}).get("align-rlhf", "–"),
            ]
        )
    return {"rows": rows} if rows else None


def cost(_stages: Stages, comparison: Comparison) -> dict[str, Any] | None:
    """What every version and every stage cost."""
    costs = comparison.costs
    if not costs:
        return None
    versions = [[version, *together(own.values()).cells()] for version, own in costs.items()]
    every = [one for own in costs.values() for one in own.values()]
    return {
        "basis": basis(comparison.cost_config),
        "titles": [title for _, title in TITLES],
        "versions": [*versions, ["together", *together(every).cells()]],
        "stages": [
            [f"{version} / {stage}", *one.cells()]
            for version, own in costs.items()
            for stage, one in own.items()
        ],
    }


def _manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    return dict(read_json(path)) if path.is_file() else {}


def _source(manifest: dict[str, Any] | None, name: str) -> str:
    source = (manifest or {}).get("inputs", {}).get(name, {})
    return str(source.get("version", "–"))


def _digest(manifest: dict[str, Any] | None) -> str:
    return str((manifest or {}).get("digest", "–"))[:12]
