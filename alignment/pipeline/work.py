"""How large a program's models are, and how much each stage computes with them.

Operations are counted: 6 per parameter and trained token, 2 per parameter and token that is read or
written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from alignment.config.finetune import PretrainConfig
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError
from alignment.models.checkpoint_files import stored_parameters
from alignment.pipeline.node import Node

TRAIN = 6  # operations per parameter and token: forward 2, backward 4
READ = 2
UNKNOWN_PARAMETERS = 7e9  # a hub name that is not on this disk: the field's usual size
TYPICAL_DEMONSTRATIONS = 2000
TYPICAL_TOKENS = 64


@dataclass(frozen=True)
class Size:
    """Parameters and shape of a model.

    Attributes:
        inner: width of the feed-forward layers.
        key_values: width of the keys, which is that of the values too.
    """

    parameters: float
    width: int
    layers: int
    inner: int = 11008
    key_values: int = 4096
    vocabulary: int = 32000

    def adapter(self, r: int) -> float:
        """Parameters of a LoRA adapter of rank r over every linear layer but the head."""
        sides = 6 * self.width + 2 * self.key_values + 3 * (self.width + self.inner)
        return float(self.layers * r * sides)


def base_size(program: ProgramConfig) -> Size:
    """Parameters and shape of the base model, from the settings or its config.json."""
    world = program.base.source == "world"
    return _size(program.base.pretrain if world else program.base.path)


def _size(source: PretrainConfig | str | None) -> Size:
    """The size of a model that is pretrained here, or of a checkpoint."""
    if isinstance(source, PretrainConfig):
        groups = source.kv_heads / source.heads
        parameters = _llama_parameters(
            source.vocabulary, source.hidden, source.layers, source.intermediate, groups
        )
        keys = round(source.hidden * groups)
        return Size(
            parameters, source.hidden, source.layers, source.intermediate, keys, source.vocabulary
        )
    config = Path(source or "").expanduser() / "config.json"
    if not config.is_file():
        return Size(UNKNOWN_PARAMETERS, 4096, 32)
    try:
        stored = stored_parameters(config.parent)
    except ConfigError:  # the check of the model says what is wrong with it
        stored = 0
    values = json.loads(config.read_text(encoding="utf-8"))
    width = int(values.get("hidden_size") or values.get("n_embd") or 1024)
    layers = int(values.get("num_hidden_layers") or values.get("n_layer") or 12)
    inner = int(values.get("intermediate_size") or 4 * width)
    heads = int(values.get("num_attention_heads") or values.get("n_head") or 1)
    groups = int(values.get("num_key_value_heads") or heads) / heads
    vocabulary = int(values.get("vocab_size") or 32000)
    parameters = stored or _llama_parameters(vocabulary, width, layers, inner, groups)
    return Size(parameters, width, layers, inner, round(width * groups), vocabulary)


def _llama_parameters(vocabulary: int, width: int, layers: int, inner: int, groups: float) -> float:
    attention = width * width * (2 + 2 * groups)
    return vocabulary * width + layers * (attention + 3 * width * inner)


def stage_size(node: Node, program: ProgramConfig) -> Size:
    """The size of the model that a stage works with: the student's own, else the base model's."""
    student = program.finetune.student
    if node.module == "student" and student is not None:
        return _size(student.size or student.path)
    return base_size(program)


def pretrained(node: Node, program: ProgramConfig) -> PretrainConfig | None:
    """The settings by which a stage pretrains a model of the built-in world, if it does."""
    student = program.finetune.student
    if node.module == "pretrain":
        return program.base.pretrain
    if node.module == "student" and node.version == "base" and student is not None:
        return student.size
    return None


def operations(node: Node, program: ProgramConfig) -> float:
    """Operations per parameter."""
    shape = pretrained(node, program)
    if shape is not None:
        return TRAIN * shape.batch * shape.length * shape.steps
    match node.module:
        case "student" if node.version == "base":
            return 0.0
        case "finetune" | "student":
            tuning = program.finetune
            recipe = tuning.sft if node.version == "sft" else tuning.rejection
            tokens = max(program.sample.prompts, TYPICAL_DEMONSTRATIONS) * TYPICAL_TOKENS
            return TRAIN * tokens * recipe.epochs
        case "reward":  # trained on the batches of all versions so far
            batches = program.version_names.index(node.version) - 1
            return TRAIN * batches * max(program.collect.pairs, 100) * 2 * TYPICAL_TOKENS
        case "sample":
            sample, drawn = program.sample, program.sample.generation
            prompts = sample.prompts
            if sample.temperature == "search":
                prompts += len(sample.grid) * sample.search_prompts
            return READ * prompts * sample.k * min(drawn.max_new_tokens, TYPICAL_TOKENS)
        case "select":
            return READ * 2 * program.sample.prompts * program.sample.k * TYPICAL_TOKENS
        case "ppo":
            ppo = program.ppo
            tokens = ppo.iterations * ppo.episodes * 2 * TYPICAL_TOKENS
            return (2 * TRAIN + 5 * READ) * tokens
        case "evaluate":
            prompts = 2 * (program.evaluate.prompts_per_domain or 400)
            return READ * 7 * prompts * TYPICAL_TOKENS
        case "collect":
            return READ * 2 * program.collect.pairs * TYPICAL_TOKENS
    return 0.0  # prepare, intake, promote, import: no model computes
