"""`align annotate`: pairs for annotators, out to a labelling tool and back with `align ingest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from alignment.cli.common import (
    JsonOption,
    WorkspaceOption,
    load_to_change,
    load_workspace,
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
    """List the pairs that versions collected, what was handed out, and what came back.

    For example:

    ```
    align annotate list
    align annotate list --json
    ```
    """
    from alignment.operations.annotation_export import collected_pairs
    from alignment.preferences.exports import list_exports
    from alignment.preferences.store import PreferenceStore

    program = load_workspace(workspace)
    pairs = collected_pairs(program)
    exports = list_exports(PreferenceStore(program.workspace / "preferences"))
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
        print_json({"collected": shown, "exports": [done.to_dict() for done in exports]})
        return
    from rich.console import Console
    from rich.table import Table

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
