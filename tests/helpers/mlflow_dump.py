"""Everything an experiment holds, in plain values that two stores can be compared by."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any

RANDOM = ("mlflow.parentRunId", "rlhf.described", "mlflow.user", "mlflow.source.name")


def dump(store: Any) -> dict[str, Any]:
    """Runs by name, registered models by name; no ids."""
    from mlflow.entities import ViewType

    client = store.client
    runs = client.search_runs(
        [store.experiment], run_view_type=ViewType.ACTIVE_ONLY, max_results=1000
    )
    names = {run.info.run_id: _title(run) for run in runs}
    models = {
        model.model_id: model.tags["rlhf.digest"]
        for model in client.search_logged_models([store.experiment])
    }
    found: dict[str, Any] = {}
    for run in runs:
        key = run.data.tags.get("rlhf.attempt", _title(run))
        assert key not in found, f"two runs for {key}"
        found[key] = _run(
            client, client.get_run(run.info.run_id), names, models, _curves(store, run)
        )
    found["registry"] = {
        model.name: {
            int(version.version): (
                version.tags["rlhf.digest"],
                sorted(a for a, v in model.aliases.items() if str(v) == str(version.version)),
            )
            for version in client.search_model_versions(f"name = '{model.name}'")
        }
        for model in client.search_registered_models()
    }
    return found


def _title(run: Any) -> str:
    """A run's name without the champion's star, so that it is found whoever is champion."""
    return str(run.info.run_name).removesuffix(" ★")


def _curves(store: Any, run: Any) -> dict[str, list[tuple[int, float]]]:
    """Every point of a run; out of a database that is a file by one question, not by hundreds."""
    if store.uri.startswith("sqlite:///"):
        curves: dict[str, list[tuple[int, float]]] = {}
        with contextlib.closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as file:
            asked = "SELECT key, step, value FROM metrics WHERE run_uuid = ?"
            for name, step, value in file.execute(asked, (run.info.run_id,)):
                curves.setdefault(name, []).append((step, value))
        return {name: sorted(points) for name, points in curves.items()}
    return {
        name: sorted(
            (point.step, point.value)
            for point in store.client.get_metric_history(run.info.run_id, name)
        )
        for name in run.data.metrics
    }


def _run(
    client: Any,
    run: Any,
    names: dict[str, str],
    models: dict[str, str],
    curves: dict[str, list[tuple[int, float]]],
) -> dict[str, Any]:
    tags = run.data.tags
    inputs = run.inputs
    outputs = run.outputs.model_outputs if run.outputs else []
    return {
        "name": run.info.run_name,
        "parent": names.get(tags.get("mlflow.parentRunId", "")),
        "status": run.info.status,
        "times": (run.info.start_time, run.info.end_time),
        "tags": {k: v for k, v in tags.items() if k not in RANDOM},
        "params": run.data.params,
        # What a version costs grows with its stages, and every sum that was written stays.
        "curves": {
            name: points[-1:] if "rlhf.kind" in tags and name.startswith("price/") else points
            for name, points in curves.items()
        },
        "datasets": sorted(
            (item.dataset.name, item.dataset.digest, item.tags[0].value)
            for item in inputs.dataset_inputs
        ),
        "read": sorted(models[item.model_id] for item in inputs.model_inputs),
        "made": sorted(models[item.model_id] for item in outputs),
        "files": sorted(item.path for item in client.list_artifacts(run.info.run_id)),
    }
