"""What a vLLM server is started with: memory, devices, shapes that its CPU build computes."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.config.compute import ComputeConfig
from alignment.config.inference import VLLMConfig
from alignment.errors import ConfigError
from alignment.inference.server_command import ServerPlan, command, environment
from alignment.inference.vllm_environment import Installed
from alignment.inference.vllm_plan import GIB, check_head_size, plan_server, visible


@pytest.fixture
def plan(stage_inputs: dict[str, Path]) -> Any:
    def make(
        version: str = "0.32.0", beside: int = 0, taken: int = 0, device: str = "auto", **vllm: Any
    ) -> ServerPlan:
        return plan_server(
            Installed(Path("python"), version),
            stage_inputs["policy"] / "model",
            "abc",
            VLLMConfig(**vllm),
            ComputeConfig(device=device),
            context=100,
            beside=beside,
            relief="set sample.temperature",
            taken=taken,
        )

    return make


def test_room_on_the_gpu_for_the_models_beside_it(
    plan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    for free, beside, most, share in (
        (80, 0, 0.9, 0.9),
        (80, 30, 0.9, 0.605),
        (40, 0, 0.9, 0.48),
        (40, 30, 0.9, 0.105),
        (80, 0, 0.5, 0.5),
    ):
        memory = (free * GIB, 80 * GIB)
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda _device, memory=memory: memory)
        made = plan(beside=beside * GIB, gpu_memory_utilization=most)
        assert made.gpu_share == pytest.approx(share, abs=1e-3)
        assert f"{made.gpu_share:.3f}" in command(made, 1)
    with pytest.raises(ConfigError, match="the models beside it 80") as caught:
        plan(beside=80 * GIB)
    assert "sample.temperature" in (caught.value.remedy or "")
    words = command(plan(tensor_parallel_size=4, data_parallel_size=2), 1)
    assert words[words.index("--tensor-parallel-size") + 1] == "4"
    assert words[words.index("--data-parallel-size") + 1] == "2"
    with pytest.raises(ConfigError, match="needs 9 GPUs"):
        plan(tensor_parallel_size=9)
    assert plan().gpu is None
    # Beside eight processes on the same cards; beside six on the two that are left.
    both = {"tensor_parallel_size": 2, "beside": 30 * GIB}
    assert (plan(taken=8, **both).gpu, plan(taken=8, **both).gpu_share) == (None, 0.605)
    assert (plan(taken=6, **both).gpu, plan(taken=6, **both).gpu_share) == ("6,7", 0.9)
    assert plan(taken=7, **both).gpu is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    second = plan(device="cuda:1")
    assert environment(second, "key")["CUDA_VISIBLE_DEVICES"] == second.gpu == "6"
    assert visible(1, given="") == "1"
    with pytest.raises(ConfigError, match="needs 2 GPUs, and there are 1"):
        plan(device="cuda:1", tensor_parallel_size=2)
    with pytest.raises(ConfigError, match=r"computes on GPUs, and the device is cpu"):
        plan(device="cpu")


def test_memory_of_a_cpu(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alignment.inference.vllm_plan.check_head_size", lambda _size: None)
    for free, cache in ((8, 1), (64, 1)):
        memory = SimpleNamespace(available=free * GIB)
        monkeypatch.setattr("psutil.virtual_memory", lambda memory=memory: memory)
        assert plan("0.32.0+cpu").cache_gib == cache
    with pytest.raises(ConfigError, match=r"3\.0 GiB of memory are free"):
        plan("0.32.0+cpu", beside=61 * GIB)
    monkeypatch.setattr("alignment.inference.vllm_plan._shape", lambda _model: (32, 32, 128))
    assert plan("0.32.0+cpu").cache_gib == 7  # 64 sequences of 100 tokens of 1 MiB


def test_heads_of_other_sizes_are_refused_on_a_cpu(plan: Any) -> None:
    with pytest.raises(ConfigError, match="this model's have 8"):
        plan("0.32.0+cpu")
    check_head_size(64)
