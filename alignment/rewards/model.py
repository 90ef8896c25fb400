"""Loads a reward model, scores answers with it, and standardises the scores.

There are three scales, each an increasing function of the others:

* the head's output z, which the score cache stores; with the auxiliary loss, σ(z) is the
  probability that an answer is safe;
* the **raw** score `z + bias`, on which demonstrations have mean 0 (InstructGPT §3.5). The bias is
  for people who read raw scores: it cancels in standardised scores, so that neither selection nor
  PPO depends on it;
* the **standardised** score `(raw − mean) / std`, with mean and deviation of a fixed reference
  set, so that the scores of two reward models can be added.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignment.config.compute import ComputeConfig
from alignment.errors import DataError
from alignment.fastpath import Scorer, use_for_scoring, workers_for
from alignment.models.chat_renderer import ChatRenderer, Conversation, Tokens
from alignment.models.digest import weights_digest
from alignment.models.load import (
    Dtype,
    context_length,
    load_scalar,
    load_tokenizer,
    resolve_device,
    save_model,
)
from alignment.models.row_layout import Row
from alignment.models.sharded_load import load_sharded
from alignment.models.sharding import is_sharded, rounds
from alignment.rewards.adapter import merge, save_reward_adapter
from alignment.rewards.batches import Batcher, Name, choose_style, forward
from alignment.rewards.cache import Answer, ScoreCache, piece_digest
from alignment.rewards.card import CARD, RewardCard, check_backbone, read_card
from alignment.rewards.initial import pad_apart
from alignment.utils import distributed
from alignment.utils.files import atomic_write_json, digest_json
from alignment.utils.statistics import sigmoid

PIECE = 4096  # about how many answers are laid out, scored and cached together


class RewardModel:
    """A scalar-head model with its card.

    Scoring is deterministic: the same set of answers gives the same bits in any order, and dropout
    is off.

    Attributes:
        source: directory of the weights; None for a model that was never saved.
        cache: scores computed before; used once `source` is set.
        dealt: all processes ask for the same scores, and each computes some of the forward passes.
            Else every process asks for its own.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, card: RewardCard
    ):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.renderer = ChatRenderer(
            tokenizer, card.max_prompt_tokens, context_length(model.config)
        )
        if not card.template_end:
            self.renderer.end = self.renderer.eos
        self.card = card
        self.source: Path | None = None
        self.cache: ScoreCache | None = None
        self.dealt = False
        self._digest: str | None = None
        self._styles: dict[int, Name] = {}

    @classmethod
    def load(
        cls,
        directory: Path | str,
        dtype: Dtype = "float32",
        device: torch.device | str = "cpu",
        cache: ScoreCache | None = None,
        *,
        sharded: bool = False,
        dealt: bool = False,
    ) -> RewardModel:
        """The reward model that `save` or `save_adapter` wrote; an adapter is folded in.

        Args:
            sharded: split it over all processes, which must then score equally often.
            dealt: see the attribute.

        Raises:
            DataError: the directory has no `reward.json`, or an adapter's checkpoint is not the
                one that it was trained over.
        """
        card = read_card(directory)
        check_backbone(Path(directory), card)
        if sharded:
            model = load_sharded(directory, "scalar", dtype=dtype, learns=False, device=device)
        else:
            model = load_scalar(directory, dtype=dtype, device=device)
        loaded = cls(model, load_tokenizer(directory), card)
        pad_apart(model, loaded.tokenizer)
        loaded.source = Path(directory)
        loaded.cache = cache
        loaded.dealt = dealt and distributed.size() > 1
        return loaded

    @classmethod
    def of_stage(
        cls, directory: Path, compute: ComputeConfig, cache: ScoreCache | None = None
    ) -> RewardModel:
        """`load` for a stage in which all processes ask for the same scores."""
        return cls.load(
            directory,
            compute.dtype,
            resolve_device(compute.device),
            cache,
            sharded=compute.sharding == "full" and distributed.size() > 1,
            dealt=True,
        )

    def save(self, directory: Path) -> None:
        """Write weights, tokenizer and card."""
        pad_apart(self.model, self.tokenizer)
        save_model(self.model, self.tokenizer, directory)
        self.source = directory
        self.save_card()

    def save_card(self) -> None:
        """Write the card again, beside the saved weights.

        Raises:
            DataError: the weights were never saved.
        """
        if self.source is None:
            raise DataError("a reward model that was never saved has no place for its card")
        atomic_write_json(self.source / CARD, asdict(self.card))

    def save_adapter(self, start: Path, directory: Path) -> None:
        """Write the injected adapter, its head, the tokenizer and the card, then merge the adapter.

        Args:
            start: the checkpoint that training started from.
        """
        backbone = save_reward_adapter(self.model, start, directory)
        self.card = replace(self.card, backbone=weights_digest(backbone))
        merge(self.model)
        pad_apart(self.model, self.tokenizer)
        self.tokenizer.save_pretrained(directory)
        self.source = directory
        self.save_card()

    @property
    def domain(self) -> str:
        """`helpfulness` or `safety`."""
        return self.card.domain

    def digest(self) -> str:
        """Identity of the computation of z: weights, number format, kind of device, kind of pass.

        Raises:
            DataError: the model was not loaded from a directory.
        """
        if self.source is None:
            raise DataError("a reward model that was never saved has no digest")
        if self._digest is None:
            how = [weights_digest(self.source), str(self.model.dtype), self.model.device.type]
            on_cpu = self.model.device.type == "cpu"
            if on_cpu and self._fast() is None:
                how.append("plain")
            if is_sharded(self.model):
                how.append("sharded")
            self._digest = digest_json(how)
        return self._digest

    def score(self, items: Sequence[Tokens], tokens_per_batch: int = 16384) -> np.ndarray:
        """Raw scores (n,) float64 at the last token of each answer (its end if it is finished).

        Answers to the same prompt share its computation where that is cheaper. Items longer than
        the model's context lose tokens at the front.
        """
        if not items and not is_sharded(self.model):
            return np.empty(0)
        # Sorted distinct items, so that neither order nor repetition changes a batch.
        keys = [self._cut_front(item) for item in items]
        distinct = sorted(set(keys))
        scores: dict[Answer, float] = {}
        # The pieces depend only on the request, not on what is cached of it.
        pieces = _pieces(distinct, PIECE)
        pieces += [[]] * (rounds(self.model, len(pieces)) - len(pieces))
        for piece in pieces:
            computed = self._cached_or_computed(piece, tokens_per_batch)
            scores.update(zip(piece, computed, strict=True))
        return np.array([scores[key] for key in keys]) + self.card.bias

    def _cached_or_computed(self, keys: list[Answer], tokens_per_batch: int) -> np.ndarray:
        """z of each (prompt, answer): all from the cache, or all computed."""
        if self.cache is None or self.source is None:
            return self._compute(keys, tokens_per_batch)
        on_cpu = self.model.device.type == "cpu"
        fast = self._fast() is not None
        style = "fast" if fast else self._style(max((len(p) + len(a) for p, a in keys), default=1))
        how = (tokens_per_batch, style, torch.get_num_threads() if on_cpu else None)
        piece = piece_digest(keys, how)
        scores = self.cache.get(self.digest(), piece, len(keys))
        if self.dealt and distributed.total(scores is not None) < distributed.size():
            scores = None  # it appeared just now, after some had looked: all do the same
        if scores is None:
            scores = self._compute(keys, tokens_per_batch)
            if not self.dealt or distributed.is_first():
                self.cache.put(self.digest(), piece, scores)
        return scores

    def _compute(self, keys: list[Answer], tokens_per_batch: int) -> np.ndarray:
        """z of each (prompt, answer); `keys` are sorted and distinct."""
        longest = rounds(self.model, max((len(p) + len(a) for p, a in keys), default=1))
        fast = self._fast()
        scorer = None if fast is None else fast(longest)
        batcher = self._batcher(longest, tokens_per_batch, scorer)
        unique: dict[tuple[int, ...], dict[tuple[int, ...], int]] = {}
        for prompt, answer in keys:
            unique.setdefault(prompt, {})[answer] = -1
        sequences: list[tuple[int, ...]] = []
        rows: list[Row] = []
        for prompt, answers in unique.items():
            # Answers of similar length share a row with little waste.
            ordered = sorted(answers, key=len)
            numbers = list(range(len(sequences), len(sequences) + len(ordered)))
            for answer, number in zip(ordered, numbers, strict=True):
                answers[answer] = number
                sequences.append(prompt + answer)
            rows += batcher.rows([sequences[n] for n in numbers], numbers)
        if scorer is not None:
            rows = scorer.arranged(rows)
        scores = self._score_rows(rows, len(sequences), batcher, scorer, dealt=self.dealt)
        return np.array([scores[unique[prompt][answer]] for prompt, answer in keys])

    def _fast(self) -> Callable[[int], Scorer] | None:
        """The hand-written pass, where it pays."""
        if is_sharded(self.model):
            return None
        return use_for_scoring(self.model, self._plain_scores)

    def choose_pass(self) -> None:
        """Measure now which pass is faster, unless that is known; later work would disturb it."""
        self._fast()

    @property
    def workers(self) -> int:
        """How many reward models to score with at once: one, if it takes messages."""
        if self.dealt:
            return 1
        fast = self._fast()
        return 1 if fast is None else workers_for(self.model)

    def _batcher(self, longest: int, tokens: int, scorer: Scorer | None) -> Batcher:
        style: Name = "packed"
        if scorer is not None:
            tokens = min(tokens, scorer.chunk)
        else:
            style = self._style(longest)
        pad = self.renderer.pad
        return Batcher(
            self.model, pad=pad, tokens_per_batch=tokens, max_length=longest, style=style
        )

    def _style(self, longest: int) -> Name:
        """The layout for answers of at most `longest` tokens, whatever was scored before."""
        longest = max(longest, self.card.max_length)
        if longest not in self._styles:
            self._styles[longest] = choose_style(self.model, longest).name
        return self._styles[longest]

    def _score_rows(
        self,
        rows: list[Row],
        count: int,
        batcher: Batcher,
        scorer: Scorer | None,
        *,
        dealt: bool = False,
    ) -> np.ndarray:
        scores = np.zeros(count, dtype=np.float64)
        with torch.inference_mode(), nullcontext() if scorer else batcher.running():
            batches: Sequence[list[int]] = batcher.cut([[row] for row in rows])
            if dealt:
                distributed.check_same(batches, "the forward passes of a reward model")
                batches = distributed.deal(batches)
            for number in range(rounds(self.model, len(batches))):
                if number >= len(batches):  # others have more
                    forward(self.model, batcher.nothing())
                    continue
                batch = [rows[n] for n in batches[number]]
                if scorer is not None:
                    values, answers = scorer.score(batch)
                else:
                    inputs = batcher.inputs(batch)
                    values, answers = forward(self.model, inputs), inputs.answers
                scores[answers] = values.double().cpu().numpy()
        return distributed.merged(scores) if dealt else scores

    def _plain_scores(self, rows: Sequence[Row]) -> torch.Tensor:
        """Scores of rows by transformers' own forward, in the order of their answers' numbers."""
        longest = max(len(row.prefix) + len(tail) for row in rows for tail in row.tails)
        batcher = self._batcher(longest, 4096, None)
        batch_rows: list[Row] = []
        for row in rows:
            batch_rows += batcher.rows([row.prefix + tail for tail in row.tails], row.answers)
        count = sum(len(row.answers) for row in rows)
        return torch.from_numpy(self._score_rows(batch_rows, count, batcher, None)).float()

    def _cut_front(self, item: Tokens) -> Answer:
        over = max(0, len(item) - (self.renderer.context or len(item)))
        prompt = tuple(item.prompt[over:])
        answer = tuple(item.response[max(0, over - len(item.prompt)) :])
        return prompt, answer

    def score_texts(
        self, rows: Sequence[tuple[Conversation, str, bool]], tokens_per_batch: int = 16384
    ) -> np.ndarray:
        """Raw scores of (messages, answer, finished) rows.

        Those of one conversation are to be compared: they are read behind the same prompt.
        """
        answers = [self.renderer.response(text, finished=done) for _, text, done in rows]
        places: dict[tuple[tuple[str, str], ...], list[int]] = {}
        for place, (messages, _, _) in enumerate(rows):
            key = tuple((message["role"], message["content"]) for message in messages)
            places.setdefault(key, []).append(place)
        items: dict[int, Tokens] = {}
        for group in places.values():
            beside = self.renderer.side_by_side(rows[group[0]][0], [answers[n] for n in group])
            items.update(zip(group, beside, strict=True))
        return self.score([items[place] for place in range(len(rows))], tokens_per_batch)

    def standardise(self, raw: np.ndarray) -> np.ndarray:
        """(raw − mean) / std of the reference set."""
        return (raw - self.card.mean) / self.card.std

    def probability(self, raw: np.ndarray) -> np.ndarray:
        """σ of the head's output, without the bias; for the safety RM this is P(safe)."""
        return sigmoid(np.asarray(raw, dtype=np.float64) - self.card.bias)

    def calibrate(self, demonstrations: Sequence[Tokens], reference: Sequence[Tokens]) -> None:
        """Set bias, mean and deviation.

        Args:
            demonstrations: their mean raw score becomes 0; if empty, the bias is 0.
            reference: good and bad answers, whose mean and deviation become 0 and 1.
        """
        self.card = replace(self.card, bias=0.0)
        together = self.score([*demonstrations, *reference])
        bias = -float(together[: len(demonstrations)].mean()) if demonstrations else 0.0
        raw = (together[len(demonstrations) :] if reference else together) + bias
        # A model that gives all answers the same score must not cause a division by 0.
        std = max(float(raw.std()), 1e-6) if len(raw) else 1.0
        mean = float(raw.mean()) if len(raw) else 0.0
        self.card = replace(self.card, bias=bias, mean=mean, std=std)


def _pieces(keys: list[Answer], size: int) -> list[list[Answer]]:
    """`keys` in pieces of about `size`; answers to one prompt stay together."""
    pieces: list[list[Answer]] = [[]]
    for key in keys:
        if len(pieces[-1]) >= size and pieces[-1][-1][0] != key[0]:
            pieces.append([])
        pieces[-1].append(key)
    return pieces
