"""The command line and the environment of a vLLM server: pure functions of a plan."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignment.errors import ConfigError
from alignment.utils.loopback import HOSTS, spare_loopback

if TYPE_CHECKING:  # torch takes seconds
    from alignment.models.load import Dtype

KEY = "VLLM_API_KEY"
"""Variable with the key that requests must bear; a command line could be read by everybody."""

_BATCHED_TOKENS = 8192
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM has room for
# What belongs to our process and would mislead vLLM, and what is nobody else's business.
_OURS = re.compile(
    r"(PYTHON|VIRTUAL_ENV|ALIGN_|MLFLOW_|PREFECT_|TORCHELASTIC_|GLOO_)"
    r"|(RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|GROUP_RANK|MASTER_ADDR|MASTER_PORT)$"
    r"|.*(TOKEN|SECRET|PASSWORD|PASSWD|API_KEY|ACCESS_KEY|_KEY)$"
)


@dataclass(frozen=True)
class ServerPlan:
    """What a server is started with."""

    python: Path
    """Of vLLM's environment."""
    model: Path
    """A full checkpoint."""
    name: str
    """Under which it is served; it contains the digest of the weights."""
    dtype: Dtype
    context: int | None
    """Most tokens of prompt and answer; None leaves it to the model's config."""
    tensor_parallel: int = 1
    data_parallel: int = 1
    gpu_share: float | None = None
    """Of each GPU's memory; None on a CPU."""
    gpu: str | None = None
    """The GPU to take, as $CUDA_VISIBLE_DEVICES names it; None takes what is visible to us."""
    cache_gib: int | None = None
    """Memory for keys and values on a CPU; None on GPUs."""
    threads: int = 1
    """Of OpenMP, on a CPU."""
    live: bool = False
    """Whether its weights are replaced while it runs. The calls for that bear no key: whoever has
    an account on this machine could make them."""
    adapter_rank: int | None = None
    """Rank of the adapters that are loaded over the model while it runs; the calls bear the key."""


def command(plan: ServerPlan, port: int) -> list[str]:
    """The command that serves `plan` on the loopback interface."""
    words = [str(plan.python), "-m", "vllm.entrypoints.cli.main", "serve", str(plan.model)]
    words += ["--served-model-name", plan.name, "--host", HOSTS[0], "--port", str(port)]
    # Without --dtype float32 weights would be served in bfloat16.
    words += ["--dtype", plan.dtype]
    # The model's own generation_config.json must not fill in what a request leaves out.
    words += ["--generation-config", "vllm"]
    # Training needs log-probabilities at the temperature.
    words += ["--logprobs-mode", "processed_logprobs", "--max-logprobs", "1"]
    words += ["--enable-prefix-caching", "--return-tokens-as-token-ids"]
    if plan.context is not None:
        words += ["--max-model-len", str(plan.context)]
    if plan.tensor_parallel > 1:
        words += ["--tensor-parallel-size", str(plan.tensor_parallel)]
    if plan.data_parallel > 1:
        words += ["--data-parallel-size", str(plan.data_parallel)]
    if plan.gpu_share is not None:
        words += ["--gpu-memory-utilization", f"{plan.gpu_share:.3f}"]
    if plan.adapter_rank is not None:
        words += ["--enable-lora", "--max-lora-rank", str(_room_for(plan.adapter_rank))]
    if plan.cache_gib is not None:
        # On a CPU a request with a seed whose prompt is cut into chunks ends the engine ("CPU
        # Generator does not use offset").
        tokens = max(_BATCHED_TOKENS, plan.context or 0)
        words += ["--no-enable-chunked-prefill", "--max-num-batched-tokens", str(tokens)]
    return words


def _room_for(rank: int) -> int:
    """The smallest room in which adapters of a rank fit.

    Raises:
        ConfigError: vLLM has none so large.
    """
    fitting = [room for room in _RANKS if room >= rank]
    if not fitting:
        raise ConfigError(
            f"vLLM takes adapters up to rank {_RANKS[-1]}, and this one has {rank}",
            where="ppo.lora.r",
            remedy="lower it, or set inference.engine: transformers",
        )
    return fitting[0]


def environment(plan: ServerPlan, key: str, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables of the server: `base` without what is ours or secret, nothing sent to anybody,
    nothing fetched, no proxy for this machine."""
    variables = {name: value for name, value in base.items() if not _OURS.match(name)}
    variables |= {
        KEY: key,
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_HOST_IP": HOSTS[0],
        "TOKENIZERS_PARALLELISM": "false",
    }
    if plan.live:
        variables["VLLM_SERVER_DEV_MODE"] = "1"
    if plan.adapter_rank is not None:
        variables["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"
    if plan.gpu is not None:
        variables["CUDA_VISIBLE_DEVICES"] = plan.gpu
    if plan.cache_gib is not None:
        variables |= {
            "VLLM_CPU_KVCACHE_SPACE": str(plan.cache_gib),
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(plan.threads),
        }
    spare_loopback(variables)
    return variables
