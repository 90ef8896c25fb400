"""`align ingest` and `align batches`: what people sent, and what became of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from alignment.cli.common import (
    ByOption,
    JsonOption,
    ReasonOption,
    WorkspaceOption,
    carry_out,
    load_to_change,
    load_workspace,
    print_json,
)
from alignment.config.vocabulary import Domain, Origin
from alignment.errors import AlignError, ConfigError

if TYPE_CHECKING:
    from alignment.preferences.store import Batch
    from alignment.preferences.what_counts import Excluded


def ingest(
    files: Annotated[tuple[Path, ...], Parameter(negative=())],
    /,
    *,
    workspace: WorkspaceOption = None,
    domain: Domain | None = None,
    format: str | None = None,
    correct: Annotated[bool, Parameter(negative=())] = False,
    origin: Origin = "own",
    json: JsonOption = False,
) -> None:
    """Take files of preferences into the workspace as one batch.

    Nothing is lost: bad rows are kept in the batch's quarantine with file, line and reason. The
    same files again are recognised. The next version that begins trains on the batch, in programs
    with `intake.source: simulated` or `split` together with the batch that they make themselves.

    For example:

    ```
    align ingest week-07.jsonl
    align ingest harmless.jsonl.gz --domain safety
    align ingest hh-rlhf/helpful-base --origin open
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
    correct
        A verdict that differs from an earlier one of the same person corrects it. (Otherwise a row
        must say so itself; else it is reported and quarantined.)
    origin
        `own`: of your annotators; `open`: a public data set. Reward models mix the two differently.
    """
    from rich.console import Console
    from rich.text import Text

    from alignment.cli.progress import bar
    from alignment.pipeline.node import Node
    from alignment.pipeline.readiness import after_the_last, next_version
    from alignment.preferences.intake import ingest as take_in
    from alignment.preferences.store import PreferenceStore
    from alignment.preferences.what_counts import excluded_rows

    program = load_to_change(workspace, json=json)
    store = PreferenceStore(program.workspace / "preferences")
    with bar(Node("align", "ingest", "ingest"), Console(stderr=True)) as progress:
        report = take_in(
            store,
            list(files),
            program.intake,
            domain=domain,
            format=format,
            correct=correct,
            origin=origin,
            progress=progress,
        )
    taken = list(store.batch(report.id).versions)
    coming = next_version(program)
    if json:
        print_json({**report.to_dict(), "versions": taken, "next_version": coming})
        return
    console = Console(highlight=False)
    console.print(report.render())
    for line in not_counting(store.batch(report.id), excluded_rows(store)):
        console.print(Text(line, style="yellow"))
    console.print()
    if taken:
        console.print(f"taken in by {', '.join(taken)}")
    elif coming is not None:
        console.print(f"{coming} will take it in")
    elif (unheard := after_the_last(program)) is not None:
        console.print(f"[yellow]{unheard}[/]")


def not_counting(batch: Batch, excluded: Excluded) -> list[str]:
    """What of a batch does not count, and why, in words."""
    from alignment.preferences.what_counts import in_words

    if batch.withdrawal is not None:
        return [batch.withdrawal.in_words()]
    return in_words(excluded.get(batch.id, {}))


batches = App(name="batches", help="List the batches in the store; take one back.")


@batches.default
def list_batches(
    batch: str | None = None,
    /,
    *,
    picture: Path | None = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """List the batches in the store, or show the report of one.

    For example:

    ```
    align batches
    align batches 3
    align batches 3 --picture week-07.png
    align batches withdraw 3 --reason "labels swapped"
    align batches --json
    ```

    Parameters
    ----------
    batch
        Number, id or name of a batch whose report to show.
    picture
        Draw the report of the batch into this PNG.
    """
    from rich.console import Console
    from rich.text import Text

    from alignment.preferences.report import BatchReport
    from alignment.preferences.store import PreferenceStore
    from alignment.preferences.what_counts import excluded_rows
    from alignment.reporting.batch_table import batch_table

    store = PreferenceStore(load_workspace(workspace).workspace / "preferences")
    excluded = excluded_rows(store)
    console = Console(highlight=False)
    if batch is None:
        if picture is not None:
            raise ConfigError("a picture of which batch?", remedy="align batches 3 --picture FILE")
        accepted = store.batches()
        if json:
            print_json(
                [{**one.to_dict(), "not_counting": not_counting(one, excluded)} for one in accepted]
            )
        else:
            console.print(batch_table(accepted))
            for other in accepted:
                for line in not_counting(other, excluded):
                    console.print(Text(f"{other.sequence:>4}  {line}", style="yellow"))
        return
    one = store.batch(batch)
    report = BatchReport(one.report, one.directory, one.sequence, already=True)
    lines = not_counting(one, excluded)
    if json:
        print_json({**one.to_dict(), "not_counting": lines, "report": report.values})
    else:
        console.print(report.render())
        for line in lines:
            console.print(Text(line, style="yellow"))
    if picture is not None:
        from alignment.reporting.batch_plots import draw

        try:
            draw(report.values, picture)
        except OSError as error:
            raise AlignError(f"cannot write {picture}: {error.strerror or error}") from error


BatchArgument = Annotated[str, Parameter(help="Number, id or name of the batch.")]
OnlyOption = Annotated[
    tuple[str, ...],
    Parameter(
        negative=(),
        help="Single comparisons of it: LINE or FILE:LINE of the delivery, or a comparison's id. "
        "May be given several times. The rest of the batch stays as it is.",
    ),
]


@batches.command
def withdraw(
    batch: BatchArgument,
    /,
    *,
    only: OnlyOption = (),
    reason: ReasonOption = "",
    by: ByOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Take a batch or comparisons of it back: no version learns from them. Nothing is deleted.

    What was trained on them is stale, and the next run makes it again without. The versions made so
    far can still be shown, exported and talked to.

    For example:

    ```
    align batches withdraw 3 --reason "labels swapped"
    align batches withdraw 1f0c2a9b7d4e --by ana
    align batches withdraw 3 --only 17 --only week-07.jsonl:21
    align batches restore 3
    ```
    """
    from alignment.operations.withdraw import withdraw as take_back

    carry_out(take_back, batch, only, reason=reason, by=by, workspace=workspace, json=json)


@batches.command
def restore(
    batch: BatchArgument,
    /,
    *,
    only: OnlyOption = (),
    reason: ReasonOption = "",
    by: ByOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Undo a withdrawal: the versions that had taken the batch in have it again.

    What is in the ledger from before counts again and is not made anew.

    For example:

    ```
    align batches restore 3
    align batches restore 3 --only 17
    ```
    """
    from alignment.operations.withdraw import restore as give_back

    carry_out(give_back, batch, only, reason=reason, by=by, workspace=workspace, json=json)
