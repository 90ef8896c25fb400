"""The starting point of a reward model: a chat checkpoint with a fresh scalar head."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.models.adapters import is_adapter
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.load import Dtype, load_policy, load_scalar, load_tokenizer, save_model
from alignment.models.sharded_load import load_sharded
from alignment.utils import distributed


def initial_model(
    start: Path,
    scratch: Path,
    *,
    seed: int,
    dtype: Dtype = "float32",
    device: torch.device | str = "cpu",
    sharded: bool = False,
) -> PreTrainedModel:
    """`start` with a scalar head instead of the vocabulary; the head is drawn from `seed`.

    Weights are float32 whatever the compute format, because updates of 1e-5 vanish in bfloat16. An
    adapter is first merged into its base, in a directory under `scratch`. `sharded` splits the
    model over all processes; the shards compute in `dtype`.
    """
    if is_adapter(start):
        merged = scratch / f"merged-{distributed.rank()}"
        shutil.rmtree(merged, ignore_errors=True)
        save_model(load_policy(start), load_tokenizer(start), merged)
        start = merged
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if sharded:
            return load_sharded(start, "scalar", dtype=dtype, device=device)
        return load_scalar(start, device=device)


def distinct_pad(tokenizer: PreTrainedTokenizerBase) -> int:
    """A padding id that never ends an answer.

    transformers takes a classifier's score at the last token that is not padding. If EOS were the
    padding, it would take the token before the EOS that reward models are trained on.
    """
    pads = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id)
    others = [*(tokenizer.all_special_ids or []), len(tokenizer) - 1, len(tokenizer) - 2]
    ends = ChatRenderer(tokenizer).ends
    return next(int(id) for id in (*pads, *others) if id is not None and id not in ends)


def pad_apart(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Have model and tokenizer pad on the right with an id other than EOS.

    Then `AutoModelForSequenceClassification` scores batches as we do.
    """
    pad = distinct_pad(tokenizer)
    if tokenizer.pad_token_id != pad:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(pad)
    tokenizer.padding_side = "right"
    model.config.get_text_config().pad_token_id = pad
    model.config.pad_token_id = pad
