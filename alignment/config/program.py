"""A whole program in one object: base → SFT → RLHF-V1 … RLHF-Vn."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from alignment.config.base import BaseConfig
from alignment.config.compute import ComputeConfig
from alignment.config.evaluate import EvaluateConfig, PromoteConfig
from alignment.config.finetune import FinetuneConfig, StudentConfig
from alignment.config.generation import GenerationConfig
from alignment.config.inference import InferenceConfig
from alignment.config.intake import DataConfig, IntakeConfig
from alignment.config.location import expanded
from alignment.config.optimizer import OptimizerConfig
from alignment.config.orchestration import OrchestrationConfig
from alignment.config.ppo import PPOConfig
from alignment.config.rewards import CombineConfig, RewardsConfig
from alignment.config.sampling import CollectConfig, SampleConfig, SelectConfig
from alignment.config.section import Override, Section, over
from alignment.config.tracking import CostConfig, TrackingConfig
from alignment.config.world import WorldConfig


class FinetuneSections(Section):
    """The two supervised fine-tunings of a program."""

    sft: FinetuneConfig = FinetuneConfig()
    """Base → SFT, on demonstrations."""
    rejection: Override[FinetuneConfig] = FinetuneConfig()
    """RLHF-Vn, on the best of K samples: what differs from `sft` ("similar to SFT", §3.2.3)."""
    student: StudentConfig | None = Field(default=None, json_schema_extra={"planned": True})
    """Every version also fine-tunes this smaller model, on the same answers; unset: none."""


class VersionConfig(Section):
    """One turn of the loop."""

    name: str = Field(pattern=r"^rlhf-v[1-9][0-9]*$")
    """`rlhf-v1`, `rlhf-v2`, … in order."""
    bag: Literal["previous", "all"] = "previous"
    """Fine-tune on this version's own samples, or on the best samples of all versions (V4+)."""
    start: Literal["base", "sft", "previous"] = "previous"
    """Checkpoint that fine-tuning on the best samples starts from. The paper is terse here."""
    ppo: bool = False
    """Finish with PPO on the combined reward, on top of the rejection-sampling checkpoint (V5)."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Settings that differ in this version only, as dotted keys: `sample.k: 32`."""


def paper_versions() -> tuple[VersionConfig, ...]:
    """Llama 2's five: V1–V3 on their own samples, V4+ on all, PPO in V5."""
    return tuple(
        VersionConfig(name=f"rlhf-v{n}", bag="all" if n >= 4 else "previous", ppo=n == 5)
        for n in range(1, 6)
    )


class ProgramConfig(Section):
    """What one YAML file in `configs/` says."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")
    """The program's name: the MLflow experiment and the default workspace are called so."""
    seed: int = Field(default=0, ge=0)
    """Every random stream of the program is derived from it."""
    workspace: Path
    """The directory that holds everything the program makes; it is one program's alone."""
    generation: GenerationConfig = GenerationConfig()
    """How answers are generated, wherever a stage's own `generation` does not differ."""
    optimizer: OptimizerConfig = OptimizerConfig()
    """AdamW, wherever a training's own `optimizer` does not differ."""
    base: BaseConfig = BaseConfig()
    world: WorldConfig = WorldConfig()
    data: DataConfig = DataConfig()
    intake: IntakeConfig = IntakeConfig()
    finetune: FinetuneSections = FinetuneSections()
    rewards: RewardsConfig = RewardsConfig()
    combine: CombineConfig = CombineConfig()
    sample: SampleConfig = SampleConfig()
    select: SelectConfig = SelectConfig()
    ppo: PPOConfig = PPOConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    promote: PromoteConfig = PromoteConfig()
    collect: CollectConfig = CollectConfig()
    tracking: TrackingConfig = TrackingConfig()
    cost: CostConfig = CostConfig()
    compute: ComputeConfig = ComputeConfig()
    inference: InferenceConfig = InferenceConfig()
    orchestration: OrchestrationConfig = OrchestrationConfig()
    versions: tuple[VersionConfig, ...] = Field(default_factory=paper_versions, min_length=1)
    """The turns of the loop, in order."""

    @field_validator("workspace")
    @classmethod
    def _home(cls, workspace: Path) -> Path:
        return Path(expanded(str(workspace)))

    @field_validator("versions")
    @classmethod
    def _in_order(cls, versions: tuple[VersionConfig, ...]) -> tuple[VersionConfig, ...]:
        expected = [f"rlhf-v{n}" for n in range(1, len(versions) + 1)]
        names = [version.name for version in versions]
        if names != expected:
            raise ValueError(f"versions must be {', '.join(expected)} in order, found {names}")
        return versions

    @model_validator(mode="after")
    def _possible(self) -> ProgramConfig:
        if self.base.source == "path" and self.intake.source == "simulated":
            raise ValueError(
                "intake.source: simulated needs the built-in world (base.source: world); "
                "its annotators cannot judge answers of a real model"
            )
        if self.orchestration.parallel and self.compute.launch is not None:
            raise ValueError(
                "compute.launch starts one stage at a time, because two would meet at one address: "
                "set orchestration.parallel: false"
            )
        student = self.finetune.student
        if student is not None and student.size is not None:
            if self.base.source != "world":
                raise ValueError(
                    "finetune.student.size pretrains on the built-in world (base.source: world); "
                    "give the student's path"
                )
            try:
                over(self.base.pretrain, student.size).possible()
            except ValueError as error:
                raise ValueError(f"finetune.student.size: {error}") from None
        if self.base.source == "world" and self.intake.source == "split":
            raise ValueError("intake.source: split needs real data (base.source: path)")
        return self

    def version(self, name: str) -> VersionConfig:
        """The version called `name`.

        Raises:
            KeyError: there is none.
        """
        for version in self.versions:
            if version.name == name:
                return version
        raise KeyError(name)

    @property
    def version_names(self) -> list[str]:
        """`base`, `sft`, then the RLHF versions."""
        return ["base", "sft", *(version.name for version in self.versions)]
