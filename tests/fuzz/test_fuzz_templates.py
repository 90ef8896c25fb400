"""Conversations become the tokens that a model's own chat template writes, under any template."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from chat_templates import FAMILIES, SHOW_SYSTEM, family_tokenizer
from fuzzing import fuzzing
from hypothesis import example, given
from hypothesis import strategies as st

from alignment.models.chat_renderer import ChatRenderer
from alignment.models.chat_template import HOLE, freeze

MARKS = sorted({mark for _, eos, others, _ in FAMILIES.values() for mark in (eos, *others)})
WORDS = st.sampled_from([*MARKS, "hat", "the cat", "a\nb", "é 猫 🙂", "</think>", "{{ 1 }}", "%d"])
TEXT = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
    st.lists(WORDS, max_size=4).map(" ".join),
    st.lists(WORDS, max_size=3).map("".join),
).map(lambda text: text.strip() or "x")


@st.composite
def conversations(draw: Any) -> list[dict[str, str]]:
    """A conversation that ends with an answer, as intake accepts them."""
    turns = [{"role": "system", "content": draw(TEXT)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        turns += [
            {"role": "user", "content": draw(TEXT)},
            {"role": "assistant", "content": draw(TEXT)},
        ]
    return turns


@cache
def prepared(name: str, special: bool) -> tuple[Any, ChatRenderer]:
    tokenizer = family_tokenizer(name, special=special)
    renderer = ChatRenderer(tokenizer)
    freeze(tokenizer)
    return tokenizer, renderer


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("name", FAMILIES)
@given(conversation=conversations())
@example(conversation=[{"role": "user", "content": HOLE}, {"role": "assistant", "content": "x"}])
@example(
    conversation=[{"role": r, "content": f"a{HOLE}{HOLE}b"} for r in ("user", "assistant")] * 2
)
@fuzzing
def test_the_pieces_are_the_whole_rendering(
    name: str, special: bool, conversation: list[dict[str, str]]
) -> None:
    tokenizer, renderer = prepared(name, special)
    tokens = renderer.tokens(conversation[:-1], conversation[-1]["content"])  # type: ignore[arg-type]
    whole = own_rendering(tokenizer, renderer, name, conversation)
    # Some templates write more after the last answer's end: a newline, an EOS.
    assert whole[: len(tokens)] == tokens.ids
    end = tokenizer.convert_tokens_to_ids(FAMILIES[name][3])
    assert renderer.end == end
    assert tokens.response.count(end) == 1
    assert tokens.response[-1] == end
    assert end not in renderer.response(conversation[-1]["content"], finished=False)


def own_rendering(
    tokenizer: Any, renderer: ChatRenderer, name: str, conversation: list[dict[str, str]]
) -> list[int]:
    """What the exported tokenizer's template makes of a conversation, special texts broken up."""
    turns = [
        {"role": turn["role"], "content": renderer._defuse(turn["content"]).strip()}
        for turn in conversation
    ]
    if turns[0]["role"] == "system" and name not in SHOW_SYSTEM:
        first = f"{turns[0]['content']}\n\n{turns[1]['content']}"
        turns = [{"role": "user", "content": first}, *turns[2:]]
    if name == "parts":
        turns = [
            {"role": turn["role"], "content": [{"type": "text", "text": turn["content"]}]}
            for turn in turns
        ]
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    return list(tokenizer.encode(text, add_special_tokens=False))
