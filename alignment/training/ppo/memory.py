"""What training takes of a GPU beside the models that are loaded, so that a server leaves it free.

`align plan --hardware` counts the same (`pipeline.stage_memory`), but gradients of one role at a
time, and those or the activations where a step is one micro-batch.
"""

from __future__ import annotations

import torch

from alignment.config.ppo import PPOConfig
from alignment.models.activations import activation_bytes, block_bytes, logit_bytes
from alignment.models.sharding import compute_format, is_sharded
from alignment.training.ppo.forward import piece_of
from alignment.training.ppo.roles import Roles
from alignment.utils import distributed

_GRADIENT_AND_MOMENTS = 12  # bytes of a parameter that learns
_SPARE = 0.08  # of a GPU, for fragmentation


def to_come(roles: Roles, config: PPOConfig, longest: int) -> int:
    """Bytes that a process will take: gradients and AdamW's moments of what learns, copies of the
    policy (best weights and averages), blocks that shards gather, a micro-batch's activations.

    Args:
        longest: tokens of the longest episode; a micro-batch holds one at least.
    """
    policy = roles.policy
    shape = policy.model.config.get_text_config()
    width, layers, words = shape.hidden_size, shape.num_hidden_layers, shape.vocab_size
    own = sum(distributed.local(p).numel() for p in policy.parameters)
    critics = [] if roles.critic is None else roles.critic.parameters
    learning = own + sum(distributed.local(p).numel() for p in critics)
    best = config.stop.keep == "best" and config.stop.look_every > 0
    copies = best + 2 * (config.ema is not None)
    gathered = block_bytes(policy.size, layers, words * width) if is_sharded(policy.model) else 0
    tokens = min(max(piece_of(config, policy), longest), config.minibatch * longest)
    weight = compute_format(policy.model).itemsize
    kept = is_sharded(policy.model)  # see `Builder`
    activations = activation_bytes(tokens, width, layers, weight=weight, checkpointing=kept)
    return round(
        _GRADIENT_AND_MOMENTS * learning
        + 4 * copies * own
        + gathered
        + activations
        + logit_bytes(tokens, words)
    )


def beside_server(roles: Roles, config: PPOConfig, longest: int) -> int:
    """Bytes of each GPU that a server must leave free; 0 on a CPU."""
    device = roles.policy.device
    if device.type != "cuda":
        return 0
    total = torch.cuda.get_device_properties(device).total_memory
    return to_come(roles, config, longest) + round(_SPARE * total)
