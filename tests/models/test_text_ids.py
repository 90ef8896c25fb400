"""Ids straight from the tokenizers library are those of transformers' wrapper."""

from __future__ import annotations

import random
from typing import Any

import pytest
from model_helpers import TEMPLATES, bytes_tokenizer, pieces_tokenizer
from transformers import PreTrainedTokenizerFast

from alignment.models.text_ids import encoder_of

TEXTS = [
    "",
    " ",
    "\n\n",
    "the cat",
    "  two  spaces ",
    "é ü 猫 🙂",
    "</s> and <|im_end|> inside",
    "<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\n",
    "[INST] what is the hat? [/INST]",
    "long " * 500,
]


def random_texts(count: int) -> list[str]:
    rng = random.Random(3)
    pieces = ["a", "cat", " ", "\n", "</s>", "<s>", "<|im_end|>", "é", "\u0301", "\x00", "猫", "1"]
    return ["".join(rng.choices(pieces, k=rng.randrange(12))) for _ in range(count)]


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("make", [bytes_tokenizer, pieces_tokenizer])
def test_they_are_equal_for_any_text(make: Any, split: bool) -> None:
    tokenizer = make(TEMPLATES["chatml"])
    tokenizer.split_special_tokens = split
    ids_of = encoder_of(tokenizer)
    for text in [*TEXTS, *random_texts(300)]:
        assert ids_of(text) == tokenizer.encode(text, add_special_tokens=False), repr(text)


def test_one_batched_call_gives_them_too() -> None:
    tokenizer = bytes_tokenizer(TEMPLATES["chatml"])
    ids_of = encoder_of(tokenizer)
    assert [ids_of(text) for text in TEXTS] == tokenizer(TEXTS, add_special_tokens=False).input_ids


def test_what_others_set_on_the_tokenizer_does_not_show() -> None:
    """`tokenizer(…, truncation=True)` leaves its backend cutting and padding."""
    tokenizer = bytes_tokenizer(TEMPLATES["chatml"])
    ids_of = encoder_of(tokenizer)
    whole = ids_of("what is the hat?")
    cut = tokenizer("what is the hat?", truncation=True, max_length=3, add_special_tokens=False)
    assert len(cut.input_ids) == 3 < len(whole)
    assert tokenizer.backend_tokenizer.truncation is not None
    assert ids_of("what is the hat?") == whole
    tokenizer(["a", "a longer text"], padding=True)
    assert ids_of("a") == tokenizer.encode("a", add_special_tokens=False)
    marked = ids_of("a <|im_end|> b")
    tokenizer.split_special_tokens = True
    split = tokenizer.encode("a <|im_end|> b", add_special_tokens=False)
    assert ids_of("a <|im_end|> b") == split != marked


def test_a_class_of_its_own_is_asked_itself() -> None:
    class Shifted(PreTrainedTokenizerFast):
        def _encode_plus(self, *args: Any, **settings: Any) -> Any:
            encoded = super()._encode_plus(*args, **settings)
            encoded["input_ids"] = [id + 1 for id in encoded["input_ids"]]
            return encoded

    plain = bytes_tokenizer(TEMPLATES["chatml"])
    shifted = Shifted(tokenizer_object=plain.backend_tokenizer, eos_token=plain.eos_token)
    assert encoder_of(shifted)("a cat") == [id + 1 for id in encoder_of(plain)("a cat")]
