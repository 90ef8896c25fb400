"""Fingerprints and manifests of all stages, worked out along the plan."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from threading import RLock
from typing import Any

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import Decisions
from alignment.pipeline.external_inputs import (
    external_digest,
    reads_outside,
    unchanged_since,
)
from alignment.pipeline.ledger import Ledger, fingerprint
from alignment.pipeline.migrate import same_work
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.pipeline.records import Manifest
from alignment.pipeline.slices import config_slice, stage_declaration
from alignment.utils.seeds import derive_seed

WITHDRAWN = "withdrawn"
"""Input of an intake stage: what people took back or corrected of what the version takes in."""


class Fingerprints:
    """Fingerprints and manifests along the plan, each worked out once; threads may share them."""

    def __init__(
        self,
        program: ProgramConfig,
        ledger: Ledger,
        plan: Sequence[Node],
        any_code: bool = False,
    ):
        """With `any_code`, outputs that older code made from the same settings count as done too,
        and so do those of preferences that were withdrawn since.

        Use it to show results, not to decide what to run.
        """
        self.any_code = any_code
        self.program = program
        self.ledger = ledger
        self.plan = list(plan)
        self._nodes = {(node.version, node.stage): node for node in plan}
        self._fingerprints: dict[tuple[str, str], str | None] = {}
        self._manifests: dict[tuple[str, str], Manifest | None] = {}
        self._configs: dict[str, ProgramConfig] = {}
        self._lock = RLock()

    @classmethod
    def load(
        cls,
        program: ProgramConfig,
        decisions: Decisions | None = None,
        any_code: bool = False,
    ) -> Fingerprints:
        """The fingerprints of the program's plan, from the present contents of its workspace."""
        plan = build_plan(program, decisions or Decisions.load(program))
        return cls(program, Ledger(program.workspace), plan, any_code)

    def drop_missing(self) -> None:
        """Forget which stages were not done: they may be done by now."""
        with self._lock:
            self._fingerprints = {
                key: value for key, value in self._fingerprints.items() if value is not None
            }
            self._manifests = {k: done for k, done in self._manifests.items() if done}

    def of(self, node: Node) -> str | None:
        """The node's fingerprint, or None until all its inputs are done."""
        key = (node.version, node.stage)
        with self._lock:
            if key not in self._fingerprints:
                self._fingerprints[key] = self.anew(node)
            return self._fingerprints[key]

    def anew(self, node: Node) -> str | None:
        """`of`, worked out at this moment: people may have taken something back since."""
        if self.missing(node):
            return None
        config, code_version, inputs = self.request(node)
        digests = {name: digest for name, digest in inputs.items() if digest is not None}
        return fingerprint(node, code_version, config, self.seed(node), digests)

    def manifest(self, version: str, stage: str) -> Manifest | None:
        """The manifest of a stage under the present configuration, if it is done.

        The fingerprint in it is the one it was made under, which may be an older release's.
        """
        key = (version, stage)
        with self._lock:
            if key not in self._manifests:
                self._manifests[key] = self.find(self._nodes[key])
            return self._manifests[key]

    def request(self, node: Node) -> tuple[dict[str, Any], str, dict[str, str | None]]:
        """Configuration slice, code version and input digests behind a node's fingerprint.

        The digest of an input that is not done is None.
        """
        inputs: dict[str, str | None] = {}
        for name, source in node.inputs.items():
            manifest = self.manifest(*source)
            inputs[name] = manifest.digest if manifest else None
        config = self.config(node)
        inputs |= self._unplanned(node)
        code_version = stage_declaration(node.module).code_version
        return config_slice(config, node.module), code_version, inputs

    def config(self, node: Node) -> ProgramConfig:
        """The program with the settings of the node's version applied."""
        with self._lock:
            if node.version not in self._configs:
                self._configs[node.version] = for_version(self.program, node.version)
            return self._configs[node.version]

    def seed(self, node: Node) -> int:
        """The node's own seed."""
        return derive_seed(self.program.seed, node.version, node.stage)

    def missing(self, node: Node) -> list[str]:
        """Keys of the node's inputs that are not done."""
        return [f"{v}/{s}" for v, s in node.inputs.values() if self.manifest(v, s) is None]

    def directories(self, node: Node) -> dict[str, Path]:
        """Input name → directory of the stage it comes from. All inputs must be done."""
        return {
            name: self.ledger.committed_dir(*source, self._done(*source).fingerprint)
            for name, source in node.inputs.items()
        }

    def recorded_inputs(self, node: Node) -> dict[str, dict[str, str]]:
        """The inputs as a manifest records them. All must be done."""
        inputs = {}
        for name, source in node.inputs.items():
            manifest = self._done(*source)
            inputs[name] = {
                "version": manifest.version,
                "stage": manifest.stage,
                "digest": manifest.digest,
                "fingerprint": manifest.fingerprint,
            }
        return inputs | {name: {"digest": value} for name, value in self._unplanned(node).items()}

    def _done(self, version: str, stage: str) -> Manifest:
        manifest = self.manifest(version, stage)
        assert manifest is not None, f"{version}/{stage} is not done"
        return manifest

    def find(self, node: Node) -> Manifest | None:
        """The node's manifest, read from the ledger now; `manifest` may answer from memory."""
        key = self.of(node)
        if key is None:
            return None
        exact = self.ledger.find(node.version, node.stage, key)
        found = exact or same_work(self.ledger, node, key, self.program, self.any_code)
        if found is None and self.any_code and WITHDRAWN in self._unplanned(node):
            return self.ledger.current(node.version, node.stage)
        return found

    def _unplanned(self, node: Node) -> dict[str, str]:
        """Digests of what a stage reads beside the outputs of other stages, by input name."""
        found = {"outside": self._outside(node, self.config(node))}
        if node.module == "intake":
            from alignment.preferences.store import PreferenceStore
            from alignment.preferences.what_counts import state_of

            store = PreferenceStore(self.program.workspace / "preferences")
            found[WITHDRAWN] = state_of(store, node.version)
        return {name: digest for name, digest in found.items() if digest is not None}

    def _outside(self, node: Node, config: ProgramConfig) -> str | None:
        """Digest of what the node reads from outside the workspace, if anything.

        A copied workspace may have left those files behind; then the recorded digest counts.
        """
        if not reads_outside(config, node.module):
            return None
        digest = external_digest(config, node.module)
        done = self.ledger.current(node.version, node.stage)
        recorded = done.inputs.get("outside", {}).get("digest") if done else None
        if digest is None:
            return recorded
        if done and recorded not in (None, digest):
            began = datetime.fromisoformat(done.started).timestamp()
            if unchanged_since(config, node.module, recorded, began):
                return recorded
        return digest
