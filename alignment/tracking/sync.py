"""Bring MLflow up to what the ledger says: compare, and write what is missing.

Every call may die anywhere; the next one finishes the work. A stage run carries the tag
`rlhf.published` once it is complete, so nothing is written twice and nothing is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.config.tracking import CostConfig
from alignment.errors import AlignError, redact
from alignment.pipeline.records import Manifest
from alignment.reporting.comparison import on_the_same_comparisons
from alignment.reporting.cost import stage_cost, together
from alignment.reporting.headline import OWN_TEST, SAME_TEST
from alignment.tracking import naming
from alignment.tracking.artifacts import (
    SAMPLES_TAG,
    log_files,
    log_samples,
    version_pictures,
)
from alignment.tracking.describe import version_note
from alignment.tracking.history import Try, VersionHistory, origin, read_history
from alignment.tracking.models import Models, dataset_inputs, holds_model, log_links
from alignment.tracking.registry import Registry
from alignment.tracking.runs import PUBLISHED, Point, Runs
from alignment.tracking.standings import Standings
from alignment.tracking.store import Store, experiment_name
from alignment.utils.files import digest_json

DESCRIBED = "rlhf.described"
GIVE_UP_AFTER = 2  # failures in a row: the store is down, do not wait for it run by run


class Sync:
    """One program, one store.

    Raises:
        Exception: on creation, whatever MLflow raises when the store cannot be reached.
    """

    def __init__(self, program: ProgramConfig):
        self.workspace = program.workspace.resolve()
        program = self.program = program.model_copy(update={"workspace": self.workspace})
        self.store = Store(program)
        self.client = self.store.client
        self.runs = Runs(self.store)
        self.models = Models(self.store)
        self.registry = Registry(self.store, program) if program.tracking.registry else None
        self.standings = Standings()
        self.problems: list[str] = []
        self._in_a_row = 0

    def step(self, *, alive: bool, dead_pid: int | None = None) -> list[str]:
        """Write everything that is missing; returns what could not be written, in words.

        Args:
            alive: whether the program is being worked on (else open runs are closed).
            dead_pid: a process known to have died, though the system may still list it.

        Raises:
            AlignError: the experiment has the history of another workspace.
        """
        self.problems, self._in_a_row = [], 0
        versions = [v for v in read_history(self.program, dead_pid=dead_pid) if v.begun]
        self.refuse_anothers(versions)
        self.standings = Standings.of(self.program, versions)
        self.models.due = {m.digest for m in self._made(versions) if holds_model(m)}
        for history in versions:
            self._version(history, alive)
        self._attempt("RLHF progress", lambda: self._progress(versions))
        self._attempt("experiment", lambda: self.store.describe(self.standings.note()))
        if self.registry is not None:
            registry, runs = self.registry, self.runs.versions
            self._attempt("model registry", lambda: registry.update(versions, self.models, runs))
        return self.problems

    def refuse_anothers(self, versions: list[VersionHistory]) -> None:
        """Raise an AlignError if an attempt in MLflow bears a name of ours and is not ours.

        In a store that several workspaces share, theirs would count as written and ours be lost.
        """
        for item in (item for v in versions for tries in v.tries.values() for item in tries):
            key = naming.attempt_key(item.attempt)
            run = self.runs.stages.get(key)
            if run and run.info.start_time != naming.milliseconds(item.attempt.started):
                raise AlignError(
                    f"the MLflow experiment {experiment_name(self.program)!r} has the history of "
                    f"another workspace: its {key} began at another time",
                    where=redact(self.store.uri),
                    remedy="give this program a name of its own there: tracking.experiment; or "
                    "put the other history into MLflow's bin: align mlflow rebuild",
                )

    def _made(self, versions: list[VersionHistory]) -> Iterator[Manifest]:
        """What attempts left, unless their run or, after it was written whole, their model was
        deleted in MLflow."""
        for item in (item for v in versions for tries in v.tries.values() for item in tries):
            run = self.runs.stages.get(naming.attempt_key(item.attempt))
            deleted = run is not None and run.info.lifecycle_stage == "deleted"
            if not item.manifest or not item.directory or deleted:
                continue
            written = run is not None and run.data.tags.get(PUBLISHED) == item.attempt.status
            if not written or item.manifest.digest in self.models.by_digest:
                yield item.manifest

    def _attempt(self, what: str, work: Callable[[], Any]) -> Any:
        """Do `work`; a failure is noted and the rest goes on, unless the store seems to be down."""
        if self._in_a_row >= GIVE_UP_AFTER:
            if self.problems[-1] != "…":
                self.problems.append("…")
            return None
        try:
            result = work()
        except Exception as error:
            self._in_a_row += 1
            text = redact(str(error)).strip().splitlines()
            self.problems.append(f"{what}: {text[0] if text else type(error).__name__}"[:300])
            return None
        self._in_a_row = 0
        return result

    def _version(self, history: VersionHistory, alive: bool) -> None:
        title = naming.version_title(history.version)
        parent = self._attempt(title, lambda: self._parent(history))
        if parent is None:
            return
        for tries in history.tries.values():
            for item in tries:
                name = naming.attempt_key(item.attempt)
                self._attempt(name, partial(self._stage, item, parent))
        self._attempt(title, lambda: self._describe(history, parent, alive))

    def _parent(self, history: VersionHistory) -> Any:
        name = naming.version_run_name(history.version, self.standings.champion)
        params = naming.version_params(self.program, history.config, history.version)
        run = self.runs.versions.get(history.version)
        if run is not None:
            stored = run.data.params
            if all(stored.get(key, value) == value for key, value in params.items()):
                self.runs.write(run, params=params)
                self.runs.rename(run, name)
                return run
            # MLflow never changes a parameter: other settings are another run.
            self.runs.write(run, tags={naming.KIND: "superseded"})
            self.runs.rename(run, naming.version_title(history.version))
            self.runs.finish(run, "FINISHED", None)
        number = naming.version_number(history.version)
        tags = {
            naming.PROGRAM: self.program.name,
            naming.KIND: "base" if number is None else "version",
            naming.VERSION: history.version,
        }
        if number is not None:
            tags["rlhf.number"] = str(number)
        run = self.runs.create(name, tags, naming.milliseconds(history.started()))
        self.runs.versions[history.version] = run
        self.runs.write(run, params=params)
        return run

    def _stage(self, item: Try, parent: Any) -> None:
        attempt, over = item.attempt, item.attempt.status != "running"
        run = self.runs.stages.get(naming.attempt_key(attempt))
        if run is not None:
            written = over and run.data.tags.get(PUBLISHED) == attempt.status
            ended_so = run.info.status == naming.STATUS[attempt.status]
            if run.info.lifecycle_stage == "deleted" or (written and ended_so):
                return
        tags = naming.attempt_tags(self.program.name, attempt, item.manifest)
        if run is None:
            title = naming.attempt_title(attempt.stage, attempt.number)
            tags["mlflow.parentRunId"] = parent.info.run_id
            run = self.runs.create(title, tags, naming.milliseconds(attempt.started))
        ended = naming.milliseconds(attempt.ended)
        if attempt.error:
            tags["mlflow.note.content"] = (
                f"**{attempt.status}**\n\n```\n{attempt.error}\n```\n\n"
                f"Log: `{tags['rlhf.log']}` in the workspace."
            )
        params, figures = self._outputs(run, item)
        read = item.manifest.inputs.values() if item.manifest else ()
        if over and not self.models.missing(source["digest"] for source in read):
            tags[PUBLISHED] = attempt.status
        self.runs.write(
            run, tags=tags, params=params, figures=figures, points=_curves(item), stamp=ended
        )
        if over:
            self.runs.finish(run, naming.STATUS[attempt.status], ended)

    def _outputs(self, run: Any, item: Try) -> tuple[dict[str, str], dict[str, float]]:
        """Data, models and files of a finished attempt; returns its parameters and figures."""
        manifest, directory = item.manifest, item.directory
        if manifest is None or directory is None:
            return {}, {}
        made = []
        if holds_model(manifest):
            made = [self.models.ensure(manifest, directory, self.workspace, run.info.run_id)]
        datasets = dataset_inputs(manifest, self.workspace)
        linked = self.client.get_run(run.info.run_id)  # a search leaves the models out
        log_links(self.client, linked, datasets, self.models.inputs_of(manifest), made)
        log_files(self.client, run.info.run_id, directory)
        figures = {
            naming.stage_figure(manifest.stage, name): naming.tidy(value)
            for name, value in manifest.metrics.items()
            if value is not None
        }
        return naming.stage_params(manifest), figures | _price([manifest], self.program.cost)

    def _describe(self, history: VersionHistory, parent: Any, alive: bool) -> None:
        standings, version = self.standings, history.version
        status = history.status(alive)
        whole = history.done or not alive
        # Pages list metrics in the order they came in: all at once, the headline first.
        ready = whole or "evaluate" in history.current
        figures = _version_figures(history, self.program.cost) if ready else {}
        tags = {
            "mlflow.note.content": version_note(history, standings),
            "rlhf.standing": standings.of_version(version),
            "rlhf.batches": " ".join(b.id for b in standings.batches if b.version == version),
            "rlhf.parent": origin(history, "finetune", "start") or "",
        }
        if version in standings.verdicts:
            tags["rlhf.promoted"] = str(bool(standings.verdicts[version]["promoted"])).lower()
        tags = {name: value for name, value in tags.items() if value}
        ended = naming.milliseconds(history.ended())
        # Models that are logged only later must be linked then, even if nothing else has changed.
        made = [m.digest for m in history.current.values() if m.digest in self.models.by_digest]
        state = digest_json([status, tags, figures, whole, ended, made])[:32]
        if parent.data.tags.get(DESCRIBED) == state:
            return
        if whole:
            self._links(history, parent)
        tags[DESCRIBED] = state
        self.runs.write(parent, tags=tags, figures=figures, stamp=ended)
        self.runs.finish(parent, status, ended)

    def _links(self, history: VersionHistory, parent: Any) -> None:
        """Data, models and pictures of all stages on the version's own page."""
        run = self.client.get_run(parent.info.run_id)
        manifests = history.current.values()
        datasets = [d for item in manifests for d in dataset_inputs(item, self.workspace)]
        by_digest = self.models.by_digest
        made = [by_digest[item.digest] for item in manifests if item.digest in by_digest]
        log_links(self.client, run, datasets, [], made)
        version_pictures(self.client, parent.info.run_id, history)
        if log_samples(self.client, parent.info.run_id, history):
            self.runs.write(run, tags={"mlflow.loggedArtifacts": SAMPLES_TAG})

    def _progress(self, versions: list[VersionHistory]) -> None:
        """One run whose charts show the series: step = number of the version."""
        points: list[Point] = []
        accuracies = _same_test(versions)
        for history in versions:
            number = naming.version_number(history.version)
            if number is not None and "evaluate" in history.current:
                figures = _version_figures(history, self.program.cost)
                figures = {k: v for k, v in figures.items() if OWN_TEST not in k}
                figures |= accuracies.get(history.version, {})
                points += [(name, value, number) for name, value in sorted(figures.items())]
        if not points:
            return
        points.sort(key=lambda point: point[2])
        run = self.runs.progress
        state = digest_json(points)[:32]
        if run is not None and run.data.tags.get(DESCRIBED) == state:
            return
        if run is not None and not self._grows(run, points):
            self.runs.delete(run)
            run = None
        if run is None:
            tags = {naming.KIND: "progress", naming.PROGRAM: self.program.name}
            started = naming.milliseconds(versions[0].started())
            run = self.runs.create("RLHF progress", tags, started)
        ended = naming.milliseconds(versions[-1].ended())
        self.runs.write(run, tags={DESCRIBED: state}, points=points, stamp=ended)
        self.runs.finish(run, "FINISHED", ended)

    def _grows(self, run: Any, points: list[Point]) -> bool:
        """Whether what the run has is the beginning of `points`, so that appending suffices."""
        expected: dict[str, list[tuple[int, float]]] = {}
        for name, value, step in points:
            expected.setdefault(name, []).append((step, value))
        stored = self.client.get_run(run.info.run_id)
        for name in stored.data.metrics:
            have = self.client.get_metric_history(run.info.run_id, name)
            pairs = [(metric.step, metric.value) for metric in have]
            if expected.get(name, [])[: len(pairs)] != pairs:
                return False
        run.data.metrics.update(stored.data.metrics)
        return True


def _curves(item: Try) -> list[Point]:
    return [
        (naming.clean(f"curve/{name}"), value, int(row["step"]))
        for row in item.curves()
        for name, value in row.items()
        if name != "step"
    ]


def _version_figures(history: VersionHistory, cost: CostConfig) -> dict[str, float]:
    """A version's figures in groups (see `naming.HEADLINE`), the headline ones first."""
    headlines = history.headline()
    bounds = [name for name in headlines if name.endswith(("_low", "_high"))]
    figures = {
        f"{naming.HEADLINE}{name}": naming.tidy(value)
        for name, value in headlines.items()
        if name not in bounds
    }
    figures |= _price(list(history.current.values()), cost)
    figures |= {f"range/{name}": naming.tidy(headlines[name]) for name in bounds}
    if "evaluate" in history.current:
        for name, figure in history.current["evaluate"].metrics.items():
            if figure is not None and name not in headlines:
                figures[naming.clean(f"other/{name}")] = naming.tidy(figure)
    return figures


def _same_test(versions: list[VersionHistory]) -> dict[str, dict[str, float]]:
    """Version → accuracies of its reward models on the test set of the newest version."""
    newest = next((item for item in reversed(versions) if "evaluate" in item.current), None)
    found: dict[str, dict[str, float]] = {}
    for domain, rows in on_the_same_comparisons(newest.directories if newest else {}).items():
        for version, row in rows.items():
            figures = found.setdefault(version, {})
            for key, group, end in (
                ("accuracy", naming.HEADLINE, ""),
                ("low", "range/", "_low"),
                ("high", "range/", "_high"),
            ):
                value = row.get(key)
                if value is not None:
                    figures[f"{group}{SAME_TEST}{domain}{end}"] = naming.tidy(value)
    return found


def _price(manifests: list[Manifest], config: CostConfig) -> dict[str, float]:
    costs = [
        stage_cost(item.seconds, item.peak_memory_mb, item.metrics, config) for item in manifests
    ]
    return {f"price/{name}": value for name, value in together(costs).figures().items()}
