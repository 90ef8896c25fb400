"""How a vLLM server for one policy is to be started: format, context, devices, memory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import torch

from alignment.config.compute import ComputeConfig
from alignment.config.inference import VLLMConfig
from alignment.errors import ConfigError
from alignment.inference.server_command import ServerPlan
from alignment.inference.vllm_environment import HEAD_SIZES, Installed
from alignment.models.load import resolve_device, weight_bytes
from alignment.utils.threads import threads

GIB = 2**30
_CONTEXT = 0.02  # of the GPU, for what CUDA itself takes
_LEAST = 1.2  # times its weights: a model needs some cache too
_PROCESSES = 3 * GIB  # of a server on a CPU, without weights and cache; measured
_AT_ONCE = 64  # sequences for which a CPU gets a cache, if the memory suffices


def plan_server(
    installed: Installed,
    model: Path,
    weights: str,
    config: VLLMConfig,
    compute: ComputeConfig,
    *,
    context: int | None,
    beside: int = 0,
    relief: str = "",
    taken: int = 0,
) -> ServerPlan:
    """The plan of a server for the full checkpoint in `model`.

    It takes the first GPUs that are visible, beside what is on them; or those after the first
    `taken`, if they are enough.

    Args:
        weights: digest of its weights; the server's name for the model contains it.
        context: most tokens of a prompt and its answer.
        beside: bytes of the same memory that must stay free for other models.
        relief: what makes those need less, for the error.
        taken: GPUs, from the first on, that other processes of ours compute on.

    Raises:
        ConfigError: the model does not fit on what is there, or vLLM cannot compute it here.
    """
    common: dict[str, Any] = {
        "python": installed.python,
        "model": model,
        "name": f"policy@{weights}",
        "dtype": compute.dtype,
        "context": context,
        "tensor_parallel": config.tensor_parallel_size,
        "data_parallel": config.data_parallel_size,
    }
    size = weight_bytes(model, compute.dtype)
    if installed.on_cpu:
        check_head(model)
        cache = _cpu_cache(model, size, context, compute, beside)
        return ServerPlan(**common, threads=compute.threads or threads(), cache_gib=cache)
    device = resolve_device(compute.device)
    if device.type != "cuda":
        raise ConfigError(
            f"vLLM {installed.version} computes on GPUs, and the device is {device}",
            where=str(installed.python),
            remedy="align vllm install --device cpu makes an environment for the CPU",
        )
    needed = config.tensor_parallel_size * config.data_parallel_size
    there = torch.cuda.device_count() if device.index is None else 1
    if needed > there:
        raise ConfigError(
            f"the server needs {needed} GPUs, and there are {there} for it ({device})",
            where="inference.vllm.tensor_parallel_size",
            remedy="lower inference.vllm.tensor_parallel_size and data_parallel_size, or set "
            "inference.engine: transformers",
        )
    gpu = visible(device.index)
    if device.index is None and taken and taken + needed <= there:
        own = range(taken, taken + needed)
        device, beside, gpu = torch.device("cuda", taken), 0, ",".join(str(visible(n)) for n in own)
    share = _gpu_share(size, config, beside, device, relief)
    return ServerPlan(**common, gpu_share=share, gpu=gpu)


def visible(index: int | None, given: str | None = None) -> str | None:
    """What $CUDA_VISIBLE_DEVICES has to say for a server on the GPU that we call `index`.

    Args:
        given: what it says to us; None asks the environment.
    """
    if index is None:
        return None
    given = os.environ.get("CUDA_VISIBLE_DEVICES") if given is None else given
    return given.split(",")[index] if given else str(index)


def check_head(model: Path) -> None:
    """Check that vLLM's CPU build can compute the attention of a checkpoint.

    Raises:
        ConfigError: its heads have a size that the build has no code for, with which the server
            would start and the first request would end it.
    """
    size = _shape(model)[2]
    if size is not None:
        check_head_size(size)


def check_head_size(size: int) -> None:
    """See `check_head`."""
    if size not in HEAD_SIZES:
        raise ConfigError(
            f"vLLM on a CPU computes attention heads of {', '.join(map(str, HEAD_SIZES))} "
            f"dimensions, and this model's have {size}",
            where="inference.engine",
            remedy="set inference.engine: transformers",
        )


def _shape(model: Path) -> tuple[int | None, int | None, int | None]:
    """(layers, key and value heads, size of a head), each None if the config does not say."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(model), trust_remote_code=False).get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    size = getattr(config, "head_dim", None)
    if size is None and heads:
        size = config.hidden_size // heads
    keys = getattr(config, "num_key_value_heads", None) or heads
    return getattr(config, "num_hidden_layers", None), keys, size


def _gpu_share(
    size: int, config: VLLMConfig, beside: int, device: torch.device, relief: str
) -> float:
    """The share of each GPU that a server takes at once, for weights and cache, and keeps."""
    free, total = torch.cuda.mem_get_info(device)
    share = min(config.gpu_memory_utilization, (free - beside) / total - _CONTEXT)
    part = size / config.tensor_parallel_size
    if share * total < part * _LEAST:
        others = f" and the models beside it {beside / GIB:.1f}" if beside else ""
        raise ConfigError(
            f"the GPU has {free / GIB:.1f} GiB free; the policy's weights take {part / GIB:.1f}"
            f"{others}",
            where="inference.vllm",
            remedy="set inference.vllm.tensor_parallel_size to more GPUs, or compute.dtype: "
            "bfloat16" + (f"; {relief}" if beside and relief else ""),
        )
    return math.floor(share * 1000) / 1000


def _cpu_cache(
    model: Path, size: int, context: int | None, compute: ComputeConfig, beside: int
) -> int:
    """GiB for keys and values on a CPU."""
    import psutil

    free = int(psutil.virtual_memory().available) - beside
    left = free - int(size * _LEAST) - _PROCESSES
    if left < GIB:
        raise ConfigError(
            f"{free / GIB:.1f} GiB of memory are free; a vLLM server for this policy takes "
            f"{(size * _LEAST + _PROCESSES + GIB) / GIB:.1f}",
            where="inference.engine",
            remedy="free some memory, or set inference.engine: transformers",
        )
    layers, keys, head = _shape(model)
    width = 4 if compute.dtype == "float32" else 2
    each = 2 * (layers or 1) * (keys or 1) * (head or 1) * width * (context or 4096)
    return max(1, min(math.ceil(_AT_ONCE * each / GIB), left // 2 // GIB))
