"""Whether vLLM, where it is the engine, is there and can compute the base model.

It is looked at before the first stage that takes long. Otherwise the lack would be found hours
later, by the first version that samples.
"""

from __future__ import annotations

from pathlib import Path

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.inference.vllm_environment import installed


def check_engines(program: ProgramConfig) -> None:
    """Check the engine of every version.

    Raises:
        ConfigError: vLLM has no environment, or its build for the CPU does not compute attention
            heads of the base model's size.
    """
    for name in program.version_names[1:]:
        inference = for_version(program, name).inference
        if inference.engine != "vllm":
            continue
        if installed(inference.vllm).on_cpu:
            _check_base(program)


def _check_base(program: ProgramConfig) -> None:
    from alignment.inference.vllm_plan import check_head, check_head_size

    pretrain = program.base.pretrain
    if program.base.source == "world":
        check_head_size(pretrain.hidden // pretrain.heads)
        return
    path = Path(program.base.existing_path()).expanduser()
    if path.is_dir():
        check_head(path)
