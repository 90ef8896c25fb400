"""Chooses a model's layout, and cuts work into forward passes.

Four layouts give the same scores: `grouped` (small Llamas on a CPU; see `fastpath.grouping`),
`packed` (CPU; see `fastpath.packing`), `rows` (shared prefixes under a block mask) and `plain` (one
answer per row; any architecture). `rows` is used if a trial shows that the model computes it
correctly, `packed` and `grouped` if they are also faster. If prefixes are not shared, the reason is
kept for the user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.errors import ConfigError
from alignment.fastpath import grouping, packing, pays
from alignment.models.load import backbone, context_length, scalar_head
from alignment.models.padding import micro_batches
from alignment.models.row_layout import Costs, Inputs, Row, assemble, common_prefix, rows_of
from alignment.models.sharding import compute_format, inside, is_sharded

Name = Literal["grouped", "packed", "rows", "plain"]
_BY_TOKENS = ("grouped", "packed")  # nothing is padded to the longest row of a pass

# A trial of layouts: about how many floating-point operations it takes, and the number of
# parameters from which gradients would take too much memory.
_WORK = 8e9
_GRADIENTS_BELOW = 500_000_000
_SMALL = 50_000_000  # parameters up to which a trial has three prompts, whatever it takes


@dataclass(frozen=True)
class Style:
    """A layout; `refusal` gives the reason if prefixes are not shared."""

    name: Name
    refusal: str | None = None


@dataclass(frozen=True)
class GroupedInputs:
    """Rows of a forward pass that lays them out itself; `answers` as in `Inputs`."""

    hidden: Callable[[], Tensor]
    answers: list[int]


def forward(model: PreTrainedModel, inputs: Inputs | GroupedInputs) -> Tensor:
    """Scores (A,): the scalar head, in float32, on the hidden state of each answer's last token.

    In bfloat16 a score would have 8 bits, and answers of nearly the same worth would tie. The head
    is applied to A positions, not to all R × L. Right padding needs no mask, because under causal
    attention no token attends to later ones.
    """
    return inside(model, _scores, model, inputs).squeeze(-1)


def _scores(model: PreTrainedModel, inputs: Inputs | GroupedInputs) -> Tensor:
    """(A, 1)."""
    if isinstance(inputs, GroupedInputs):
        return _head(model, inputs.hidden())
    extra = {}
    if inputs.mask is not None:
        extra["attention_mask"] = inputs.mask
    if inputs.positions is not None:
        extra["position_ids"] = inputs.positions
    packed = packing()
    if inputs.plan is not None and packed is not None:
        packed.set_plan(inputs.plan)
    output = backbone(model)(input_ids=inputs.ids, use_cache=False, **extra)
    return _head(model, output.last_hidden_state[inputs.row, inputs.column])


def _head(model: PreTrainedModel, last: Tensor) -> Tensor:
    """(A, 1) from hidden states (A, d)."""
    with torch.autocast(last.device.type, enabled=False):
        scores: Tensor = scalar_head(model)(last.float())
    return scores


class Batcher:
    """Lays answers out for one model and cuts them into forward passes.

    Args:
        tokens_per_batch: most tokens of a forward pass, padding included.
        max_length: most tokens of an answer with its prompt.
        share: compute common prefixes once if the model can.
        amp: number format of autocast, if it differs from that of the weights.
        recompute: activations are to be computed again in the backward pass.
        style: layout to use; None chooses one.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        pad: int,
        tokens_per_batch: int,
        max_length: int,
        share: bool = True,
        amp: torch.dtype | None = None,
        recompute: bool = False,
        style: Name | None = None,
    ):
        self.model = model
        self.pad = pad
        self.tokens = tokens_per_batch
        self.amp = amp
        if style is not None:
            self.style = Style(style)
        else:
            whole = amp is None and not recompute
            self.style = choose_style(model, max_length, grouped=whole) if share else Style("plain")
        self.costs = costs_of(model) if self.style.name == "rows" else None
        self._grouping = grouping(backbone(model)) if self.style.name == "grouped" else None

    @contextmanager
    def running(self) -> Iterator[None]:
        """Context for forward and backward passes over this batcher's inputs."""
        device = self.model.device.type
        packed = packing() if self.style.name == "packed" else None
        with (
            nullcontext() if packed is None else packed.attending(self.model),
            torch.autocast(device, self.amp) if self.amp else nullcontext(),
        ):
            yield

    def rows(self, sequences: Sequence[tuple[int, ...]], answers: Sequence[int]) -> list[Row]:
        """Rows for answers to one prompt."""
        if self.style.name not in _BY_TOKENS:
            return rows_of(sequences, answers, self.costs)
        rows = []
        start = 0
        while start < len(sequences):
            end, length = start + 1, len(sequences[start])
            prefix = common_prefix(sequences) if len(sequences) > 1 else 0
            while end < len(sequences):
                length += len(sequences[end]) - prefix
                if length > self.tokens:
                    break
                end += 1
            group = sequences[start:end]
            shared = common_prefix(group) if len(group) > 1 else 0
            tails = tuple(ids[shared:] for ids in group)
            rows.append(Row(group[0][:shared], tails, tuple(answers[start:end])))
            start = end
        return rows

    def cut(self, units: Sequence[Sequence[Row]]) -> list[list[int]]:
        """For each forward pass, the numbers of its units (a unit's rows stay together)."""
        if self.style.name not in _BY_TOKENS:
            lengths = [max(len(row) for row in unit) for unit in units]
            return micro_batches(lengths, self.tokens, sizes=[len(unit) for unit in units])
        batches: list[list[int]] = []
        filled = self.tokens + 1
        for number, unit in enumerate(units):
            length = sum(len(row) for row in unit)
            if filled + length > self.tokens:
                batches.append([])
                filled = 0
            batches[-1].append(number)
            filled += length
        return batches

    def inputs(self, rows: Sequence[Row]) -> Inputs | GroupedInputs:
        """What one forward pass takes."""
        if self._grouping is not None:
            return GroupedInputs(
                partial(self._grouping.hidden, rows),
                [answer for row in rows for answer in row.answers],
            )
        packed = packing() if self.style.name == "packed" else None
        if packed is not None:
            return packed.pack(rows, device=self.model.device)
        dtype = self.amp or compute_format(self.model)
        return assemble(rows, pad=self.pad, device=self.model.device, dtype=dtype)

    def nothing(self) -> Inputs | GroupedInputs:
        """A pass that counts nothing, for a process that has no work while others have."""
        return self.inputs(self.rows([(0, 0)], [0]))


def costs_of(model: PreTrainedModel) -> Costs:
    """Costs of a token's matrix products and of one query-key product in the model's layers.

    Attention counts double, because softmax and mask cost as much as its small products.
    """
    config = model.config.get_text_config()
    body = sum(p.numel() for p in backbone(model).parameters() if p.ndim >= 2)
    table = config.vocab_size * config.hidden_size
    layers = config.num_hidden_layers
    return Costs(
        linear=float(max(body - table, table // 8)),
        attention=2.0 * 2 * layers * config.hidden_size,
    )


def choose_style(model: PreTrainedModel, max_length: int, *, grouped: bool = True) -> Style:
    """The fastest layout that gives this model's own scores.

    Args:
        grouped: whether the layout of that name may be chosen.

    The config tells whether attention windows are narrower than `max_length`. A trial up to that
    length detects all else: positions built from the mask, recurrent layers, attention kernels
    without masks.

    Raises:
        ConfigError: positions depend on the longest row of a batch, so that no layout gives an
            answer one score.
    """
    _refuse_moving_positions(model, max_length)
    reason = _narrow_window(model, max_length)
    if reason is not None:
        return Style("plain", reason)
    reason = _why_wrong(model, "rows", max_length)
    general = Style("rows") if reason is None else Style("plain", reason)
    if model.device.type != "cpu" or packing() is None or is_sharded(model):
        return general
    best = _faster(model, "packed", general, max_length)
    lean = grouping(backbone(model)) if grouped else None
    if lean is not None and max_length <= lean.longest:
        best = _faster(model, "grouped", best, max_length)
    return best


def _faster(model: PreTrainedModel, name: Name, than: Style, max_length: int) -> Style:
    """The layout of this name, if the model computes it correctly and it is the faster one."""
    if _why_wrong(model, name, max_length) is not None:
        return than
    faster = pays(
        f"{name} rows beside {than.name}",
        model,
        lambda: _trial(model, name),
        lambda: _trial(model, than.name),
    )
    return Style(name) if faster else than


def _trial(model: PreTrainedModel, name: Name) -> Tensor:
    """Score two answers to each of a few prompts; for a small model, compute gradients too."""
    size = sum(parameter.numel() for parameter in model.parameters())
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    learning = learning if size < _GRADIENTS_BELOW else []
    vocabulary = model.config.get_text_config().vocab_size
    length = max(1, min(48, (context_length(model.config) or 4096) // 4))
    batcher = Batcher(model, pad=0, tokens_per_batch=4096, max_length=4 * length, style=name)
    training = model.training
    model.eval()  # dropout would draw random numbers
    try:
        with (
            torch.inference_mode(False),
            torch.set_grad_enabled(bool(learning)),
            batcher.running(),
        ):
            rows: list[Row] = []
            least = 1 if size > _SMALL else 3
            prompts = int(min(6, max(least, _WORK / (size * 6 * 5 * length))))
            for number in range(prompts):
                # Of unlike lengths, as they come: to pad them costs one layout more than another.
                own = max(1, length * (prompts - number) // prompts)
                ids = tuple((3 + 7 * (i + 31 * number)) % vocabulary for i in range(4 * own))
                answers = (ids[: 3 * own], ids[:own] + ids[3 * own - number :])
                rows += batcher.rows(answers, [2 * number, 2 * number + 1])
            inputs = batcher.inputs(rows)
            scores = forward(model, inputs)
            if learning:
                torch.autograd.grad(scores.square().sum(), learning, allow_unused=True)
    finally:
        model.train(training)
    return scores.detach()[torch.tensor(inputs.answers).argsort()]


def _narrow_window(model: PreTrainedModel, max_length: int) -> str | None:
    """Why tokens of a text of `max_length` do not all see the ones before them, or None."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    windowed = not kinds or any("sliding" in kind or "chunked" in kind for kind in kinds)
    off = getattr(config, "use_sliding_window", True) is False
    if off or not windowed:
        return None
    for name, size in config.to_dict().items():
        if not isinstance(size, int) or isinstance(size, bool) or size <= 0:
            continue
        # Windows of these two names are in the mask, which a layout brings along.
        if name in ("sliding_window", "attention_chunk_size"):
            longest = max_length
        elif ("window" in name or "chunk" in name or name == "local_attention") and not any(
            word in name for word in ("layer", "feed_forward")
        ):
            longest = _ROW * max_length  # over columns, and a shared row holds many answers
        else:
            continue
        if size < longest:
            return f"{name} is {size}, and rows may have {longest} tokens"
    return None


def _refuse_moving_positions(model: PreTrainedModel, max_length: int) -> None:
    """Raise ConfigError where RoPE is scaled by the longest row (dynamic NTK, longrope)."""
    config = model.config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    kind = rope.get("rope_type")
    if kind not in ("dynamic", "longrope"):
        return
    limit = rope.get("original_max_position_embeddings") or config.max_position_embeddings
    if max_length > limit:
        raise ConfigError(
            f"with {kind} RoPE beyond {limit} tokens a score depends on the longest answer in its "
            "batch",
            where=f"rewards.max_length: {max_length}",
            remedy=f"set rewards.max_length to {limit} or less",
        )


_ROW = 16  # answers that a shared row may hold
# Operations that a trial may cost, a second or two; larger models are tried at shorter lengths.
_TRIAL_WORK = {"cpu": 1e11, "cuda": 1e14}


def _why_wrong(model: PreTrainedModel, name: Name, max_length: int) -> str | None:
    """Why a layout fails on a few tokens, or None.

    It is tried on two prompts of different lengths, which shows whether one leaks into the other,
    and on one as long as rows may be: what reads only a part of a row shows there.
    """
    size = max(4, min(model.config.get_text_config().vocab_size, 97))
    work = _TRIAL_WORK.get(model.device.type, 1e12)
    affordable = int(work / (8 * sum(p.numel() for p in model.parameters())))
    longest = min(max_length, context_length(model.config) or max_length, max(80, affordable))
    ids = tuple(1 + (7 * i + i // 90) % (size - 1) for i in range(max(80, longest)))
    sequences = [ids[:9] + ids[9:16], ids[:9] + ids[20:28], ids[30:70], ids[30:50] + ids[70:73]]
    if longest > 80:
        prefix, half = ids[: 3 * longest // 4], longest // 8
        sequences += [prefix + ids[3 * longest // 4 :], prefix + ids[3 * longest // 4 + half :]]
    batcher = Batcher(model, pad=0, tokens_per_batch=1000, max_length=len(ids), style=name)
    plain = Batcher(model, pad=0, tokens_per_batch=1000, max_length=len(ids), style="plain")
    shares = Costs(1.0, 0.0)
    batcher.costs = shares if name == "rows" else None
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            with batcher.running():
                rows = [
                    row
                    for place in range(0, len(sequences), 2)
                    for row in batcher.rows(sequences[place : place + 2], [place, place + 1])
                ]
                inputs = batcher.inputs(rows)
                scores = forward(model, inputs)[torch.tensor(inputs.answers).argsort()]
            with plain.running():
                expected = torch.cat(
                    [forward(model, plain.inputs([Row((), (s,), (0,))])) for s in sequences]
                )
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(model).__name__}: {str(error).strip().splitlines()[0][:120]}"
    finally:
        model.train(training)
    scale = float(expected.abs().max().clamp(min=0.1))
    tolerance = scale * (1e-3 if model.dtype == torch.float32 else 5e-2)
    if not torch.allclose(scores, expected, atol=tolerance, rtol=0):
        return f"{type(model).__name__} gives other scores when prompts are shared"
    return None
