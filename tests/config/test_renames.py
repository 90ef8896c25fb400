"""Names of 0.1: told with the new one, and translated where a workspace holds them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.effective import effective
from alignment.config.load import all_keys, check_program, for_version, load_program
from alignment.config.renames import DROPPED, RENAMES, lost, translate
from alignment.errors import ConfigError

HEAD: dict[str, Any] = {"name": "x", "workspace": "w"}


def nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return dict(value)


@pytest.mark.parametrize("old", sorted(RENAMES))
def test_an_old_name_is_an_error_that_names_the_new_one(old: str, tmp_path: Path) -> None:
    new = RENAMES[old].partition(" ")[0]
    assert new in all_keys()
    assert old not in all_keys()
    path = tmp_path / "program.yaml"
    path.write_text("name: x\nworkspace: w\n")
    with pytest.raises(ConfigError, match="another name") as caught:
        load_program(path, [f"{old}=1"])
    assert caught.value.where == f"--set {old}=1"
    assert new in (caught.value.remedy or "")
    with pytest.raises(ConfigError, match="another name"):
        check_program(HEAD | nested(old, 1))
    with pytest.raises(ConfigError, match="another name"):
        check_program(HEAD | {"versions": [{"name": "rlhf-v1", "set": {old: 1}}]})


@pytest.mark.parametrize("old", sorted(DROPPED))
def test_a_constant_is_no_setting_any_more(old: str) -> None:
    assert old not in all_keys()
    with pytest.raises(ConfigError, match="no setting any more"):
        check_program(HEAD | nested(old, DROPPED[old]))
    assert translate(nested(old, 7)) == nested(old.rpartition(".")[0], {})
    assert lost(nested(old, DROPPED[old])) == []
    assert lost(nested(old, -7)) == [f"{old}: -7 (now always {DROPPED[old]!r})"]
    assert lost({"versions": [{"name": "rlhf-v1", "set": {old: -7}}]}) == lost(nested(old, -7))


def test_an_old_name_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "program.yaml"
    path.write_text("name: x\nworkspace: w\nppo:\n  lam: 0.9\n")
    with pytest.raises(ConfigError) as caught:
        load_program(path)
    assert caught.value.where == f"{path}:4"
    assert caught.value.remedy == "say ppo.gae_lambda"


OLD: dict[str, Any] = {
    "base": {"pretrain": {"beta1": 0.8, "beta2": 0.9, "epsilon": 1e-6, "clip": 2.0, "warmup": 0.1}},
    "finetune": {
        "sft": {"micro_batch": 4, "final_rate": 0.2, "adapter": {"method": "full", "rank": 8}},
        "rejection": {
            "micro_batch": 2,
            "weight_decay": 0.3,
            "adapter": {"method": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.1},
        },
    },
    "world": {
        "shares": {"rhyme": 0.2},
        "evaluation_safety": 9,
        "annotators": {"significantly": 0.9, "slightly": 0.1},
    },
    "data": {"evaluation_share": 0.05, "demonstration_share": 0.3},
    "rewards": {
        "tokens_per_batch": 99,
        "clip": 0.7,
        "bootstrap_samples": 1000,
        "margin": "own",
        "margins": {"better": 0.5, "slightly": 0.25},
    },
    "combine": {
        "method": "piecewise",
        "helpfulness_weight": 2.0,
        "threshold_precision": None,
        "threshold_recall": 0.6,
    },
    "sample": {"max_new_tokens": 30, "top_p": 0.9, "stop": ["x"], "batch_size": 7},
    "collect": {"max_new_tokens": 20},
    "evaluate": {"temperature": 0.8, "batch_tokens": 64, "level": 0.95},
    "ppo": {
        "clip": 0.1,
        "lam": 0.9,
        "beta1": 0.7,
        "rollout_batch": 64,
        "critic_init": "policy",
        "share_backbone": True,
        "adapters": {"rank": 4, "alpha": 8, "target_modules": "all-linear"},
        "reward": {"clip": 5.0},
        "kl": {"adaptive": True, "horizon": 500},
        "stop": {"guard_every": 3},
    },
    "promote": {"parent": "latest", "guards": ["gold"], "guard_margin": 0.1},
}


def test_a_program_of_0_1_means_what_it_meant() -> None:
    seen = effective(check_program(HEAD | translate(OLD)))
    pretrain, rejection, ppo = seen.base.pretrain, seen.finetune.rejection, seen.ppo
    assert pretrain.optimizer.betas == (0.8, 0.9)
    assert (pretrain.optimizer.adam_epsilon, pretrain.optimizer.max_grad_norm) == (1e-6, 2.0)
    assert pretrain.warmup_ratio == 0.1
    assert (seen.finetune.sft.lora, seen.finetune.sft.min_lr_ratio) == (None, 0.2)
    assert rejection.lora is not None
    assert (rejection.lora.r, rejection.lora.alpha, rejection.lora.dropout) == (8, 16.0, 0.1)
    assert rejection.per_device_train_batch_size == 2
    assert rejection.optimizer.weight_decay == 0.3
    assert (seen.rewards.max_tokens_per_micro_batch, seen.rewards.optimizer.max_grad_norm) == (
        99,
        0.7,
    )
    drawn = seen.sample.generation
    assert (drawn.max_new_tokens, drawn.top_p, drawn.stop) == (30, 0.9, ("x",))
    assert drawn.generation_batch_size == 7
    assert (seen.collect.generation.max_new_tokens, seen.collect.generation.top_p) == (20, 1.0)
    assert seen.evaluate.generation.temperature == 0.8
    assert seen.evaluate.max_tokens_per_micro_batch == 64
    assert (ppo.clip_range, ppo.gae_lambda, ppo.reward.score_clip) == (0.1, 0.9, 5.0)
    assert (ppo.stop.look_every, ppo.generation.generation_batch_size) == (3, 64)
    assert ppo.optimizer.betas == (0.7, 0.95)
    assert ppo.lora is not None
    assert (ppo.lora.r, ppo.lora.alpha, ppo.lora.target_modules) == (4, 8.0, ("all-linear",))
    assert (ppo.kl.target, ppo.kl.horizon) == (6.0, 500)
    assert seen.rewards.margin_table == {
        "significantly": 0.0,
        "better": 0.5,
        "slightly": 0.25,
        "negligibly": 0.0,
    }
    assert seen.combine.weights == {"helpfulness": 2.0, "safety": 1.0}
    assert seen.combine.threshold_for == {"recall": 0.6}
    assert (seen.world.shares["rhyme"], seen.world.shares["list"]) == (0.2, 0.1)
    assert seen.world.evaluation == {"helpfulness": 300, "safety": 9, "borderline": 120}
    assert list(seen.world.annotators.thresholds.values()) == [0.9, 0.3, 0.1]
    assert seen.data.shares == {"evaluation": 0.05, "prompts": 0.2, "demonstrations": 0.3}
    assert (seen.promote.parent, seen.promote.judges) == ("previous", ("gold",))


def test_the_engine_of_sampling_is_everybodys_now() -> None:
    for old, engine in (("transformers", "transformers"), ("vllm", "vllm"), ("server", "endpoint")):
        url = "http://127.0.0.1:9" if old == "server" else None
        values = translate({"sample": {"engine": old, "url": url, "k": 3}})
        assert values == {
            "sample": {"k": 3},
            "inference": {"engine": engine, "endpoint": {"url": url}},
        }
        check_program(HEAD | values)


@pytest.mark.parametrize("name", sorted(OLD))
def test_sections_are_translated_alone(name: str) -> None:
    assert translate({name: OLD[name]}) == {name: translate(OLD)[name]}


def test_what_was_off_stays_off() -> None:
    off = {
        "rewards": {"margin": "large", "margins": None},
        "combine": {"threshold_precision": None, "threshold_recall": None},
        "ppo": {"kl": {"adaptive": False, "target": 6.0}},
    }
    assert translate(off) == {
        "rewards": {"margin": "large"},
        "combine": {"threshold_for": None},
        "ppo": {"kl": {"target": None}},
    }


def test_an_old_table_is_an_old_name_by_any_of_its_words() -> None:
    with pytest.raises(ConfigError, match="another name") as caught:
        check_program(HEAD | nested("rewards.margins.better", 1))
    assert caught.value.remedy == "say rewards.margin (a table instead of a name)"


def test_translation_leaves_its_argument_and_the_words_of_today_alone() -> None:
    before = repr(OLD)
    once = translate(OLD)
    assert repr(OLD) == before
    assert translate(once) == once


def test_what_a_version_sets_is_translated() -> None:
    changes = {
        "ppo.beta1": 0.5,
        "finetune.sft.adapter.method": "lora",
        "sample.max_new_tokens": 50,
        "rewards.tokens_per_batch": 99,  # what the program says anyway
    }
    versions = [{"name": "rlhf-v1", "set": changes}, {"name": "rlhf-v2"}]
    found = translate({**OLD, "versions": versions})
    assert found["versions"][0]["set"] == {
        "finetune.sft.lora": {"r": 8},
        "ppo.optimizer.betas": [0.5, 0.95],
        "sample.generation.max_new_tokens": 50,
    }
    seen = for_version(check_program(HEAD | found), "rlhf-v1")
    assert seen.sample.generation.max_new_tokens == 50


def test_a_table_of_patterns_that_a_version_sets_is_one_value() -> None:
    """Its words have dots in them, which are no path."""
    domains = {"*.safe.jsonl": "safety"}
    document = {
        "intake": {"domains": {"*.safe.jsonl": "helpfulness", "*helpful*": "helpfulness"}},
        "versions": [{"name": "rlhf-v1", "set": {"intake.domains": domains}}],
    }
    program = check_program(HEAD | translate(document))
    assert for_version(program, "rlhf-v1").intake.domains == domains
