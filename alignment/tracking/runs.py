"""The runs of one experiment: found again by their tags, created once, never written twice."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from alignment.tracking.naming import ATTEMPT, KIND, VERSION
from alignment.tracking.store import Store, pages

PUBLISHED = "rlhf.published"
"""On a stage run: the status up to which everything has been written."""

METRICS, OTHERS = 800, 90  # MLflow takes 1000 entries in one batch, 100 of them parameters or tags

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
        from mlflow.entities import ViewType

        search = self.client.search_runs
        for run in pages(search, [self.experiment], run_view_type=ViewType.ALL, max_results=1000):
            self._file(run)

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

    def write(
        self,
        run: Any,
        *,
        tags: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        figures: Mapping[str, float] | None = None,
        points: Sequence[Point] = (),
        stamp: int | None = None,
    ) -> None:
        """Write what is not there yet, in as few requests as MLflow's limits allow.

        Args:
            tags: written last, so that a tag may say that all the rest is there.
            params: never changed once written.
            figures: final values, at step 0; those that differ from what the run shows.
            points: curves. For each name the first n points are taken as written if the run has n:
                curves only ever grow, and a resumed attempt repeats them exactly.
            stamp: time of figures and points in milliseconds; default now.
        """
        from mlflow.entities import Metric, Param, RunTag

        data = run.data
        stamp = stamp or int(time.time() * 1000)
        new_tags = [RunTag(k, v) for k, v in (tags or {}).items() if data.tags.get(k) != v]
        new_params = [Param(k, v) for k, v in (params or {}).items() if k not in data.params]
        metrics = [
            Metric(name, value, stamp, 0)
            for name, value in (figures or {}).items()
            if data.metrics.get(name) != value
        ]
        metrics += self._new_points(run, points, stamp)
        while metrics or new_params or new_tags:
            last = len(metrics) <= METRICS and len(new_params) <= OTHERS
            self.client.log_batch(
                run.info.run_id,
                metrics=metrics[:METRICS],
                params=new_params[:OTHERS],
                tags=new_tags if last else [],
            )
            if last:
                new_tags = []
            metrics, new_params = metrics[METRICS:], new_params[OTHERS:]
        data.tags.update(tags or {})
        data.params.update(params or {})
        data.metrics.update(figures or {})

    def _new_points(self, run: Any, points: Sequence[Point], stamp: int) -> list[Any]:
        from mlflow.entities import Metric

        if not points:
            return []
        sent = self._sent_to(run)
        skip = Counter(sent)
        new = []
        for name, value, step in points:
            if skip[name] > 0:
                skip[name] -= 1
                continue
            new.append(Metric(name, value, stamp, step))
            sent[name] += 1
        return new

    def rename(self, run: Any, name: str) -> None:
        """Give a run another name."""
        if run.info.run_name != name:
            self.client.update_run(run.info.run_id, name=name)
            run.info._run_name = name

    def finish(self, run: Any, status: str, ended: int | None) -> None:
        """Set status and end time; a run that is RUNNING again has no end."""
        if status == "RUNNING":
            if run.info.status != "RUNNING":
                self.client.update_run(run.info.run_id, status="RUNNING")
        elif run.info.status != status or run.info.end_time != ended:
            self.client.set_terminated(run.info.run_id, status=status, end_time=ended)
        run.info._status, run.info._end_time = status, ended

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
