"""A reward model as the other rooms see it: load, score, put scores on one scale.

Three scales, all monotone in each other:

* the head's output z, on which σ(z) is the probability that an answer is safe where the auxiliary
  loss was trained;
* the **raw** score `z + bias`, on which demonstrations have mean 0 (InstructGPT §3.5);
* the **standardised** score `(raw − mean) / std`, with mean and deviation of a fixed reference
  set, so that the two reward models can be added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.errors import DataError
from alignment.files import atomic_write_json, digest_json, read_json, sha256_file
from alignment.models.chat import ChatRenderer, Conversation, Tokens
from alignment.models.load import Dtype, load_scalar, load_tokenizer, save_model
from alignment.rewards.batches import Batcher, Name, choose_style, forward
from alignment.rewards.layout import Row

CARD = "reward.json"


@dataclass(frozen=True)
class RewardCard:
    """What stands in `reward.json` beside the weights.

    Attributes:
        bias: added to the head's output; demonstrations then have mean 0.
        mean, std: of raw scores on the reference set.
        threshold: σ(z) under which an answer counts as unsafe (Table 29 uses 0.5).
        max_length: longest prompt and answer seen in training, in tokens.
        versions: whose batches it learned from.
    """

    domain: str
    bias: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    threshold: float = 0.5
    max_length: int = 4096
    margin: str = "none"
    versions: tuple[str, ...] = ()
    pairs: int = 0


class RewardModel:
    """A scalar-head model with its card. Scoring is deterministic: the same set of answers gives
    the same bits in any order, and dropout is off."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: RewardCard
    ):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = ChatRenderer(tokenizer)
        self.card = card
        self.source: Path | None = None
        self._style: tuple[int, Name] | None = None

    @classmethod
    def load(
        cls,
        directory: Path | str,
        dtype: Dtype = "float32",
        device: torch.device | str = "cpu",
    ) -> RewardModel:
        """The reward model that `save` wrote.

        Raises:
            DataError: the directory has no `reward.json`.
        """
        card_file = Path(directory) / CARD
        if not card_file.is_file():
            raise DataError(
                f"{directory} is no reward model: it has no {CARD}",
                remedy="give the model directory of a reward stage",
            )
        described = read_json(card_file)
        described["versions"] = tuple(described.get("versions", ()))
        model = load_scalar(directory, dtype=dtype, device=device)
        loaded = cls(model, load_tokenizer(directory), RewardCard(**described))
        loaded.source = Path(directory)
        return loaded

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and card."""
        save_model(self.model, self.tokenizer, directory)
        atomic_write_json(directory / CARD, asdict(self.card))

    @property
    def domain(self) -> str:
        """`helpfulness` or `safety`."""
        return self.card.domain

    def digest(self) -> str:
        """Identity of the weights and the card, for caches.

        Raises:
            DataError: the model was not loaded from a directory.
        """
        if self.source is None:
            raise DataError("a reward model that was never saved has no digest")
        files = sorted([*self.source.glob("*.safetensors"), self.source / CARD])
        return digest_json({path.name: sha256_file(path) for path in files})

    def score(self, items: Sequence[Tokens], tokens_per_batch: int = 16384) -> np.ndarray:
        """Raw scores (n,) float64 at the last token of each answer (its EOS if it is finished).

        Answers to the same prompt share its computation where that is cheaper. Items longer than
        the model's positions lose tokens from the front.
        """
        if not items:
            return np.empty(0)
        batcher = self._batcher(max(len(item) for item in items), tokens_per_batch)
        # A fixed order of different items: neither order nor repetition changes a batch.
        unique: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
        keys = [self._cut_front(item) for item in items]
        for prompt, answer in sorted(set(keys)):
            unique.setdefault(prompt, {})[answer] = -1
        sequences: list[tuple[int, ...]] = []
        rows: list[Row] = []
        for prompt, answers in unique.items():
            # Answers of like length share a row with little waste.
            ordered = sorted(answers, key=len)
            numbers = list(range(len(sequences), len(sequences) + len(ordered)))
            for answer, number in zip(ordered, numbers, strict=True):
                answers[answer] = number
                sequences.append(prompt + answer)
            rows += batcher.rows([sequences[n] for n in numbers], numbers)
        scores = self._score_rows(rows, len(sequences), batcher)
        found = np.array([scores[unique[prompt][answer]] for prompt, answer in keys])
        return found + self.card.bias

    def _batcher(self, longest: int, tokens: int) -> Batcher:
        longest = max(longest, self.card.max_length)
        if self._style is None or longest > self._style[0]:
            self._style = (longest, choose_style(self.model, longest).name)
        return Batcher(
            self.model,
            pad=self.renderer.pad,
            tokens_per_batch=tokens,
            max_length=longest,
            style=self._style[1],
        )

    def _score_rows(self, rows: list[Row], count: int, batcher: Batcher) -> np.ndarray:
        scores = np.empty(count, dtype=np.float64)
        with torch.inference_mode(), batcher.running():
            for numbers in batcher.cut([[row] for row in rows]):
                inputs = batcher.inputs([rows[n] for n in numbers])
                scores[inputs.answers] = forward(self.model, inputs).double().cpu().numpy()
        return scores

    def _cut_front(self, item: Tokens) -> tuple[tuple[int, ...], tuple[int, ...]]:
        config = self.model.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None) or len(item)
        over = max(0, len(item) - limit)
        prompt = tuple(item.prompt[over:])
        answer = tuple(item.response[max(0, over - len(item.prompt)) :])
        return prompt, answer

    def score_texts(
        self,
        rows: Sequence[tuple[Conversation, str, bool]],
        tokens_per_batch: int = 16384,
    ) -> np.ndarray:
        """Raw scores of (messages, answer, finished) rows."""
        items = [self.renderer.tokens(m, text, finished=done) for m, text, done in rows]
        return self.score(items, tokens_per_batch)

    def standardise(self, raw: np.ndarray) -> np.ndarray:
        """(raw − mean) / std of the reference set."""
        return (raw - self.card.mean) / self.card.std

    def probability(self, raw: np.ndarray) -> np.ndarray:
        """σ of the head's own output, the bias taken away: for the safety RM, P(safe)."""
        z = np.asarray(raw, dtype=np.float64) - self.card.bias
        return np.exp(-np.logaddexp(0.0, -z))

    def calibrate(
        self, demonstrations: Sequence[Tokens], reference: Sequence[Tokens], **card: Any
    ) -> None:
        """Fix bias, mean and deviation.

        Args:
            demonstrations: their mean raw score becomes 0; none leaves the bias at 0.
            reference: answers good and bad whose mean and deviation become 0 and 1.
            card: other fields of the card to set.
        """
        self.card = replace(self.card, bias=0.0, **card)
        together = self.score([*demonstrations, *reference])
        bias = -float(together[: len(demonstrations)].mean()) if demonstrations else 0.0
        raw = (together[len(demonstrations) :] if reference else together) + bias
        # A model that scores everything alike must not blow up what it is divided into.
        std = max(float(raw.std()), 1e-6) if len(raw) else 1.0
        mean = float(raw.mean()) if len(raw) else 0.0
        self.card = replace(self.card, bias=bias, mean=mean, std=std)
