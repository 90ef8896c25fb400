"""The deployments of a program: intake, iteration and program; by clock, by event, by form."""

from pathlib import Path
from typing import Any, cast

from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.schedules import Cron, Schedule

from alignment.config.program import ProgramConfig
from flows.definitions.events import FILE_COMPLETE, PREFERENCES_ENOUGH, resource
from flows.definitions.intake import intake
from flows.definitions.iteration import iteration
from flows.definitions.program import program as whole_program

TAG = "align"


def deployments(program: ProgramConfig) -> list[RunnerDeployment]:
    """What `align serve` serves for a program; each is called like the program."""
    workspace = program.workspace.resolve()
    settings = program.orchestration
    given: dict[str, Any] = {"workspace": str(workspace)}
    made = [
        intake.to_deployment(
            name=program.name,
            parameters=given,
            schedules=_by_clock(settings.intake_cron, settings.timezone),
            triggers=[_on(FILE_COMPLETE, workspace, "take in what lies complete in the inbox")],
            tags=[TAG],
            description="Takes in every complete new file of the inbox, each as a batch.",
        ),
        iteration.to_deployment(
            name=program.name,
            parameters=given,
            schedules=_by_clock(settings.iteration_cron, settings.timezone),
            triggers=[
                _on(
                    PREFERENCES_ENOUGH,
                    workspace,
                    "begin the version that has enough preferences",
                    {"version": "{{ event.payload.version }}"},
                )
            ],
            tags=[TAG],
            description="Does one version: the next one, or goes on with a broken one, or does a "
            "stage of one again.",
        ),
        whole_program.to_deployment(
            name=program.name,
            parameters=given,
            tags=[TAG],
            description="Does every version, as far as preferences and decisions reach.",
        ),
    ]
    return [cast(RunnerDeployment, item) for item in made]  # a coroutine only within a loop


def _by_clock(cron: str | None, timezone: str) -> list[Schedule]:
    return [] if cron is None else [Cron(cron, timezone=timezone)]


def _on(
    event: str, workspace: Path, name: str, parameters: dict[str, Any] | None = None
) -> DeploymentEventTrigger:
    return DeploymentEventTrigger(
        name=f"{workspace.name}: {name}",
        expect={event},
        match={"prefect.resource.id": resource(workspace)},
        parameters=parameters,
    )
