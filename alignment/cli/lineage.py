"""`align lineage`: what a version was made from."""

from __future__ import annotations

from alignment.cli.common import JsonOption, WorkspaceOption, load_workspace, print_json


def lineage(
    version: str, /, *, workspace: WorkspaceOption = None, json: JsonOption = False
) -> None:
    """Walk back from a version to its batches, reward models, seeds, settings and code versions.

    For example:

    ```
    align lineage rlhf-v2
    align lineage champion
    align lineage rlhf-v2/reward_safety
    align lineage rlhf-v2 --json
    ```

    Parameters
    ----------
    version
        A version, `champion`, VERSION/STAGE, or a digest as MLflow shows it. `--json` adds the
        settings that every stage read.
    """
    from alignment.cli.results import standing
    from alignment.operations.lineage import lineage as walk
    from alignment.reporting.origin import in_words

    program = load_workspace(workspace)
    origin = walk(program, standing(program) if version == "champion" else version)
    if json:
        print_json(origin.to_dict())
        return
    from rich.console import Console

    console = Console(highlight=False)
    console.print(f"{origin.of} was made from {in_words(origin.batches)}:")
    wide = max(len(step.key) for step in origin.steps)
    rows = [("stage", "outputs", "code", "seed", "")]
    for step in origin.steps:
        # Inputs of the same version are named by their stage alone.
        sources = [key.removeprefix(f"{step.version}/") for key in step.inputs.values()]
        values = (step.key, step.digest[:12], step.code_version, str(step.seed))
        rows.append((*values, ", ".join(dict.fromkeys(sources))))
    for key, digest, code, seed, inputs in rows:
        console.print(f"{key:<{wide}}  {digest:<12}  {code:<4}  {seed}", markup=False)
        if inputs:
            console.print(f"  from {inputs}", style="dim", markup=False)
    libraries = ", ".join(f"{name} {number}" for name, number in origin.libraries.items())
    console.print(f"[dim]program seed {program.seed}; {libraries}[/]")
    for sentence in origin.withdrawn:
        console.print(f"[yellow]{sentence}[/]")
    if origin.stale is not None:
        console.print(f"[yellow]stale: a run would make it again: {origin.stale}[/]")
    for name in origin.missing:
        console.print(f"[yellow]no longer in the workspace: {name}[/]")
