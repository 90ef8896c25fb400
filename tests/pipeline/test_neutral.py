"""Settings that cannot change a result are in no fingerprint; all others of a section are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program, load_program
from alignment.config.neutral import NEUTRAL, NEUTRAL_IN
from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import DOMAINS
from alignment.pipeline.approval import Decisions
from alignment.pipeline.plan import build_plan
from alignment.pipeline.slices import config_slice, stage_declaration

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
SIZE = {"hidden": 32, "layers": 1, "heads": 2, "kv_heads": 1}
BASE = [
    "compute.fast_cpu=auto",
    "compute.processes=4",
    "compute.launch='mpirun {command}'",
    "orchestration.parallel=false",
    "evaluate.judge={base_url: 'http://x/v1', model: m}",
    f"finetune.student={{size: {SIZE}}}".replace("'hidden'", "hidden"),
]


def depends_on(program: ProgramConfig) -> list[Any]:
    """What goes into every stage's fingerprint, but for the digests of its inputs."""
    plan = build_plan(program, Decisions(program))
    return [(node.key, dict(node.options), config_slice(program, node.module)) for node in plan]


@pytest.mark.parametrize("key", NEUTRAL)
def test_a_neutral_setting_changes_no_fingerprint(key: str) -> None:
    values = {"api_key_env": "OTHER", "timeout": 7.5, "fast_cpu": "off"}
    values |= {"python": "x", "url": "http://x", "gpu_memory_utilization": 0.5}
    values |= {"sharding": "auto", "nodes": 2, "launch": "'srun {command}'"}
    values |= {"fresh_prompts": True}
    value = values.get(key.rpartition(".")[2], 17)
    before, after = load_program(DEMO, BASE), load_program(DEMO, [*BASE, f"{key}={value}"])
    assert before != after, "the key exists, and this is another value"
    assert depends_on(before) == depends_on(after)


@pytest.mark.parametrize(
    ("setting", "module"),
    [
        ("ppo.iterations=7", "ppo"),
        ("rewards.epochs=2", "reward"),
        ("evaluate.bootstrap_samples=123", "evaluate"),
        ("evaluate.judge.prompts_per_axis=7", "evaluate"),
        ("compute.threads=3", "ppo"),
        ("compute.processes=2", "finetune"),
        ("sample.shard_prompts=3", "sample"),
        ("inference.engine=vllm", "sample"),
        ("inference.engine=vllm", "collect"),
        ("inference.vllm.tensor_parallel_size=2", "evaluate"),
    ],
)
def test_any_other_setting_changes_that_of_its_stages(setting: str, module: str) -> None:
    before, after = load_program(DEMO, BASE), load_program(DEMO, [*BASE, setting])
    assert config_slice(before, module) != config_slice(after, module)
    untouched = [s for s in ("promote", "prepare") if stage_declaration(s).reads]
    for other in untouched:
        assert config_slice(before, other) == config_slice(after, other)


@pytest.mark.parametrize("module", NEUTRAL_IN)
def test_a_setting_neutral_in_one_stage_is_in_anothers_fingerprint(module: str) -> None:
    shared = ["compute.processes=2", "compute.sharding=full"]
    before, after = load_program(DEMO, BASE), load_program(DEMO, [*BASE, *shared])
    assert before.compute != after.compute
    assert config_slice(before, module) == config_slice(after, module)
    assert config_slice(before, "ppo") != config_slice(after, "ppo")


def test_domains_stay_two(tmp_path: Path) -> None:
    assert DOMAINS == ("helpfulness", "safety")
    assert check_program({"name": "p", "workspace": str(tmp_path)}).version_names[-1] == "rlhf-v5"
