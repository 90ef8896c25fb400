"""A smaller student learns from the gold answers of the program's policy."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from model_helpers import CHATML, bytes_tokenizer, tiny_model

from alignment.config.compute import ComputeConfig
from alignment.config.finetune import FinetuneConfig, StudentConfig
from alignment.config.load import check_program
from alignment.errors import ConfigError
from alignment.models.load import load_policy, save_model
from alignment.pipeline.approval import Decisions
from alignment.pipeline.plan import build_plan
from alignment.pipeline.slices import config_slice
from alignment.stages import student
from alignment.stages.context import StageContext

SIZE = {
    "vocabulary": 80,
    "hidden": 16,
    "layers": 1,
    "heads": 2,
    "kv_heads": 1,
    "intermediate": 24,
    "context": 64,
    "length": 32,
    "batch": 2,
    "steps": 3,
}


def _program(**student_settings: Any) -> dict[str, Any]:
    finetune = {"student": student_settings} if student_settings else {}
    return {"name": "small", "workspace": "w", "finetune": finetune}


def test_the_plan_has_a_student_beside_every_policy() -> None:
    program = check_program(_program(size=SIZE))
    nodes = {node.key: node for node in build_plan(program, Decisions.load(program))}
    assert nodes["base/student"].options["student"]["size"]["hidden"] == 16
    assert nodes["sft/student"].inputs["start"] == ("base", "student")
    assert nodes["rlhf-v1/student"].inputs["start"] == ("sft", "student")
    assert nodes["rlhf-v2/student"].inputs == {
        "start": ("rlhf-v1", "student"),
        "select": ("rlhf-v2", "select"),
        "prepare": ("base", "prepare"),
    }
    asked = nodes["rlhf-v2/evaluate"].inputs
    assert asked["student"] == ("rlhf-v2", "student")
    assert asked["sft_student"] == ("sft", "student")
    plain = check_program(_program())
    assert not [node for node in build_plan(plain, Decisions(plain)) if node.stage == "student"]
    # The policy's own training does not change with it.
    assert config_slice(program, "finetune") == config_slice(plain, "finetune")


@pytest.mark.parametrize("given", [{"path": "x", "size": SIZE}, {"revision": "main"}])
def test_a_student_has_one_source(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="either a path or a size"):
        check_program(_program(**given))


def test_a_size_needs_the_built_in_world() -> None:
    values = _program(size=SIZE) | {"base": {"source": "path", "path": "model"}}
    values["intake"] = {"source": "inbox"}
    with pytest.raises(ConfigError, match=r"finetune\.student\.size"):
        check_program(values)


def _context(folder: Path, config: FinetuneConfig, **more: Any) -> StageContext:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True)
    sections = SimpleNamespace(sft=config, rejection=config)
    view: Any = SimpleNamespace(finetune=sections, compute=ComputeConfig(device="cpu"))
    return StageContext(
        stage="student",
        config=view,
        out=folder / "out",
        scratch=folder / "scratch",
        seed=3,
        workspace=folder,
        **more,
    )


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _answers(answer: str) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"cat {n}"}], "response": answer}
        for n in range(6)
    ]


@pytest.mark.parametrize("source", ["size", "path"])
def test_from_nothing_to_a_student_of_the_first_version(source: str, tmp_path: Path) -> None:
    prepare = tmp_path / "prepare"
    _write(prepare / "corpus.jsonl", [{"text": f"the cat sat on mat {n}."} for n in range(40)])
    _write(prepare / "demonstrations.jsonl", _answers("the mat"))
    _write(tmp_path / "select" / "selected.jsonl", _answers("sat"))
    if source == "path":
        save_model(tiny_model("llama"), bytes_tokenizer(CHATML), tmp_path / "given")
        described = StudentConfig(path=str(tmp_path / "given"))
    else:
        described = StudentConfig.model_validate({"size": SIZE})
    config = FinetuneConfig(learning_rate=1e-2, batch=3, max_length=64, packing=False)
    made = _context(
        tmp_path / "base",
        config,
        version="base",
        options={"student": described.model_dump(mode="json")},
        inputs={"prepare": prepare},
    )
    student.run(made)
    sft = _context(
        tmp_path / "sft",
        config,
        version="sft",
        options={},
        inputs={"start": made.out, "prepare": prepare},
    )
    student.run(sft)
    first = _context(
        tmp_path / "v1",
        config,
        version="rlhf-v1",
        options={},
        inputs={"start": sft.out, "prepare": prepare, "select": tmp_path / "select"},
    )
    student.run(first)
    assert [one["name"] for one in sft.datasets] == ["demonstrations"]
    assert [one["name"] for one in first.datasets] == ["selected"]
    for ctx in (sft, first):
        assert ctx.metrics["loss"] < ctx.metrics["first_loss"]
    if source == "size":
        assert load_policy(first.out / "model").config.hidden_size == 16
