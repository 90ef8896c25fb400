"""PPO (and RLOO) on the combined reward: the last step of RLHF-V5."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from alignment.config.generation import GenerationConfig
from alignment.config.location import Location
from alignment.config.lora import LoraConfig
from alignment.config.optimizer import OptimizerConfig
from alignment.config.section import Override, Section


class KLConfig(Section):
    """How far the policy may move from the reference, and what a nat of it costs."""

    coefficient: float = Field(default=0.02, ge=0)
    """β, the price of one nat: 0.02 in InstructGPT; 0.01 for Llama 2's 7B and 13B, 0.005 for 34B
    and 70B, whose reward is whitened (`combine.method: piecewise`) and no sum of two. With a
    `target` it is where β starts."""
    estimator: Literal["k1", "k3"] = "k1"
    """`k1`: log π − log π_ref, unbiased, may be negative. `k3`: never negative, less noise; as a
    reward it no longer sums to the exact KL."""
    target: float | None = Field(default=None, gt=0)
    """Steer β so that the KL per answer stays near this many nats (Ziegler et al. 2019; TRL: 6);
    unset leaves β where it is."""
    horizon: int = Field(default=10_000, ge=1)
    """With a `target`: episodes over which β may change by a factor of about e^0.2."""


class RewardShapingConfig(Section):
    """What happens to the combined score before it is placed on the answer's last token."""

    missing_eos_penalty: float = Field(default=1.0, ge=0)
    """An answer that was cut at the token limit scores so much less, and at most so much less than
    the batch's worst that ended; 0 is off. Ours: the paper has no such thing, TRL's is off."""
    length_penalty: float = Field(default=0.0, ge=0)
    """Taken off the score for each token of the answer."""
    normalise: Literal["none", "batch", "running"] = "none"
    """Shift and scale scores to mean 0, deviation 1: of each batch, or of all batches so far
    ("Secrets of RLHF I", 7). The reward models' own standardisation has come before."""
    score_clip: float | None = Field(default=None, gt=0)
    """Scores are cut to ± this, after normalisation; unset is off (DeepSpeed-Chat: 5)."""
    whiten: bool = False
    """Divide per-token rewards by the batch's deviation, without shifting the mean
    ("N implementation details", 18)."""


class PartConfig(Section):
    """A part of the reward that you wrote yourself."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """How curves call it."""
    function: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    """`package.module:function`, importable where `align` runs; called with the conversation (a
    list of {role, content}) and the answer's text, returns a number."""
    weight: float = 1.0
    """It is multiplied by this and added to the combined reward."""


class PtxConfig(Section):
    """PPO-ptx: a language-modelling loss on the side against forgetting (InstructGPT §3.5)."""

    coefficient: float = Field(default=0.0, ge=0)
    """γ, weight of the loss; 0 is plain PPO. InstructGPT: 27.8 on its scale."""
    source: Literal["corpus", "demonstrations"] = "demonstrations"
    """Texts it is taken on; a corpus exists in the built-in world only."""
    per_episode: float = Field(default=1.0, gt=0)
    """Texts seen for each episode; InstructGPT used 8."""


class StopConfig(Section):
    """When to end early, and which weights to keep."""

    kl_budget: float | None = Field(default=None, gt=0)
    """Stop when the mean KL per answer exceeds this many nats; unset is off."""
    kl_limit: float | None = Field(default=100.0, gt=0)
    """A mean KL per answer beyond this many nats is no policy any more but an explosion: the stage
    ends with an error and the last good checkpoint stays; unset never does."""
    look_every: int = Field(default=10, ge=0)
    """Iterations between two looks at the held-out prompts; 0 never looks."""
    heldout_prompts: int = Field(default=256, ge=1)
    """Prompts of the stop set for these looks, all if it has fewer. Preparation reserves a tenth of
    the pool, at most 512 prompts, which nothing else ever draws."""
    forgetting: float | None = Field(default=0.05, gt=0)
    """Stop, and do not keep the weights, when the loss on held-out texts is above the start's by
    more than this share: a policy that exploits the reward models loses what it knew, which no
    guard that errs like them sees. Unset looks at no texts."""
    texts: Location | None = None
    """These texts: JSON lines with `text`, that no training reads, of what the policy should go on
    knowing; 256 of them are looked at. Unset: in the built-in world some of its own, else none."""
    confirm: float = Field(default=0.0, ge=0, lt=1)
    """Share of the training reward's gain that the held-out score must confirm: looks are compared
    by held-out score − confirm × training reward on the same answers, so that a policy is new best
    only if the held-out score rose by at least this share of what the training reward rose. A guard
    that errs like the reward models rises with them for long, but ever less. 0: by the held-out
    score alone."""
    patience: int | None = Field(default=5, ge=1)
    """Stop after so many looks in a row without a new best, if they are no better on average than
    as many before them; unset never stops."""
    keep: Literal["best", "last"] = "best"
    """Weights that are saved: of the best look at held-out prompts, or of the last iteration (where
    the policy forgets, of the last look before)."""

    @model_validator(mode="after")
    def _read(self) -> StopConfig:
        if self.texts is not None and (not self.look_every or self.forgetting is None):
            lacking = "look_every above 0" if not self.look_every else "forgetting"
            raise ValueError(f"texts are looked at with {lacking}")
        return self


class PPOConfig(Section):
    """Reinforcement learning on the combined reward.

    Defaults are Llama 2's (§3.2.3) where the paper gives them, else InstructGPT's.
    """

    algorithm: Literal["ppo", "rloo"] = "ppo"
    """`ppo`: with a critic. `rloo`: several answers a prompt are each other's baseline, no critic
    (Ahmadian et al. 2024)."""
    iterations: int = Field(default=300, ge=1)
    """Rounds of rollout and update (Llama 2: 200–400, with early stopping)."""
    episodes: int = Field(default=512, ge=1)
    """Answers an iteration samples."""
    minibatch: int = Field(default=64, ge=1)
    """Episodes a gradient step sees: 512/64 are 8 steps an iteration."""
    epochs: int = Field(default=1, ge=1)
    """Passes over an iteration's episodes; the paper takes one."""
    samples_per_prompt: int = Field(default=1, ge=1)
    """Answers to the same prompt in one iteration; RLOO needs at least 2 (usual: 4)."""
    safety_share: float | None = Field(default=None, ge=0, le=1)
    """Share of prompts tagged for safety; unset leaves the mix of the prompt pool."""
    generation: Override[GenerationConfig] = GenerationConfig()
    """What differs from the top-level `generation`."""
    max_tokens_per_micro_batch: int | None = Field(default=None, ge=1)
    """Tokens (padding included) of one forward and backward pass; bounds memory, changes results
    by rounding only. Unset: 2048 on a CPU, whose caches larger pieces overflow (6144 for models
    under two million parameters, of which calls take more than that), 16384 on a GPU."""
    old_logprobs: Literal["auto", "rollout", "forward"] = "auto"
    """Where the ratio's denominator comes from: the rollout itself (free), or one more forward
    pass. `auto` takes the rollout's in float32 once the first batch shows that both agree within
    1e-5; where a small model's mini-batch is the whole batch, the pass that its first step needs
    anyway. Where a vLLM server draws, always the forward pass."""
    rollout_weight_cap: float | None = Field(default=2.0, ge=1)
    """A vLLM server rounds otherwise than the trainer, so each token that it drew counts with the
    weight π_trainer / π_server, cut at this (truncated importance sampling, Yao et al. 2025;
    2 in verl, too); unset counts all alike. Our own loop's answers have no such weights. On by
    default, for without them the gradient is that of another policy, and nothing says so."""

    learning_rate: float = Field(default=1e-6, gt=0)
    """Of the policy; constant after the warm-up. Tiny models want about 1e-4."""
    critic_learning_rate: float = Field(default=9e-6, gt=0)
    """Of the critic (InstructGPT: 9e-6)."""
    warmup_iterations: int = Field(default=10, ge=0)
    """Policy and critic each climb to their whole rate over their first so many iterations, from
    one part in `warmup_iterations` + 1 (InstructGPT: 10, from a tenth)."""
    optimizer: Override[OptimizerConfig] = OptimizerConfig()
    """What differs from the top-level `optimizer`."""

    clip_range: float = Field(default=0.2, gt=0)
    """The ratio is clipped to 1 ± this."""
    value_clip_range: float | None = Field(default=0.2, gt=0)
    """New values are clipped to old values ± this in the value loss; unset is off."""
    gamma: float = Field(default=1.0, gt=0, le=1)
    """Discount; 1 for answers."""
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    """λ of generalised advantage estimation. Of an answer of 400 tokens the first learn from the
    critic alone at 0.95, which reaches back some 100: recipes for long answers take 1."""
    whiten_advantages: bool = True
    """Advantages to mean 0 and deviation 1 over the batch."""
    entropy_coefficient: float = Field(default=0.0, ge=0)
    """Entropy bonus; not recommended ("Secrets of RLHF I", 15)."""
    critic_init: Literal["helpfulness", "safety", "policy"] = "helpfulness"
    """What the critic starts from: a reward model (InstructGPT) or the policy with a head of
    zeros."""
    critic_warmup_iterations: int = Field(default=0, ge=0)
    """First iterations in which only the critic learns ("Secrets of RLHF I", 11). It starts from
    one reward model and is to predict both: recipes for large models take 10."""
    ema: float | None = Field(default=None, gt=0, lt=1)
    """Save an exponential moving average of the policy, with this decay per iteration
    (InstructGPT: 0.992); unset saves the weights themselves."""

    reference: Literal["start", "sft"] = "start"
    """What the penalty holds the policy to: the checkpoint that PPO `start`s from, or `sft` as in
    InstructGPT. Llama 2's π_0 is "the original policy", and the paper does not say which. With
    `sft`, β bounds what all versions moved, and the KL is above 0 from the first iteration."""
    kl: KLConfig = KLConfig()
    """Penalty for leaving the reference."""
    reward: RewardShapingConfig = RewardShapingConfig()
    """Penalties, normalisation and clipping of scores."""
    parts: tuple[PartConfig, ...] = ()
    """More parts of the reward: any Python functions of conversation and answer."""
    ptx: PtxConfig = PtxConfig()
    """Language-modelling loss on the side."""
    stop: StopConfig = StopConfig()
    """Early stopping."""
    lora: LoraConfig | None = None
    """One backbone in memory: LoRA adapters for policy and critic (and for reward models that are
    adapters of the same base), the bare base as reference. Needs `critic_init: policy`. Null:
    models of their own, as in the paper."""
    checkpoint_every: int = Field(default=5, ge=1)
    """Iterations between two points from which a killed run goes on."""

    @model_validator(mode="after")
    def _possible(self) -> PPOConfig:
        if self.algorithm == "rloo" and self.samples_per_prompt < 2:
            raise ValueError("algorithm: rloo needs samples_per_prompt ≥ 2 (usual: 4)")
        if self.episodes % self.samples_per_prompt:
            raise ValueError("episodes must be a multiple of samples_per_prompt")
        if self.minibatch > self.episodes:
            raise ValueError("minibatch must not be larger than episodes")
        if self.lora is not None and self.critic_init != "policy":
            raise ValueError("lora: the critic is an adapter, set critic_init: policy")
        if self.lora is not None and self.lora.dropout:
            raise ValueError("lora.dropout: the ratio of PPO needs a policy without dropout")
        if self.algorithm == "rloo" and self.critic_warmup_iterations:
            raise ValueError("critic_warmup_iterations: rloo has no critic")
        return self
