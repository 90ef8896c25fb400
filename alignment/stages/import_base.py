"""Import the base model: copy a directory or a hub model into the workspace.

Output: model/ (safetensors, configuration and tokenizer; no files that could run code).
"""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open

from alignment.config.base import BaseConfig
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
    ctx.metric(parameters=_parameters(model))


def _parameters(model: Path) -> int:
    total = 0
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            names = list(weights.keys())
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    return total
