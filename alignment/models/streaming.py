"""Writes a model's weights for a server, one tensor at a time, wherever its parts are.

A sharded model is never whole in any process: all gather a tensor, the first writes it and drops
it. The file is in safetensors' format: the length of a header in JSON, the header, the bytes.
"""

from __future__ import annotations

import copy
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.models.sharding import compute_format
from alignment.utils import distributed

_FORMATS = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int64: "I64",
    torch.bool: "BOOL",
}

_Tied = tuple[list[str], Tensor]
"""A tensor and all its names: tied weights are gathered once, and written under each."""


def write_untied(policy: PreTrainedModel, directory: Path) -> None:
    """Write a checkpoint in the format that the policy computes in; all processes call it.

    The output embedding is a tensor of its own: where it is tied to the input embedding, vLLM 0.32
    loads new input embeddings and goes on answering with the old output embedding.
    """
    if distributed.is_first():
        directory.mkdir(parents=True)
        config = copy.deepcopy(policy.config)
        for part in (config, config.get_text_config()):
            part.tie_word_embeddings = False
        config.save_pretrained(directory)
    groups: dict[int, _Tied] = {}
    for name, value in policy.state_dict(keep_vars=True).items():
        groups.setdefault(id(value), ([], value.detach()))[0].append(name)
    tied, compute = list(groups.values()), compute_format(policy)
    tensors = (distributed.whole(value.to(_stored(value, compute))) for _, value in tied)
    if distributed.is_first():
        _write(tied, tensors, compute, directory / "model.safetensors")
    else:
        for _ in tensors:
            pass  # the first process has it


def _write(tied: list[_Tied], tensors: Iterator[Tensor], compute: torch.dtype, path: Path) -> None:
    header = json.dumps(_header(tied, compute)).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for names, _ in tied:
            data = next(tensors).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            for _ in names:
                file.write(data)
            del data  # before the next one comes
        file.flush()
        os.fsync(file.fileno())  # a server on another machine reads it next


def _header(tied: list[_Tied], compute: torch.dtype) -> dict[str, Any]:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for names, value in tied:
        stored = _stored(value, compute)
        for name in names:
            start, end = end, end + value.numel() * stored.itemsize
            header[name] = {
                "dtype": _FORMATS[stored],
                "shape": list(value.shape),
                "data_offsets": [start, end],
            }
    return header


def _stored(value: Tensor, compute: torch.dtype) -> torch.dtype:
    return compute if value.is_floating_point() else value.dtype
