"""Pretraining from nothing, exact resumption, and the stages around training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_helpers import CHATML, bytes_tokenizer, tiny_model
from pretrain_helpers import SMALL, TEXTS
from pydantic import ValidationError

from alignment.config.base import BaseConfig
from alignment.config.finetune import PretrainConfig
from alignment.config.lora import LoraConfig
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError, DataError
from alignment.fastpath.training import LeanBackbone
from alignment.models.adapters import is_adapter
from alignment.models.load import load_policy, load_tokenizer, save_model
from alignment.stages import finetune, import_base, pretrain
from alignment.stages.context import ProgramView, StageContext
from alignment.training.pretrain import batch_rows, rows_of
from alignment.training.pretrain import pretrain as train
from alignment.utils.metrics_log import Series
from alignment.utils.progress import SilentProgress


class Killed(Exception):
    pass


class Killer(SilentProgress):
    """Stops the work after so many steps."""

    def __init__(self, after: int):
        self.left = after

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.left -= bool(figures)
        if self.left == 0:
            raise Killed


def test_the_corpus_in_rows() -> None:
    tokenizer = bytes_tokenizer()
    rows = rows_of(TEXTS, tokenizer, 16)
    stream: list[int] = []
    for text in TEXTS:
        stream += [tokenizer.bos_token_id, *tokenizer.encode(text), tokenizer.eos_token_id]
    assert rows.shape == ((len(stream) - 1) // 16, 17)
    assert rows[:, :-1].flatten().tolist() == stream[: rows.shape[0] * 16]
    assert torch.equal(rows[:-1, -1], rows[1:, 0])
    with pytest.raises(DataError, match="fewer than one row"):
        rows_of(["a"], tokenizer, 16)


def test_every_pass_sees_every_row_once() -> None:
    seen = torch.cat([batch_rows(step, 7, 3, seed=1) for step in range(7)])
    for number in range(3):
        assert sorted(seen[7 * number : 7 * (number + 1)].tolist()) == list(range(7))
    assert seen[:7].tolist() != seen[7:14].tolist()
    assert torch.equal(batch_rows(5, 7, 3, seed=1), seen[15:18])
    assert len(batch_rows(1, 2, 9, seed=1)) == 9


def test_it_learns_and_resumes_to_the_same_bits(tmp_path: Path) -> None:
    def run(where: Path, progress: Any = None) -> Any:
        return train(
            TEXTS,
            bytes_tokenizer(),
            PretrainConfig(**SMALL),
            seed=3,
            scratch=where,
            series=Series(where / "series.jsonl"),
            progress=progress,
        )

    (tmp_path / "a").mkdir()
    whole, figures = run(tmp_path / "a")
    for after in (3, 5, 2):
        with pytest.raises(Killed):
            run(tmp_path / "b", Killer(after))
    resumed, again = run(tmp_path / "b")
    assert again == figures
    for ours, theirs in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    curves = [Series(tmp_path / name / "series.jsonl") for name in "ab"]
    assert curves[0].path.read_bytes() == curves[1].path.read_bytes()
    losses = [row["loss"] for row in curves[0].rows()]
    assert losses[0] == pytest.approx(5.99, abs=0.3)  # log 400: knows nothing
    assert losses[-1] < losses[0] - 0.5
    config = whole.config
    assert (config.num_key_value_heads, config.tie_word_embeddings) == (2, True)
    assert (config.hidden_act, config.max_position_embeddings) == ("silu", 64)


def test_a_hand_written_pass_learns_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[int] = []

    class Counting(LeanBackbone):
        def hidden(self, ids: torch.Tensor, places: torch.Tensor) -> torch.Tensor | None:
            used.append(len(ids))
            return super().hidden(ids, places)

    curves = {}
    for name, given in (("plain", lambda _: None), ("lean", Counting)):
        monkeypatch.setattr("alignment.training.pretrain.use_for_training", given)
        (tmp_path / name).mkdir()
        series = Series(tmp_path / name / "series.jsonl")
        train(
            TEXTS,
            bytes_tokenizer(),
            PretrainConfig(**SMALL),
            seed=3,
            scratch=tmp_path / name,
            series=series,
        )
        curves[name] = [(row["loss"], row["grad_norm"]) for row in series.rows()]
    assert sum(used) == PretrainConfig(**SMALL).batch * PretrainConfig(**SMALL).steps
    assert np.allclose(curves["lean"], curves["plain"], rtol=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [{"hidden": 30}, {"heads": 8, "kv_heads": 3, "hidden": 64}, {"length": 999}],
)
def test_impossible_shapes_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        BaseConfig(pretrain=PretrainConfig(**{**SMALL, **wrong}))
    with pytest.raises(ValidationError):
        LoraConfig(target_modules=("all-linear", "q_proj"))


def context(root: Path, module: Any, inputs: dict[str, Path], **program: Any) -> StageContext:
    for name in ("out", "scratch"):
        (root / name).mkdir(parents=True)
    values = {"name": "test", "workspace": root, **program}
    return StageContext(
        version="sft",
        stage="stage",
        config=ProgramView(ProgramConfig.model_validate(values), module.READS),
        options={},
        inputs=inputs,
        out=root / "out",
        scratch=root / "scratch",
        seed=11,
        workspace=root,
    )


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    folder = tmp_path / "prepare"
    folder.mkdir()
    lines = [json.dumps({"text": text}) for text in TEXTS]
    (folder / "corpus.jsonl").write_text("\n".join(lines) + "\n")
    rows = [
        {
            "messages": [{"role": "user", "content": f"where did cat {n} sit?"}],
            "response": "on the mat" if n % 2 else "on the hat",
        }
        for n in range(20)
    ]
    for name, count in (("demonstrations", 20), ("selected", 10)):
        text = "".join(json.dumps(row) + "\n" for row in rows[:count])
        (folder / f"{name}.jsonl").write_text(text)
    return folder


def test_the_stages_of_a_small_program(prepared: Path, tmp_path: Path) -> None:
    """Pretrain, SFT, then a LoRA on selected answers with a few demonstrations mixed in."""
    tuning = {"learning_rate": 1e-3, "batch": 4, "max_length": 64, "epochs": 1}
    program = {
        "base": {"pretrain": SMALL},
        "finetune": {
            "sft": tuning,
            "rejection": {**tuning, "demonstrations": 0.5, "lora": {}},
        },
    }
    base = context(tmp_path / "base", pretrain, {"prepare": prepared}, **program)
    pretrain.run(base)
    assert base.metrics["parameters"] > 0
    assert base.datasets[0]["rows"] == 60
    inputs = {"prepare": prepared, "start": base.out}
    sft = context(tmp_path / "sft", finetune, inputs, **program)
    finetune.run(sft)
    assert not is_adapter(sft.out / "model")
    assert sft.metrics["examples"] == 20
    inputs = {"prepare": prepared, "start": sft.out, "select": prepared}
    best = context(tmp_path / "rlhf", finetune, inputs, **program)
    finetune.run(best)
    assert is_adapter(best.out / "model")
    assert (best.metrics["examples"], best.metrics["demonstrations"]) == (15, 5)
    assert {row["role"] for row in best.datasets} == {"training"}
    assert load_tokenizer(best.out / "model").chat_template
    for stage in (base, sft, best):
        load_policy(stage.out / "model")
        for file in stage.out.rglob("*"):
            assert file.is_dir() or str(tmp_path).encode() not in file.read_bytes()


def test_nothing_selected_is_told(prepared: Path, tmp_path: Path) -> None:
    save_model(tiny_model("llama"), bytes_tokenizer(CHATML), tmp_path / "start/model")
    (prepared / "selected.jsonl").write_text("")
    inputs = {"prepare": prepared, "start": tmp_path / "start", "select": prepared}
    with pytest.raises(DataError, match=r"selected\.jsonl is empty"):
        finetune.run(context(tmp_path / "rlhf", finetune, inputs))


def test_the_import_stage(tmp_path: Path) -> None:
    save_model(tiny_model("gpt_neox"), bytes_tokenizer(), tmp_path / "mine")
    path: dict[str, Any] = {"source": "path", "path": str(tmp_path / "mine")}
    split = {"intake": {"source": "split", "path": "x"}}
    stage = context(tmp_path / "base", import_base, {}, base=path, **split)
    import_base.run(stage)
    parameters = sum(p.numel() for p in load_policy(stage.out / "model").parameters())
    assert stage.metrics["parameters"] == parameters
    path["path"] = str(tmp_path / "none")
    missing = context(tmp_path / "second", import_base, {}, base=path, **split)
    with pytest.raises(ConfigError, match="no directory"):
        import_base.run(missing)
