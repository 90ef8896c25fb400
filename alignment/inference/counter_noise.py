"""Counter-based random numbers: the noise of token v at step t depends only on (seed, t, v).

So the order and the batches in which sequences are drawn do not matter.

Tokens are drawn by the exponential race: with E_v ~ Exp(1) independent, the token with the largest
p_v / E_v has distribution p (this is equivalent to the Gumbel-max trick). Unlike inversion of the
cumulative distribution, it needs no normalisation, and tokens cut by top-k or top-p do not affect
the others. A small error δ of the logits changes the outcome with probability ≤ 2δ, whatever the
size of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

_GOLDEN = 0x9E3779B1
_MIX1 = 0x85EBCA6B
_MIX2 = 0xC2B2AE35


def _signed(value: int) -> int:
    """A 32-bit pattern as an int32, with which torch multiplies modulo 2³²."""
    return value - (1 << 32) if value >= 1 << 31 else value


def step_keys(seeds: Sequence[int], steps: int) -> torch.Tensor:
    """Two 32-bit keys for each sequence and step: int32 [len(seeds), steps, 2].

    They come from Philox keyed by the sequence's seed; more steps only append keys.
    """
    keys = np.empty((len(seeds), 2 * steps), dtype=np.uint32)
    for row, seed in enumerate(seeds):
        generator = np.random.Philox(key=seed & ((1 << 128) - 1))
        words = generator.random_raw(steps)
        keys[row] = words.view(np.uint32)
    return torch.from_numpy(keys.view(np.int32).reshape(len(seeds), steps, 2))


class GumbelNoise:
    """Draws the noise for a vocabulary, reusing its buffers from step to step."""

    def __init__(self, vocabulary: int, device: torch.device):
        tokens = np.arange(vocabulary, dtype=np.uint64) * _GOLDEN & 0xFFFFFFFF
        self._tokens = torch.from_numpy(tokens.astype(np.uint32).view(np.int32)).to(device)
        self._bits: torch.Tensor | None = None
        self._shifted: torch.Tensor | None = None

    def exponential(self, keys: torch.Tensor) -> torch.Tensor:
        """E for each row and token: float32 [rows, vocabulary] from keys int32 [rows, 2]."""
        rows = keys.shape[0]
        if self._bits is None or self._shifted is None or self._bits.shape[0] < rows:
            shape = (rows, self._tokens.shape[0])
            self._bits = torch.empty(shape, dtype=torch.int32, device=keys.device)
            self._shifted = torch.empty_like(self._bits)
        bits, shifted = self._bits[:rows], self._shifted[:rows]
        # Murmur3's finaliser, with the second key added between its two products.
        torch.add(self._tokens, keys[:, :1], out=bits)
        _xor_shift(bits, shifted, 16)
        bits.mul_(_signed(_MIX1)).add_(keys[:, 1:])
        _xor_shift(bits, shifted, 13)
        bits.mul_(_signed(_MIX2))
        _xor_shift(bits, shifted, 16)
        # u = (bits + 1/2)/2³¹ in (0, 1) and E = −log(1 − u). The smallest E decide the race; they
        # keep their relative precision down to 2⁻³².
        bits.bitwise_and_(0x7FFFFFFF)
        negative = bits.to(torch.float32).add_(0.5).mul_(-(2.0**-31)).clamp_(min=2.0**-24 - 1)
        return negative.log1p_().neg_()


def _xor_shift(bits: torch.Tensor, buffer: torch.Tensor, amount: int) -> None:
    # The shift is arithmetic: it repeats the sign bit, which leaves the map one to one.
    torch.bitwise_right_shift(bits, amount, out=buffer)
    bits.bitwise_xor_(buffer)
