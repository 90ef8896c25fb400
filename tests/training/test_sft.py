"""Supervised fine-tuning: the right loss, the right update, and exact resumption."""

from __future__ import annotations

import json
import multiprocessing
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from model_helpers import CHATML, bytes_tokenizer, tiny_model
from sft_helpers import examples, settings, share_of_run, tune, whole_run

from alignment.config.lora import LoraConfig
from alignment.config.optimizer import OptimizerConfig
from alignment.errors import ConfigError, DataError, StageError
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import load_policy, save_model
from alignment.training.packing import IGNORE
from alignment.training.policy import save_policy, trainable_policy
from alignment.training.sft import Example, _filled, _own_rows, tokenize, training_rows
from alignment.utils.metrics_log import Series


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_the_first_loss_is_that_of_answer_tokens_alone(
    family: str, packing: bool, tmp_path: Path
) -> None:
    """Equal to a sum over conversations one by one, prompt tokens left out, EOS counted."""
    config = settings(packing=packing)
    reference = tiny_model(family)
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    rows, _ = tokenize(examples(), renderer, 128)
    first = training_rows(rows, config, 128, packing=packing, seed=7)[: config.batch]
    total, count = 0.0, 0
    for row in first:
        starts = [index for index, place in enumerate(row["position_ids"]) if place == 0]
        for begin, end in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True):
            ids = torch.tensor([row["input_ids"][begin:end]])
            with torch.no_grad():
                logp = reference(input_ids=ids).logits.log_softmax(-1)[0]
            for place in range(begin + 1, end):
                if row["labels"][place] != -100:
                    assert row["labels"][place] == row["input_ids"][place]
                    total -= float(logp[place - begin - 1, row["labels"][place]])
                    count += 1
    _, figures, curve = tune(tmp_path, config, tiny_model(family))
    assert curve[0]["loss"] == pytest.approx(total / count, rel=1e-5)
    assert figures["first_loss"] == curve[0]["loss"]
    assert figures["loss"] < figures["first_loss"]


def test_labels_are_answers_and_their_eos() -> None:
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    rows, left_out = tokenize(examples(), renderer, 128)
    assert left_out == 0
    trained = training_rows(rows, settings(epochs=1), 128, packing=True, seed=1)
    learned = [label for row in trained for label in row["labels"] if label != -100]
    answers = [token for row in rows for token in row.response]
    assert sorted(learned) == sorted(answers)
    assert learned.count(renderer.eos) == sum(example.finished for example in examples())


def test_one_step_is_adamw_on_the_whole_batch(tmp_path: Path) -> None:
    """Micro-batches, weight decay on matrices alone, clipping: beside plain torch."""
    config = settings(
        packing=False,
        epochs=1,
        batch=24,
        per_device_train_batch_size=5,
        warmup_ratio=0.0,
        optimizer=OptimizerConfig(max_grad_norm=0.5),
    )
    reference = tiny_model("llama")
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    rows, _ = tokenize(examples(), renderer, 128)
    groups = [
        {"params": [p for p in reference.parameters() if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in reference.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), eps=1e-5)
    tokens = sum(len(row.response) for row in rows)
    for row in rows:
        logits = reference(input_ids=torch.tensor([row.ids])).logits[0]
        begin = len(row.prompt)
        loss = torch.nn.functional.cross_entropy(
            logits[begin - 1 : -1], torch.tensor(row.response), reduction="sum"
        )
        (loss / tokens).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    optimizer.step()
    model, figures, curve = tune(tmp_path, config)
    assert figures["steps"] == 1
    assert curve[0]["learning_rate"] == pytest.approx(1e-3)
    for (name, ours), theirs in zip(model.named_parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-6, msg=name)


def test_the_models_own_settings_survive(tmp_path: Path) -> None:
    model = tiny_model("llama")
    before = (model.config.to_dict(), model.generation_config.to_dict())
    tune(tmp_path, settings(), model)
    assert (model.config.to_dict(), model.generation_config.to_dict()) == before


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, _, _ = tune(tmp_path / "a", settings())
    saving, _, _ = tune(tmp_path / "b", settings(gradient_checkpointing=True))
    for ours, theirs in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_bfloat16_computes_and_keeps_float32_weights(tmp_path: Path) -> None:
    model, figures, _ = tune(tmp_path, settings(), bf16=True)
    assert next(model.parameters()).dtype == torch.float32
    assert figures["loss"] < figures["first_loss"]


def test_what_does_not_fit_is_left_out_and_told(tmp_path: Path) -> None:
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    rows = [*examples(3), Example(examples(1)[0].messages, "the cat " * 60)]
    rows.append(Example(examples(1)[0].messages, "  "))
    found, left_out = tokenize(rows, renderer, 64)
    assert (len(found), left_out) == (3, 2)
    long = Example([{"role": "user", "content": "the hat " * 90}], "red")
    [cut], none = tokenize([long], renderer, 64)
    assert none == 0
    assert len(cut) == 64
    assert cut.response == renderer.response("red")
    with pytest.raises(DataError, match="none of 1"):
        tune(tmp_path, settings(max_length=16), rows=[rows[3]])


def test_a_long_answer_that_fits_with_its_prompt_is_learned() -> None:
    """However short the prompt is: none of it has to go."""
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    row = Example(examples(1)[0].messages, "the cat " * 60)
    whole = renderer.tokens(row.messages, row.response)
    assert len(whole.prompt) < len(whole) // 4
    assert tokenize([row], renderer, len(whole)) == ([whole], 0)
    assert tokenize([row], renderer, len(whole) - 1) == ([], 1)


def test_divergence_is_told(tmp_path: Path) -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(StageError, match="diverged"):
        tune(tmp_path, settings(packing=False), model)


@pytest.mark.parametrize(("processes", "shares"), [(3, [2, 2, 2]), (5, [1, 1, 1, 1, 1])])
def test_batches_that_processes_cannot_share_evenly_are_filled(
    monkeypatch: pytest.MonkeyPatch, processes: int, shares: list[int]
) -> None:
    """Batches of four of nine rows, the last of one, for three processes and for five."""
    rows = [{"input_ids": [n], "labels": [n]} for n in range(9)]
    filled = _filled(rows, 4, sum(shares))
    steps = [filled[start : start + sum(shares)] for start in range(0, len(filled), sum(shares))]
    real = [[row["labels"][0] for row in step if row["labels"] != [IGNORE]] for step in steps]
    assert real == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    dealt = []
    for rank in range(processes):
        monkeypatch.setattr("alignment.utils.distributed.rank", lambda rank=rank: rank)
        dealt.append(_own_rows(filled, sum(shares), shares[rank]))
    assert [len(own) for own in dealt] == [3 * share for share in shares]
    for number, step in enumerate(steps):
        parts = [own[number * share :][:share] for own, share in zip(dealt, shares, strict=True)]
        assert [row for part in parts for row in part] == step


def test_lora_trains_the_adapter_and_continues_it(tmp_path: Path) -> None:
    lora = LoraConfig(r=4, alpha=8)
    save_model(tiny_model("llama"), bytes_tokenizer(CHATML), tmp_path / "base/model")
    start = tmp_path / "base/model"
    for turn in ("one", "two"):
        model = trainable_policy(start, lora, seed=1)
        before = load_policy(start).state_dict()
        _, figures, _ = tune(tmp_path / turn, settings(learning_rate=5e-3, lora=lora), model)
        assert figures["loss"] < figures["first_loss"]
        save_policy(model, bytes_tokenizer(CHATML), tmp_path / turn / "model", start=start)
        after = load_policy(tmp_path / turn / "model").state_dict()
        changed = {name for name in after if not torch.equal(after[name], before[name])}
        assert changed == {name for name in after if "_proj" in name}
        start = tmp_path / turn / "model"
        described = json.loads((start / "adapter_config.json").read_text())
        assert described["base_model_name_or_path"] == "base/model"
        # A checkpoint holds the adapter, not the frozen model under it.
        [saved] = (tmp_path / turn / "checkpoints").glob("step-*/state.safetensors")
        assert (
            saved.stat().st_size < 3 * (start / "adapter_model.safetensors").stat().st_size + 9000
        )
    with pytest.raises(ConfigError, match="r 8 differs from 4"):
        trainable_policy(start, LoraConfig(r=8, alpha=8))
    full = trainable_policy(start, None)
    assert all(parameter.requires_grad for parameter in full.parameters())
    save_policy(full, bytes_tokenizer(CHATML), tmp_path / "full", start=start)
    assert not (tmp_path / "full/adapter_config.json").exists()
    assert load_policy(tmp_path / "full", dtype="bfloat16").dtype == torch.bfloat16


def start_child(task: Any, where: Path, *arguments: Any) -> Any:
    """A fresh process, forked from a server that has the libraries loaded already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["trl.trainer.sft_trainer", "peft", "sft_helpers"])
    where.mkdir(exist_ok=True)
    process = context.Process(target=task, args=(str(where), *arguments))
    process.start()
    return process


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = [start_child(share_of_run, tmp_path / "two", rank, 2, port) for rank in (0, 1)]
    runs.append(start_child(share_of_run, tmp_path / "one", 0, 1, port))
    for process in runs:
        process.join(300)
        assert process.exitcode == 0
    one, two = (Series(tmp_path / name / "series.jsonl").rows() for name in ("one", "two"))
    assert [row["loss"] for row in two] == pytest.approx([row["loss"] for row in one], rel=1e-5)
    norms = [row["grad_norm"] for row in one]
    assert [row["grad_norm"] for row in two] == pytest.approx(norms, rel=1e-4)


@pytest.mark.parametrize(
    ("method", "lines"),
    [
        ("full", sorted(random.Random(4).choices(range(1, 13), k=10))),  # ten random points
        ("lora", [3, 6, 7, 12]),  # before, right after and between checkpoints (5, 10), at the end
    ],
)
def test_killed_anywhere_and_resumed_to_the_same_bits(
    method: str, lines: list[int], tmp_path: Path
) -> None:
    """GPT-2 with its dropout of 0.1: random states must come back too."""
    start = tmp_path / "base/model"
    save_model(tiny_model("gpt2"), bytes_tokenizer(CHATML), start)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first = start_child(whole_run, whole, str(start), method)
    for line in lines:
        process = start_child(whole_run, broken, str(start), method)
        deadline = time.monotonic() + 300
        while len(Series(broken / "series.jsonl").rows()) < line:
            assert time.monotonic() < deadline
            assert process.is_alive()
            time.sleep(0.001)
        process.kill()
        process.join()
    again = start_child(whole_run, broken, str(start), method)
    for process in (first, again):
        process.join(300)
        assert process.exitcode == 0
    names = sorted(path.name for path in (whole / "model").iterdir())
    assert names == sorted(path.name for path in (broken / "model").iterdir())
    for name in names:
        assert (whole / "model" / name).read_bytes() == (broken / "model" / name).read_bytes(), name
    assert (whole / "series.jsonl").read_bytes() == (broken / "series.jsonl").read_bytes()


def test_a_finished_training_is_not_repeated(tmp_path: Path) -> None:
    model, figures, _ = tune(tmp_path, settings())
    again, repeated, _ = tune(tmp_path, settings(), tiny_model("llama", seed=9))
    assert repeated == figures
    for ours, theirs in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs)
