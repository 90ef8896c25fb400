"""The lineage of a version: everything it was made from, by the manifests of the ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.plan import policy_key
from alignment.pipeline.reasons import why_run
from alignment.pipeline.records import Manifest
from alignment.preferences.store import PreferenceStore
from alignment.reporting.origin import BatchUse, batches_of
from alignment.utils.files import MANIFEST


@dataclass(frozen=True)
class Step:
    """One stage of the lineage, as described by its manifest."""

    version: str
    stage: str
    digest: str
    code_version: str
    seed: int
    inputs: dict[str, str]
    """Input name → `version/stage` it came from."""
    started: str
    directory: str
    """Relative to the workspace."""

    @property
    def key(self) -> str:
        """`rlhf-v1/sample`."""
        return f"{self.version}/{self.stage}"


@dataclass
class Lineage:
    """The lineage of one stage's outputs."""

    of: str
    """`rlhf-v2/ppo`: the requested stage."""
    steps: list[Step] = field(default_factory=list)
    """The stage and all stages it depends on, in order of execution."""
    batches: list[BatchUse] = field(default_factory=list)
    """Batches of preferences that any of them used."""
    config: dict[str, Any] = field(default_factory=dict)
    """`version/stage` → the settings that the stage read."""
    libraries: dict[str, str] = field(default_factory=dict)
    """Versions of the libraries with which the requested stage ran."""
    missing: list[str] = field(default_factory=list)
    """Inputs whose outputs are no longer in the workspace."""
    stale: str | None = None
    """Why a run would make the requested stage again; None if it would not."""
    withdrawn: list[str] = field(default_factory=list)
    """A sentence on each of the batches that people took back."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def lineage(program: ProgramConfig, name: str) -> Lineage:
    """The lineage of a stage.

    Args:
        name: a version (meaning its policy), `version/stage`, or the beginning of the digest of a
            stage's outputs, as shown by MLflow (`rlhf.digest`).

    Raises:
        AlignError: there is no such stage, or it is not done yet.
    """
    ledger = Ledger(program.workspace)
    start = _find(program, ledger, name)
    ancestry = Lineage(f"{start.version}/{start.stage}", libraries=start.libraries)
    _walk(ledger, program.workspace, start, ancestry, set())
    ancestry.stale = _stale(program, start)
    used = {batch.id for batch in ancestry.batches}
    for batch in PreferenceStore(program.workspace / "preferences").batches():
        if batch.withdrawal is not None and batch.id in used:
            ancestry.withdrawn.append(batch.withdrawal.in_words())
    return ancestry


def _stale(program: ProgramConfig, made: Manifest) -> str | None:
    """Why a run would make the stage of these outputs again; None if it would not, or if others are
    the present ones."""
    fingerprints = Fingerprints.load(program)
    node = next((n for n in fingerprints.plan if n.key == f"{made.version}/{made.stage}"), None)
    current = fingerprints.ledger.current(made.version, made.stage)
    if node is None or current != made or fingerprints.manifest(node.version, node.stage):
        return None
    return why_run(node, fingerprints)


def _find(program: ProgramConfig, ledger: Ledger, name: str) -> Manifest:
    fingerprints = Fingerprints.load(program, any_code=True)
    plan = fingerprints.plan
    version, _, stage = name.partition("/")
    if not stage and version in program.version_names:
        version, stage = policy_key(program, version)
    if stage:
        keys = {node.key for node in plan}
        if f"{version}/{stage}" not in keys:
            stages = [node.stage for node in plan if node.version == version]
            raise AlignError(
                f"no stage {name!r}",
                remedy=f"its stages: {', '.join(stages)}" if stages else "see `align status`",
            )
        manifest = fingerprints.manifest(version, stage)
        if manifest is None:
            raise AlignError(f"{version}/{stage} is not done yet", remedy="see `align status`")
        return manifest
    if len(name) >= 6:
        for path in sorted(ledger.root.glob(f"*/*/*/{MANIFEST}")):
            manifest = Manifest.read(path.parent)
            if manifest.digest.startswith(name):
                return manifest
    raise AlignError(
        f"nothing in this workspace is called {name!r}",
        remedy=f"a version ({', '.join(program.version_names)}), VERSION/STAGE, or a digest",
    )


def _walk(
    ledger: Ledger, workspace: Path, manifest: Manifest, ancestry: Lineage, visited: set[str]
) -> None:
    if manifest.fingerprint in visited:
        return
    visited.add(manifest.fingerprint)
    origins = {}
    for name, source in manifest.inputs.items():
        if "stage" not in source:
            origins[name] = f"{name} {source['digest'][:12]}"
            continue
        origins[name] = f"{source['version']}/{source['stage']}"
        upstream = ledger.find(source["version"], source["stage"], source["fingerprint"])
        if upstream is None:
            ancestry.missing.append(f"{origins[name]} {source['digest'][:12]}")
        else:
            _walk(ledger, workspace, upstream, ancestry, visited)
    directory = ledger.committed_dir(manifest.version, manifest.stage, manifest.fingerprint)
    if (directory / "batch.json").is_file():
        ancestry.batches += batches_of(directory)
    step = Step(
        manifest.version,
        manifest.stage,
        manifest.digest,
        manifest.code_version,
        manifest.seed,
        origins,
        manifest.started,
        directory.relative_to(workspace).as_posix(),
    )
    ancestry.steps.append(step)
    ancestry.config[step.key] = manifest.config
