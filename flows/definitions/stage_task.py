"""A stage as a Prefect task. The ledger decides whether there is work, not Prefect's cache."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.definitions.session import current


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{key}")
def run_stage(key: str) -> Any:
    """Run the stage `version/stage`. A stage that is in the ledger is shown as Cached.

    Callers give the task the name of its stage, so that Prefect's pages group attempts by stage.

    Raises:
        AlignError: what the stage reported.
    """
    session = current()
    record = session.runner.run_node(session.node(key))
    manifest = record.manifest
    summary = f"{manifest.seconds:.1f} s, outputs {manifest.digest[:12]}"
    if record.cached:
        summary = f"done before (attempt {manifest.attempt}): {summary}"
        return Completed(name="Cached", message=summary)
    session.done_now.add(key)
    return Completed(message=f"attempt {manifest.attempt}: {summary}")
