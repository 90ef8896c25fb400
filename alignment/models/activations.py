"""Memory of activations: one count for `align plan` and for what a server must leave free."""

from __future__ import annotations

_TINY = 2_000_000  # parameters
_LAYER = 34  # bytes a token and unit of width, in 16 bits


def activation_bytes(
    tokens: float, width: int, layers: int, *, weight: int, checkpointing: bool = False
) -> float:
    """Bytes of the activations of a forward and backward pass.

    A layer's take 34 T h bytes in 16 bits without attention scores, which fused kernels do not
    store (Korthikanti et al. 2022, arXiv 2205.05198, eq. 1); with gradient checkpointing one
    layer's, and 2 T h for every layer's input; in float32 twice as much.

    Args:
        tokens: T, of the pass.
        width: h, of the hidden states.
        weight: bytes of a number.
    """
    layer = _LAYER * weight / 2 * width * tokens
    return layer + weight * width * tokens * layers if checkpointing else layer * layers


def logit_bytes(tokens: float, vocabulary: int) -> float:
    """Bytes of logits and their gradient, in float32."""
    return 8 * tokens * vocabulary


def fused_logit_bytes(
    tokens: float, vocabulary: int, width: int, *, weight: int, device: str, learns: bool
) -> float:
    """Bytes of TRL's head in fine-tuning, which never holds all logits: of 4,096 tokens by 32,768
    words a buffer that is made whole, however few there are; on a CPU, where Triton's kernels do
    not run, seven more of what is used, in float32; and the head's gradient in float32.

    Args:
        tokens: of the pass.
        width: h, of the hidden states.
        weight: bytes of a number that is computed with.
        learns: whether the head's gradient is made beside one that is counted elsewhere.
    """
    rows, words = min(tokens, 4096), min(vocabulary, 32_768)
    copies = 7 * 4 * rows * words if device == "cpu" else 0.0
    return rows * 32_768 * weight + copies + learns * 4 * vocabulary * width


def block_bytes(parameters: float, layers: int, embedding: float) -> float:
    """Bytes that a sharded model gathers while it learns: a block and the embeddings, in float32,
    with their gradients."""
    return 8 * (parameters / max(1, layers) + embedding)


def unset_piece(device: str, parameters: float) -> int:
    """Tokens of a pass where `ppo.max_tokens_per_micro_batch` is unset, by type of device and size
    of the model."""
    if device != "cpu":
        return 16_384
    # For a tiny model fewer calls save more than activations that fit the processor's cache.
    return 6144 if parameters < _TINY else 2048
