"""Estimates time and memory of each stage before anything starts.

If this workspace has already run the stage, its measured time and peak memory are the estimate.
Otherwise the operations are counted (6 per parameter and trained token, 2 per parameter and token
read or written) and divided by this machine's speed on a small matrix product.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alignment.config.finetune import PretrainConfig
from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError
from alignment.models.checkpoint_files import stored_parameters
from alignment.pipeline.approval import Decisions
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.pipeline.records import Manifest
from alignment.pipeline.shared_stages import SPLIT, processes

TRAIN = 6  # operations per parameter and token: forward 2, backward 4
READ = 2
LIBRARIES_MB = 700.0  # torch, transformers and trl, imported
START_SECONDS = 1.0  # loading a model, writing outputs
UNKNOWN_PARAMETERS = 7e9  # a hub name that is not on this disk: the field's usual size
TYPICAL_DEMONSTRATIONS = 2000
TYPICAL_TOKENS = 64
BURSTS = 8
BURST_SECONDS = 0.02


@dataclass(frozen=True)
class Estimate:
    """Seconds and megabytes of one stage; `basis` says where the figures come from."""

    seconds: float
    memory_mb: float
    basis: str


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


def estimate(program: ProgramConfig) -> dict[str, Estimate]:
    """`version/stage` → estimate, for every stage of the program."""
    ledger = Ledger(program.workspace)
    plan = build_plan(program, Decisions.load(program))
    size = base_size(program)
    seen_before: dict[tuple[str, str], Manifest] = {}
    estimates = {}
    for node in plan:
        exact = ledger.current(node.version, node.stage)
        if exact is not None:
            seen_before[(node.module, node.stage)] = exact
        guide = exact or seen_before.get((node.module, node.stage))
        if guide is not None:
            basis = f"{guide.version}, measured"
            estimates[node.key] = Estimate(guide.seconds, guide.peak_memory_mb, basis)
        else:
            estimates[node.key] = _from_sizes(node, for_version(program, node.version), size)
    return estimates


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


def _from_sizes(node: Node, program: ProgramConfig, size: Size) -> Estimate:
    student = program.finetune.student
    if node.module == "student" and student is not None:
        size = _size(student.size or student.path)
    operations, memory = work(node, program, size)
    seconds = START_SECONDS + operations * size.parameters / machine_speed()
    copies = processes(node, program)
    if program.compute.sharding == "none" or node.module not in SPLIT:
        memory *= copies
    return Estimate(seconds, LIBRARIES_MB * copies + memory, "sizes")


def work(node: Node, program: ProgramConfig, size: Size) -> tuple[float, float]:
    """Operations per parameter, and MB beside the libraries."""
    student = program.finetune.student
    match node.module:
        case "pretrain":
            return _pretraining(program.base.pretrain, size)
        case "student" if node.version == "base" and student is not None and student.size:
            return _pretraining(student.size, size)
        case "student" | "import_base" if node.version == "base":
            return 0.0, _reading_mb(size, 0)
        case "finetune" | "student":
            tuning = program.finetune
            recipe = tuning.sft if node.version == "sft" else tuning.rejection
            tokens = max(program.sample.prompts, TYPICAL_DEMONSTRATIONS) * TYPICAL_TOKENS
            window = min(recipe.max_length, 512) * recipe.per_device_train_batch_size
            return TRAIN * tokens * recipe.epochs, _training_mb(size, window)
        case "reward":  # trained on the batches of all versions so far
            batches = program.version_names.index(node.version) - 1
            tokens = batches * max(program.collect.pairs, 100) * 2 * TYPICAL_TOKENS
            memory = _training_mb(size, program.rewards.max_tokens_per_micro_batch)
            return TRAIN * tokens, memory
        case "sample":
            sample, drawn = program.sample, program.sample.generation
            prompts = sample.prompts
            if sample.temperature == "search":
                prompts += len(sample.grid) * sample.search_prompts
            tokens = prompts * sample.k * min(drawn.max_new_tokens, TYPICAL_TOKENS)
            rows = drawn.generation_batch_size * drawn.max_new_tokens
            return READ * tokens, _reading_mb(size, rows)
        case "select":
            tokens = program.sample.prompts * program.sample.k * TYPICAL_TOKENS
            return READ * 2 * tokens, _reading_mb(size, 16384, models=2)
        case "ppo":
            ppo = program.ppo
            tokens = ppo.iterations * ppo.episodes * 2 * TYPICAL_TOKENS
            roles = _reading_mb(size, 0, models=4)  # reference and both reward models, read only
            step = ppo.minibatch * 2 * TYPICAL_TOKENS
            return (2 * TRAIN + 5 * READ) * tokens, 2 * _training_mb(size, step) + roles
        case "evaluate":
            prompts = 2 * (program.evaluate.prompts_per_domain or 400)
            return READ * 7 * prompts * TYPICAL_TOKENS, _reading_mb(size, 16384, models=3)
        case "collect":
            rows = program.collect.generation.generation_batch_size * TYPICAL_TOKENS
            tokens = 2 * program.collect.pairs * TYPICAL_TOKENS
            return READ * tokens, _reading_mb(size, rows, models=2)
    return 0.0, 100.0  # prepare, intake, promote: no model


def _pretraining(shape: PretrainConfig, size: Size) -> tuple[float, float]:
    step = shape.batch * shape.length
    return TRAIN * step * shape.steps, _training_mb(size, step)


def _training_mb(size: Size, tokens: float) -> float:
    """Weights, gradients and two moments in float32, and activations of one forward pass."""
    return (16 * size.parameters + 64 * size.width * size.layers * tokens) / 2**20


def _reading_mb(size: Size, tokens: float, models: int = 1) -> float:
    return (4 * models * size.parameters + 16 * size.width * size.layers * tokens) / 2**20


@cache
def machine_speed() -> float:
    """Operations per second that training reaches on this machine, from a short measurement.

    Small models reach about a fifth of the speed of a plain matrix product.
    """
    import numpy as np

    square = np.ones((384, 384), dtype=np.float32)
    best = 0.0
    # The best of several bursts in the thread's own time: other load must not count.
    for _ in range(BURSTS):
        began, done = time.thread_time(), 0
        while time.thread_time() - began < BURST_SECONDS:
            square @ square
            done += 1
        best = max(best, done * 2 * 384**3 / (time.thread_time() - began))
    return 0.2 * best
