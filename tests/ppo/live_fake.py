"""A vLLM server in this process, which draws from the weights that it was told to load last."""

from __future__ import annotations

import threading
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

from fake_vllm import Live
from peft import PeftModel
from toys import renderer
from transformers import LlamaForCausalLM

from alignment.inference.engine import TransformersEngine
from alignment.inference.server_command import ServerPlan
from alignment.inference.types import SamplingSettings


class Updated(Live):
    """Draws from a model."""

    base: Path
    model: Any
    stale = False
    """Says that it loads new weights, and does not."""

    def load(self, path: str) -> None:
        if not self.stale:
            type(self).model = LlamaForCausalLM.from_pretrained(path)

    def load_adapter(self, path: str) -> None:
        base = LlamaForCausalLM.from_pretrained(self.base)
        type(self).model = PeftModel.from_pretrained(base, path).merge_and_unload()

    def answer(self, body: dict[str, Any]) -> None:
        assert body["model"] == self.models[-1], "the newest adapter, or the only model"
        engine = TransformersEngine(self.model, renderer(), ends=body["stop_token_ids"])
        settings = SamplingSettings(
            max_new_tokens=body["max_tokens"], temperature=body["temperature"], exact=False
        )
        with self.lock:
            ((one,),) = engine.sample([body["prompt"]], [[body["seed"]]], settings)
        self.give(one.token_ids, one.logprobs, one.finished, body["prompt"])


class InThisProcess:
    """Stands for `ServerProcess`."""

    running = True
    key = "secret"
    handler: type[Updated]

    def __init__(self, plan: ServerPlan, log: Path, progress: Any):
        assert plan.live == (plan.adapter_rank is None)
        made = {"seen": [], "headers_seen": [], "calls": [], "adapters": {}, "base": plan.model}
        made |= {"model": LlamaForCausalLM.from_pretrained(plan.model), "models": (plan.name,)}
        type(self).handler = type("H", (Updated,), {**made, "key": self.key})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def healthy(self) -> bool:
        return True

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
