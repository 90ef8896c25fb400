"""Import the base model: copy a directory or a hub model into the workspace.

Output: model/ (safetensors, configuration and tokenizer; no files that could run code).
"""

from __future__ import annotations

import math
from pathlib import Path

from safetensors import safe_open

from alignment.errors import ConfigError
from alignment.models.import_checkpoint import import_checkpoint
from alignment.stages.context import StageContext

CODE_VERSION = "1"
READS = ("base",)


def run(ctx: StageContext) -> None:
    """Copy or download the model, and check it."""
    base = ctx.config.base
    if base.path is None:
        raise ConfigError(
            "no base model is named",
            where="base.path",
            remedy="--set base.path=DIRECTORY (or a hub name)",
        )
    model = ctx.out / "model"
    ctx.progress.begin("import")
    import_checkpoint(base.path, model, revision=base.revision)
    ctx.metric(parameters=_parameters(model))


def _parameters(model: Path) -> int:
    total = 0
    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="np") as weights:
            names = list(weights.keys())
            total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
    return total
