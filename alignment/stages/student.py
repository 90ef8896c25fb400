"""Fine-tune a smaller model on the answers that the policy sampled and the reward models chose.

Llama 2 §3.2.3: only the largest model samples; the smaller ones are fine-tuned on its best answers.
In `base` the student is pretrained on the built-in world, or imported. In `sft` it learns from the
demonstrations, and in each later version from that version's selection, starting from its state in
the version before. Outputs: model/, series.jsonl (the loss curve).
"""

from __future__ import annotations

from alignment.config.finetune import StudentConfig
from alignment.models.import_checkpoint import import_checkpoint
from alignment.stages import finetune
from alignment.stages.context import StageContext
from alignment.stages.pretrain import pretrain_world
from alignment.utils import distributed

CODE_VERSION = "8"
KEEPS = ("1", "2", "3", "4", "5", "6")
BFLOAT16_KEEPS = ()
# 2: templates with an end other than EOS; 3: long answers stay that fit with their short prompts;
# 4, 6 and 7: see `finetune`; 5: shared by several processes
READS = ("finetune", "compute")


def run(ctx: StageContext) -> None:
    """Create the student, or train it; see the module."""
    if "start" in ctx.inputs:
        finetune.run(ctx)
        return
    config = StudentConfig.model_validate(ctx.options["student"])
    if config.size is not None:
        pretrain_world(ctx, config.size)
    elif distributed.is_first():
        assert config.path is not None
        for note in import_checkpoint(
            config.path,
            ctx.out / "model",
            where="finetune.student.path",
            revision=config.revision,
        ):
            ctx.progress.say(note)
