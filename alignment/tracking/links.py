"""Addresses inside MLflow's pages that answer the questions people come with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote

from alignment.config.program import ProgramConfig
from alignment.evaluation.headline import HEADLINES
from alignment.tracking.naming import KIND
from alignment.tracking.store import Store, experiment_name

VIEW = "rlhfversions"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"


@dataclass(frozen=True)
class Links:
    """Paths, to be put after the server's address."""

    table: str
    charts: str
    compare: str
    progress: str
    models: str


def find_links(program: ProgramConfig) -> Links:
    """The addresses for a program; also stores the table's view with its experiment.

    Raises:
        Exception: whatever MLflow raises when the store cannot be read.
    """
    store = Store(program)
    experiment = store.client.get_experiment(store.experiment)
    state = json.dumps(view_state())
    if experiment.tags.get(VIEW_TAG) != state:
        store.client.set_experiment_tag(store.experiment, VIEW_TAG, state)
    runs = store.client.search_runs(
        [store.experiment], f"tags.`{KIND}` = 'version'", order_by=["attributes.start_time ASC"]
    )
    progress = store.client.search_runs([store.experiment], f"tags.`{KIND}` = 'progress'")
    ids = [run.info.run_id for run in runs]
    base = f"/#/experiments/{store.experiment}"
    search = f"workflowType=machine_learning&searchFilter={quote(version_filter(), safe='')}"
    chosen = quote(json.dumps(ids), safe="")
    return Links(
        table=f"{base}/runs?workflowType=machine_learning&viewStateShareKey={VIEW}",
        charts=f"{base}/runs?{search}&compareRunsMode=CHART",
        compare=f"/#/compare-runs?runs={chosen}&experiments={quote(json.dumps([store.experiment]))}",
        progress=(
            f"{base}/runs/{progress[0].info.run_id}/model-metrics" if progress else f"{base}/runs"
        ),
        models=f"/#/models?searchQuery={quote(experiment_name(program))}",
    )


def version_filter() -> str:
    """MLflow's search for the runs of versions."""
    return f"tags.`{KIND}` = 'version'"


def view_state() -> dict[str, object]:
    """The run table as it is useful: versions in order, headline figures first.

    MLflow does not document this format; a version that does not know it shows its default table.
    """
    columns = [f"metrics.`{item.name}`" for item in HEADLINES]
    return {
        "searchFilter": version_filter(),
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "selectedColumns": [
            "attributes.`Duration`",
            *columns,
            "tags.`rlhf.promoted`",
            "tags.`rlhf.previous`",
        ],
        "runsExpanded": {},
        "lifecycleFilter": "Active",
        "startTime": "ALL",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
    }
