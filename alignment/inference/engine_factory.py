"""Opens the engine that the configuration names, for one policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from transformers import AutoConfig, PreTrainedModel
from transformers import GenerationConfig as EndsOfAnswers

from alignment.config.compute import ComputeConfig
from alignment.config.generation import GenerationConfig
from alignment.config.inference import InferenceConfig
from alignment.inference.canary import Proof, score_by
from alignment.inference.engine import TransformersEngine
from alignment.inference.live import LiveEngine
from alignment.inference.live_server import AdapterWeights, FullWeights, LiveServer
from alignment.inference.served import Asked, EndpointEngine, ServedEngine, VLLMEngine
from alignment.inference.types import Engine, Sample
from alignment.inference.vllm_environment import installed
from alignment.inference.vllm_plan import plan_server
from alignment.models.adapters import is_adapter
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.digest import weights_digest
from alignment.models.export import export_policy
from alignment.models.limits import prompt_limit
from alignment.models.load import (
    context_of,
    load_policy,
    load_tokenizer,
    resolve_device,
)
from alignment.utils import distributed
from alignment.utils.progress import Progress

_SHOWN = 16  # digits of a digest


@dataclass(frozen=True)
class Opened:
    """An engine for one policy."""

    engine: Engine
    renderer: ChatRenderer
    """Renders prompts within the policy's context."""
    model: PreTrainedModel | None
    """The policy, if it is loaded in this process."""


class _Elsewhere:
    """The engine of a process for which another draws."""

    def sample(self, prompts: Sequence[Sequence[int]], *_: object) -> list[list[Sample]]:
        """No prompts, no answers."""
        assert not prompts, "the first process draws for all"
        return []


@contextmanager
def open_engine(
    model: Path,
    inference: InferenceConfig,
    compute: ComputeConfig,
    generation: GenerationConfig,
    *,
    keep: Path,
    log: Path,
    section: str | None = None,
    beside: int = 0,
    on_proof: Callable[[Proof], None] = lambda _proof: None,
) -> Iterator[Opened]:
    """The engine that `inference.engine` names, for the policy in `model`.

    A vLLM server starts at the first draw and has ended, whole, when the context is left. The first
    of several processes draws from it, or from an endpoint.

    Args:
        keep: directory of the caller that survives a kill; answers are kept there as they come.
        log: file for a server's output.
        section: that `generation` belongs to, for errors.
        beside: bytes of memory on the same device that must stay free for other models.
        on_proof: receives what a server showed before its first draw.

    Raises:
        ConfigError: answers are longer than the context, vLLM has no environment, or the policy
            does not fit.
    """
    limit = prompt_limit(context_of(model), generation, section=section)
    renderer = ChatRenderer(load_tokenizer(model), limit)
    if inference.engine == "transformers":
        policy = load_policy(model, dtype=compute.dtype, device=resolve_device(compute.device))
        yield Opened(TransformersEngine(policy, renderer), renderer, policy)
        return
    if not distributed.is_first():  # it owns the server, and draws for all
        yield Opened(_Elsewhere(), renderer, None)
        return
    full = _merged(model, keep / "merged") if is_adapter(model) else model
    context = None if limit is None else limit + generation.max_new_tokens
    asked = _asked(full, renderer, compute, context)
    engine: ServedEngine
    if inference.engine == "vllm":
        plan = plan_server(
            installed(inference.vllm),
            full,
            asked.weights,
            inference.vllm,
            compute,
            context=context,
            beside=beside,
            relief="a number for sample.temperature needs no reward models",
        )
        engine = VLLMEngine(plan, log, asked, keep / "drawn", on_proof)
    else:
        engine = EndpointEngine(str(inference.endpoint.url), asked, keep / "drawn", on_proof)
    try:
        yield Opened(engine, renderer, None)
    finally:
        engine.close()


@contextmanager
def open_live(
    model: Path,
    renderer: ChatRenderer,
    inference: InferenceConfig,
    compute: ComputeConfig,
    *,
    context: int | None,
    home: Path,
    log: Path,
    progress: Progress,
    adapter_rank: int | None = None,
    beside: int = 0,
) -> Iterator[LiveEngine]:
    """The vLLM servers of a policy in training, one for each machine; all processes call it.

    Args:
        model: full checkpoint of the policy's shape; the base, if the policy is an adapter.
        home: directory for the weights on their way, which all processes see.
        log: file for the server's output; those of further machines have a number.
        adapter_rank: of a policy that is an adapter.
        beside: bytes of each GPU that training will take beside what it holds now.
    """
    server: LiveServer | None = None
    owners = distributed.firsts_of_machines()
    if distributed.rank() in owners:
        number = owners.index(distributed.rank())
        log = log.with_stem(f"{log.stem}-{number}") if number else log
        plan = plan_server(
            installed(inference.vllm),
            model,
            "training",
            inference.vllm,
            compute,
            context=context,
            beside=beside,
            relief="more processes with compute.sharding: full hold less each",
            taken=distributed.size_here(),
        )
        asked = _asked(model, renderer, compute, context, weights="training")
        if adapter_rank is None:
            server = FullWeights(replace(plan, live=True), log, asked, progress)
        else:
            plan = replace(plan, adapter_rank=adapter_rank)
            server = AdapterWeights(plan, log, asked, progress)
    engine = LiveEngine(server, home, renderer.tokenizer, compute.dtype, log)
    try:
        yield engine
    finally:
        engine.close()


def _asked(
    model: Path,
    renderer: ChatRenderer,
    compute: ComputeConfig,
    context: int | None,
    weights: str | None = None,
) -> Asked:
    return Asked(
        model=model,
        weights=weights_digest(model)[:_SHOWN] if weights is None else weights,
        dtype=compute.dtype,
        renderer=renderer,
        ends=renderer.ends | _stops(model),
        context=context,
        score=score_by(model, compute.dtype, resolve_device(compute.device)),
    )


def _merged(adapter: Path, target: Path) -> Path:
    """The adapter merged into its base as a checkpoint in `target`, which is written once."""
    return target if target.is_dir() else export_policy(adapter, target)


def _stops(model: Path) -> frozenset[int]:
    """Ids that end an answer by the checkpoint's own settings (`inference.engine.end_ids`)."""
    if (model / "generation_config.json").is_file():
        settings = EndsOfAnswers.from_pretrained(str(model))
    else:
        settings = EndsOfAnswers.from_model_config(AutoConfig.from_pretrained(str(model)))
    stops = settings.eos_token_id
    return frozenset([stops] if isinstance(stops, int) else stops or ())
