"""A run that waits for a person: suspended, answered by the form, resumed; the server may go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
from served_run import ask_for_version, carry_out, keep_program

from alignment.pipeline.approval import find_decision


@contextmanager
def prefect_server(workspace: Any) -> Iterator[None]:
    """A server over the workspace's own database, and this process pointed at it."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from flows.definitions.dead_runs import flush
    from flows.servers.prefect_server import start_server

    server = start_server(workspace)
    try:
        server.wait()
        with temporary_settings({PREFECT_API_URL: server.url}):
            yield
            flush()  # what is still to be sent would hold up the next server's events
    finally:
        server.stop()


def asked(run_id: UUID, key: str) -> str:
    """What the form of a suspended run says above its fields."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run_input(run_id, f"suspended-{key}-description")


def answer(run_id: UUID, **values: str) -> None:
    """Fill in the form."""
    from prefect.flow_runs import resume_flow_run

    resume_flow_run(run_id, run_input=values)


@pytest.fixture
def kept(program: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The program, whose versions a person decides on, as a deployment finds it."""
    from flows.definitions import session

    # This process is nobody's child.
    monkeypatch.setattr(session, "end_with_parent", lambda _grace: None)
    keep_program(program, promote={"approval": "person"})
    return program


@pytest.mark.timeout(900)
def test_a_decision_by_the_form_after_the_server_was_restarted(stages: Any, kept: Any) -> None:
    from flows.definitions.approval import NEEDED, pause_key, suspended

    workspace = kept.workspace.resolve()
    with prefect_server(workspace):
        run = ask_for_version(workspace, "fake")
        assert carry_out(run)[0] == "Suspended"
        assert stages.ran[-1] == "rlhf-v1/collect"
        key = pause_key(workspace, "rlhf-v1")
        assert "rlhf-v1" in asked(run, key)
    before = list(stages.ran)

    with prefect_server(workspace):
        assert [one.id for one in suspended(workspace, key)] == [run]
        # A rejection without a reason is no decision: it is asked about again.
        answer(run, decision="reject", reason=" ", by="ann")
        assert carry_out(run)[0] == "Suspended"
        assert find_decision(workspace, "rlhf-v1") is None
        assert NEEDED in asked(run, f"{key}-1")
        answer(run, decision="reject", reason="it rhymes no more", by="ann")
        assert carry_out(run) == ("Completed", "rlhf-v1 is done and decided on")
        assert suspended(workspace) == []
    assert stages.ran == before, "nothing is done twice"
    word = find_decision(workspace, "rlhf-v1")
    assert word is not None
    assert (word.approved, word.reason, word.by) == (False, "it rhymes no more", "ann")
