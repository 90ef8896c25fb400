"""Runs stages: skips those that the ledger has, runs and commits the rest, notifies observers.

It does not depend on Prefect or MLflow: flows call `Runner.run_node`, tracking is an observer.
"""

from __future__ import annotations

import importlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.execution.data_check import check_prepared, without_labels
from alignment.execution.engine_check import check_engines
from alignment.execution.failures import in_words, kind_of, smaller
from alignment.execution.isolated_stage import run_isolated
from alignment.execution.observer import Observer, notify
from alignment.execution.retries import SMALLER, Retries
from alignment.execution.stage_log import Logged, log_to
from alignment.execution.warm_start import begin_imports, can_fork, on_cpu
from alignment.pipeline.disk_space import check_space, disk_full
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger, now
from alignment.pipeline.node import Node
from alignment.pipeline.readiness import waits_for
from alignment.pipeline.reasons import why_run
from alignment.pipeline.records import Attempt, Manifest
from alignment.pipeline.sharding_choice import chosen_before, keep, settled
from alignment.pipeline.shared_stages import beside, processes, side_by_side
from alignment.pipeline.workspace import keep_program, make_workspace
from alignment.stages.context import ProgramView, StageContext
from alignment.utils import distributed
from alignment.utils.files import read_json
from alignment.utils.graceful_stop import held
from alignment.utils.library_versions import library_versions
from alignment.utils.locks import workspace_lock
from alignment.utils.memory import PeakMemory, give_back
from alignment.utils.progress import Progress, SilentProgress

log = logging.getLogger("alignment")

ProgressFactory = Callable[[Node], AbstractContextManager[Progress]]


class TakenBackError(AlignError):
    """While an intake ran, preferences were taken back or given back: it has to run again."""


@dataclass(frozen=True)
class StageRecord:
    """The result of `run_node`; `cached` means that the ledger had it already."""

    node: Node
    manifest: Manifest
    cached: bool


class Runner:
    """Runs the stages of one program in one workspace. A context manager: it holds the workspace.

    Args:
        progress_factory: gives the progress display of a stage; silent by default.
        say: called with lines for the user.
        patience: seconds to wait on entering while another process holds the workspace.
        latest: reads the program again once the workspace is held, because the previous holder may
            have changed its settings.

    Raises:
        LockedError: on entering, another process holds the workspace.
        AlignError: on entering, the workspace cannot be written.
    """

    def __init__(
        self,
        program: ProgramConfig,
        *,
        progress_factory: ProgressFactory | None = None,
        observers: Sequence[Observer] = (),
        say: Callable[[str], None] = log.warning,
        patience: float = 0.0,
        latest: Callable[[], ProgramConfig] | None = None,
    ):
        self.program = program
        self.workspace = program.workspace
        self.ledger = Ledger(self.workspace)
        self.plan: list[Node] = []
        self._observers = observers
        self._progress = progress_factory or (lambda _node: nullcontext(SilentProgress()))
        self._say = say
        self._patience = patience
        self._latest = latest
        self._version = ""
        self._interrupted = 0
        self._data_checked = False
        self._lock: AbstractContextManager[None] | None = None
        self.plan_again()

    def __enter__(self) -> Runner:
        make_workspace(self.workspace)
        self._lock = workspace_lock(self.workspace, self._patience, self._say)
        self._lock.__enter__()
        try:
            if self._latest is not None:
                self.program = self._latest()
            self.plan_again()
        except BaseException:
            self._lock.__exit__(None, None, None)
            raise
        keep_program(self.program)
        self._notify("program_started", self.program, self.plan)
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self._notify("program_finished")
        finally:
            if self._lock is not None:
                self._lock.__exit__(*exception)
                self._lock = None

    def plan_again(self) -> None:
        """Plan again, because a decision on a version changes what the next one starts from.

        The gate decides during a run, a person at any time.
        """
        self.fingerprints = Fingerprints.load(self.program)
        self.plan = self.fingerprints.plan

    def fingerprint(self, node: Node) -> str | None:
        """The node's fingerprint, or None until everything upstream is done."""
        self.fingerprints.drop_missing()
        return self.fingerprints.of(node)

    def run_node(self, node: Node) -> StageRecord:
        """Run one stage, unless the ledger has it already.

        Raises:
            AlignError: the stage reported this error, or an input is not done yet.
            WaitingForDecision: a person must decide on the previous version first.
            WaitingForBatches: too few preferences were delivered for this version.
            StageError: the stage failed unexpectedly; the traceback is in its log.
            DiskFullError: the outputs do not fit on the disk.
        """
        with _disk_full_as_error(self.program, node):
            if node.version != self._version:
                # Only between versions: the stages of one version belong together.
                self._version = node.version
                self.plan_again()
            node = self._as_decided(node)
            key = self.fingerprint(node)
            if key is None:
                missing = ", ".join(self.fingerprints.missing(node))
                raise AlignError(
                    f"{node.key} cannot run: {missing} not done yet",
                    remedy="run those stages first, or `align run` for all",
                )
            done = self.fingerprints.find(node)
            if done is not None:
                self.ledger.mark_current(done)
                self._notify("stage_cached", node, done)
                return StageRecord(node, done, cached=True)
            waiting = waits_for(self.program, node.version)
            if waiting is not None:
                raise waiting
            check_space(self.program, node)
            self._check_data(node)
            keep(node, self.fingerprints.config(node), self.plan, self._say)
            try:
                manifest = self._try_until_done(node, key)
            except TakenBackError as error:
                self._say(error.message)
                self.plan_again()
                return self.run_node(node)
            if node.module == "promote":
                self.plan_again()
            return StageRecord(node, manifest, cached=False)

    def _check_data(self, node: Node) -> None:
        """Check once what later stages need of the data, before the first stage that reads them."""
        if "prepare" in node.inputs and not self._data_checked:
            prepared = self.fingerprints.directories(node)["prepare"]
            check_engines(self.program)
            check_prepared(self.program, prepared)
            if (note := without_labels(self.program, prepared)) is not None:
                self._say(note)
            self._data_checked = True

    def interrupt(self) -> None:
        """End the isolated stages of other threads at their next checkpoint; at once if called
        again. Threads receive no signals, so this replaces one."""
        self._interrupted += 1

    def _try_until_done(self, node: Node, key: str) -> Manifest:
        """Attempt the stage until it succeeds or a failure is not worth a retry."""
        retries = Retries(self.program, self.ledger, node, self._say)
        config, code_version, inputs = self.fingerprints.request(node)
        request = {"config": config, "code_version": code_version, "inputs": inputs}
        reason = why_run(node, self.fingerprints)
        while True:
            attempt = self.ledger.begin(node, key, request, reason, self._say)
            self._notify("stage_started", attempt)
            began = time.monotonic()
            # An isolated stage holds back signals in its own process.
            grace = 0.0 if self.isolated(node) else self.program.orchestration.grace_seconds
            with held(grace, self._say):
                try:
                    manifest = self._carry_out(node, attempt, began)
                except BaseException as error:
                    self._note_failure(attempt, error, time.monotonic() - began)
                    failure = error
                else:
                    attempt.status, attempt.ended, attempt.seconds = "done", now(), manifest.seconds
                    self.ledger.write_attempt(attempt)
                    self._notify("stage_finished", attempt, manifest)
                    return manifest
            if attempt.status == "done" or not retries.another(attempt, failure):
                raise retries.verdict(attempt, failure) from failure

    def _as_decided(self, node: Node) -> Node:
        """The node in the present plan: a decision taken since may have changed its inputs."""
        same = (item for item in self.plan if item.key == node.key)
        return next(same, node)

    def execute(self, node: Node, key: str, progress: Progress) -> None:
        """Do the work of an open attempt in this process, without the commit."""
        module = importlib.import_module(f"alignment.stages.{node.module}")
        config = self.settings(node)
        if (choice := chosen_before(node, self.fingerprints.config(node))) is not None:
            progress.say(str(choice))
        partial = self.ledger.partial_dir(node.version, node.stage, key)
        if (partial / SMALLER).exists():
            config, _ = smaller(config, node.module)
        process = distributed.rank()
        context = StageContext(
            version=node.version,
            stage=node.stage,
            config=ProgramView(config, module.READS),
            options=dict(node.options),
            inputs=self.fingerprints.directories(node),
            # If several processes share the stage, only the first one's outputs are committed.
            out=partial / "out" if process == 0 else partial / "scratch" / f"out-{process}",
            scratch=partial / "scratch",
            seed=self.fingerprints.seed(node),
            workspace=self.workspace,
            progress=progress,
        )
        context.out.mkdir(parents=True, exist_ok=True)
        at_once = 1 + len(beside(node, self.plan, config))
        with _computing(config, module.READS, at_once):
            module.run(context)
        context.write_notes()

    def _carry_out(self, node: Node, attempt: Attempt, began: float) -> Manifest:
        partial = self.ledger.partial_dir(node.version, node.stage, attempt.fingerprint)
        log_path = self.ledger.log_path(attempt)
        if self.isolated(node):
            peak_mb = run_isolated(
                self.workspace,
                node,
                partial,
                log_path,
                processes=self.processes(node),
                compute=self.fingerprints.config(node).compute,
                grace=self.program.orchestration.grace_seconds,
                interrupted=lambda: self._interrupted,
            )
        else:
            if self._has_forks:
                begin_imports()
            with log_to(log_path), self._progress(node) as progress, PeakMemory() as memory:
                self.execute(node, attempt.fingerprint, Logged(progress))
            peak_mb = memory.peak_mb
            give_back()
        if node.module == "intake" and self.fingerprints.anew(node) != attempt.fingerprint:
            # It may have read what is there now, and its fingerprint says what was there then.
            raise TakenBackError(f"{node.key} runs again: what counts has changed since it began")
        config, code_version, _ = self.fingerprints.request(node)
        datasets = partial / "out" / "datasets.json"
        chosen = chosen_before(node, self.fingerprints.config(node))
        sharded = {} if chosen is None else {"sharded": float(chosen.sharding == "full")}
        return self.ledger.commit(
            attempt,
            {
                "code_version": code_version,
                "config": config,
                "options": dict(node.options),
                "inputs": self.fingerprints.recorded_inputs(node),
                "seed": self.fingerprints.seed(node),
                "libraries": library_versions(),
                "seconds": round(time.monotonic() - began, 3),
                "peak_memory_mb": round(peak_mb, 1),
                "metrics": read_json(partial / "out" / "metrics.json") | sharded,
                "datasets": read_json(datasets) if datasets.is_file() else [],
            },
        )

    def isolated(self, node: Node) -> bool:
        """Whether the node runs in one or more processes of its own."""
        apart = self.parallel and side_by_side(node, self.fingerprints.config(node)) is not None
        return apart or self.processes(node) > 1

    @property
    def _has_forks(self) -> bool:
        """Whether some stage runs as a fork (`warm_start`)."""
        return can_fork(self.program.compute) and any(self.isolated(node) for node in self.plan)

    def processes(self, node: Node) -> int:
        """How many processes share the node's work; on a CPU, stages that run side by side share
        the processes, which stand for its cores."""
        settings = self.settings(node)
        count = processes(node, settings)
        if settings.compute.sharding == "full" or not on_cpu(settings.compute):
            return count
        return max(1, count // (1 + len(beside(node, self.plan, settings))))

    def settings(self, node: Node) -> ProgramConfig:
        """The program with the settings of the node's version, and whether the node is sharded."""
        return settled(self.fingerprints.config(node), node, self.plan)

    @property
    def parallel(self) -> bool:
        """Whether stages that do not need each other run side by side."""
        return self.program.orchestration.parallel

    def _note_failure(self, attempt: Attempt, error: BaseException, seconds: float) -> None:
        attempt.status = self.ledger.final_status(attempt).status
        if attempt.status != "done":  # the commit may have succeeded just before the error
            attempt.status = "killed" if kind_of(error) == "killed" else "failed"
            attempt.error = in_words(error)
        attempt.ended, attempt.seconds = now(), round(seconds, 3)
        try:
            self.ledger.write_attempt(attempt)
        except OSError as lost:  # must not hide why the stage failed
            self._say(f"could not record the end of attempt {attempt.number}: {lost}")
        if attempt.status != "done":
            self._notify("stage_failed", attempt)

    def _notify(self, event: str, *values: Any) -> None:
        notify(self._observers, self._say, event, *values)


@contextmanager
def _disk_full_as_error(program: ProgramConfig, node: Node) -> Iterator[None]:
    """Raise DiskFullError also where the disk is too full for the ledger itself."""
    try:
        yield
    except OSError as error:
        if kind_of(error) != "disk":
            raise
        raise disk_full(program, node) from error


def _computing(
    program: ProgramConfig, reads: Sequence[str], at_once: int = 1
) -> AbstractContextManager[None]:
    """How torch computes in a stage. A stage without models does not import torch.

    Args:
        at_once: stages that run side by side share the threads.
    """
    if "compute" not in reads:
        return nullcontext()
    import torch

    from alignment.fastpath import choosing

    if program.compute.threads is not None:
        torch.set_num_threads(max(1, program.compute.threads // at_once))
    return choosing(program.compute.fast_cpu, program.workspace)
