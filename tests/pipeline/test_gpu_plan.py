"""Memory of a GPU by hand, and changes that make a stage fit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from alignment.config.load import load_program
from alignment.errors import ConfigError
from alignment.pipeline.gpu_plan import StagePlan, gpu_plan
from alignment.pipeline.hardware import GIB, parse
from alignment.pipeline.work import base_size

LLAMA2 = Path(__file__).parents[2] / "configs" / "llama2.yaml"
SHAPE = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "intermediate_size": 11008,
    "num_attention_heads": 32,
    "vocab_size": 32000,
}
# Four square matrices of attention and three of the feed-forward network a layer, and the table.
SEVEN = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(SHAPE))
    return tmp_path


def plans(model: Path, hardware: str, *changes: str) -> dict[str, StagePlan]:
    def load(more: object) -> object:
        settings = [f"base.path={model}", f"workspace={model}/workspace", *changes]
        return load_program(LLAMA2, [*settings, *more])  # type: ignore[misc]

    return {plan.node.key: plan for plan in gpu_plan(load, parse(hardware))}  # type: ignore[arg-type]


def test_the_recipe_fits_the_hardware_that_it_names(model: Path) -> None:
    found = plans(model, "8xA100-80GB")
    assert found["rlhf-v5/ppo"].gpus == 8
    assert all(plan.fits and not plan.change for plan in found.values())


LLAMA2_70B = {
    "hidden_size": 8192,
    "num_hidden_layers": 80,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}


def test_the_recipe_for_70b_fits_the_machines_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA2_70B))
    path = LLAMA2.with_name("llama2-70b.yaml")

    def load(more: object) -> object:
        base = [f"base.path={tmp_path}", f"workspace={tmp_path}/workspace"]
        return load_program(path, [*base, *more])  # type: ignore[misc]

    program = load(())
    assert program.compute.processes == 12 * 8  # type: ignore[attr-defined]
    assert program.rewards.learning_rate == 5e-6  # type: ignore[attr-defined]
    assert program.ppo.kl.coefficient == 0.005  # type: ignore[attr-defined]
    found = gpu_plan(load, parse("96xA100-80GB"))  # type: ignore[arg-type]
    assert {plan.node.stage: plan.change for plan in found if not plan.fits} == {}
    [ppo] = [plan.memory.parts for plan in found if plan.node.stage == "ppo"]
    seventy = 80 * (2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28672) + 32000 * 8192
    assert ppo["server"] == 1.2 * 2 * seventy / 8
    assert ppo["policy and critic"] == 2 * 12 * seventy / 96
    assert ppo["gradients"] == 4 * seventy / 96
    assert "activations" not in ppo, "one micro-batch a step, and less than the gradients"
    ours = gpu_plan(
        lambda more: load(["inference.engine=transformers", *more]),  # type: ignore[arg-type]
        parse("96xA100-80GB"),
    )
    [drawn] = [plan for plan in ours if plan.node.stage == "ppo"]
    assert not drawn.fits
    assert drawn.change == ("inference.engine=vllm",)
    assert drawn.memory.parts["a rollout"] > 2 * seventy


LLAMA32_3B = {
    "hidden_size": 3072,
    "num_hidden_layers": 28,
    "intermediate_size": 8192,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
QWEN3_06B = {
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "intermediate_size": 3072,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("recipe", "shape"), [("small-gpu", LLAMA32_3B), ("qwen3-0.6b", QWEN3_06B)]
)
def test_small_recipes_fit_one_card_of_24_gigabytes(
    recipe: str, shape: dict[str, object], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(shape))
    base = [f"base.path={tmp_path}", f"workspace={tmp_path}/workspace"]
    path = LLAMA2.with_name(f"{recipe}.yaml")
    made = gpu_plan(lambda more: load_program(path, [*base, *more]), parse("A10-24GB"))
    assert {plan.node.key: plan.change for plan in made if not plan.fits} == {}
    assert "rlhf-v5/ppo" in {plan.node.key for plan in made}


def test_rloo_is_proposed_with_the_samples_that_it_needs(model: Path) -> None:
    one = ("compute.sharding=none", "compute.processes=1", "ppo.stop.look_every=0")
    (model / "config.json").write_text(json.dumps(QWEN3_06B))
    tight = ("ppo.episodes=64", "ppo.max_tokens_per_micro_batch=2048", "ppo.stop.keep=last")
    found = plans(model, "A10-24GB", *one, *tight)["rlhf-v5/ppo"]
    rloo = ("ppo.algorithm=rloo", "ppo.samples_per_prompt=4")
    assert found.change == (*rloo, "ppo.critic_warmup_iterations=0")
    warm = plans(model, "A10-24GB", *one, *tight, "ppo.critic_warmup_iterations=0")["rlhf-v5/ppo"]
    assert warm.change == rloo, "what it needs, and no more"


def test_the_memory_of_ppo_by_hand(model: Path) -> None:
    parts = plans(model, "8xH100-80GB")["rlhf-v5/ppo"].memory.parts
    # Masters and moments; gradients, 4 bytes a parameter of one of both, are gone while it draws.
    assert parts["policy and critic"] == 2 * 12 * SEVEN / 8
    assert parts["reference"] == 2 * SEVEN / 8
    assert parts["reward models"] == 2 * 2 * SEVEN / 8
    # Drawing takes the most: the policy whole in bfloat16, and keys and values of 16 rows of 1,024
    # new tokens after 64.
    assert parts["a rollout"] == 2 * SEVEN + 2 * 32 * 4096 * 2 * 16 * 1088
    adapters = ("ppo.lora={}", "ppo.critic_init=policy", "ppo.reference=sft")
    apart = plans(model, "8xH100-80GB", *adapters)["rlhf-v5/ppo"].memory.parts
    assert apart["reference"] == apart["shared base"] == 2 * SEVEN / 8
    shared = plans(model, "8xH100-80GB", *adapters, "finetune.rejection.lora={}")
    assert "reference" not in shared["rlhf-v5/ppo"].memory.parts
    whole = plans(model, "8xH100-80GB", "compute.sharding=none", "compute.processes=1")
    alone = whole["rlhf-v5/ppo"].memory.parts
    assert alone["policy and critic"] == 2 * (12 + 2) * SEVEN
    assert alone["gradients"] == 4 * SEVEN, "of one at a time, beside later micro-batches"
    assert whole["sft/finetune"].memory.parts["rounded weights"] == 2 * SEVEN
    best = "best weights and averages"
    last = ("ppo.stop.keep=last", "ppo.ema=null")
    assert best not in plans(model, "8xH100-80GB", *last)["rlhf-v5/ppo"].memory.parts
    # Those of the last look that forgot nothing.
    texts = plans(model, "8xH100-80GB", *last, "ppo.stop.texts=own.jsonl")["rlhf-v5/ppo"]
    assert texts.memory.parts[best] == 4 * SEVEN / 8


def test_the_memory_of_fine_tuning_by_hand(model: Path) -> None:
    plain = "finetune.sft.gradient_checkpointing=false"
    one = ("compute.sharding=none", "compute.processes=1", plain, "finetune.sft.max_length=512")
    rows = "finetune.sft.per_device_train_batch_size"
    several = plans(model, "8xH100-80GB", *one, "finetune.sft.batch=4", f"{rows}=2")
    # TRL's head: 1,024 tokens by a buffer of 32,768 words in bfloat16, and its gradient in float32.
    assert several["sft/finetune"].memory.parts == {
        "weights and moments": 12 * SEVEN,
        "rounded weights": 2 * SEVEN,
        "gradients": 4 * SEVEN,
        "activations": 1024 * 34 * 4096 * 32,
        "logits": 1024 * 32768 * 2 + 4 * 32000 * 4096,
    }
    single = plans(model, "8xH100-80GB", *one, "finetune.sft.batch=4", f"{rows}=4")
    assert "activations" not in single["sft/finetune"].memory.parts, "gradients are more"
    long = (*one[:3], "finetune.sft.max_length=4096", "finetune.sft.batch=4", f"{rows}=4")
    parts = plans(model, "8xH100-80GB", *long)["sft/finetune"].memory.parts
    assert "gradients" not in parts
    assert parts["logits"] == 4096 * 32768 * 2 + 4 * 32000 * 4096, "4,096 tokens at a time"


def test_a_server_draws_for_ppo_beside_the_shards_of_its_policy(model: Path) -> None:
    vllm = ("inference.engine=vllm", "inference.vllm.tensor_parallel_size=4")
    found = plans(model, "8xH100-80GB", *vllm, "inference.vllm.data_parallel_size=2")
    parts = found["rlhf-v5/ppo"].memory.parts
    assert "a rollout" not in parts
    assert parts["policy and critic"] == 2 * 12 * SEVEN / 8
    assert parts["gradients"] == 4 * SEVEN / 8
    assert parts["server"] == 1.2 * 2 * SEVEN / 4
    # 2048 tokens: a layer in 16 bits, the inputs of all 32, and logits. No policy is whole.
    assert parts["activations"] == 2048 * 4096 * (34 + 2 * 32)
    assert parts["logits"] == 2048 * 8 * 32000
    apart = plans(model, "12xH100-80GB", *vllm)["rlhf-v5/ppo"]
    assert apart.gpus == 12
    assert "server" not in apart.memory.parts
    assert plans(model, "8xH100-80GB", *vllm)["rlhf-v5/ppo"].gpus == 8


def test_the_memory_of_stages_that_draw_and_score_by_hand(model: Path) -> None:
    found = plans(model, "8xH100-80GB")
    read = {stage: found[f"rlhf-v1/{stage}"] for stage in ("sample", "select", "evaluate")}
    assert {plan.gpus for plan in read.values()} == {8}
    rewards = 2 * SEVEN / 8 + SEVEN / 32 + 32000 * 4096  # two shares, and a block and the table
    # In bfloat16. A policy is whole, beside the reward models while temperatures are searched.
    assert read["select"].memory.parts["weights"] == 2 * rewards
    assert read["sample"].memory.parts["weights"] == 2 * (SEVEN + rewards)
    assert read["evaluate"].memory.parts["weights"] == 2 * 3 * SEVEN
    served = plans(model, "8xH100-80GB", "inference.engine=vllm")
    assert [served[f"rlhf-v1/{stage}"].gpus for stage in read] == [1, 8, 8]
    # Three policies in shards and one block, the activations of two layers, log-probabilities.
    assert served["rlhf-v1/evaluate"].memory.parts == {
        "weights": 2 * (3 * SEVEN / 8 + SEVEN / 32 + 32000 * 4096),
        "activations": 16384 * 2 * 34 * 4096,
        "log-probabilities": 16384 * 20 * 32000,
    }
    few = ("inference.engine=vllm", "evaluate.max_tokens_per_micro_batch=1024")
    drawing = plans(model, "8xH100-80GB", *few)["rlhf-v1/evaluate"]
    assert drawing.memory.parts == {"server": 1.2 * 2 * SEVEN}


def test_a_stage_that_does_not_fit_gets_the_smallest_change_that_mends_it(model: Path) -> None:
    one = ("compute.sharding=none", "compute.processes=1")
    found = plans(model, "1xA10-24GB", *one)
    tuned = found["sft/finetune"]
    assert not tuned.fits
    assert tuned.change == ("finetune.sft.lora={}",)
    again = plans(model, "1xA10-24GB", *one, *tuned.change)["sft/finetune"]
    assert again.fits
    assert again.memory.total < 24 * GIB * 0.9 < tuned.memory.total
    several = plans(model, "2xH100-80GB", *one)["sft/finetune"]
    assert several.change == ("compute.sharding=full", "compute.processes=2")
    # What it costs is the cost of what can run.
    shared = plans(model, "2xH100-80GB", *one, *several.change)["sft/finetune"]
    assert several.runnable is not None
    assert (several.runnable.gpus, several.runnable.seconds) == (2, shared.seconds)
    assert several.seconds == 2 * shared.seconds


def test_what_runs_at_once_is_added_up(model: Path) -> None:
    key = "rlhf-v1/reward_helpfulness"
    alone = plans(model, "8xA100-80GB")[key].memory
    both = plans(model, "8xA100-80GB", "orchestration.parallel=true")
    assert "reward_safety at once" not in alone.parts
    assert both[key].memory.parts["reward_safety at once"] == alone.total
    assert both[key].memory.total == 2 * alone.total
    judged = both["rlhf-v1/evaluate"].memory.parts
    assert (
        judged["collect at once"]
        == both["rlhf-v1/collect"].memory.parts["weights"]
        + (both["rlhf-v1/collect"].memory.parts["keys and values"])
    )
    assert (
        both["rlhf-v5/ppo"].memory.total == plans(model, "8xA100-80GB")["rlhf-v5/ppo"].memory.total
    )
    # 16 bytes a parameter over two GPUs, 50 GiB, beside as much.
    tight = ("compute.processes=2", "orchestration.parallel=true")
    mended = plans(model, "2xA100-80GB", *tight)[key]
    assert not mended.fits
    assert mended.change == ("orchestration.parallel=false",)


def test_more_processes_than_gpus_do_not_fit(model: Path) -> None:
    assert not plans(model, "4xH100-80GB")["sft/finetune"].fits


def test_hardware_is_read_or_refused(model: Path) -> None:
    assert (parse("a100-80gb").count, parse("4 x L4-24GB").card.memory) == (1, 24 * GIB)
    for wrong in ("8xH100", "0xL4-24GB", "many"):
        with pytest.raises(ConfigError, match="names no hardware"):
            parse(wrong)
    with pytest.raises(ConfigError, match="did you mean H100-80GB"):
        parse("8xH100-80G")


def test_an_adapter_by_hand(model: Path) -> None:
    program = load_program(LLAMA2, [f"base.path={model}", f"workspace={model}/workspace"])
    # Two thin matrices beside each: q, k, v, o of 4096 x 4096, three of 4096 x 11008; rank 16.
    layer = 4 * 16 * (4096 + 4096) + 3 * 16 * (4096 + 11008)
    assert base_size(program).adapter(16) == 32 * layer
