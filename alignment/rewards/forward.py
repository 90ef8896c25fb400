"""Scores of many answers from one backbone pass, and the check that a model can share prefixes."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from alignment.models.load import backbone, scalar_head
from alignment.rewards.layout import Costs, Inputs, Row, assemble


def forward(model: PreTrainedModel, inputs: Inputs) -> Tensor:
    """Scores (A,) in float32: the scalar head on the hidden state of each answer's last token.

    The head is applied to A positions, not to all R × L. Right padding needs no mask: under
    causal attention no real token sees what stands behind it.
    """
    extra = {}
    if inputs.mask is not None:
        extra = {"attention_mask": inputs.mask, "position_ids": inputs.positions}
    output = backbone(model)(input_ids=inputs.ids, use_cache=False, **extra)
    last = output.last_hidden_state[inputs.row, inputs.column]
    head: Tensor = scalar_head(model)(last)
    return head.squeeze(-1).float()


def costs_of(model: PreTrainedModel) -> Costs:
    """Costs of the model's layers: a token's matrix products against one query-key product.

    Attention counts double: the products are small, and softmax and mask cost as much again.
    """
    config = model.config.get_text_config()
    hidden = config.hidden_size
    layers = config.num_hidden_layers
    body = sum(p.numel() for p in backbone(model).parameters() if p.ndim >= 2)
    table = config.vocab_size * hidden
    return Costs(linear=float(max(body - table, table // 8)), attention=2.0 * 2 * layers * hidden)


def why_not_shared(model: PreTrainedModel, max_length: int) -> str | None:
    """None where prefix sharing gives this model's own scores, else the reason why it would not.

    Windows narrower than `max_length` are read from the config; everything else (positions built
    from the mask, recurrent layers, attention kernels without masks) is found by trying it on a
    few tokens.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    windowed = not kinds or any("sliding" in kind or "chunked" in kind for kind in kinds)
    for name in ("sliding_window", "attention_chunk_size"):
        size = getattr(config, name, None)
        off = getattr(config, "use_sliding_window", True) is False
        if isinstance(size, int) and size < max_length and windowed and not off:
            return f"{name} is {size}, shorter than max_length {max_length}"
    ids = [1 + i % max(2, min(config.vocab_size, 97) - 1) for i in range(24)]
    prefix, tails = tuple(ids[:9]), (tuple(ids[9:16]), tuple(ids[16:]))
    shared = [Row(prefix, tails, (0, 1))]
    plain = [Row((), (prefix + tail,), (n,)) for n, tail in enumerate(tails)]

    def scores(rows: list[Row]) -> Tensor:
        return forward(model, assemble(rows, pad=0, device=model.device, dtype=model.dtype))

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            got = scores(shared)
            want = torch.cat([scores([row]) for row in plain])
    except (TypeError, ValueError, RuntimeError, IndexError, NotImplementedError) as error:
        return f"{type(model).__name__} cannot take a block mask ({str(error).splitlines()[0]})"
    finally:
        model.train(training)
    scale = float(want.abs().max().clamp(min=0.1))
    tolerance = scale * (1e-3 if model.dtype == torch.float32 else 5e-2)
    if not torch.allclose(got, want, atol=tolerance, rtol=0):
        return f"{type(model).__name__} gives other scores under a block mask"
    return None
