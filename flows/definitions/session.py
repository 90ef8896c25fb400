"""The runner that the flows of one process share; it cannot be a flow parameter."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from prefect import get_run_logger

from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.execution.observer import Observer
from alignment.execution.runner import Runner
from alignment.pipeline.node import Node
from alignment.pipeline.readiness import available
from alignment.pipeline.records import Attempt
from alignment.utils.locks import QueueSlot
from flows.definitions.parameters import read_program
from flows.definitions.run_labels import deployed
from flows.servers.child_process import end_with_parent

log = logging.getLogger("alignment.flows")

SLACK = 5.0  # seconds to end in, after the grace of a stage
SKIPPED = "Skipped"  # state of a run that is left to another one


@dataclass(frozen=True)
class Session:
    """A runner that holds its workspace, and the stages it was given.

    Attributes:
        nodes: the stages to do; None for a runner that does whatever can be done.
        done_now: keys of the stages that were not done before.
    """

    runner: Runner
    nodes: tuple[Node, ...] | None
    done_now: set[str] = field(default_factory=set)

    def node(self, key: str) -> Node:
        """The stage called `version/stage`.

        Raises:
            AlignError: it is not part of this run.
        """
        for node in self._plan():
            if node.key == key:
                return node
        raise AlignError(f"{key} is not part of this run")

    def of_version(self, version: str) -> list[Node]:
        """The stages of a version, in order."""
        return [node for node in self._plan() if node.version == version]

    def _plan(self) -> Sequence[Node]:
        return self.runner.plan if self.nodes is None else self.nodes

    def versions(self, until: str | None = None) -> list[str]:
        """Versions with something in this run that can be done now, in order."""
        nodes = available(self.runner.program, until) if self.nodes is None else self.nodes
        return list(dict.fromkeys(node.version for node in nodes))


_current: list[Session] = []


@contextmanager
def session(runner: Runner, nodes: Sequence[Node] | None) -> Iterator[Session]:
    """Make a runner known to the flows of this process."""
    new = Session(runner, None if nodes is None else tuple(nodes))
    _current.append(new)
    try:
        yield new
    finally:
        _current.remove(new)


def current() -> Session:
    """The session the running flow belongs to.

    Raises:
        AlignError: the flow was called without one.
    """
    if not _current:
        raise AlignError(
            "this flow needs a runner", remedy="start it with `align run` or through a deployment"
        )
    return _current[-1]


@contextmanager
def opened(workspace: str, config: str, request: str) -> Iterator[Session | None]:
    """The session of this process, or a new one if a deployment or a retry started the flow.

    A new session waits until the workspace is free. If another process already waits with the same
    `request`, the name of what is to be done, this yields None: that process will do the work.
    """
    if _current:
        yield _current[-1]
        return
    program = read_program(workspace, config)
    slot = QueueSlot(program.workspace, request)
    if not slot.join():
        yield None
        return
    try:
        runner = served_runner(program, partial(read_program, workspace, config), slot.leave)
        with runner, session(runner, None) as new:
            yield new
    finally:
        slot.leave()


def served_runner(
    program: ProgramConfig, latest: Callable[[], ProgramConfig], begun: Callable[[], None]
) -> Runner:
    """A runner that reports to Prefect's log and waits for its turn.

    Args:
        latest: reads the program once the runner holds the workspace.
        begun: called once the runner holds the workspace.
    """
    from alignment.tracking.observer import tracker

    if deployed():
        end_with_parent(program.orchestration.grace_seconds + SLACK)
    say = run_log()
    return Runner(
        program,
        observers=[_Begun(begun), _Logged(say), *tracker(program, say)],
        say=say,
        patience=math.inf,
        latest=latest,
    )


def run_log() -> Callable[[str], None]:
    """Writes into the log of the flow run, which Prefect's pages show."""
    logger = get_run_logger()
    return lambda message: logger.info(message)


class _Begun(Observer):
    """Says when the workspace is ours."""

    def __init__(self, begun: Callable[[], None]):
        self._begun = begun

    def program_started(self, program: object, plan: object) -> None:
        self._begun()


class _Logged(Observer):
    """A line in the run's log for every attempt."""

    def __init__(self, say: Callable[[str], None]):
        self._say = say

    def stage_started(self, attempt: Attempt) -> None:
        resumed = f", continues attempt {attempt.resumed_from}" if attempt.resumed_from else ""
        self._say(f"{attempt.version}/{attempt.stage}: attempt {attempt.number}{resumed}")

    def stage_failed(self, attempt: Attempt) -> None:
        message = (attempt.error or attempt.status).splitlines()[0]
        self._say(f"{attempt.version}/{attempt.stage}: {attempt.status}: {message}")
