"""What a setting comes to where one section overrides another."""

from __future__ import annotations

from alignment.config.generation import GenerationConfig
from alignment.config.program import ProgramConfig
from alignment.config.section import over


def effective(program: ProgramConfig) -> ProgramConfig:
    """The program with every override filled up, so that each section says all that it uses.

    `sample`, `collect`, `evaluate` and `ppo` get the whole of `generation`, trainings the whole of
    `optimizer`, `finetune.rejection` the whole of `finetune.sft`, a student's size that of
    `base.pretrain`. Stages, estimates and fingerprints see this program: to move a value from a
    stage's own section to the shared one changes nothing.
    """
    generation, optimizer, tuning = program.generation, program.optimizer, program.finetune
    sft = tuning.sft.model_copy(update={"optimizer": over(optimizer, tuning.sft.optimizer)})
    # PPO's ratios are those of the whole distribution, and its answers end by EOS.
    whole = over(generation, program.ppo.generation).model_copy(
        update={"top_p": 1.0, "top_k": 0, "stop": ()}
    )

    def drawn(own: GenerationConfig) -> GenerationConfig:
        # At temperatures of their own: the shared one must not stand in their fingerprints.
        return over(generation, own).model_copy(update={"temperature": 1.0})

    pretrain = program.base.pretrain
    pretrain = pretrain.model_copy(update={"optimizer": over(optimizer, pretrain.optimizer)})
    student = tuning.student
    if student is not None and student.size is not None:
        student = student.model_copy(update={"size": over(pretrain, student.size)})
    changes = {
        "base": {"pretrain": pretrain},
        "finetune": {
            "sft": sft,
            "rejection": over(sft, tuning.rejection),
            "student": student,
        },
        "rewards": {"optimizer": over(optimizer, program.rewards.optimizer)},
        "sample": {"generation": drawn(program.sample.generation)},
        "collect": {"generation": drawn(program.collect.generation)},
        "evaluate": {"generation": over(generation, program.evaluate.generation)},
        "ppo": {"generation": whole, "optimizer": over(optimizer, program.ppo.optimizer)},
    }
    sections = {
        name: getattr(program, name).model_copy(update=change) for name, change in changes.items()
    }
    return program.model_copy(update=sections)
