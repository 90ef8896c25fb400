"""Addresses inside MLflow's pages that answer the questions people come with."""

from __future__ import annotations

import json
from dataclasses import dataclass
from urllib.parse import quote

from alignment.config.program import ProgramConfig
from alignment.reporting.headline import HEADLINES
from alignment.tracking.naming import HEADLINE, KIND
from alignment.tracking.store import Store, experiment_name

VERSIONS = f"tags.`{KIND}` = 'version'"  # MLflow's search for the runs of versions
VIEW = "rlhfversions"
CHARTS = "rlhfcharts"
VIEW_TAG = "mlflow.sharedViewState."
TABLE = ("win_helpfulness", "win_safety")  # more columns would push the tags out of sight
MODE = "workflowType=machine_learning"  # otherwise MLflow opens its pages for agents


@dataclass(frozen=True)
class Links:
    """Paths, to be put after the server's address; None where there is nothing to see yet."""

    table: str
    charts: str
    samples: str
    compare: str | None
    progress: str | None
    models: str


def find_links(program: ProgramConfig) -> Links:
    """The addresses for a program; also stores the table's view with its experiment.

    Raises:
        Exception: whatever MLflow raises when the store cannot be read.
    """
    store = Store(program)
    experiment = store.client.get_experiment(store.experiment)
    for name, state in ((VIEW, view_state()), (CHARTS, view_state() | chart_state())):
        tag, text = f"{VIEW_TAG}{name}", json.dumps(state)
        if experiment.tags.get(tag) != text:
            store.client.set_experiment_tag(store.experiment, tag, text)
    runs = store.client.search_runs(
        [store.experiment], VERSIONS, order_by=["attributes.start_time ASC"]
    )
    progress = store.client.search_runs([store.experiment], f"tags.`{KIND}` = 'progress'")
    ids = [run.info.run_id for run in runs]
    base = f"/#/experiments/{store.experiment}"
    chosen = quote(json.dumps(ids), safe="")
    return Links(
        table=f"{base}/runs?{MODE}&viewStateShareKey={VIEW}",
        charts=f"{base}/runs?{MODE}&viewStateShareKey={CHARTS}&compareRunsMode=CHART",
        samples=f"{base}/runs?{MODE}&viewStateShareKey={VIEW}&compareRunsMode=ARTIFACT",
        compare=(
            f"/#/compare-runs?runs={chosen}&experiments={quote(json.dumps([store.experiment]))}"
            f"&{MODE}"
            if len(ids) > 1
            else None
        ),
        progress=(
            f"{base}/runs/{progress[0].info.run_id}/model-metrics?{MODE}" if progress else None
        ),
        models=f"/#/models?searchQuery={quote(experiment_name(program))}&{MODE}",
    )


def view_state() -> dict[str, object]:
    """The run table as it is useful: versions in order, headline figures first.

    MLflow does not document this format; a version that does not know it shows its default table.
    """
    return {
        "searchFilter": VERSIONS,
        "orderByKey": "attributes.start_time",
        "orderByAsc": True,
        "selectedColumns": [
            *(f"metrics.`{HEADLINE}{name}`" for name in TABLE),
            "tags.`rlhf.standing`",
            "tags.`rlhf.batches`",
            "tags.`rlhf.parent`",
        ],
        "runsExpanded": {},
        "lifecycleFilter": "Active",
        "startTime": "ALL",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
    }


def chart_state() -> dict[str, object]:
    """The chart page: first the plane of helpfulness and safety (Llama 2, Fig 11), then a chart for
    each headline figure."""
    section = "rlhf-headline"
    common = {"metricSectionId": section, "deleted": False, "isGenerated": False}

    def axis(name: str) -> dict[str, str]:
        return {"key": f"{HEADLINE}{name}", "type": "METRIC"}

    plane = {
        "uuid": "rlhf-plane",
        "type": "SCATTER",
        "displayName": "helpfulness and safety: win rates against SFT",
        "runsCountToCompare": 100,
        "xaxis": axis("win_helpfulness"),
        "yaxis": axis("win_safety"),
        **common,
    }
    bars = [
        {
            "uuid": f"rlhf-{item.name}",
            "type": "BAR",
            "displayName": item.title,
            "runsCountToCompare": 20,
            "metricKey": f"{HEADLINE}{item.name}",
            **common,
        }
        for item in HEADLINES
        if item.compares
    ]
    place = {"uuid": section, "name": "versions", "display": True, "isReordered": True}
    return {
        "compareRunCharts": [plane, *bars],
        "compareRunSections": [{**place, "deleted": False, "isGenerated": False}],
        "isAccordionReordered": True,
    }
