"""One dialogue is the same bytes in every stage, and ends its turns as its template does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import FAMILIES, family_tokenizer
from model_helpers import tiny_model
from transformers import AutoTokenizer

from alignment.config.compute import ComputeConfig
from alignment.config.evaluate import EvaluateConfig
from alignment.config.generation import GenerationConfig
from alignment.config.inference import InferenceConfig
from alignment.config.rewards import MARGINS
from alignment.evaluation import answering
from alignment.inference.engine import TransformersEngine
from alignment.inference.engine_factory import Opened, open_engine
from alignment.inference.types import Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer, Message
from alignment.models.export import export_policy
from alignment.models.load import load_scalar, load_tokenizer, save_model
from alignment.preferences.prompts import Prompt
from alignment.preferences.schema import Comparison
from alignment.rewards.card import RewardCard
from alignment.rewards.examples import build
from alignment.rewards.model import RewardModel
from alignment.training.ppo.rollout import rollout
from alignment.training.sft import Example, tokenize
from alignment.utils.progress import SilentProgress

TEMPLATES = ("gemma", "phi3", "chatml", "llama3")
DIALOGUE: list[Message] = [
    {"role": "user", "content": "what is the colour of the hat?"},
    {"role": "assistant", "content": "it is red"},
    {"role": "user", "content": "and the mat é 猫?\n\nthe mat"},
]
ANSWER = "the mat is the cat's"


def renderings(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Stage → the bytes of the dialogue with its answer that its model reads or draws."""
    tokenizer = family_tokenizer(name)
    model = tiny_model("llama", len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    save_model(model, load_tokenizer(folder / "base"), folder / "model")
    started = load_tokenizer(folder / "model")
    RewardModel(load_scalar(folder / "model"), started, RewardCard(domain="helpfulness")).save(
        folder / "reward"
    )
    reward = RewardModel.load(folder / "reward")
    renderer = ChatRenderer(started)
    read: dict[str, Sequence[int]] = {}
    ((sft,), _) = tokenize([Example(DIALOGUE, ANSWER)], renderer, 512)
    read["SFT"] = sft.ids
    pair = Comparison(
        conversation=DIALOGUE, chosen=ANSWER, rejected="no", strength="better", domain="helpfulness"
    )
    (element,) = build([pair], reward.renderer, margins=MARGINS["none"], max_length=512).elements
    read["reward training"] = element.sequences[0]

    scored: list[Any] = []
    compute = reward._compute
    monkeypatch.setattr(
        reward, "_compute", lambda keys, size: scored.extend(keys) or compute(keys, size)
    )
    reward.score_texts([(DIALOGUE, ANSWER, True)])
    (best,) = scored
    read["best-of-K scores"] = [*best[0], *best[1]]

    # The policy draws this very answer.
    asked: list[list[int]] = []

    def draw(
        engine: TransformersEngine, prompts: Any, seeds: Any, settings: SamplingSettings, *_: Any
    ) -> list[list[Sample]]:
        asked.extend(map(list, prompts))
        ids = renderer.response(ANSWER)
        text = renderer.text(ids)
        return [[Sample(ids, [0.0] * len(ids), True, text) for _ in one] for one in seeds]

    monkeypatch.setattr(TransformersEngine, "sample", draw)
    generation = GenerationConfig(max_new_tokens=32)
    settings = SamplingSettings.of(generation)

    def opened() -> AbstractContextManager[Opened]:
        compute = ComputeConfig(device="cpu")
        return open_engine(
            folder / "model",
            InferenceConfig(),
            compute,
            generation,
            keep=folder,
            log=folder / "log",
        )

    with opened() as own:
        assert isinstance(own.engine, TransformersEngine)
        engine = own.engine
        drawn = engine.sample([own.renderer.prompt(DIALOGUE)], [[1]], settings)[0][0]
    read["best-of-K draws"] = [*asked.pop(), *drawn.token_ids]
    place = torch.device("cpu")
    (episode,) = rollout(engine, [renderer.prompt(DIALOGUE)], settings, 1, place).tokens(asked)
    read["PPO"] = episode.ids

    measured: list[Any] = []
    measure = answering.measure

    def looks(policy: Any, references: Any, items: Any, **rest: Any) -> Any:
        measured.extend(items)
        return measure(policy, references, items, **rest)

    monkeypatch.setattr(answering, "measure", looks)
    prompt = Prompt(messages=DIALOGUE, domain="helpfulness")
    answers = answering.answer(
        answering.Arm("sft", "final", folder / "model", {}),
        [prompt],
        {prompt.id: "mat"},
        EvaluateConfig(bootstrap_samples=100),
        opened,
        seed=1,
        dtype="float32",
        device=torch.device("cpu"),
        scratch=folder,
        progress=SilentProgress(),
    )
    assert list(answers.table.text) == [ANSWER]
    read["evaluation"] = measured[0].ids

    found = {stage: str(started.decode(list(ids))).encode() for stage, ids in read.items()}
    export_policy(folder, folder / "exported")
    exported: Any = AutoTokenizer.from_pretrained(folder / "exported")
    whole = exported.apply_chat_template(
        [*DIALOGUE, {"role": "assistant", "content": ANSWER}], tokenize=False
    )
    return {**found, "exported": whole.encode()}


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_stage_reads_the_same_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = renderings(name, tmp_path, monkeypatch)
    exported, end = found.pop("exported"), FAMILIES[name][3].encode()
    assert len(found) == 6
    assert len(set(found.values())) == 1, found
    read = found["SFT"]
    assert read.endswith(ANSWER.encode() + end)
    assert exported.startswith(read)
    # What the template writes behind an answer's end is no part of the answer.
    assert exported.removeprefix(read) in (b"", b"\n", b"\n" + FAMILIES[name][1].encode())
    assert read.count(end) == len(DIALOGUE) + 1 + (name == "llama3")  # whose system turn is empty
