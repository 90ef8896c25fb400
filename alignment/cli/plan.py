"""`align plan`: what would run, what is done, and what it would cost."""

from __future__ import annotations

from pathlib import Path

from alignment.cli.common import JsonOption, SetOption, print_json


def plan(
    config: Path,
    /,
    *,
    set_: SetOption = (),
    hardware: str | None = None,
    price: float | None = None,
    json: JsonOption = False,
) -> None:
    """Show the stages a program would run, and why, with an estimate of time and memory.

    Nothing is started and nothing is written.

    For example:

    ```
    align plan configs/demo.yaml
    align plan configs/hh.yaml --set base.path=DIR --set intake.path=DIR
    align plan configs/demo.yaml --json
    align plan configs/llama2.yaml --hardware 8xH100-80GB --price 2.5
    ```

    Parameters
    ----------
    config
        The program's YAML file.
    hardware
        GPUs that you have or would rent, such as `8xH100-80GB`: memory of each in every stage, what
        does not fit and what would make it, time and GPU hours.
    price
        Of one GPU for an hour; with `--hardware`, gives the cost.
    """
    if hardware is not None:
        from alignment.cli.hardware_plan import show
        from alignment.config.load import load_program
        from alignment.pipeline.hardware import parse

        show(lambda more: load_program(config, [*set_, *more]), parse(hardware), price, json)
        return
    from alignment.cli.status import MARKS
    from alignment.config.load import load_program
    from alignment.operations.evaluation_size import evaluation_size
    from alignment.operations.status import program_status
    from alignment.pipeline.estimate import basis_of_time, estimate
    from alignment.pipeline.fingerprints import Fingerprints
    from alignment.pipeline.hardware import present
    from alignment.pipeline.reasons import clock, left_behind
    from alignment.pipeline.sharding_choice import outlook
    from alignment.pipeline.workspace import refuse_another

    program = load_program(config, set_)
    refuse_another(program)
    status = program_status(program)
    fingerprints = Fingerprints.load(program)
    lost = left_behind(fingerprints.plan, fingerprints)
    place = present(program.compute.device)
    estimates = estimate(program, place)
    shards = outlook(program, fingerprints.plan, place)
    size = evaluation_size(program, fingerprints)
    if json:
        rows = [
            {
                "version": version.name,
                "stage": stage.stage,
                "state": stage.state,
                "why": None if stage.state == "done" else stage.why,
                "seconds": estimates[f"{version.name}/{stage.stage}"].seconds,
                "memory_mb": estimates[f"{version.name}/{stage.stage}"].memory_mb,
                "basis": estimates[f"{version.name}/{stage.stage}"].basis,
            }
            for version in status.versions
            for stage in version.stages
        ]
        print_json(
            {
                "program": program.name,
                "workspace": str(program.workspace),
                "stages": rows,
                "left_behind": lost,
                "times": basis_of_time(place),
                "sharding": {key: choice.sharding for key, choice in shards.items()},
                "evaluation": size.to_dict(),
            }
        )
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{program.name}  ({program.workspace})", title_justify="left", box=None)
    for column in ("version", "stage", "state", "time", "memory", "estimated from"):
        table.add_column(column, justify="right" if column in ("time", "memory") else "left")
    left, unknown = 0.0, 0
    for version in status.versions:
        for index, stage in enumerate(version.stages):
            guess = estimates[f"{version.name}/{stage.stage}"]
            if stage.state != "done":
                left += guess.seconds or 0.0
                unknown += guess.seconds is None
            table.add_row(
                f"[bold]{version.name}[/]" if index == 0 else "",
                stage.stage,
                MARKS[stage.state],
                "–" if guess.seconds is None else clock(guess.seconds),
                f"{guess.memory_mb:,.0f} MB",
                f"[dim]{guess.basis}[/]",
            )
    console = Console(highlight=False)
    console.print(table)
    for version in status.versions:
        for stage in version.stages:
            if stage.state != "done" and stage.attempts:
                console.print(f"{version.name}/{stage.stage} would run: {stage.why}")
    for line in lost:
        console.print(f"[yellow]{line}[/]")
    console.print(size.line(program.base.source == "world"))
    console.print(basis_of_time(place), soft_wrap=True)
    told: set[tuple[str, str]] = set()
    for key, choice in shards.items():
        said = (key.partition("/")[2], str(choice))
        if said not in told:  # versions are alike
            console.print(f"{key}: {choice}", soft_wrap=True)
            told.add(said)
    peak = max(guess.memory_mb for guess in estimates.values())
    without = f" without {unknown} stages whose time is unknown" if unknown else ""
    console.print(
        f"still to do: about {clock(left)}{without}, at most about {peak:,.0f} MB of memory"
    )
