"""`compute.sharding: auto` on invented hardware: what is chosen, kept, changed and refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from alignment.config.load import for_version, load_program
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError
from alignment.pipeline import sharding_choice
from alignment.pipeline.approval import Decisions
from alignment.pipeline.estimate import basis_of_time, estimate
from alignment.pipeline.gpu_plan import gpu_plan
from alignment.pipeline.hardware import GIB, LIBRARIES, Card, Place, known_card, parse
from alignment.pipeline.node import Node
from alignment.pipeline.plan import build_plan
from alignment.pipeline.preflight import check_sharding
from alignment.pipeline.sharding_choice import KEPT, choose, decide, keep, outlook, settled
from alignment.utils.memory import main_memory
from tests.pipeline.test_gpu_plan import LLAMA2, SEVEN, SHAPE

AUTO = ("compute.sharding=auto", "compute.processes=8")
FINETUNE, PPO = "sft/finetune", "rlhf-v5/ppo"


def llama2(home: Path, *changes: str) -> tuple[ProgramConfig, dict[str, Node]]:
    """The recipe for 7 billion parameters, and its stages by key."""
    (home / "config.json").write_text(json.dumps(SHAPE))
    base = [f"base.path={home}", f"workspace={home}/workspace", *AUTO, *changes]
    program = load_program(LLAMA2, base)
    (home / "workspace").mkdir(exist_ok=True)
    return program, {node.key: node for node in build_plan(program, Decisions(program))}


def place(hardware: str) -> Place:
    return parse(hardware).place


def chosen(program: ProgramConfig, nodes: dict[str, Node], key: str, there: Place) -> str:
    plan = list(nodes.values())
    return choose(nodes[key], for_version(program, key.split("/")[0]), plan, there).sharding


def test_each_stage_is_sharded_where_it_does_not_fit_whole(tmp_path: Path) -> None:
    program, nodes = llama2(tmp_path)
    # SFT: 16 bytes a parameter and 2 for rounded weights, 113 GiB, and less than 49 of activations.
    assert 18 * SEVEN < 162 * GIB < 36 * SEVEN
    big, small = place("8xB200-180GB"), place("8xA100-80GB")
    assert [chosen(program, nodes, key, big) for key in (FINETUNE, PPO)] == ["none", "full"]
    assert [chosen(program, nodes, key, small) for key in (FINETUNE, PPO)] == ["full", "full"]
    found = outlook(program, list(nodes.values()), big)
    assert found["rlhf-v3/finetune"].sharding == "none"
    assert "sft/collect" not in found, "nothing in it can be split"
    shown = gpu_plan(lambda more: llama2(tmp_path, *more)[0], parse("8xB200-180GB"))
    assert {plan.node.key: plan.sharding for plan in shown}[PPO] == "full"


def test_on_a_cpu_all_processes_share_the_memory(tmp_path: Path) -> None:
    assert Place("the CPU", 100.0 * GIB).room(4) == pytest.approx(22.5 * GIB - LIBRARIES)
    assert Place("the CPU", 100.0 * GIB).room(4, 2) == pytest.approx(22.5 * GIB - 2 * LIBRARIES)
    program, nodes = llama2(tmp_path, "compute.dtype=float32", "compute.processes=2")
    plan, settings = list(nodes.values()), for_version(program, "sft")
    whole = choose(nodes[FINETUNE], settings, plan, Place("the CPU", 0.0)).whole
    enough = 2 * (whole + LIBRARIES) / 0.9
    assert chosen(program, nodes, FINETUNE, Place("the CPU", enough * 1.001)) == "none"
    assert chosen(program, nodes, FINETUNE, Place("the CPU", enough * 0.999)) == "full"


def test_stages_that_run_at_once_are_judged_together(tmp_path: Path) -> None:
    key = "rlhf-v1/reward_helpfulness"
    alone, nodes = llama2(tmp_path, "orchestration.parallel=false")
    both, _ = llama2(tmp_path, "orchestration.parallel=true")
    there = place("8xB200-180GB")
    assert chosen(alone, nodes, key, there) == "none"
    assert chosen(both, nodes, key, there) == "full"
    assert chosen(both, nodes, "rlhf-v1/reward_safety", there) == "full"


def test_a_choice_is_kept_while_it_fits_and_a_change_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, nodes = llama2(tmp_path)
    node, plan, said = nodes[FINETUNE], list(nodes.values()), []
    settings = for_version(program, "sft")

    def here(there: Place | None) -> str:
        monkeypatch.setattr(sharding_choice, "present", lambda _device: there)
        keep(node, settings, plan, said.append)
        # Another program that loads the workspace, on any machine or none.
        monkeypatch.setattr(sharding_choice, "present", None)
        assert settled(settings, node, plan, place("8xT4-16GB")) == settled(settings, node, plan)
        return settled(settings, node, plan).compute.sharding

    assert here(place("8xB200-180GB")) == "none"
    assert here(place("2xB200-180GB")) == "none"
    assert said == []
    assert here(place("8xA100-80GB")) == "full"
    assert "was none, chosen on 8 x B200-180GB, and does not fit here" in said.pop()
    assert here(place("8xB200-180GB")) == "full", "what was begun in shards goes on in shards"
    assert "stays full, as was chosen on 8 x A100-80GB" in said.pop()
    # Other settings are another stage.
    lora = for_version(llama2(tmp_path, "finetune.sft.lora={}")[0], "sft")
    monkeypatch.setattr(sharding_choice, "present", lambda _device: place("8xB200-180GB"))
    keep(node, lora, plan, said.append)
    assert settled(lora, node, plan).compute.sharding == "none"
    assert said == []
    assert list(json.loads((program.workspace / KEPT).read_text())) == [FINETUNE]


def test_what_fits_in_no_way_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, nodes = llama2(tmp_path)
    plan, sft = list(nodes.values()), for_version(program, "sft")
    with pytest.raises(ConfigError, match="even in shards each of 8 processes needs") as error:
        decide(nodes[FINETUNE], sft, plan, place("8xT4-16GB"))
    assert error.value.where == "compute.sharding"
    assert "finetune.*.lora" in str(error.value.remedy)
    one, nodes = llama2(tmp_path, "compute.processes=1")
    monkeypatch.setattr(sharding_choice, "present", lambda _device: place("A100-80GB"))
    with pytest.raises(ConfigError, match="does not fit: each of 1 processes") as error:
        check_sharding(one, plan)
    assert "compute.processes splits it" in str(error.value.remedy)
    check_sharding(llama2(tmp_path, "compute.sharding=none")[0], plan)


def test_without_anything_to_judge_by_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, nodes = llama2(tmp_path, "compute.nodes=2", "compute.launch='srun {command}'")
    sft, plan = for_version(program, "sft"), list(nodes.values())
    for there in (None, Place("the CPU", 1e15)):  # a node from which others are launched
        monkeypatch.setattr(sharding_choice, "present", lambda _device, found=there: found)
        with pytest.raises(ConfigError, match="by the GPUs of this machine"):
            decide(nodes[FINETUNE], sft, plan)
    monkeypatch.setattr(sharding_choice, "present", lambda _device: place("8xA100-80GB"))
    assert decide(nodes[FINETUNE], sft, plan)[0].sharding == "full"
    (tmp_path / "config.json").unlink()
    with pytest.raises(ConfigError, match="not on this disk"):
        decide(nodes[FINETUNE], sft, plan)


def test_stages_that_nothing_splits_run_anywhere_and_have_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, nodes = llama2(tmp_path)
    plan, intake = list(nodes.values()), nodes["rlhf-v1/intake"]
    monkeypatch.setattr(sharding_choice, "present", lambda _device: None)
    keep(intake, for_version(program, "rlhf-v1"), plan, print)
    check_sharding(program, [intake])
    assert not (program.workspace / KEPT).exists()
    with pytest.raises(ConfigError, match="by the GPUs of this machine"):
        check_sharding(program, [intake, nodes[PPO]])


def test_a_gpu_is_known_by_its_drivers_name() -> None:
    names = {
        ("NVIDIA A100-SXM4-80GB", 79.3): "A100-80GB",
        ("NVIDIA A100-SXM4-40GB", 39.4): "A100-40GB",
        ("NVIDIA H100 80GB HBM3", 79.2): "H100-80GB",
        ("NVIDIA H200", 139.8): "H200-141GB",
        ("NVIDIA GeForce RTX 4090", 23.6): "RTX4090-24GB",
        ("Tesla T4", 14.6): "T4-16GB",
        ("NVIDIA L4", 22.0): "L4-24GB",
    }
    assert {key: card.name for key in names if (card := known_card(key[0], key[1] * GIB))} == names
    for name, size in (("NVIDIA H100 PCIe", 79.2), ("NVIDIA A100 MIG 1g.10gb", 9.8)):
        assert known_card(name, size * GIB) is None
    assert known_card("Quadro P4000", 8 * GIB) is None


def test_the_plan_says_by_which_speed_it_goes_or_that_it_cannot_know(tmp_path: Path) -> None:
    program, _ = llama2(tmp_path)
    h100 = place("8xH100-80GB")
    times = estimate(program, h100)
    [same] = [
        plan
        for plan in gpu_plan(lambda more: llama2(tmp_path, *more)[0], parse("8xH100-80GB"))
        if plan.node.key == FINETUNE
    ]
    assert times[FINETUNE].seconds == pytest.approx(same.seconds + 1.0)
    assert "40% of 989 TFLOP/s" in basis_of_time(h100)
    unknown = replace(h100, name="8 x Quadro", card=None)
    for there in (unknown, None):
        assert estimate(program, there)[FINETUNE].seconds is None
        assert estimate(program, there)["rlhf-v1/promote"].seconds == 1.0
        assert "no times: " in basis_of_time(there)
        assert "--hardware" in basis_of_time(there)
    slow = replace(h100, card=Card("slow", 80 * GIB, 989e10, 3.35e12))
    assert estimate(program, slow)[FINETUNE].seconds == pytest.approx(100 * same.seconds + 1.0)
    cpu = basis_of_time(Place("the CPU with 24.0 GiB", 24.0 * GIB))
    assert "measured matrix product on the CPU" in cpu


def test_a_container_has_the_memory_of_its_group(tmp_path: Path) -> None:
    whole = main_memory(tmp_path)
    assert whole > 2**30
    (tmp_path / "proc" / "self").mkdir(parents=True)
    groups = tmp_path / "proc" / "self" / "cgroup"
    groups.write_text("0::/box/inner\n")
    box = tmp_path / "sys" / "fs" / "cgroup" / "box"
    (box / "inner").mkdir(parents=True)
    (box / "inner" / "memory.max").write_text("max\n")
    assert main_memory(tmp_path) == whole
    (box / "memory.max").write_text(f"{2**30}\n")
    assert main_memory(tmp_path) == 2**30
    groups.write_text("4:memory:/old\n")
    (tmp_path / "sys/fs/cgroup/memory/old").mkdir(parents=True)
    (tmp_path / "sys/fs/cgroup/memory/old/memory.limit_in_bytes").write_text(f"{2**29}\n")
    assert main_memory(tmp_path) == 2**29
