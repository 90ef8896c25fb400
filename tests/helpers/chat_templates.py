"""Chat templates in the manner of real ones, each with a tokenizer that has their tokens."""

from __future__ import annotations

from typing import Any

from model_helpers import CHATML, byte_level
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for m in messages %}"
    "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}"
    "{% endif %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3_DATED = (
    "{{ bos_token }}{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}"
    "{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] | trim %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nToday Date: ' + date_string + '\n\n' }}"
    "{{ system + '<|eot_id|>' }}{% for m in messages %}"
    "{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' + m['content'] | trim"
    " + '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
PHI3 = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}"
    "{% else %}{{ eos_token }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% if m['role'] == 'user' %}"
    "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}{{ m['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
# Reads texts from lists alone, as templates of models that see pictures do.
PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% for part in m['content'] %}"
    "{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# Drops a system turn without a word.
DEAF = CHATML.replace(
    "{{ '<|im_start|>' + m", "{% if m['role'] != 'system' %}{{ '<|im_start|>' + m"
).replace("\n' }}{% endfor %}", "\n' }}{% endif %}{% endfor %}")
# Ends an answer of history with another token than the last one, as Harmony's.
TWO_ENDS = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '<|message|>' + m['content'] }}"
    "{{ '<|return|>' if loop.last and m['role'] == 'assistant' else '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant<|message|>' }}{% endif %}"
)

FAMILIES: dict[str, tuple[str, str, tuple[str, ...], str]] = {
    "chatml": (CHATML, "<|endoftext|>", ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "gemma": (GEMMA, "<eos>", ("<bos>", "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>"),
    "llama3": (
        LLAMA3_DATED,
        "<|end_of_text|>",
        ("<bos>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
    ),
    "phi3": (PHI3, "<|endoftext|>", ("<|user|>", "<|assistant|>", "<|end|>"), "<|end|>"),
    "mistral": (MISTRAL, "</s>", ("<bos>",), "</s>"),
    "zephyr": (ZEPHYR, "</s>", ("<bos>",), "</s>"),
    "parts": (PARTS, "<|endoftext|>", ("<|im_start|>", "<|im_end|>"), "<|im_end|>"),
    "deaf": (DEAF, "<|im_end|>", ("<|im_start|>",), "<|im_end|>"),
    "two ends": (
        TWO_ENDS,
        "<|endoftext|>",
        ("<|start|>", "<|message|>", "<|end|>", "<|return|>"),
        "<|return|>",
    ),
}
"""Name → template, the tokenizer's EOS, its other special tokens, the end of an answer."""

SHOW_SYSTEM = {"chatml", "llama3", "phi3", "zephyr", "parts", "two ends"}
"""The families whose template shows a system turn."""


def family_tokenizer(name: str, *, special: bool = True) -> Any:
    """A byte-level tokenizer with the tokens of a family; `special` marks them as such."""
    template, eos, others, _ = FAMILIES[name]
    tokenizer = byte_level(["<pad>", eos])
    tokenizer.add_tokens([AddedToken(text, special=special) for text in others])
    bos = "<bos>" if "<bos>" in others else None
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token=bos, eos_token=eos
    )
    fast.chat_template = template
    return fast
