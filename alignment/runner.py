"""Carries out stages: skips what the ledger has, runs the rest, commits, tells the observers.

Knows nothing of Prefect and MLflow: flows call `Runner.run_node`, tracking listens as an observer.
"""

from __future__ import annotations

import importlib
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from alignment import distributed
from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError, StageError
from alignment.failures import PIECES, Kind, free_memory, kind_of, smaller
from alignment.files import atomic_write_json, read_json
from alignment.fingerprints import Fingerprints, config_slice, stage_declaration
from alignment.frontier import waits_for
from alignment.isolate import run_isolated
from alignment.ledger import Attempt, Ledger, Manifest, now
from alignment.lock import workspace_lock
from alignment.memory import PeakMemory, give_back
from alignment.plan import Node, build_plan
from alignment.progress import Progress, SilentProgress
from alignment.seeds import derive_seed
from alignment.space import DiskFullError, check_space, disk_full, needed_bytes
from alignment.stages.context import ProgramView, StageContext
from alignment.versions import library_versions

log = logging.getLogger("alignment")

# Stages that know how to share their work among several processes.
_SHARED = ("reward", "finetune", "ppo")

SMALLER = "smaller"  # in the partial directory: this stage ran out of memory before

ProgressFactory = Callable[[Node], AbstractContextManager[Progress]]


class Observer(Protocol):
    """Hears what the runner does. Its errors are reported and never lose a stage."""

    def program_started(self, program: ProgramConfig, plan: Sequence[Node]) -> None: ...

    def stage_started(self, attempt: Attempt) -> None: ...

    def stage_finished(self, attempt: Attempt, manifest: Manifest) -> None: ...

    def stage_failed(self, attempt: Attempt) -> None: ...

    def stage_cached(self, node: Node, manifest: Manifest) -> None: ...

    def program_finished(self) -> None: ...


@dataclass(frozen=True)
class StageRecord:
    """What came of `run_node`."""

    node: Node
    manifest: Manifest
    cached: bool


class Runner:
    """Runs the stages of one program in one workspace; use as a context manager (it locks).

    Args:
        patience: seconds to wait on entering for another process that holds the workspace.

    Raises:
        LockedError: on entering, when another process holds the workspace.
        AlignError: the workspace cannot be written.
    """

    def __init__(
        self,
        program: ProgramConfig,
        *,
        progress_factory: ProgressFactory | None = None,
        observers: Sequence[Observer] = (),
        say: Callable[[str], None] = log.warning,
        patience: float = 0.0,
    ):
        self.program = program
        self.workspace = program.workspace
        self.ledger = Ledger(self.workspace)
        self.plan: list[Node] = []
        self._observers = observers
        self._progress = progress_factory or (lambda _node: nullcontext(SilentProgress()))
        self._say = say
        self._patience = patience
        self._lock: AbstractContextManager[None] | None = None
        self.plan_again()

    def __enter__(self) -> Runner:
        make_workspace(self.workspace)
        self._lock = workspace_lock(self.workspace, self._patience, self._say)
        self._lock.__enter__()
        atomic_write_json(self.workspace / "program.json", self.program.model_dump(mode="json"))
        self._tell("program_started", self.program, self.plan)
        return self

    def __exit__(self, *exception: Any) -> None:
        try:
            self._tell("program_finished")
        finally:
            if self._lock is not None:
                self._lock.__exit__(*exception)
                self._lock = None

    def plan_again(self) -> None:
        """Decisions on a version change what the next one starts from."""
        self.plan = build_plan(self.program)
        self.known = Fingerprints(self.program, self.ledger, self.plan)

    def fingerprint(self, node: Node) -> str | None:
        """The node's fingerprint, or None while something upstream is not done."""
        self.known.look_again()
        return self.known.of(node)

    def run_node(self, node: Node) -> StageRecord:
        """Do one stage, unless the ledger has it already.

        Raises:
            AlignError: what the stage reported, or an input that is not done yet.
            WaitingForApproval: a person has to decide on the version before first.
            WaitingForBatches: nothing was delivered that the version could learn from.
            StageError: the stage broke in an unforeseen way; the traceback is in its log.
            DiskFullError: what it would write does not fit, or did not.
        """
        node = self._as_decided(node)
        key = self.fingerprint(node)
        if key is None:
            raise AlignError(
                f"{node.key} cannot run: {', '.join(self._missing(node))} not done yet",
                remedy="run those stages first, or `align run` for all",
            )
        done = self.ledger.find(node.version, node.stage, key)
        if done is not None:
            self._tell("stage_cached", node, done)
            return StageRecord(node, done, cached=True)
        waiting = waits_for(self.program, node.version)
        if waiting is not None:
            raise waiting
        check_space(self.program, node)
        manifest = self._try_until_done(node, key)
        if node.module == "promote":
            self.plan_again()
        return StageRecord(node, manifest, cached=False)

    def _try_until_done(self, node: Node, key: str) -> Manifest:
        """Attempt after attempt, as long as the failure is of a kind that another one may mend."""
        transient = 0
        while True:
            attempt = self.ledger.begin(node, key)
            self._tell("stage_started", attempt)
            began = time.monotonic()
            try:
                manifest = self._carry_out(node, attempt, began)
            except BaseException as error:
                self._note_failure(attempt, error, time.monotonic() - began)
                kind = kind_of(error)
                if kind == "memory" and self._make_smaller(node, key):
                    continue
                if kind == "transient" and transient < self.program.orchestration.retries:
                    transient += 1
                    self._wait_before(transient, node, error)
                    continue
                raise self._verdict(node, attempt, error, kind) from error
            attempt.status, attempt.ended, attempt.seconds = "done", now(), manifest.seconds
            self.ledger.write_attempt(attempt)
            self._tell("stage_finished", attempt, manifest)
            return manifest

    def _make_smaller(self, node: Node, key: str) -> bool:
        """Have the next attempt compute less at once; False if it does so already, or cannot."""
        note = self.ledger.partial_dir(node.version, node.stage, key) / SMALLER
        _, said = smaller(for_version(self.program, node.version), node.module)
        if note.exists() or not said:
            return False
        note.write_text("\n".join(said))
        free_memory()
        self._say(
            f"{node.key} ran out of memory and is tried once more in smaller pieces with the same "
            f"maths: {', '.join(said)}"
        )
        return True

    def _wait_before(self, number: int, node: Node, error: BaseException) -> None:
        settings = self.program.orchestration
        pause = settings.retry_seconds * 2 ** (number - 1)
        self._say(
            f"{node.key} failed in a way that may pass ({type(error).__name__}: {error}); retry "
            f"{number} of {settings.retries} in {pause:.0f} s"
        )
        time.sleep(pause)

    def _verdict(
        self, node: Node, attempt: Attempt, error: BaseException, kind: Kind
    ) -> BaseException:
        """The error that the user sees."""
        if kind == "disk" and not isinstance(error, DiskFullError):
            free = shutil.disk_usage(self.workspace).free
            return disk_full(self.workspace, node, needed_bytes(self.program, node), free)
        if isinstance(error, AlignError) or not isinstance(error, Exception):
            return error
        remedy = "see the log; `align resume` goes on from the last checkpoint"
        if kind == "memory":
            remedy = (
                "smaller pieces were not enough, or there are none: lower "
                f"{', '.join(PIECES.get(node.module, ('compute',)))}; then `align resume`"
            )
        return StageError(
            f"{node.key} failed: {type(error).__name__}: {error}",
            where=str(self.ledger.log_path(attempt)),
            remedy=remedy,
        )

    def _as_decided(self, node: Node) -> Node:
        """The node as the present plan has it: its inputs may hang on a decision taken since."""
        same = (item for item in self.plan if item.key == node.key)
        return next(same, node)

    def execute(self, node: Node, key: str, progress: Progress) -> None:
        """Do the work of an opened attempt in this process, up to but without the commit."""
        module = importlib.import_module(f"alignment.stages.{node.module}")
        seen = for_version(self.program, node.version)
        _set_threads(seen, module.READS)
        partial = self.ledger.partial_dir(node.version, node.stage, key)
        if (partial / SMALLER).exists():
            seen, _ = smaller(seen, node.module)
        process = distributed.rank()
        context = StageContext(
            version=node.version,
            stage=node.stage,
            config=ProgramView(seen, module.READS),
            options=dict(node.options),
            inputs=self._input_dirs(node),
            # Of several processes on one stage the first one's outputs count.
            out=partial / "out" if process == 0 else partial / "scratch" / f"out-{process}",
            scratch=partial / "scratch",
            seed=derive_seed(self.program.seed, node.version, node.stage),
            workspace=self.workspace,
            progress=progress,
        )
        context.out.mkdir(parents=True, exist_ok=True)
        module.run(context)
        context.write_notes()

    def _carry_out(self, node: Node, attempt: Attempt, began: float) -> Manifest:
        partial = self.ledger.partial_dir(node.version, node.stage, attempt.fingerprint)
        log_path = self.ledger.log_path(attempt)
        if self.isolated(node):
            peak_mb = run_isolated(
                self.workspace, node, partial, log_path, processes=self.processes(node)
            )
        else:
            with _log_to(log_path), self._progress(node) as progress, PeakMemory() as memory:
                self.execute(node, attempt.fingerprint, _Logged(progress))
            peak_mb = memory.peak_mb
            give_back()
        # Under another name first: a half-deleted checkpoint must never be found.
        (partial / "scratch").rename(partial / "done")
        declared = stage_declaration(node.module)
        seen = for_version(self.program, node.version)
        datasets = partial / "out" / "datasets.json"
        return self.ledger.commit(
            attempt,
            {
                "code_version": declared.code_version,
                "config": config_slice(seen, declared.reads),
                "options": dict(node.options),
                "inputs": self._described_inputs(node),
                "seed": derive_seed(self.program.seed, node.version, node.stage),
                "libraries": library_versions(),
                "seconds": round(time.monotonic() - began, 3),
                "peak_memory_mb": round(peak_mb, 1),
                "metrics": read_json(partial / "out" / "metrics.json"),
                "datasets": read_json(datasets) if datasets.is_file() else [],
            },
        )

    def isolated(self, node: Node) -> bool:
        """Whether the node runs in a process of its own, or in several."""
        return self.processes(node) > 1 or (self.parallel and node.module == "reward")

    def processes(self, node: Node) -> int:
        """How many processes share the node's work."""
        return self.program.compute.processes if node.module in _SHARED else 1

    @property
    def parallel(self) -> bool:
        """Whether stages that do not need one another run side by side: the two reward models."""
        return self.program.orchestration.parallel_rewards

    def _note_failure(self, attempt: Attempt, error: BaseException, seconds: float) -> None:
        attempt.status = "failed" if isinstance(error, Exception) else "killed"
        attempt.ended, attempt.seconds = now(), round(seconds, 3)
        attempt.error = f"{type(error).__name__}: {error}".strip(": ")
        self.ledger.write_attempt(attempt)
        self._tell("stage_failed", attempt)

    def _manifest(self, version: str, stage: str) -> Manifest | None:
        return self.known.manifest(version, stage)

    def _input_dirs(self, node: Node) -> dict[str, Path]:
        directories = {}
        for name, (version, stage) in node.inputs.items():
            manifest = self._manifest(version, stage)
            assert manifest is not None  # run_node has a fingerprint, so every input is done
            directories[name] = self.ledger.committed_dir(version, stage, manifest.fingerprint)
        return directories

    def _described_inputs(self, node: Node) -> dict[str, dict[str, str]]:
        described = {}
        for name, (version, stage) in node.inputs.items():
            manifest = self._manifest(version, stage)
            assert manifest is not None
            described[name] = {
                "version": version,
                "stage": stage,
                "digest": manifest.digest,
                "fingerprint": manifest.fingerprint,
            }
        outside = self.known.parts(node)[2].get("outside")
        if outside is not None:
            described["outside"] = {"digest": outside}
        return described

    def _missing(self, node: Node) -> list[str]:
        return [
            f"{version}/{stage}"
            for version, stage in node.inputs.values()
            if self._manifest(version, stage) is None
        ]

    def _tell(self, event: str, *values: Any) -> None:
        for observer in self._observers:
            try:
                getattr(observer, event)(*values)
            except Exception as error:
                name = type(observer).__name__
                self._say(f"{name} could not note {event}: {type(error).__name__}: {error}")


def make_workspace(path: Path) -> None:
    """Create the workspace, or say why it cannot be.

    Raises:
        AlignError: it is a file, or cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe = path / ".writable"
        probe.write_text("")
        probe.unlink()
    except OSError as error:
        raise AlignError(
            f"cannot write the workspace: {error.strerror}",
            where=str(path),
            remedy="set `workspace` to a directory you may write: --set workspace=DIR",
        ) from None


@contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Copy log lines, and the traceback of what goes wrong, into the attempt's log."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Exception:
        with path.open("a", encoding="utf-8") as file:
            file.write(traceback.format_exc())
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def _set_threads(program: ProgramConfig, reads: Sequence[str]) -> None:
    if "compute" in reads and program.compute.threads is not None:
        import torch

        torch.set_num_threads(program.compute.threads)


class _Logged:
    """A progress that also writes what is said into the attempt's log."""

    def __init__(self, inner: Progress):
        self._inner = inner

    def begin(self, label: str, total: int | None = None, unit: str = "it") -> None:
        log.debug("%s (%s %s)", label, total, unit)
        self._inner.begin(label, total, unit)

    def advance(self, amount: int = 1, **figures: float) -> None:
        self._inner.advance(amount, **figures)

    def say(self, message: str) -> None:
        log.info(message)
        self._inner.say(message)
