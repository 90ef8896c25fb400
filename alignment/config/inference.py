"""Who computes answers: our own loop, a vLLM server that we start, or a server that you run."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from alignment.config.location import Location
from alignment.config.section import Section


class VLLMConfig(Section):
    """The vLLM servers that we start and stop, one for each policy."""

    python: Location | None = None
    """The Python of vLLM's own environment (it cannot be installed beside ours); unset: the one
    that `align vllm install` made."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share one copy of the model."""
    data_parallel_size: int = Field(default=1, ge=1)
    """Copies of the model, each on GPUs of its own."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of each GPU's memory that a server may take for weights and cache. It takes less where
    other models need room beside it; in PPO it goes to GPUs that no process uses, if they are
    enough, and else leaves what training is still to take."""


class EndpointConfig(Section):
    """A server that you run."""

    url: str | None = None
    """Address of an OpenAI-compatible server that serves the policy (`engine: endpoint`); its key
    is read from $ALIGN_SERVER_KEY."""


class InferenceConfig(Section):
    """Who draws answers in sampling, collection, evaluation, PPO and `align chat`."""

    engine: Literal["transformers", "vllm", "endpoint"] = "transformers"
    """`transformers`: our own loop. `vllm`: servers that we start, one for each policy. `endpoint`:
    the server at `endpoint.url`, which must serve the very policy that is asked for: each stage
    checks it before it draws."""
    vllm: VLLMConfig = VLLMConfig()
    endpoint: EndpointConfig = EndpointConfig()

    @model_validator(mode="after")
    def _served(self) -> InferenceConfig:
        if self.engine == "endpoint" and self.endpoint.url is None:
            raise ValueError("engine: endpoint needs endpoint.url")
        return self
