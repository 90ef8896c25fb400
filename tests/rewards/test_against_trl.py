"""Our first step beside TRL's RewardTrainer on real pairs: same loss, same gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alignment.bench.reward import MARGIN, read_pairs
from alignment.models.load import load_scalar, load_tokenizer
from alignment.rewards.batches import Batcher
from alignment.rewards.train import backward


def test_first_step_equals_trl(shared: Path, stories: Path, tmp_path: Path, way: str) -> None:
    from datasets import Dataset
    from trl import RewardConfig, RewardTrainer

    tokenizer = load_tokenizer(stories)
    # Were EOS the padding too, transformers would look for the score one token before it.
    tokenizer.pad_token = tokenizer.unk_token
    elements = read_pairs(shared / "data/hh-rlhf/harmless.jsonl.gz", tokenizer, 6, 256)
    torch.manual_seed(0)
    ours, theirs = load_scalar(stories), load_scalar(stories)
    theirs.load_state_dict(ours.state_dict())
    batcher = Batcher(ours, pad=2, tokens_per_batch=600, max_length=256)
    assert batcher.style.name == ("grouped" if way == "fast" else "rows")
    loss = backward(ours, elements, batcher).loss

    rows = [
        {
            "chosen_ids": list(element.sequences[0]),
            "rejected_ids": list(element.sequences[1]),
            "margin": MARGIN,
        }
        for element in elements
    ]
    trainer = RewardTrainer(
        model=theirs,
        args=RewardConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=6,
            max_length=256,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    (batch,) = list(trainer.get_train_dataloader())
    expected = trainer.compute_loss(trainer.model, batch)
    expected.backward()
    assert loss == pytest.approx(expected.item(), abs=1e-5)
    gradients = dict(trainer.model.named_parameters())
    for name, parameter in ours.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name].grad, atol=1e-4, rtol=0)
