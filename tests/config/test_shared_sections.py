"""Sections that several stages share, and what each may say otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.effective import effective
from alignment.config.generation import GenerationConfig
from alignment.config.load import check_program, for_version, load_program
from alignment.config.program import ProgramConfig
from alignment.config.section import over
from alignment.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("sample", "collect", "evaluate", "ppo")
TRAININGS = ("base.pretrain", "finetune.sft", "finetune.rejection", "rewards", "ppo")


def program(**sections: Any) -> ProgramConfig:
    return check_program({"name": "x", "workspace": "w", **sections})


def section(seen: ProgramConfig, key: str) -> Any:
    here: Any = seen
    for part in key.split("."):
        here = getattr(here, part)
    return here


@pytest.mark.parametrize("stage", STAGES)
def test_generation_is_said_once_and_overridden_where_it_differs(stage: str) -> None:
    shared = {"max_new_tokens": 40, "max_prompt_tokens": 50, "temperature": 0.8}
    own = {stage: {"generation": {"max_prompt_tokens": 60}}}
    seen = for_version(program(generation=shared, **own), "rlhf-v1")
    for name in STAGES:
        found = section(seen, name).generation
        assert found.max_new_tokens == 40
        assert found.max_prompt_tokens == (60 if name == stage else 50)
        assert found.temperature == (0.8 if name in ("evaluate", "ppo") else 1.0)
        assert found.generation_batch_size == GenerationConfig().generation_batch_size


def test_annotators_of_llama2_see_whole_answers() -> None:
    """Four limits stood in the file once, and the one of `collect` was 128."""
    seen = for_version(load_program(ROOT / "configs" / "llama2.yaml"), "rlhf-v1")
    assert {section(seen, stage).generation.max_new_tokens for stage in STAGES} == {1024}


def test_ppo_draws_from_the_whole_distribution() -> None:
    seen = effective(program(generation={"top_p": 0.9, "top_k": 5, "stop": ["\n"]}))
    drawn = seen.ppo.generation
    assert (drawn.top_p, drawn.top_k, drawn.stop) == (1.0, 0, ())
    assert (seen.collect.generation.top_p, seen.evaluate.generation.stop) == (0.9, ("\n",))


@pytest.mark.parametrize("training", TRAININGS)
def test_the_optimizer_is_said_once_and_overridden_where_it_differs(training: str) -> None:
    values: dict[str, Any] = {"optimizer": {"weight_decay": 0.2, "max_grad_norm": 0.5}}
    here = values
    for part in training.split("."):
        here = here.setdefault(part, {})
    here["optimizer"] = {**here.get("optimizer", {}), "weight_decay": 0.0}
    seen = effective(program(**values))
    for name in TRAININGS:
        found = section(seen, name).optimizer
        follows = name == "finetune.rejection" and training == "finetune.sft"
        assert found.weight_decay == (0.0 if name == training or follows else 0.2)
        assert found.max_grad_norm == 0.5


def test_rejection_is_similar_to_sft() -> None:
    sft = {"learning_rate": 1e-3, "batch": 8, "lora": {"r": 4, "dropout": 0.1}}
    tuning = {"sft": sft, "rejection": {"batch": 16, "lora": {"dropout": 0.0}}}
    found = effective(program(finetune=tuning)).finetune.rejection
    assert (found.learning_rate, found.batch) == (1e-3, 16)
    assert found.lora is not None
    assert (found.lora.r, found.lora.dropout) == (4, 0.0)
    without = effective(program(finetune={"sft": sft, "rejection": {"lora": None}}))
    assert without.finetune.rejection.lora is None


def test_a_students_size_is_the_base_models_but_for_what_it_names() -> None:
    pretrain = {"hidden": 48, "heads": 6, "optimizer": {"weight_decay": 0.0}}
    size = {"hidden": 24, "optimizer": {"max_grad_norm": 0.5}}
    values = {"base": {"pretrain": pretrain}, "finetune": {"student": {"size": size}}}
    given = program(**values)
    student = effective(given).finetune.student
    assert student is not None
    assert student.size is not None
    assert (student.size.hidden, student.size.heads, student.size.layers) == (24, 6, 4)
    assert (student.size.optimizer.weight_decay, student.size.optimizer.max_grad_norm) == (0.0, 0.5)
    assert given.model_dump(mode="json")["finetune"]["student"]["size"] == size
    with pytest.raises(ConfigError, match=r"finetune\.student\.size: hidden must be a multiple"):
        program(**{**values, "finetune": {"student": {"size": {"heads": 5}}}})


def test_words_that_a_table_does_not_name_have_their_defaults_in_their_places() -> None:
    """The order counts: the world draws its prompts in it."""
    shares = program(world={"shares": {"safety": 0.5, "fact": 0.3}}).world.shares
    assert list(shares) == list(program().world.shares)
    assert (shares["fact"], shares["rhyme"], shares["safety"]) == (0.3, 0.09, 0.5)
    with pytest.raises(ConfigError, match=r"world\.shares\.facts: Input should be 'fact'"):
        program(world={"shares": {"facts": 1}})
    with pytest.raises(ConfigError, match="at least 5"):
        program(world={"evaluation": {"safety": 4}})
    with pytest.raises(ConfigError, match="nothing for arrivals"):
        program(data={"shares": {"prompts": 0.7}})


def test_a_null_overrides_too() -> None:
    base = GenerationConfig(max_prompt_tokens=100)
    assert over(base, GenerationConfig(max_prompt_tokens=None)).max_prompt_tokens is None
    assert over(base, GenerationConfig()).max_prompt_tokens == 100


def test_an_override_is_written_down_as_it_was_given() -> None:
    """Else a version's own `generation` would not reach the stages of a workspace's program."""
    given = program(
        sample={"generation": {"top_k": 3}},
        versions=[{"name": "rlhf-v1", "set": {"generation.max_new_tokens": 7}}],
    )
    plain = given.model_dump(mode="json")
    assert plain["sample"]["generation"] == {"top_k": 3}
    assert plain["finetune"]["rejection"] == {}
    again = for_version(check_program(plain), "rlhf-v1")
    assert (again.sample.generation.max_new_tokens, again.sample.generation.top_k) == (7, 3)
    assert effective(again) == again


def test_a_typo_in_an_override_names_the_nearest_key(tmp_path: Path) -> None:
    path = tmp_path / "program.yaml"
    path.write_text("name: x\nworkspace: w\nsample:\n  generation:\n    max_new_token: 3\n")
    with pytest.raises(ConfigError, match=r"sample\.generation\.max_new_token") as caught:
        load_program(path)
    assert caught.value.where == f"{path}:5"
    assert caught.value.remedy == "did you mean sample.generation.max_new_tokens?"
