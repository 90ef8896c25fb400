"""A pass is chosen once, where it pays, and the choice is kept."""

from __future__ import annotations

import importlib
import json
import logging
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from sampling_fixtures import sample
from transformers import LlamaConfig, LlamaForCausalLM

from alignment import fastpath
from alignment.config.compute import ComputeConfig
from alignment.errors import ConfigError
from alignment.fastpath import choice
from alignment.fastpath.choice import Choice, choosing, measured, pays


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=30,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
        )
    ).eval()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache directory of the machine."""
    monkeypatch.setenv("ALIGN_CACHE_DIR", str(tmp_path / "machine"))
    return tmp_path / "machine"


class Measurements:
    """Stands for a noisy machine: every measurement says the contrary of the one before."""

    def __init__(self, *first: bool):
        self.coming = list(first)
        self.taken = 0

    def __call__(self, *_ways: Any) -> Choice:
        self.taken += 1
        fast = self.coming.pop(0)
        return Choice(True, 2.0) if fast else Choice(False, 1.0, "too little")


def ask(model: Any, mode: Any = "auto", workspace: Path | None = None) -> bool:
    with choosing(mode, workspace):
        return pays("decoding", model, lambda: None, lambda: None)


@pytest.mark.parametrize("first", [True, False])
def test_a_choice_is_made_once(
    first: bool, model: Any, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = Measurements(first, not first, not first)
    monkeypatch.setattr(choice, "measured", noisy)
    for name in ("one", "one", "two"):  # again, and another program on the same machine
        assert ask(model, workspace=tmp_path / name) is first
    assert noisy.taken == 1
    [[name, kept]] = json.loads((tmp_path / "two" / choice.KEPT).read_text()).items()
    assert name.startswith("decoding: llama")
    assert kept["fast"] is first
    # A workspace's own choice comes first: it was copied from elsewhere.
    (machine / choice.KEPT).write_text(json.dumps({name: {"fast": not first, "gain": 1.0}}))
    assert ask(model, workspace=tmp_path / "one") is first
    assert ask(model, workspace=tmp_path / "three") is not first


def test_of_two_processes_that_measure_the_first_to_write_counts(
    model: Any, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(*_ways: Any) -> Choice:
        name = choice.name_of("decoding", model)
        choice._keep(tmp_path / "workspace", name, Choice(True, 3.0))
        return Choice(False, 1.0, "too little")

    monkeypatch.setattr(choice, "measured", overtaken)
    assert ask(model, workspace=tmp_path / "workspace")


def test_off_measures_nothing(
    model: Any, machine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noisy = Measurements()
    monkeypatch.setattr(choice, "measured", noisy)
    assert not ask(model, "off", tmp_path)
    with choosing("off", tmp_path):
        assert fastpath.use_for_decoding(model) is None
        assert fastpath.use_for_training(model.model) is None
        assert fastpath.use_for_scoring(model, lambda _: torch.zeros(1)) is None
        assert fastpath.packing() is None
        assert fastpath.workers_for(model) == 1
    assert not machine.exists()
    assert not list(tmp_path.iterdir())


def test_what_counts_as_paying(monkeypatch: pytest.MonkeyPatch) -> None:
    def ways(fast: float, plain: float) -> Choice:
        one, other = (lambda: torch.ones(2)), (lambda: torch.ones(2))
        monkeypatch.setattr(choice, "_seconds", lambda way, _clock: fast if way is one else plain)
        return measured(one, other)

    assert ways(1.0, 1.2) == Choice(True, 1.2)
    assert ways(1.0, 1.1) == Choice(False, 1.1, "the fast one gains too little here (1.1 times)")
    assert not ways(2.0, 1.0).fast


@pytest.mark.parametrize(("threads", "load"), [(1, 0.0), (2, 1e3)])
def test_a_busy_machine_does_not_decide(
    threads: int, load: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted for four times its work, the fast way is still the fast one."""
    monkeypatch.setattr(choice, "threads", lambda: threads)
    monkeypatch.setattr(choice.os, "getloadavg", lambda: (load, 0.0, 0.0))

    def works(seconds: float, *, interrupted: float = 0.0) -> torch.Tensor:
        end = time.process_time() + seconds
        while time.process_time() < end:
            pass
        time.sleep(interrupted)
        return torch.ones(2)

    found = measured(lambda: works(0.01, interrupted=0.04), lambda: works(0.02))
    assert found.fast
    assert found.gain == pytest.approx(2.0, abs=0.4)
    monkeypatch.setattr(choice.os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(choice, "threads", lambda: 2)  # idle: the time that people wait
    assert not measured(lambda: works(0.01, interrupted=0.04), lambda: works(0.02)).fast


def test_a_pass_that_fails_or_disagrees_is_not_taken() -> None:
    def breaks() -> torch.Tensor:
        raise NotImplementedError("no such kernel")

    def right() -> torch.Tensor:
        return torch.ones(2)

    assert measured(breaks, right).reason == "the fast one fails here: no such kernel"
    assert measured(lambda: torch.zeros(2), right).reason == "the fast one gives other numbers here"
    assert not measured(lambda: None, right).fast


def test_the_real_trials_agree_and_draw_nothing(
    model: Any, machine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ways do the same work, whatever is faster here, and random states stay as they were."""
    state = torch.get_rng_state()
    with caplog.at_level(logging.INFO, "alignment"), choosing("auto"):
        fastpath.use_for_decoding(model)
        fastpath.use_for_training(model.model)
        made = dict(choice._now().made)
    assert torch.equal(state, torch.get_rng_state())
    assert sorted(name.partition(":")[0] for name in made) == [
        "decoding",
        "products by oneDNN",
        "training",
    ]
    assert all(one.gain is not None for one in made.values()), made
    for kind in ("decoding", "training"):
        assert any(line.startswith(f"{kind}: ") for line in caplog.messages)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGN_FAST_CPU", "off")
    assert ComputeConfig().fast_cpu == "off"
    assert ComputeConfig(fast_cpu="auto").fast_cpu == "auto"
    monkeypatch.setenv("ALIGN_FAST_CPU", "auto")
    monkeypatch.setenv("ALIGN_FAST_CPU", "on")
    with pytest.raises(ConfigError, match="'on' is neither auto nor off"):
        ComputeConfig()


def test_the_room_can_be_taken_away(
    monkeypatch: pytest.MonkeyPatch,
    policy: Any,
    renderer: Any,
    prompts: list[Any],
    stage_inputs: dict[str, Path],
) -> None:
    """With every module behind the door gone, answers are drawn and scored and PPO learns."""
    from alignment.config.ppo import PPOConfig
    from alignment.inference.engine import sample_seeds
    from alignment.inference.types import SamplingSettings
    from alignment.models.chat_renderer import Tokens
    from alignment.rewards.model import RewardModel
    from alignment.training.ppo.roles import full_copies
    from alignment.training.ppo.scoring import PlainReward, PromptItem
    from alignment.training.ppo.trainer import PPOTrainer

    for found in pkgutil.iter_modules(fastpath.__path__, "alignment.fastpath."):
        if found.name != "alignment.fastpath.choice":
            monkeypatch.setitem(sys.modules, found.name, None)
            monkeypatch.delattr(fastpath, found.name.rpartition(".")[2], raising=False)
    with pytest.raises(ImportError):
        importlib.import_module("alignment.fastpath.layers")
    with choosing("off"):
        ids = [renderer.prompt(prompt.messages) for prompt in prompts[:4]]
        seeds = sample_seeds(0, [prompt.id for prompt in prompts[:4]], 2)
        drawn = sample(policy, renderer, ids, SamplingSettings(max_new_tokens=6), seeds)
        reward = RewardModel.load(stage_inputs["reward_safety"] / "model")
        items = [
            Tokens(prompt, one.token_ids)
            for prompt, group in zip(ids, drawn, strict=True)
            for one in group
        ]
        assert reward.score(items).shape == (8,)
        copy = type(policy)(policy.config)
        copy.load_state_dict(policy.state_dict())
        before = copy.lm_head.weight.detach().clone()
        trainer = PPOTrainer(
            full_copies(copy, critic=type(policy)(policy.config)),
            renderer,
            [PromptItem(tuple(prompt)) for prompt in ids],
            PlainReward(lambda episodes: reward.score([one.tokens for one in episodes])),
            PPOConfig.model_validate(
                {
                    "iterations": 1,
                    "episodes": 4,
                    "minibatch": 4,
                    "generation": {"max_new_tokens": 5},
                }
            ),
            seed=0,
        )
        trainer.iterate(0)
        assert not torch.equal(before, copy.lm_head.weight)


def test_nothing_outside_knows_what_is_behind_the_door() -> None:
    """The room's modules are imported by the room alone."""
    root = Path(fastpath.__file__).parents[2]
    for top in ("alignment", "flows"):
        for path in (root / top).rglob("*.py"):
            if path.parent != Path(fastpath.__file__).parent:
                text = path.read_text(encoding="utf-8")
                assert "alignment.fastpath." not in text, path
                assert text.count("ALIGN_FAST_CPU") == 0 or path.name == "compute.py", path
