"""A tiny policy, two tiny reward models and stage directories, all made here."""

from sampling_fixtures import make_context, policy, prompts, renderer, stage_inputs, tokenizer

__all__ = ["make_context", "policy", "prompts", "renderer", "stage_inputs", "tokenizer"]
