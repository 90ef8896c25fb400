"""What the flows of one process share: the runner cannot travel as a flow parameter."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from alignment.errors import AlignError
from alignment.plan import Node
from alignment.runner import Runner


@dataclass(frozen=True)
class Session:
    """A runner that holds its workspace, and the stages to do."""

    runner: Runner
    nodes: tuple[Node, ...]

    def node(self, key: str) -> Node:
        """The stage called `version/stage`.

        Raises:
            AlignError: it is not part of this run.
        """
        for node in self.nodes:
            if node.key == key:
                return node
        raise AlignError(f"{key} is not part of this run")

    def of_version(self, version: str) -> list[Node]:
        """The stages of a version, in order."""
        return [node for node in self.nodes if node.version == version]

    @property
    def versions(self) -> list[str]:
        """Versions with something in this run, in order."""
        return list(dict.fromkeys(node.version for node in self.nodes))


_current: list[Session] = []


@contextmanager
def session(runner: Runner, nodes: Sequence[Node]) -> Iterator[Session]:
    """Make a runner known to the flows of this process."""
    made = Session(runner, tuple(nodes))
    _current.append(made)
    try:
        yield made
    finally:
        _current.remove(made)


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
