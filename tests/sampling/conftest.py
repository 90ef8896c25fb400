"""A tiny policy, two tiny reward models and stage directories, all made here."""

import sys
from pathlib import Path

from sampling_fixtures import make_context, policy, prompts, renderer, stage_inputs, tokenizer

__all__ = ["make_context", "policy", "prompts", "renderer", "stage_inputs", "tokenizer"]

sys.path.insert(0, str(Path(__file__).parent))  # for functions that a fresh process runs
