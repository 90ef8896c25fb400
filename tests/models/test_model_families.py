"""What an exported model's own template renders is, byte for byte, what its training read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import SHOW_SYSTEM
from model_families import WITH_TEMPLATE, family
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignment.models.chat_renderer import ChatRenderer, Message
from alignment.models.export import export_policy
from alignment.models.load import load_tokenizer, save_model

QUESTION: list[Message] = [{"role": "user", "content": "what is the colour of the hat?\n\nthe hat"}]
DIALOGUE: list[Message] = [
    *QUESTION,
    {"role": "assistant", "content": "it is red"},
    {"role": "user", "content": "and the mat é 猫?"},
]
SYSTEM: Message = {"role": "system", "content": "be kind"}
ANSWER = "the mat is the cat's"


def shown(name: str, turns: list[Message]) -> list[Message]:
    """The turns as somebody gives them to the exported template: one that knows no system turn gets
    it in front of the question."""
    template = WITH_TEMPLATE[name]
    if turns[0]["role"] != "system" or template in (None, "thinking") or template in SHOW_SYSTEM:
        return turns
    first = f"{turns[0]['content']}\n\n{turns[1]['content']}"
    return [{"role": "user", "content": first}, *turns[2:]]


@pytest.mark.parametrize("name", WITH_TEMPLATE)
def test_an_export_renders_what_was_trained(name: str, tmp_path: Path) -> None:
    model, tokenizer = family(name)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    trained_with = load_tokenizer(tmp_path / "base")  # as every stage reads it
    save_model(model, trained_with, tmp_path / "policy" / "model")
    exported = export_policy(tmp_path / "policy", tmp_path / "exported")
    own: Any = AutoTokenizer.from_pretrained(exported)
    renderer = ChatRenderer(trained_with)
    for turns in (QUESTION, DIALOGUE, [SYSTEM, *QUESTION], [SYSTEM, *DIALOGUE]):
        trained = renderer.tokens(turns, ANSWER)
        given = shown(name, turns)
        text = own.apply_chat_template(given, tokenize=False, add_generation_prompt=True)
        if WITH_TEMPLATE[name] == "thinking":
            text += "<think>\n\n</think>\n\n"  # which Qwen3's writes with enable_thinking=False
        assert own.decode(trained.prompt).encode() == text.encode()
        assert own.encode(text, add_special_tokens=False) == trained.prompt
        answered = [*given, {"role": "assistant", "content": ANSWER}]
        whole = own.apply_chat_template(answered, tokenize=False)
        assert whole.encode().startswith(own.decode(trained.ids).encode())
        ids = own.encode(whole, add_special_tokens=False)
        assert ids[: len(trained.ids)] == trained.ids
        assert trained.response[-1] == renderer.end
    loaded: Any = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    prompt = torch.tensor([trained.prompt])
    assert torch.allclose(loaded(prompt).logits, model(prompt).logits, atol=1e-4)
