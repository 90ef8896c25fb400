"""`align ingest` and `align batches`: what people sent, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json


def ingest(
    files: Annotated[tuple[Path, ...], Parameter(negative=())],
    /,
    *,
    workspace: WorkspaceOption = None,
    domain: Literal["helpfulness", "safety"] | None = None,
    format: str | None = None,
    json: JsonOption = False,
) -> None:
    """Take files of preferences into the workspace as one batch.

    Nothing is lost: bad rows are kept in the batch's quarantine with file, line and reason. The
    same files again are recognised. In programs with `intake.source: inbox` the next version
    trains on the batch; `simulated` and `split` programs make their own batches and leave it be.

    Examples:

    ```
    align ingest week-07.jsonl
    align ingest harmless.jsonl.gz --domain safety
    align ingest labels.json --format label-studio --workspace workspaces/hh
    ```

    Parameters
    ----------
    files
        One or more files of one delivery.
    domain
        What the comparisons are about, where the rows do not say.
    format
        Reader to use; default: detected from the content.
    """
    from rich.console import Console

    from alignment.preferences.intake import ingest as take_in
    from alignment.preferences.store import PreferenceStore

    program = load_workspace(workspace)
    store = PreferenceStore(program.workspace / "preferences")
    report = take_in(store, list(files), program.intake, domain=domain, format=format)
    if json:
        print_json(report.to_dict())
    else:
        Console(highlight=False).print(report.render())


def batches(*, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the batches in the store: counts, quarantine, and the version each went into.

    Examples:

    ```
    align batches
    align batches --json
    ```
    """
    from alignment.preferences.store import PreferenceStore
    from alignment.preferences.table import batch_table

    program = load_workspace(workspace)
    found = PreferenceStore(program.workspace / "preferences").batches()
    if json:
        print_json([batch.to_dict() for batch in found])
        return
    from rich.console import Console

    Console(highlight=False).print(batch_table(found))
