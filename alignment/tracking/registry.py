"""The model registry: policies and reward models of finished versions, and who is champion."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.pipeline.approval import Decisions
from alignment.pipeline.plan import policy_key
from alignment.pipeline.records import Manifest
from alignment.tracking import naming
from alignment.tracking.history import VersionHistory
from alignment.tracking.models import DIGEST, Models, holds_model, model_type
from alignment.tracking.store import Store, experiment_name

CHAMPION = "champion"
CHALLENGER = "challenger"


class Registry:
    """Registered models `<program>-policy`, `<program>-reward-helpfulness`, `…-safety`."""

    def __init__(self, store: Store, program: ProgramConfig):
        self.store = store
        self.program = program
        self.client = store.client
        self.prefix = experiment_name(program).replace("/", "-").replace(":", "-")
        self._registered: dict[str, dict[str, Any]] = {}
        self._aliases: dict[tuple[str, str], str] = {}

    def update(
        self, versions: list[VersionHistory], models: Models, runs: Mapping[str, Any]
    ) -> None:
        """Register what finished versions made; set the aliases by what was decided.

        Args:
            runs: version → its run, on whose page its models are shown.
        """
        newest: str | None = None
        for history in versions:
            if naming.version_number(history.version) is None or not _judged(history):
                continue
            if models.missing(item.digest for item in finished_models(self.program, history)):
                return  # the versions of a registered model come in the order of the series
            self._register(history, models, runs)
            newest = history.version
        champion = Decisions.load(self.program).champion
        by_name = {history.version: history for history in versions}
        if newest is None or champion not in by_name:
            return
        for kind in ("policy", "reward-helpfulness", "reward-safety"):
            self._point(kind, CHAMPION, by_name[champion])
            challenger = by_name[newest] if newest != champion else None
            self._point(kind, CHALLENGER, challenger)

    def _register(self, history: VersionHistory, models: Models, runs: Mapping[str, Any]) -> None:
        for manifest in finished_models(self.program, history):
            name = f"{self.prefix}-{model_type(manifest)}"
            registered = self._versions(name)
            model_id = models.by_digest.get(manifest.digest)
            if manifest.digest in registered or model_id is None:
                continue
            with self.store.as_default():
                made = self.client.create_model_version(
                    name,
                    source=f"models:/{model_id}",
                    model_id=model_id,
                    run_id=runs[history.version].info.run_id,
                    tags={
                        DIGEST: manifest.digest,
                        "rlhf.version": history.version,
                        "rlhf.stage": manifest.stage,
                    },
                    description=f"{naming.version_title(history.version)}, stage {manifest.stage}",
                    await_creation_for=0,
                )
            registered[manifest.digest] = made.version

    def _versions(self, name: str) -> dict[str, Any]:
        """Digest → registered version of model `name`, which is created if need be."""
        if name in self._registered:
            return self._registered[name]
        models = self.client.search_registered_models(filter_string=f"name = '{name}'")
        if not models:
            self.client.create_registered_model(name)
            registered: dict[str, Any] = {}
        else:
            registered = {
                version.tags[DIGEST]: version.version
                for version in self.client.search_model_versions(f"name = '{name}'")
                if DIGEST in version.tags
            }
            for alias, version in models[0].aliases.items():
                self._aliases[(name, alias)] = str(version)
        self._registered[name] = registered
        return registered

    def _point(self, kind: str, alias: str, history: VersionHistory | None) -> None:
        """Set an alias to the version's model of that kind, or take it away."""
        name = f"{self.prefix}-{kind}"
        if name not in self._registered:
            return
        number = None
        if history is not None:
            for manifest in finished_models(self.program, history):
                if model_type(manifest) == kind:
                    number = self._registered[name].get(manifest.digest)
        if number is None:
            if (name, alias) in self._aliases:
                self.client.delete_registered_model_alias(name, alias)
                del self._aliases[(name, alias)]
        elif self._aliases.get((name, alias)) != str(number):
            self.client.set_registered_model_alias(name, alias, str(number))
            self._aliases[(name, alias)] = str(number)


def _judged(history: VersionHistory) -> bool:
    """Whether a version is ready for the registry: evaluated, and judged where it has a gate."""
    gated = any(node.stage == "promote" for node in history.nodes)
    return "evaluate" in history.current and (not gated or "promote" in history.current)


def finished_models(program: ProgramConfig, history: VersionHistory) -> list[Manifest]:
    """The version's reward models and its policy (not the steps on the way to it)."""
    manifests = [
        manifest
        for stage, manifest in history.current.items()
        if stage.startswith("reward") and holds_model(manifest)
    ]
    stage = policy_key(program, history.version)[1]
    if stage in history.current:
        manifests.append(history.current[stage])
    return manifests
