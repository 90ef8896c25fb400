"""What every stage depends on, worked out along the plan: fingerprints and manifests."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import Any

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import Decisions
from alignment.pipeline.external_inputs import external_digest, reads_outside
from alignment.pipeline.ledger import Ledger, Manifest, fingerprint
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.utils.seeds import derive_seed


class Fingerprints:
    """Fingerprints and manifests along the plan, each worked out once; threads may share them."""

    def __init__(self, program: ProgramConfig, ledger: Ledger, plan: Sequence[Node]):
        self._program = program
        self.ledger = ledger
        self.plan = list(plan)
        self._nodes = {(node.version, node.stage): node for node in plan}
        self._known: dict[tuple[str, str], str | None] = {}
        self._manifests: dict[tuple[str, str], Manifest | None] = {}
        self._seen: dict[str, ProgramConfig] = {}
        self._lock = RLock()

    @classmethod
    def load(cls, program: ProgramConfig, decisions: Decisions | None = None) -> Fingerprints:
        """Of the program's plan, by what its workspace holds now."""
        plan = build_plan(program, decisions or Decisions.load(program))
        return cls(program, Ledger(program.workspace), plan)

    def drop_missing(self) -> None:
        """Forget what was not done yet: it may be by now."""
        with self._lock:
            self._known = {key: value for key, value in self._known.items() if value is not None}
            self._manifests = {k: seen for k, seen in self._manifests.items() if seen is not None}

    def of(self, node: Node) -> str | None:
        """The node's fingerprint, or None while an input is not done."""
        key = (node.version, node.stage)
        with self._lock:
            if key not in self._known:
                self._known[key] = self._work_out(node)
            return self._known[key]

    def manifest(self, version: str, stage: str) -> Manifest | None:
        """The manifest of a stage under the present configuration, if it is done."""
        key = (version, stage)
        with self._lock:
            if key not in self._manifests:
                found = self.of(self._nodes[key])
                self._manifests[key] = self.ledger.find(version, stage, found) if found else None
            return self._manifests[key]

    def parts(self, node: Node) -> tuple[str, dict[str, Any], dict[str, str]]:
        """Code version, configuration slice and input digests behind a node's fingerprint.

        Raises:
            LookupError: an input is not done.
        """
        inputs = {}
        for name, (version, stage) in node.inputs.items():
            manifest = self.manifest(version, stage)
            if manifest is None:
                raise LookupError(f"{version}/{stage}")
            inputs[name] = manifest.digest
        with self._lock:
            if node.version not in self._seen:
                self._seen[node.version] = for_version(self._program, node.version)
            seen = self._seen[node.version]
        outside = self._outside(node, seen)
        if outside is not None:
            inputs["outside"] = outside
        declared = stage_declaration(node.module)
        return declared.code_version, config_slice(seen, declared.reads), inputs

    def _outside(self, node: Node, seen: ProgramConfig) -> str | None:
        """Digest of what the node reads from outside the workspace, if anything.

        A copied workspace may have left it behind: then what was read before still counts.
        """
        found = external_digest(seen, node.module)
        if found is None and reads_outside(seen, node.module):
            done = self.ledger.current(node.version, node.stage)
            return done.inputs.get("outside", {}).get("digest") if done else None
        return found

    def _work_out(self, node: Node) -> str | None:
        try:
            code_version, config, inputs = self.parts(node)
        except LookupError:
            return None
        seed = derive_seed(self._program.seed, node.version, node.stage)
        return fingerprint(node, code_version, config, seed, inputs)


PLANNED = {"planned": True}


@dataclass(frozen=True)
class Declaration:
    """`CODE_VERSION` and `READS` of a stage module."""

    code_version: str
    reads: tuple[str, ...]


_declared: dict[str, Declaration] = {}


def stage_declaration(module: str) -> Declaration:
    """Read a stage's declaration from its source, without importing torch and friends."""
    if module not in _declared:
        path = Path(__file__).parents[1] / "stages" / f"{module}.py"
        found: dict[str, Any] = {}
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                name = statement.targets[0].id
                if name in ("CODE_VERSION", "READS"):
                    found[name] = ast.literal_eval(statement.value)
        _declared[module] = Declaration(found["CODE_VERSION"], tuple(found["READS"]))
    return _declared[module]


def config_slice(program: ProgramConfig, sections: Sequence[str]) -> dict[str, Any]:
    """The sections a stage reads, as plain JSON values.

    Fields marked `planned` are left out: they decide which stages there are, and the stages that
    they concern have them as options.
    """
    return {name: _plain(getattr(program, name)) for name in sections}


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        fields = type(value).model_fields.items()
        planned = {name for name, field in fields if (field.json_schema_extra or {}) == PLANNED}
        return value.model_dump(mode="json", exclude=planned)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value
