"""A real vLLM in an environment of its own; without one these tests are skipped, with the reason.

`make test-vllm` runs them: they take minutes, most of them vLLM's starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from sampling_fixtures import renderer, tiny_config, tokenizer
from transformers import LlamaForCausalLM

from alignment.config.inference import InferenceConfig, VLLMConfig
from alignment.errors import ConfigError
from alignment.inference.vllm_environment import installed
from alignment.models.load import save_model

__all__ = ["renderer", "tokenizer"]

ASKED_FOR = "ALIGN_TEST_VLLM"
"""`1`: the environment of `align vllm install`; or the path of an environment's Python."""


@pytest.fixture(scope="session")
def inference() -> InferenceConfig:
    """The engine, on the environment that was found."""
    given = os.environ.get(ASKED_FOR)
    if not given:
        pytest.skip(f"a real vLLM takes minutes: `make test-vllm`, or set ${ASKED_FOR}")
    config = VLLMConfig(python=None if given == "1" else given)
    try:
        installed(config)
    except ConfigError as error:
        pytest.skip(f"{error.message} ({error.remedy})")
    return InferenceConfig(engine="vllm", vllm=config)


@pytest.fixture(scope="session")
def make_policy(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Callable[..., Path]:
    """A directory with a random policy whose heads a CPU build of vLLM computes."""
    root = tmp_path_factory.mktemp("policies")

    def make(seed: int, **more: Any) -> Path:
        directory = root / str(seed)
        if not directory.is_dir():
            torch.manual_seed(seed)
            shape = {"head_dim": 32, "max_position_embeddings": 256, "initializer_range": 0.3}
            config = tiny_config(tokenizer, **shape, **more)
            save_model(LlamaForCausalLM(config), tokenizer, directory)
        return directory

    return make
