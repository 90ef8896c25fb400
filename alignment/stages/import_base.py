"""Import the base model: copy a directory or a hub model into the workspace.

Output: model/ (safetensors, configuration and tokenizer; no files that could run code).
"""

from __future__ import annotations

from alignment.config.base import BaseConfig
from alignment.models.checkpoint_files import stored_parameters
from alignment.models.import_checkpoint import import_checkpoint
from alignment.stages.context import StageContext

CODE_VERSION = "1"
READS = ("base",)


def run(ctx: StageContext) -> None:
    """Copy or download the model, and check it."""
    base: BaseConfig = ctx.config.base
    model = ctx.out / "model"
    ctx.progress.begin("import")
    for note in import_checkpoint(
        base.existing_path(), model, where="base.path", revision=base.revision
    ):
        ctx.progress.say(note)
    ctx.metric(parameters=stored_parameters(model))
