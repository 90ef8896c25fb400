"""A tokenizer trained on the world's corpus: one token per word, bytes for everything else.

Byte-level BPE with `ignore_merges`: a word of the vocabulary is one token, so a few hundred entries
cover the whole language, without the word fragments that BPE merges would add. Any other text is
encoded as bytes and decoded without loss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, END, USER, ASSISTANT)

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    f"{ASSISTANT}{{{{ message['content'] }}}}{END}"
    "{% elif message['role'] == 'user' %}"
    f"{USER}{{{{ message['content'] }}}}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{% endfor %}"
    f"{{% if add_generation_prompt %}}{ASSISTANT}{{% endif %}}"
)
"""`<|user|>question<|assistant|>answer<|end|>`, turn after turn."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """The most frequent words of `texts` as tokens, beside 256 bytes and the special tokens.

    Args:
        texts: the corpus.
        vocabulary: entries at most.
    """
    split = pre_tokenizers.ByteLevel(add_prefix_space=True)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in split.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = vocabulary - len(alphabet) - len(SPECIAL)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    words = [word for word, _ in ranked if len(word) > 1][:room]
    entries = [*SPECIAL, *alphabet, *words]
    model = models.BPE(
        vocab={entry: number for number, entry in enumerate(entries)},
        merges=[],
        ignore_merges=True,
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast
