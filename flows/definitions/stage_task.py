"""A stage as a Prefect task: it asks the ledger, not Prefect's cache, whether there is work."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from flows.definitions.session import current


@task(cache_policy=NO_CACHE, persist_result=False, task_run_name="{key}")
def run_stage(key: str) -> Any:
    """Do the stage `version/stage`; a stage the ledger has is shown as Cached.

    Callers give the task the name of its stage, so that Prefect's pages group attempts by stage.

    Raises:
        AlignError: what the stage reported.
    """
    session = current()
    record = session.runner.run_node(session.node(key))
    manifest = record.manifest
    said = f"{manifest.seconds:.1f} s, outputs {manifest.digest[:12]}"
    if record.cached:
        return Completed(name="Cached", message=f"done before (attempt {manifest.attempt}): {said}")
    session.done_now.add(key)
    return Completed(message=f"attempt {manifest.attempt}: {said}")
