"""Typed parameters of the flows; Prefect's pages show them as a form."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from alignment.config.load import load_program
from alignment.config.program import ProgramConfig
from alignment.errors import AlignError
from alignment.pipeline.workspace import is_workspace, kept_program, no_workspace
from flows.definitions.run_labels import deployed

StageName = Literal[
    "",
    "prepare",
    "pretrain",
    "import",
    "intake",
    "reward_helpfulness",
    "reward_safety",
    "guard_helpfulness",
    "guard_safety",
    "sample",
    "select",
    "finetune",
    "student",
    "ppo",
    "evaluate",
    "promote",
    "collect",
]
Workspace = Annotated[str, Field(description="Directory of the program on the machine that works.")]
Config = str
"""The program's YAML file; empty: as it was last run in the workspace."""
Version = Annotated[
    str,
    Field(
        pattern=r"^(next|base|sft|rlhf-v[1-9][0-9]*)$",
        description="`next` is the first version that is not done; or rlhf-v1, rlhf-v2 …",
    ),
]
Until = Annotated[
    str,
    Field(
        pattern=r"^(base|sft|rlhf-v[1-9][0-9]*)?$",
        description="Stop after this version; empty: go as far as possible.",
    ),
]
FromStage = StageName
"""Do this stage of the version and what depends on it again; empty: only what is not done."""


def read_program(workspace: str, config: str = "") -> ProgramConfig:
    """The program that a flow was asked to work on.

    Raises:
        AlignError: the workspace holds no program and no file is named; the file is wrong; or the
            run is one of the workspace that this one was copied from.
    """
    served = Path(os.environ.get("PREFECT_HOME", "")).parent.resolve()
    if workspace and deployed() and is_workspace(served) and served != Path(workspace).resolve():
        raise AlignError(
            f"this run belongs to the workspace {workspace}, from which {served} was copied",
            remedy="start one of this workspace's own deployments",
        )
    if config:
        return load_program(Path(config), [f"workspace={workspace}"] if workspace else [])
    if not workspace:
        raise AlignError("no workspace is named", remedy="give `workspace` or `config`")
    if not is_workspace(Path(workspace)):
        error = no_workspace(Path(workspace))
        error.remedy = f"give `config` as well, or {error.remedy}"
        raise error
    return kept_program(Path(workspace))
