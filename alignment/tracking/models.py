"""Policies, reward models and datasets in MLflow: by reference, never copied.

A model is known by the digest of the stage outputs it belongs to. MLflow holds its tags (path in
the workspace, sha256 of every weight file, bytes) and who made it from what.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignment.pipeline.records import Manifest
from alignment.tracking.naming import DIGEST_LENGTH
from alignment.tracking.store import Store, pages

DIGEST = "rlhf.digest"
WEIGHTS = (".safetensors", ".bin")


def holds_model(manifest: Manifest) -> bool:
    """Whether a stage's outputs are a model."""
    return any(name.startswith("model/") for name in manifest.outputs)


def model_type(manifest: Manifest) -> str:
    """`policy` or `reward-helpfulness` or `reward-safety`."""
    domain = manifest.options.get("domain")
    return f"reward-{domain}" if manifest.stage.startswith("reward") else "policy"


class Models:
    """The logged models of one experiment.

    Attributes:
        by_digest: digest of the stage's outputs → id, of those that are logged.
        due: digests of those that the ledger has and that are to be logged.
    """

    def __init__(self, store: Store):
        self.client = store.client
        self.experiment = store.experiment
        self.by_digest: dict[str, str] = {
            model.tags[DIGEST]: model.model_id
            for model in pages(self.client.search_logged_models, [self.experiment])
            if DIGEST in model.tags
        }
        self.due: set[str] = set()

    def missing(self, digests: Iterable[str]) -> bool:
        """Whether a model among them is still to be logged: its stage could not be written."""
        return any(digest in self.due and digest not in self.by_digest for digest in digests)

    def inputs_of(self, manifest: Manifest) -> list[str]:
        """Ids of the models a stage read."""
        digests = dict.fromkeys(source["digest"] for source in manifest.inputs.values())
        return [self.by_digest[digest] for digest in digests if digest in self.by_digest]

    def ensure(self, manifest: Manifest, directory: Path, workspace: Path, run_id: str) -> str:
        """The id of the model that the stage made; logged once."""
        if manifest.digest in self.by_digest:
            return self.by_digest[manifest.digest]
        model = self.client.create_logged_model(
            self.experiment,
            name=f"{manifest.version}-{manifest.stage}".replace("_", "-"),
            source_run_id=run_id,
            model_type=model_type(manifest),
            tags={
                "mlflow.model.isExternal": "true",
                DIGEST: manifest.digest,
                "rlhf.version": manifest.version,
                "rlhf.stage": manifest.stage,
                "rlhf.checkpoint": str((directory / "model").relative_to(workspace)),
                **_weights(manifest, directory),
            },
            params={"code_version": manifest.code_version, "seed": str(manifest.seed)},
        )
        self.client.finalize_logged_model(model.model_id, "READY")
        self.by_digest[manifest.digest] = model.model_id
        return str(model.model_id)


def _weights(manifest: Manifest, directory: Path) -> dict[str, str]:
    tags: dict[str, str] = {}
    total = 0
    for name, digest in manifest.outputs.items():
        if name.startswith("model/") and name.endswith(WEIGHTS):
            tags[f"rlhf.sha256.{name.removeprefix('model/')}"] = digest
            path = directory / name
            total += path.stat().st_size if path.is_file() else 0
    tags["rlhf.bytes"] = str(total)
    return tags


def dataset_inputs(manifest: Manifest, workspace: Path) -> list[Any]:
    """MLflow inputs for every dataset that the stage noted, under our digests.

    MLflow's own dataset classes hash the first 10,000 rows only; ours cover every byte.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    where = (workspace / "versions" / manifest.version / manifest.stage).as_uri()
    return [
        DatasetInput(
            dataset=Dataset(
                name=item["name"],
                digest=item["digest"][:DIGEST_LENGTH],
                source_type="local",
                source=json.dumps({"uri": where}),
                profile=json.dumps({"num_rows": item["rows"]}),
            ),
            tags=[InputTag("mlflow.data.context", item["role"])],
        )
        for item in manifest.datasets
    ]


def log_links(
    client: Any, run: Any, datasets: list[Any], inputs: list[str], outputs: list[str]
) -> None:
    """Note which data and models a run read and which models it made; nothing is noted twice."""
    from mlflow.entities import LoggedModelInput, LoggedModelOutput

    known_in = {item.model_id for item in (run.inputs.model_inputs if run.inputs else [])}
    known_out = {item.model_id for item in (run.outputs.model_outputs if run.outputs else [])}
    new_in = [LoggedModelInput(item) for item in inputs if item not in known_in]
    new_out = [LoggedModelOutput(item, 0) for item in outputs if item not in known_out]
    if new_in or datasets:
        client.log_inputs(run.info.run_id, datasets=datasets, models=new_in)
    if new_out:
        client.log_outputs(run.info.run_id, new_out)
