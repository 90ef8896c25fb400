"""The datasets of a stage in MLflow, under our digests.

MLflow's own dataset classes hash the first 10,000 rows only; ours cover every byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alignment.pipeline.records import Manifest
from alignment.tracking.naming import DIGEST_LENGTH


def dataset_inputs(manifest: Manifest, workspace: Path) -> list[Any]:
    """MLflow inputs for every dataset that the stage noted."""
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
