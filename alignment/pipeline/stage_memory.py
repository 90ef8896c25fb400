"""Memory of each process in each stage that runs a model, by what takes it: of its GPU, or of the
machine where it computes on the CPU.

P parameters, N processes, T tokens of a micro-batch, width h, L layers, vocabulary V:

* what learns has a float32 master, its gradient and AdamW's two moments: 16 P bytes, or 16 P / N
  sharded; what is frozen 4 P, in bfloat16 2 P;
* activations take what `models.activations` says; logits and their gradient 8 T V bytes in float32,
  for the answer's tokens, in fine-tuning what TRL's head takes;
* gradients grow while activations go: where a step is one micro-batch, the larger of both counts.
  PPO's policy and critic learn one after the other, and only one of them has gradients;
* keys and values of decoding take 2 · L · kv · bytes for every token of every row.

Not counted: fragmentation and CUDA's own share, for which `hardware.HEADROOM` stays free, and the
libraries of a process (`hardware.LIBRARIES`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alignment.config.lora import LoraConfig
from alignment.config.program import ProgramConfig
from alignment.models.activations import (
    activation_bytes,
    block_bytes,
    fused_logit_bytes,
    logit_bytes,
    unset_piece,
)
from alignment.pipeline.hardware import Place
from alignment.pipeline.node import Node
from alignment.pipeline.shared_stages import beside, processes
from alignment.pipeline.work import TYPICAL_TOKENS, Size, pretrained, stage_size

_MASTER = 12  # bytes of a parameter that learns, with moments
_GRADIENT = 4
SCORED_TOKENS = 16_384
"""Of a forward pass that scores answers."""


@dataclass(frozen=True)
class Need:
    """Bytes of one process in a stage, by part."""

    parts: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def _total(need: Need) -> float:
    return need.total


def server_gpus(program: ProgramConfig) -> int:
    """GPUs of the servers that draw for PPO, one on each machine."""
    vllm = program.inference.vllm
    return program.compute.nodes * vllm.tensor_parallel_size * vllm.data_parallel_size


def need(node: Node, program: ProgramConfig, place: Place) -> Need | None:
    """What a stage takes in each of its processes; None for stages in which no model computes.

    Args:
        program: with the version's own settings, and `compute.sharding` none or full.
        place: a server of PPO takes the GPUs that its processes leave.
    """
    count = processes(node, program)
    model = _Model(program, stage_size(node, program), count, place.device)
    shape = pretrained(node, program)
    if shape is not None:
        tokens = -(-shape.batch // count) * shape.length
        work = model.activations(tokens, False) | model.logits(tokens)
        return Need(model.training(None, work, accumulates=False))
    match node.module:
        case "student" if node.version == "base":
            return None  # it is imported
        case "finetune" | "student":
            recipe = program.finetune.sft if node.version == "sft" else program.finetune.rejection
            own = -(-recipe.batch // count)
            rows = min(own, recipe.per_device_train_batch_size)
            tokens = rows * recipe.max_length
            work = model.activations(tokens, recipe.gradient_checkpointing)
            work |= model.fused_logits(tokens, learns=recipe.lora is None)
            return Need(model.training(recipe.lora, work, accumulates=own > rows))
        case "reward":
            rewards = program.rewards
            tokens = rewards.max_tokens_per_micro_batch
            work = model.activations(tokens, rewards.gradient_checkpointing)
            return Need(model.training(rewards.lora, work, accumulates=True, whole_base=True))
        case "ppo":
            learning = model.ppo(program, count)
            if program.inference.engine != "vllm":
                return Need(learning)
            server = model.served(program.inference.vllm.tensor_parallel_size)
            apart = place.count >= program.compute.processes + server_gpus(program)
            return (
                max(Need(learning), Need(server), key=_total) if apart else Need(learning | server)
            )
        case "select":
            return Need(model.reading(0, 2) | model.passing(SCORED_TOKENS))
        case "sample" | "evaluate" | "collect":
            drawn = getattr(program, node.module).generation
            searches = node.module == "sample" and program.sample.temperature == "search"
            policies = 3 if "parent_policy" in node.inputs else 1  # and SFT's, in most versions
            held = model.reading(policies, 2 if searches else 0)
            compared = Need({})
            vllm = program.inference.engine == "vllm"
            if node.module == "evaluate":
                tokens = program.evaluate.max_tokens_per_micro_batch
                read = model.reading(0, policies) | model.passing(tokens) if vllm else held
                compared = Need(read | model.compared(tokens))
            if vllm:
                drawing = Need(model.served(program.inference.vllm.tensor_parallel_size))
            else:
                rows = drawn.generation_batch_size
                drawing = Need(held | model.cache(rows, drawn.max_new_tokens))
            return max(drawing, compared, key=_total)
    return None


def need_at_once(
    node: Node, program: ProgramConfig, plan: Sequence[Node], place: Place
) -> Need | None:
    """`need` of a stage, and as further parts that of the stages of `plan` which run beside it."""
    own = need(node, program, place)
    if own is None:
        return None
    others = {
        f"{other.stage} at once": found.total
        for other in beside(node, plan, program)
        if (found := need(other, program, place)) is not None
    }
    return Need({**own.parts, **others})


class _Model:
    """A model's memory under a program's settings."""

    def __init__(self, program: ProgramConfig, size: Size, processes: int, device: str):
        compute = program.compute
        self._size = size
        self._device = device
        self._half = compute.dtype == "bfloat16"
        self._width = 2 if self._half else 4  # bytes of a weight or activation
        self._split = processes if compute.sharding == "full" else 1
        # A block and the embeddings are whole while they compute.
        gathered = block_bytes(size.parameters, size.layers, size.vocabulary * size.width)
        self._gathered = gathered if self._split > 1 else 0.0
        self._block = self._gathered / 8  # its parameters
        # Whole copies round their weights from the forward to the backward pass.
        self._rounded = 2 * size.parameters if self._half and self._split == 1 else 0.0

    def _frozen(self, copies: float) -> float:
        return copies * self._width * self._size.parameters / self._split

    def training(
        self,
        lora: LoraConfig | None,
        work: Mapping[str, float],
        *,
        accumulates: bool,
        whole_base: bool = False,
    ) -> dict[str, float]:
        """One model that learns.

        Args:
            work: activations of a micro-batch.
            accumulates: a step has several.
            whole_base: the frozen base of an adapter is in float32 whatever is computed in.
        """
        gathered = {"gathered blocks": self._gathered} if self._gathered else {}
        if lora is None:
            held = {"weights and moments": _MASTER * self._size.parameters / self._split}
            rounded = {"rounded weights": self._rounded} if self._rounded else {}
            return held | rounded | gathered | self._backward(work, accumulates=accumulates)
        adapter = (_MASTER + _GRADIENT) * self._size.adapter(lora.r) / self._split
        base = self._frozen(4 / self._width if whole_base else 1.0)
        if whole_base:
            base += self._rounded
        return {"frozen base": base, "adapter": adapter, **gathered, **work}

    def _backward(self, work: Mapping[str, float], *, accumulates: bool) -> dict[str, float]:
        """Gradients and activations, which replace one another in a step's only micro-batch."""
        gradients = {"gradients": _GRADIENT * self._size.parameters / self._split}
        if accumulates:
            return {**gradients, **work}
        return max(dict(work), gradients, key=lambda parts: sum(parts.values()))

    def activations(self, tokens: float, kept: bool) -> dict[str, float]:
        """Of a forward and backward pass, without logits."""
        size = self._size
        held = activation_bytes(
            tokens, size.width, size.layers, weight=self._width, checkpointing=kept
        )
        return {"activations": held}

    def logits(self, tokens: float) -> dict[str, float]:
        """Of so many tokens, with their gradient."""
        return {"logits": logit_bytes(tokens, self._size.vocabulary)}

    def fused_logits(self, tokens: float, *, learns: bool) -> dict[str, float]:
        """Of fine-tuning, where the head learns or not; in shards its gradient is in a gathered
        block."""
        size = self._size
        held = fused_logit_bytes(
            tokens,
            size.vocabulary,
            size.width,
            weight=self._width,
            device=self._device,
            learns=learns and self._split == 1,
        )
        return {"logits": held}

    def ppo(self, program: ProgramConfig, processes: int) -> dict[str, float]:
        """Policy, critic, reference and both reward models, and a micro-batch or a rollout."""
        ppo = program.ppo
        critic = ppo.algorithm == "ppo"
        learning = 2 if critic else 1
        parts: dict[str, float] = {}
        if ppo.lora is None:
            own = _MASTER * self._size.parameters / self._split
            parts["policy" + (" and critic" if critic else "")] = learning * (own + self._rounded)
            parts["reference"] = self._frozen(1)
        else:
            adapters = (_MASTER + _GRADIENT) * self._size.adapter(ppo.lora.r) / self._split
            parts["shared base"] = self._frozen(1)
            parts["adapters"] = learning * adapters
            # Else SFT and the policy are adapters over one base, or SFT is that base.
            if ppo.reference == "sft" and program.finetune.rejection.lora is None:
                parts["reference"] = self._frozen(1)
        shares = ppo.lora is not None and program.rewards.lora is not None
        parts["reward models"] = 0.0 if shares else self._frozen(2)
        if program.rewards.guard_share > 0 and ppo.stop.look_every:
            parts["guards"] = self._frozen(2)
        stop = ppo.stop
        texts = stop.texts is not None or program.base.source == "world"
        forgets = stop.forgetting is not None and texts  # then `keep: last` holds weights too
        best = stop.look_every > 0 and (stop.keep == "best" or forgets)
        copies = best + 2 * (ppo.ema is not None)
        if ppo.lora is None and copies:
            parts["best weights and averages"] = copies * 4 * self._size.parameters / self._split
        if self._gathered:
            parts["gathered blocks"] = self._gathered
        episode = ppo.generation.max_new_tokens + TYPICAL_TOKENS  # a micro-batch holds one at least
        unset = unset_piece(self._device, self._size.parameters)
        limit = max(ppo.max_tokens_per_micro_batch or unset, episode)
        share = -(-ppo.minibatch // processes) * episode
        tokens = min(limit, share)
        recomputes = self._split > 1  # in shards, blocks keep their inputs alone
        work = self.activations(tokens, recomputes) | self.logits(tokens)
        several = share > limit or ppo.ptx.coefficient > 0
        if ppo.lora is None:
            work = self._backward(work, accumulates=several)
        learn = sum(work.values())
        if program.inference.engine == "vllm":  # it draws, and the policy stays as it is
            return {**parts, **work}
        drawn = min(ppo.generation.generation_batch_size, ppo.episodes)
        draw = sum(self.cache(drawn, ppo.generation.max_new_tokens).values())
        if self._split > 1:
            draw += self._width * self._size.parameters  # whole in every process
        return {**parts, "a rollout": draw} if draw > learn else {**parts, **work}

    def reading(self, policies: int, rewards: int) -> dict[str, float]:
        """Frozen models: policies, which are whole in every process, and reward models or others
        that are split."""
        whole = policies * self._width * self._size.parameters
        gathered = self._width * self._block if rewards else 0.0
        return {"weights": whole + self._frozen(rewards) + gathered}

    def served(self, parallel: int) -> dict[str, float]:
        """A vLLM server's: the weights, and a fifth of them for its cache at the least."""
        return {"server": 1.2 * self._width * self._size.parameters / parallel}

    def compared(self, tokens: float) -> dict[str, float]:
        """Two policies' log-probabilities of every word at so many places, and their difference."""
        return {"log-probabilities": 20 * tokens * self._size.vocabulary}

    def passing(self, tokens: float) -> dict[str, float]:
        """Activations of a forward pass without gradients: a few layers' worth."""
        return {"activations": activation_bytes(tokens, self._size.width, 2, weight=self._width)}

    def cache(self, rows: float, new: float) -> dict[str, float]:
        """Keys and values of rows that grow to `new` tokens after a typical prompt."""
        token = 2 * self._size.layers * self._size.key_values * self._width
        return {"keys and values": token * rows * (new + TYPICAL_TOKENS)}
