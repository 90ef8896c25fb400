"""Models to measure with: a directory, or a random Llama that is made here, of a named size.

Speed does not depend on what the weights are. The shapes are those of stories260K, a small one,
SmolLM-135M and Llama 3.2 1B, all with tied embeddings. The tokenizer is the same for every size, so
that the same texts are the same tokens: byte-level BPE with 512 entries, trained on the built-in
world's corpus, 1.8 characters a token on HH-RLHF. Nothing is downloaded.
"""

from __future__ import annotations

import os
import random
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignment.config.location import user_cache
from alignment.config.world import WorldConfig
from alignment.errors import ConfigError
from alignment.models.load import check_model_directory
from alignment.utils.files import digest_json
from alignment.world.corpus import documents
from alignment.world.prompts import split

Shape = Mapping[str, Any]


def _shape(width: int, inner: int, layers: int, heads: int, keys: int, vocabulary: int) -> Shape:
    """In the names of LlamaConfig; `keys` are key-value heads."""
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "vocab_size": vocabulary,
    }


SHAPES: dict[str, Shape] = {
    "260k": _shape(64, 172, 5, 8, 4, 512),
    "25m": _shape(512, 1376, 8, 8, 4, 4096),
    "135m": _shape(576, 1536, 30, 9, 3, 49152),
    "1b": _shape(2048, 8192, 16, 32, 8, 128256),
}
_ENTRIES = 512
_CONTEXT = 1024
_RECIPE = 1  # to be raised when `make` makes other models of the same shapes


def find(name: str) -> Path:
    """The directory of a model: `name` itself, or one of a size in `SHAPES`, made on first use.

    What is made stays in the user's cache, or in the temporary directory if that is read-only.

    Raises:
        ConfigError: there is no such directory, or no model in it.
    """
    if name not in SHAPES:
        path = Path(name).expanduser()
        if not path.exists():
            raise ConfigError(
                f"no model directory at {name}",
                where="--model",
                remedy=f"give a directory, or a size: {', '.join(SHAPES)}",
            )
        check_model_directory(str(path))
        return path
    shape = SHAPES[name]
    made = f"{name}-{digest_json([_RECIPE, dict(shape)])[:12]}"
    for cache in (user_cache() / "bench", Path(tempfile.gettempdir()) / "align-bench"):
        if (cache / made).is_dir():
            return cache / made
        try:
            cache.mkdir(parents=True, exist_ok=True)
            place = Path(tempfile.mkdtemp(prefix=f".{made}-", dir=cache))
        except OSError as error:
            print(f"{cache} takes no models: {error.strerror}", file=sys.stderr)
            continue
        try:
            make(shape, place)
            _settle(place, cache / made)
        finally:
            shutil.rmtree(place, ignore_errors=True)
        size = sum(file.stat().st_size for file in (cache / made).iterdir()) / 1e6
        print(f"made a random model, {size:,.0f} MB: {cache / made}", file=sys.stderr)
        return cache / made
    raise ConfigError(
        "there is no room for a model", where="--model", remedy="set ALIGN_CACHE_DIR, or TMPDIR"
    )


def _settle(place: Path, target: Path) -> None:
    """Give a finished model its name, unless another process was first."""
    try:
        os.rename(place, target)  # noqa: PTH104
    except OSError:
        if not target.is_dir():
            raise


def make(shape: Shape, directory: Path) -> None:
    """Write a random Llama in float32 with its tokenizer; random numbers elsewhere do not move."""
    words = tokenizer()
    config = LlamaConfig(
        **shape,
        max_position_embeddings=_CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(directory)
    words.save_pretrained(directory)


def tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of all sizes."""
    prompts = split(WorldConfig(), 0)
    whole = Tokenizer(models.BPE())
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.train_from_iterator(
        documents(prompts.talk, 2000, 1.0, random.Random(0)),
        trainers.BpeTrainer(
            vocab_size=_ENTRIES,
            special_tokens=["<pad>", "<s>", "</s>"],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=whole,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        padding_side="left",
    )
