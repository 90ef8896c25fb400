"""`align annotate`: pairs for annotators, out to a labelling tool and back with `align ingest`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from alignment.cli.common import (
    ByOption,
    JsonOption,
    ReasonOption,
    WorkspaceOption,
    carry_out,
    load_to_change,
    load_workspace,
    print_aside,
    print_json,
)

annotate = App(name="annotate", help="Hand collected pairs out to annotators.")


@annotate.command
def export(
    version: str | None = None,
    /,
    *,
    format: Literal["label-studio", "argilla", "jsonl"] = "jsonl",
    select: Literal["random", "uncertain"] = "random",
    count: int | None = None,
    out: Path | None = None,
    again: Annotated[bool, Parameter(negative=())] = False,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Write collected pairs for annotators, in random order and without their provenance.

    Which answer is whose stays in the workspace. `align ingest` takes the labelled file back and
    restores it. Pairs that were handed out or judged before stay behind.

    For example:

    ```
    align annotate export --count 200
    align annotate export --format label-studio --select uncertain --count 200
    align annotate export rlhf-v2 --format argilla --out for-annotators.json
    ```

    Parameters
    ----------
    version
        Whose pairs; default: the newest version that has collected some.
    format
        Tool the file is for. `jsonl` is filled in by hand or by a program.
    select
        `uncertain`: those first about which the newest reward models are least sure.
    count
        At most so many; default: all.
    out
        File, or directory; default: `outbox/` in the workspace.
    again
        Also pairs that were handed out or judged before.
    """
    from alignment.cli.results import check_version
    from alignment.operations.annotation_export import export_pairs

    program = load_to_change(workspace, json=json)
    if version is not None:
        check_version(program, version)
    done = export_pairs(
        program, version, tool=format, selection=select, count=count, out=out, again=again
    )
    if json:
        print_json(done.to_dict())
        return
    print(f"{done.tasks} pairs of {done.version}: {done.file}")
    if done.settings is not None:
        print(f"{'interface' if format == 'label-studio' else 'settings'}: {done.settings}")
    print("when they are judged: align ingest FILE")


@annotate.command(name="list")
def list_(*, workspace: WorkspaceOption = None, json: JsonOption = False) -> None:
    """List the pairs that versions collected, what was handed out and came back, who is blocked.

    For example:

    ```
    align annotate list
    align annotate list --json
    ```
    """
    from alignment.operations.annotation_export import collected_pairs
    from alignment.preferences.exports import list_exports
    from alignment.preferences.store import PreferenceStore
    from alignment.preferences.withdrawals import read_events, withdrawn

    program = load_workspace(workspace)
    pairs = collected_pairs(program, any_code=True)
    store = PreferenceStore(program.workspace / "preferences")
    exports = list_exports(store)
    blocked = withdrawn(read_events(store.root), "annotator")
    if json:
        shown = [
            {
                "version": one.version,
                "pairs": len(one.pairs),
                "exported": one.exported,
                "judged": one.judged,
            }
            for one in pairs
        ]
        print_json(
            {
                "collected": shown,
                "exports": [done.to_dict() for done in exports],
                "blocked": [asdict(event) for event in blocked.values()],
            }
        )
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table("collected by", box=None, pad_edge=False)
    for name in ("pairs", "safety", "handed out", "judged"):
        table.add_column(name, justify="right")
    for one in pairs:
        safety = sum(pair["domain"] == "safety" for pair in one.pairs)
        counts = (len(one.pairs), safety, one.exported, one.judged)
        table.add_row(one.version, *(f"{count:,}" for count in counts))
    console.print(table if pairs else "no pairs were collected yet")
    if exports:
        table = Table("handed out", "pairs of", "for", "chosen", box=None, pad_edge=False)
        table.add_column("pairs", justify="right")
        table.add_column("judged", justify="right")
        table.add_column("file", no_wrap=True)
        for done in exports:
            table.add_row(
                done.when[5:16].replace("T", " "),
                done.version or "–",
                done.tool,
                done.selection,
                f"{done.tasks:,}",
                f"{done.judged:,}",
                done.file.name,
            )
        console.print()
        console.print(table)
    for event in blocked.values():
        console.print(Text(event.in_words(), style="yellow"))


AnnotatorArgument = Annotated[str, Parameter(help="The name as `align batches` shows it.")]


@annotate.command
def block(
    annotator: AnnotatorArgument,
    /,
    *,
    reason: ReasonOption = "",
    by: ByOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Leave out all that an annotator judged, in every batch and in deliveries to come.

    A pair that others judged too stays as long as they prefer the same answer. What was trained on
    the rest is stale, and the next run makes it again without. Nothing is deleted.

    For example:

    ```
    align annotate block ben@example.org --reason "always picks the left answer"
    align annotate unblock ben@example.org
    ```
    """
    from alignment.operations.withdraw import block as leave_out
    from alignment.operations.withdraw import unnamed_votes

    program = carry_out(leave_out, annotator, reason=reason, by=by, workspace=workspace, json=json)
    unnamed = unnamed_votes(program)
    if unnamed:
        print_aside(
            f"{unnamed:,} comparisons do not say which people judged them: they still count"
        )


@annotate.command
def unblock(
    annotator: AnnotatorArgument,
    /,
    *,
    reason: ReasonOption = "",
    by: ByOption = None,
    workspace: WorkspaceOption = None,
    json: JsonOption = False,
) -> None:
    """Let what a blocked annotator judged count again.

    For example:

    ```
    align annotate unblock ben@example.org
    ```
    """
    from alignment.operations.withdraw import unblock as let_in

    carry_out(let_in, annotator, reason=reason, by=by, workspace=workspace, json=json)
