"""Fixtures of several rooms: a tiny policy, two tiny reward models, stage directories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from alignment.inference.engine import TransformersEngine
from alignment.inference.types import SILENT, Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import save_model
from alignment.preferences.prompts import Prompt, write_prompts
from alignment.rewards.card import RewardCard
from alignment.rewards.model import RewardModel
from alignment.utils.progress import Progress

WORDS = "what is the a red blue cat dog tree house big small runs sleeps and no yes you me Human :"
CHAT = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant {% endif %}"
)


def sample(
    model: Any,
    renderer: ChatRenderer,
    prompts: Sequence[Sequence[int]],
    settings: SamplingSettings,
    seeds: Sequence[Sequence[int]],
    progress: Progress = SILENT,
) -> list[list[Sample]]:
    """Answers of our own loop."""
    return TransformersEngine(model, renderer).sample(prompts, seeds, settings, progress)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = ["<pad>", "</s>", "<unk>", "user", "assistant", *WORDS.split()]
    words = Tokenizer(
        models.WordLevel({word: index for index, word in enumerate(vocabulary)}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=CHAT,
    )


def tiny_config(tokenizer: Any, **more: Any) -> LlamaConfig:
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
    }
    return LlamaConfig(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        **{**shape, **more},
    )


@pytest.fixture(scope="session")
def policy(tokenizer: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(tiny_config(tokenizer)).eval()
    # Sharper than at birth, so that positions and context matter.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.mul_(5.0)
    return model


@pytest.fixture(scope="session")
def renderer(tokenizer: Any) -> ChatRenderer:
    return ChatRenderer(tokenizer)


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    words = WORDS.split()
    made = []
    for number in range(24):
        length = 1 + number % 5
        content = " ".join(words[(number * 7 + i * 3) % 16] for i in range(length))
        made.append(
            Prompt(
                messages=[{"role": "user", "content": f"{content} {words[number % 16]}"}],
                domain="safety" if number % 3 == 0 else "helpfulness",
                category=f"c{number % 2}",
            )
        )
    return list({prompt.id: prompt for prompt in made}.values())


@pytest.fixture(scope="session")
def stage_inputs(
    tmp_path_factory: pytest.TempPathFactory,
    policy: LlamaForCausalLM,
    tokenizer: Any,
    prompts: list[Prompt],
) -> dict[str, Path]:
    """Directories as upstream stages would have committed them."""
    root = tmp_path_factory.mktemp("upstream")
    write_prompts(root / "prepare" / "prompts.jsonl", prompts)
    save_model(policy, tokenizer, root / "policy" / "model")
    for number, domain in enumerate(("helpfulness", "safety")):
        torch.manual_seed(number + 1)
        scalar = LlamaForSequenceClassification(tiny_config(tokenizer, num_labels=1))
        card = RewardCard(domain=domain, std=0.5)
        RewardModel(scalar, tokenizer, card).save(root / f"reward_{domain}" / "model")
    return {path.name: path for path in sorted(root.iterdir())}


@pytest.fixture
def make_context(tmp_path: Path, stage_inputs: dict[str, Path]) -> Callable[..., Any]:
    """A StageContext over `stage_inputs` with config overrides."""
    from types import SimpleNamespace

    from alignment.config.compute import ComputeConfig
    from alignment.config.inference import InferenceConfig
    from alignment.config.rewards import CombineConfig
    from alignment.config.sampling import CollectConfig, SampleConfig, SelectConfig
    from alignment.stages.context import StageContext

    def make(stage: str, where: str = "run", **given: Any) -> StageContext:
        config = SimpleNamespace(
            sample=SampleConfig(**given.get("sample", {})),
            select=SelectConfig(**given.get("select", {})),
            collect=CollectConfig(**given.get("collect", {})),
            combine=CombineConfig(**given.get("combine", {})),
            compute=ComputeConfig(device="cpu"),
            inference=InferenceConfig(**given.get("inference", {})),
        )
        out, scratch = tmp_path / where / stage / "out", tmp_path / where / stage / "scratch"
        out.mkdir(parents=True, exist_ok=True)
        scratch.mkdir(parents=True, exist_ok=True)
        return StageContext(
            version=given.get("version", "rlhf-v1"),
            stage=stage,
            config=config,  # type: ignore[arg-type]
            options=given.get("options", {}),
            inputs={**stage_inputs, **given.get("inputs", {})},
            out=out,
            scratch=scratch,
            seed=given.get("seed", 11),
            workspace=tmp_path,
        )

    return make
