"""A small fine-tuning, as a function that a fresh process can run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from model_helpers import CHATML, bytes_tokenizer, tiny_model

from alignment.config.finetune import FinetuneConfig
from alignment.config.lora import LoraConfig
from alignment.models import enough_steps
from alignment.models.chat_renderer import ChatRenderer
from alignment.training.policy import save_policy, trainable_policy
from alignment.training.sft import Example, finetune
from alignment.utils import distributed
from alignment.utils.metrics_log import Series

COLOURS = ("red", "blue", "green")


def examples(count: int = 24) -> list[Example]:
    """Questions and answers of different lengths; every seventh answer was cut."""
    return [
        Example(
            [{"role": "user", "content": f"what is the colour of hat {n}?" + " the cat" * (n % 5)}],
            f"it is {COLOURS[n % 3]}" + " the mat" * (n % 4),
            finished=n % 7 != 0,
        )
        for n in range(count)
    ]


def settings(**more: Any) -> FinetuneConfig:
    """Twelve steps without packing."""
    values: dict[str, Any] = {
        "learning_rate": 1e-3,
        "batch": 4,
        "per_device_train_batch_size": 2,
        "epochs": 2,
    }
    return FinetuneConfig(**{**values, "max_length": 128, "checkpoint_every": 1, **more})


def tune(tmp_path: Path, config: FinetuneConfig, model: Any = None, **more: Any) -> Any:
    """Fine-tune a tiny Llama, or `model`; returns (model, figures, curve)."""
    model = tiny_model("llama") if model is None else model
    rows = more.pop("rows", None) or examples()
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    series = Series(tmp_path / "series.jsonl")
    with patch.object(enough_steps, "FEWEST", 1):
        figures = finetune(
            model, renderer, rows, config, seed=7, scratch=tmp_path, series=series, **more
        )
    return model, figures, series.rows()


def whole_run(where: str, start: str, method: str) -> None:
    """Fine-tune the checkpoint at `start` and write the result, all below `where`."""
    torch.set_num_threads(1)
    lora = LoraConfig(r=4, dropout=0.1) if method == "lora" else None
    model = trainable_policy(Path(start), lora, seed=3)
    tune(Path(where), settings(packing=False, checkpoint_every=5, lora=lora), model)
    save_policy(model, bytes_tokenizer(CHATML), Path(where) / "model", start=Path(start))


def share_of_run(where: str, rank: int, processes: int, port: int) -> None:
    """One of several processes that fine-tune together on the CPU; the last batch is short."""
    torch.set_num_threads(1)
    if processes > 1:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", ACCELERATE_USE_CPU="true")
    distributed.join("cpu")
    tune(Path(where), settings(packing=False, batch=8, epochs=1), rows=examples(21))
    distributed.leave()
