"""Reproduces a version in another workspace and compares every byte with the original."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.execution.runner import ProgressFactory, Runner
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.format import as_record
from alignment.pipeline.ledger import Ledger, verify
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan, policy_key
from alignment.pipeline.records import Manifest
from alignment.pipeline.sharding_choice import KEPT as SHARDING
from alignment.pipeline.workspace import REPRODUCTION
from alignment.preferences.withdrawals import FOLDER as WITHDRAWALS
from alignment.utils.files import atomic_write_json
from alignment.utils.library_versions import library_versions

COPIED = ("approvals", f"preferences/{WITHDRAWALS}", "preferences")
CHOICES = ("compute-choice.json", SHARDING)  # they decide the last bits: see fastpath.choice
WEIGHTS = (".safetensors", ".bin")


@dataclass
class StageComparison:
    """The outputs of one stage in both workspaces."""

    key: str
    digest: str
    """Of the original outputs."""
    again: str
    differing: list[str] = field(default_factory=list)
    """Files that differ."""
    causes: list[str] = field(default_factory=list)
    """Differences of the stage's code version, settings, seed, inputs or libraries."""
    taken_over: bool = False
    """Whether it was copied instead of repeated."""

    @property
    def same(self) -> bool:
        """Whether all files are equal."""
        return not self.differing


@dataclass
class Reproduction:
    """The result of a reproduction."""

    version: str
    workspace: str
    stages: list[StageComparison]
    weights: dict[str, bool]
    """Weight file of the version's policy → whether it is byte-identical."""

    @property
    def identical(self) -> bool:
        """Whether the policy's weights are byte-identical."""
        return bool(self.weights) and all(self.weights.values())

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "identical": self.identical}


def reproduce(
    program: ProgramConfig,
    version: str,
    target: Path,
    *,
    only_version: bool = False,
    progress_factory: ProgressFactory | None = None,
    say: Callable[[str], None] = print,
) -> Reproduction:
    """Repeat every stage that `version`'s policy depends on in a new workspace.

    Deliveries of preferences and people's decisions come from outside, so they are copied.

    Args:
        target: the new workspace, an empty or new directory.
        only_version: copy the stages of earlier versions too, after a check of their digests, and
            repeat only the stages of `version`.
        progress_factory, say: how progress and messages are shown.

    Raises:
        AlignError: `version` is not done yet, `target` is not empty, or a stage to be copied is
            damaged.
    """
    source = Ledger(program.workspace)
    plan = build_plan(program, Decisions.load(program))
    final = policy_key(program, version)
    nodes = _needed(program, plan, final)
    fingerprints = Fingerprints(program, source, plan)
    originals = {node.key: fingerprints.manifest(node.version, node.stage) for node in nodes}
    undone = [key for key, manifest in originals.items() if manifest is None]
    if undone:
        raise AlignError(
            f"{version} cannot be reproduced: {', '.join(undone)} not done under the present "
            "configuration and code",
            remedy="`align status` says why; `align resume` runs what is missing",
        )
    _prepare(program, version, target, batches=only_version or program.intake.source == "inbox")
    again = program.model_copy(
        update={
            "workspace": target,
            "tracking": program.tracking.model_copy(update={"enabled": False}),
        }
    )
    manifests = {key: manifest for key, manifest in originals.items() if manifest is not None}
    compared = []
    with Runner(again, progress_factory=progress_factory, say=say) as runner:
        for node in nodes:
            first = manifests[node.key]
            copied = only_version and node.version != version
            if copied:
                _copy_stage(source, runner.ledger, first)
            second = runner.run_node(node).manifest
            compared.append(_compare(first, second, taken_over=copied))
    digests = {name for name in manifests["/".join(final)].outputs if name.endswith(WEIGHTS)}
    last = compared[-1]
    weights = {name: name not in last.differing for name in sorted(digests)}
    return Reproduction(version, str(target), compared, weights)


def _needed(program: ProgramConfig, plan: Sequence[Node], final: tuple[str, str]) -> list[Node]:
    """The nodes that `final` depends on, in order, and itself as the last. Includes the `promote`
    stages of earlier versions if their decisions determine what a version starts from."""
    nodes = {(node.version, node.stage): node for node in plan}
    names = program.version_names
    needed = {final}
    decided = (
        program.promote.approval == "person"
        or program.promote.parent == "champion"
        or (program.workspace / "approvals").is_dir()
    )
    if decided:
        earlier = names[: names.index(final[0])]
        needed |= {key for key in nodes if key[1] == "promote" and key[0] in earlier}
    pending = list(needed)
    while pending:
        for source in nodes[pending.pop()].inputs.values():
            if source not in needed:
                needed.add(source)
                pending.append(source)
    ordered = [node for node in plan if (node.version, node.stage) in needed]
    return [node for node in ordered if (node.version, node.stage) != final] + [nodes[final]]


def _prepare(program: ProgramConfig, version: str, target: Path, *, batches: bool) -> None:
    if target.exists() and any(target.iterdir()):
        raise AlignError(
            f"{target} is not empty", remedy="name a directory that is new: --into DIRECTORY"
        )
    target.mkdir(parents=True, exist_ok=True)
    of = {"program": program.name, "version": version, "workspace": str(program.workspace)}
    atomic_write_json(target / REPRODUCTION, as_record(of))
    for choices in CHOICES:
        if (program.workspace / choices).is_file():
            shutil.copy2(program.workspace / choices, target / choices)
    for name in COPIED if batches else COPIED[:2]:
        if (program.workspace / name).is_dir():
            shutil.copytree(program.workspace / name, target / name, dirs_exist_ok=True)


def _copy_stage(source: Ledger, target: Ledger, manifest: Manifest) -> None:
    """Copy a committed stage into the new workspace, by hard links where possible."""
    place = (manifest.version, manifest.stage, manifest.fingerprint)
    directory = source.committed_dir(*place)
    wrong = verify(directory)
    if wrong:
        raise AlignError(
            f"{manifest.version}/{manifest.stage} is damaged: {', '.join(wrong)}",
            where=str(directory),
            remedy="repeat it too: leave --only-version out",
        )
    aside = target.committed_dir(*place).with_suffix(".taking")
    shutil.copytree(directory, aside, copy_function=_link)
    aside.rename(target.committed_dir(*place))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _compare(first: Manifest, second: Manifest, *, taken_over: bool) -> StageComparison:
    names = sorted({*first.outputs, *second.outputs})
    differing = [name for name in names if first.outputs.get(name) != second.outputs.get(name)]
    key = f"{first.version}/{first.stage}"
    causes = []
    if first.code_version != second.code_version:
        causes.append(f"code version {first.code_version} → {second.code_version}")
    if first.config != second.config:
        causes.append("settings")
    if first.seed != second.seed:
        causes.append("seed")
    for name, source in first.inputs.items():
        if second.inputs.get(name, {}).get("digest") != source["digest"]:
            causes.append(f"input {name}")
    libraries = library_versions()
    causes += [
        f"{name} {number} → {libraries.get(name, 'none')}"
        for name, number in first.libraries.items()
        if libraries.get(name) != number
    ]
    return StageComparison(key, first.digest, second.digest, differing, causes, taken_over)
