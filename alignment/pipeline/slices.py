"""The declarations of a stage, and the part of the configuration that its result depends on."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from alignment.config.effective import effective
from alignment.config.neutral import without_neutral
from alignment.config.program import ProgramConfig

PLANNED = {"planned": True}
STAGES = Path(__file__).parents[1] / "stages"


@dataclass(frozen=True)
class Declaration:
    """The declarations in a stage module.

    Attributes:
        code_version: `CODE_VERSION`; it changes when the bits of the result change.
        reads: `READS`, the sections of the configuration that the stage reads.
        keeps: `KEEPS`, older code versions whose finished outputs stay valid, for example because
            only the rounding differs. Their unfinished attempts start over.
        keeps_in_bfloat16: `BFLOAT16_KEEPS`, those of work with `compute.dtype: bfloat16`; as
            `keeps` where it is not declared.
    """

    code_version: str
    reads: tuple[str, ...]
    keeps: tuple[str, ...] = ()
    keeps_in_bfloat16: tuple[str, ...] = ()

    def keeps_work(self, code_version: str, config: Mapping[str, Any]) -> bool:
        """Whether outputs that an older code made with the recorded settings stay valid."""
        half = config.get("compute", {}).get("dtype") == "bfloat16"
        return code_version in (self.keeps_in_bfloat16 if half else self.keeps)


@cache
def stage_declaration(module: str) -> Declaration:
    """Read a stage's declarations from its source, without importing torch."""
    declared: dict[str, Any] = {}
    for statement in ast.parse((STAGES / f"{module}.py").read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            name = statement.targets[0].id
            if name in ("CODE_VERSION", "READS", "KEEPS", "BFLOAT16_KEEPS"):
                declared[name] = ast.literal_eval(statement.value)
    keeps = tuple(declared.get("KEEPS", ()))
    in_bfloat16 = tuple(declared.get("BFLOAT16_KEEPS", keeps))
    return Declaration(declared["CODE_VERSION"], tuple(declared["READS"]), keeps, in_bfloat16)


def config_slice(program: ProgramConfig, module: str) -> dict[str, Any]:
    """The sections that the stages of a module read, as plain JSON values.

    Left out are fields marked `planned`, which decide which stages exist and reach stages as
    options, and fields that cannot change a result (`alignment.config.neutral`).
    """
    sections = stage_declaration(module).reads
    return without_neutral({name: _plain(getattr(program, name)) for name in sections}, module)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        fields = type(value).model_fields.items()
        planned = {name for name, field in fields if (field.json_schema_extra or {}) == PLANNED}
        return value.model_dump(mode="json", exclude=planned)
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def student_option(program: ProgramConfig) -> dict[str, Any]:
    """The smaller model's settings, as the option of the stage that creates it."""
    student = effective(program).finetune.student
    assert student is not None
    settings = {"finetune": {"student": student.model_dump(mode="json")}}
    return {"student": without_neutral(settings)["finetune"]["student"]}
