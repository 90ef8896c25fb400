"""The runs of one experiment: found again by their tags, created once, never written twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignment.tracking.naming import ATTEMPT, KIND, VERSION
from alignment.tracking.store import Store

PUBLISHED = "rlhf.published"
"""On a stage run: the status up to which everything has been written."""

Point = tuple[str, float, int]
"""Metric name, value, step."""


class Runs:
    """A view of the experiment's runs, loaded in one search and kept up to date as we write.

    The store itself remembers what was written (tags `rlhf.attempt`, `rlhf.published`), so there is
    no second file that could disagree with it.
    """

    def __init__(self, store: Store):
        self.client = store.client
        self.experiment = store.experiment
        self.stages: dict[str, Any] = {}
        self.versions: dict[str, Any] = {}
        self.progress: Any = None
        self._sent: dict[str, Counter[str]] = {}
        for run in self._all():
            self._file(run)

    def _all(self) -> Iterable[Any]:
        from mlflow.entities import ViewType

        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment], run_view_type=ViewType.ALL, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _file(self, run: Any) -> None:
        tags = run.data.tags
        kind = tags.get(KIND)
        if kind == "stage":
            self.stages[tags.get(ATTEMPT, "")] = run
        elif run.info.lifecycle_stage == "deleted":
            return  # a version run that somebody deleted is written anew
        elif kind in ("version", "base"):
            self.versions.setdefault(tags.get(VERSION, ""), run)
        elif kind == "progress":
            self.progress = run

    def create(self, name: str, tags: Mapping[str, str], started: int | None) -> Any:
        """A new run, RUNNING since `started` (milliseconds)."""
        run = self.client.create_run(
            self.experiment, start_time=started, tags=dict(tags), run_name=name
        )
        self._sent[run.info.run_id] = Counter()
        self._file(run)
        return run

    def tag(self, run: Any, tags: Mapping[str, str]) -> None:
        """Set those tags that differ."""
        from mlflow.entities import RunTag

        known = run.data.tags
        new = {key: value for key, value in tags.items() if known.get(key) != value}
        if new:
            self.client.log_batch(run.info.run_id, tags=[RunTag(k, v) for k, v in new.items()])
            known.update(new)

    def params(self, run: Any, params: Mapping[str, str]) -> None:
        """Write those parameters that are not there yet."""
        from mlflow.entities import Param

        new = [Param(k, v) for k, v in params.items() if k not in run.data.params]
        for start in range(0, len(new), 100):  # MLflow's limit for one batch
            self.client.log_batch(run.info.run_id, params=new[start : start + 100])
        run.data.params.update(params)

    def points(self, run: Any, points: Sequence[Point], stamp: int | None) -> None:
        """Append metric points that are not there yet.

        For each name the first n points are taken as written if the run has n of them: curves only
        ever grow, and a resumed attempt repeats them exactly.
        """
        from mlflow.entities import Metric

        sent = self._sent_to(run)
        skip = Counter(sent)
        new = []
        for name, value, step in points:
            if skip[name] > 0:
                skip[name] -= 1
                continue
            new.append(Metric(name, value, stamp or int(time.time() * 1000), step))
        for start in range(0, len(new), 1000):  # MLflow's limit for one batch
            batch = new[start : start + 1000]
            self.client.log_batch(run.info.run_id, metrics=batch)
            sent.update(metric.key for metric in batch)

    def figures(self, run: Any, figures: Mapping[str, float], stamp: int | None) -> None:
        """Set final figures: those that differ from what the run shows."""
        from mlflow.entities import Metric

        known = run.data.metrics
        new = [
            Metric(name, value, stamp or int(time.time() * 1000), 0)
            for name, value in figures.items()
            if known.get(name) != value
        ]
        for start in range(0, len(new), 1000):
            self.client.log_batch(run.info.run_id, metrics=new[start : start + 1000])
        known.update(figures)

    def finish(self, run: Any, status: str, ended: int | None) -> None:
        """Set status and end time; a run that is RUNNING again has no end."""
        if status == "RUNNING":
            if run.info.status != "RUNNING":
                self.client.update_run(run.info.run_id, status="RUNNING")
        else:
            self.client.set_terminated(run.info.run_id, status=status, end_time=ended)
        run.info._status = status

    def delete(self, run: Any) -> None:
        """Put a run into MLflow's bin."""
        self.client.delete_run(run.info.run_id)
        if run is self.progress:
            self.progress = None

    def _sent_to(self, run: Any) -> Counter[str]:
        run_id = run.info.run_id
        if run_id not in self._sent:
            self._sent[run_id] = Counter(
                {
                    name: len(self.client.get_metric_history(run_id, name))
                    for name in run.data.metrics
                }
            )
        return self._sent[run_id]
