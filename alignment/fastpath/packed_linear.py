"""Linear maps for inference on a CPU, with the weight packed once for its kernel.

`torch.nn.functional.linear` passes float32 on x86 to MKL, which packs the weight at every call.
oneDNN packs it beforehand and applies the next operation (SiLU, a product, the residual sum) while
the result is still in registers. For widths of 64 to 512 that is about twice as fast.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, silu

log = logging.getLogger("alignment.models")

_ROWS = 256  # the kernel's layout is chosen for about so many rows


class PackedLinear:
    """x ↦ x Wᵀ + b, alone or with what follows. Weights are copied: later changes are not seen.

    Args:
        weight: [out, in].
        bias: [out] or `None`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None):
        self._bias = bias.detach().contiguous() if bias is not None else None
        weight = weight.detach().contiguous()
        self._packed = weight.device.type == "cpu" and weight.dtype == torch.float32 and packs()
        self._weight = _pack(weight) if self._packed else weight

    def __call__(self, x: Tensor) -> Tensor:
        """[n, in] → [n, out]."""
        if self._packed:
            return _op()(x, self._weight, self._bias, "none", [], "")
        return linear(x, self._weight, self._bias)

    def silu(self, x: Tensor) -> Tensor:
        """SiLU(x Wᵀ + b)."""
        if self._packed:
            return _op()(x, self._weight, self._bias, "swish", [], "")
        return silu(linear(x, self._weight, self._bias))

    def times(self, x: Tensor, other: Tensor) -> Tensor:
        """(x Wᵀ + b) · other, with other [n, out]."""
        if self._packed:
            return _op().binary(x, other, self._weight, self._bias, "mul")
        return linear(x, self._weight, self._bias).mul_(other)

    def plus(self, x: Tensor, other: Tensor) -> Tensor:
        """x Wᵀ + b + other, with other [n, out]."""
        if self._packed:
            return _op().binary(x, other, self._weight, self._bias, "add")
        return linear(x, self._weight, self._bias).add_(other)


@cache
def packs() -> bool:
    """Whether this build of torch has the packed kernels and they give correct results."""
    generator = torch.Generator().manual_seed(0)
    x, weight, other = (
        torch.randn(shape, generator=generator) for shape in ((5, 16), (24, 16), (5, 24))
    )
    bias = other[0]
    plain = linear(x, weight, bias)
    with torch.no_grad():
        try:
            packed = _pack(weight)
            results = (
                _op()(x, packed, bias, "none", [], ""),
                _op()(x, packed, bias, "swish", [], ""),
                _op().binary(x, other, packed, bias, "mul"),
                _op().binary(x, other, packed, bias, "add"),
            )
        except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
            reason = str(error).strip().partition("\n")[0]
            log.info("torch has no packed linear maps here (%s): plain ones, slower", reason)
            return False
    expected = (plain, silu(plain), plain * other, plain + other)
    return all(torch.allclose(a, b, atol=1e-4) for a, b in zip(results, expected, strict=True))


def _pack(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS)


def _op() -> Any:
    return torch.ops.mkldnn._linear_pointwise
