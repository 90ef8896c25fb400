"""The server engine against a real HTTP server that speaks OpenAI's completions."""

from __future__ import annotations

import json
import random
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.config.compute import ComputeConfig
from alignment.config.generation import GenerationConfig
from alignment.config.sampling import SampleConfig
from alignment.errors import ConfigError, StageError
from alignment.execution.failures import kind_of
from alignment.inference.engine_factory import open_engine
from alignment.inference.types import SamplingSettings
from alignment.inference.vllm_engine import ServerEngine, short_seed
from alignment.models.chat_renderer import ChatRenderer


class _Completions(BaseHTTPRequestHandler):
    """Draws words by the request's seed."""

    models: tuple[str, ...] = ("policy",)
    plain_tokens = False
    seen: list[dict[str, Any]]
    headers_seen: list[str]

    def log_message(self, *_: Any) -> None:
        return None

    def do_GET(self) -> None:
        self._reply(200, {"data": [{"id": name} for name in self.models]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append(body)
        type(self).headers_seen.append(self.headers.get("Authorization", ""))
        if body["max_tokens"] > 1000:
            self._reply(400, {"error": "max_tokens is too large"})
            return
        draw = random.Random(f"{body['seed']}{body['prompt']}")
        length = draw.randint(1, body["max_tokens"])
        ids = [draw.randrange(5, 25) for _ in range(length)]
        stopped = length < body["max_tokens"]
        if stopped:
            ids[-1] = 1
        names = [f"word{one}" if self.plain_tokens else f"token_id:{one}" for one in ids]
        logprobs = {"tokens": names, "token_logprobs": [-0.5] * length}
        reason = "stop" if stopped else "length"
        choice = {"text": "", "finish_reason": reason, "logprobs": logprobs}
        self._reply(200, {"choices": [choice]})

    def _reply(self, status: int, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def handler() -> type[_Completions]:
    return type("Handler", (_Completions,), {"seen": [], "headers_seen": []})


@pytest.fixture
def url(handler: type[_Completions]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_samples_come_in_order_and_by_seed(
    url: str, handler: type[_Completions], renderer: ChatRenderer
) -> None:
    engine = ServerEngine(url, renderer, key="secret")
    prompts = [[5, 6], [7, 8, 9], [10]]
    seeds = [[1, 2], [3, 4], [5, 2**62 + 7]]
    settings = SamplingSettings(max_new_tokens=8, temperature=1.2, top_p=0.9, top_k=7, stop=("x",))
    found = engine.sample(prompts, seeds, settings)
    again = engine.sample(prompts[::-1], seeds[::-1], settings)
    assert found == again[::-1]
    for group in found:
        for one in group:
            assert one.finished == (one.token_ids[-1] == renderer.eos)
            assert len(one.logprobs) == len(one.token_ids)
            assert one.text == renderer.text(one.token_ids)
    body = next(body for body in handler.seen if body["prompt"] == [10] and body["seed"] != 5)
    assert body["seed"] == short_seed(2**62 + 7) == 7
    assert (body["temperature"], body["top_p"], body["top_k"]) == (1.2, 0.9, 7)
    assert (body["stop"], body["model"]) == (["x"], "policy")
    assert set(handler.headers_seen) == {"Bearer secret"}


def test_a_request_leaves_the_server_nothing_to_fill_in(
    url: str, handler: type[_Completions], renderer: ChatRenderer
) -> None:
    """vLLM takes what is missing from the model's generation_config.json."""
    ServerEngine(url, renderer).sample([[5]], [[1]], SamplingSettings(max_new_tokens=4))
    off = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    off |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert off.items() <= handler.seen[-1].items()
    assert {"temperature", "top_p", "max_tokens", "seed"} <= handler.seen[-1].keys()


def test_trouble_with_the_server_is_told(
    url: str, handler: type[_Completions], renderer: ChatRenderer
) -> None:
    engine = ServerEngine(url, renderer)
    with pytest.raises(StageError, match=r"400.*too large"):
        engine.sample([[5]], [[1]], SamplingSettings(max_new_tokens=2000))
    handler.plain_tokens = True
    with pytest.raises(StageError, match="no token ids"):
        engine.sample([[5]], [[1]], SamplingSettings(max_new_tokens=4))
    handler.models = ("a", "b")
    with pytest.raises(ConfigError, match="2 models"):
        ServerEngine(url, renderer)
    pauses: list[float] = []
    with pytest.raises(StageError, match="no answer") as caught:
        ServerEngine("http://127.0.0.1:9", renderer, pause=pauses.append)
    assert len(pauses) == 5
    assert kind_of(caught.value) == "transient"  # the stage is tried again later
    with pytest.raises(ConfigError, match="not an HTTP address"):
        ServerEngine("localhost:8000", renderer)


def test_engines_by_configuration(url: str, stage_inputs: Any) -> None:
    model = stage_inputs["policy"] / "model"
    compute = ComputeConfig(device="cpu")
    long = GenerationConfig(max_new_tokens=100)
    config = SampleConfig(engine="server", url=url, generation=long)
    engine, renderer = open_engine(model, config, compute)
    assert isinstance(engine, ServerEngine)
    assert renderer.max_prompt_tokens == 28  # of a context of 128
    with pytest.raises(ConfigError, match="no room"):
        open_engine(model, SampleConfig(generation=GenerationConfig(max_new_tokens=128)), compute)
    try:
        import vllm  # noqa: F401
    except ImportError:
        with pytest.raises(ConfigError, match="not installed"):
            open_engine(model, SampleConfig(engine="vllm", generation=long), compute)


def test_vllm_leaves_room_for_the_models_beside_it(
    stage_inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    gib = 2**30
    given: list[dict[str, Any]] = []
    fake = SimpleNamespace(LLM=lambda **options: given.append(options))
    monkeypatch.setitem(sys.modules, "vllm", fake)
    model = stage_inputs["policy"] / "model"
    config, compute = SampleConfig(engine="vllm"), ComputeConfig(device="cpu")
    short = config.model_copy(update={"generation": GenerationConfig(max_new_tokens=8)})
    open_engine(model, short, compute)
    assert "gpu_memory_utilization" not in given[-1], "this machine has no GPU"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for free, beside, share in ((80, 0, 0.9), (80, 30, 0.605), (40, 0, 0.48), (40, 30, 0.105)):
        memory = (free * gib, 80 * gib)
        monkeypatch.setattr("torch.cuda.mem_get_info", lambda memory=memory: memory)
        open_engine(model, short, compute, beside * gib)
        assert given[-1]["gpu_memory_utilization"] == pytest.approx(share, abs=1e-3)
    with pytest.raises(ConfigError, match="reward models beside it 39") as error:
        open_engine(model, short, compute, 39 * gib)
    assert error.value.remedy is not None
    assert "sample.temperature" in error.value.remedy
