"""Engines behind HTTP, against servers that speak OpenAI's completions."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from fake_vllm import LOGPROB, Completions, installed_in
from transformers import PreTrainedModel

from alignment.config.compute import ComputeConfig
from alignment.config.generation import GenerationConfig
from alignment.config.inference import InferenceConfig
from alignment.errors import ConfigError, StageError
from alignment.execution.failures import kind_of
from alignment.inference import completions
from alignment.inference.canary import TOLERANCE, Proof
from alignment.inference.completions import short_seed
from alignment.inference.engine import TransformersEngine
from alignment.inference.engine_factory import Opened, open_engine
from alignment.inference.types import Sample, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.digest import weights_digest
from alignment.models.load import load_policy
from alignment.utils.progress import SilentProgress

FEW = SamplingSettings(max_new_tokens=8)
COMPUTE = ComputeConfig(device="cpu")


class Lines(SilentProgress):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def connect(url: str, renderer: ChatRenderer, **more: Any) -> completions.Completions:
    return completions.Completions(url, renderer, renderer.ends, **more)


@pytest.fixture
def handler() -> type[Completions]:
    return type("Handler", (Completions,), {"seen": [], "headers_seen": []})


@pytest.fixture
def url(handler: type[Completions]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_an_answer_depends_on_prompt_and_seed(
    url: str, handler: type[Completions], renderer: ChatRenderer
) -> None:
    client = connect(url, renderer, key="secret")
    settings = SamplingSettings(max_new_tokens=8, temperature=1.2, top_p=0.9, top_k=7, stop=("x",))
    ends = 0
    for seed in (1, 2, 2**62 + 7):
        one = client.draw([10, 11], seed, settings)
        assert one == client.draw([10, 11], seed, settings)
        assert one.finished == (one.token_ids[-1] == renderer.eos)
        assert len(one.logprobs) == len(one.token_ids)
        assert one.text == renderer.text(one.token_ids)
        ends += one.finished
    assert ends
    body = handler.seen[-1]
    assert body["seed"] == short_seed(2**62 + 7) == 7
    assert (body["temperature"], body["top_p"], body["top_k"]) == (1.2, 0.9, 7)
    assert (body["stop"], body["model"]) == (["x"], "policy")
    assert set(handler.headers_seen) == {"Bearer secret"}


def test_a_request_leaves_the_server_nothing_to_fill_in(
    url: str, handler: type[Completions], renderer: ChatRenderer
) -> None:
    """vLLM takes what is missing from the model's generation_config.json."""
    completions.Completions(url, renderer, [1, 20]).draw([5], 1, FEW)
    off = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    off |= {"presence_penalty": 0.0, "frequency_penalty": 0.0}
    off |= {"ignore_eos": True, "stop_token_ids": [1, 20]}
    assert off.items() <= handler.seen[-1].items()
    assert {"temperature", "top_p", "max_tokens", "seed"} <= handler.seen[-1].keys()


def test_trouble_with_the_server_is_told(
    url: str,
    handler: type[Completions],
    renderer: ChatRenderer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = connect(url, renderer)
    with pytest.raises(StageError, match=r"400.*too large"):
        client.draw([5], 1, SamplingSettings(max_new_tokens=2000))
    with pytest.raises(StageError, match="404"):
        connect(url, renderer, model="another").draw([5], 1, FEW)
    handler.plain_tokens = True
    with pytest.raises(StageError, match="no token ids"):
        client.draw([5], 1, FEW)
    handler.plain_tokens = False
    give = handler.give
    monkeypatch.setattr(
        handler,
        "give",
        lambda self, ids, logprobs, stopped, prompt: give(self, ids, logprobs, stopped, prompt[1:]),
    )
    with pytest.raises(StageError, match="another prompt"):
        client.draw([5, 6], 1, FEW)
    handler.models = ("a", "b")
    with pytest.raises(ConfigError, match="2 models"):
        connect(url, renderer)
    pauses: list[float] = []
    with pytest.raises(StageError, match="no answer") as caught:
        connect("http://127.0.0.1:9", renderer, pause=pauses.append)
    assert len(pauses) == 5
    assert kind_of(caught.value) == "transient"  # the stage is tried again later
    with pytest.raises(ConfigError, match="not an HTTP address"):
        connect("localhost:8000", renderer)


# The canary, before an endpoint that computes with a model.


class Endpoint:
    """Opens the engine `endpoint` for the tests' policy, before a server of `model`."""

    def __init__(self, url: str, asked: Path, keep: Path):
        self.url, self.asked, self.keep = url, asked, keep
        self.proofs: list[Proof] = []

    def draw(self, seeds: Sequence[Sequence[int]] = ((1, 2), (3, 4))) -> list[list[Sample]]:
        inference = InferenceConfig(engine="endpoint", endpoint={"url": self.url})
        with open_engine(
            self.asked,
            inference,
            COMPUTE,
            GenerationConfig(max_new_tokens=8),
            keep=self.keep,
            log=self.keep / "log",
            on_proof=self.proofs.append,
        ) as opened:
            prompts = [
                opened.renderer.prompt([{"role": "user", "content": text}])
                for text in ("the cat", "a dog runs")
            ]
            return opened.engine.sample(prompts, seeds, FEW)


@pytest.fixture
def endpoint(url: str, stage_inputs: dict[str, Path], tmp_path: Path) -> Endpoint:
    return Endpoint(url, stage_inputs["policy"] / "model", tmp_path)


def serve_model(handler: type[Completions], model: PreTrainedModel, renderer: ChatRenderer) -> None:
    """Have a server draw from a model, as vLLM would."""

    def answer(self: Completions, body: dict[str, Any]) -> None:
        settings = SamplingSettings(
            max_new_tokens=body["max_tokens"], temperature=body["temperature"]
        )
        engine = TransformersEngine(model, renderer, ends=body["stop_token_ids"])
        with self.lock:
            ((one,),) = engine.sample([body["prompt"]], [[body["seed"]]], settings)
        self.give(one.token_ids, one.logprobs, one.finished, body["prompt"])

    handler.answer = answer  # type: ignore[method-assign]


def test_a_server_that_serves_the_policy_proves_it(
    endpoint: Endpoint, handler: type[Completions], renderer: ChatRenderer
) -> None:
    policy = load_policy(endpoint.asked)
    serve_model(handler, policy, renderer)
    drawn = endpoint.draw()
    assert [len(group) for group in drawn] == [2, 2]
    (proof,) = endpoint.proofs
    assert proof.weights == weights_digest(endpoint.asked)[:16]
    assert proof.tokens > 50
    assert proof.largest_difference < 1e-4
    assert (proof.engine, proof.tolerance) == ("endpoint", TOLERANCE["float32"])


def test_a_server_that_serves_another_model_is_refused(
    endpoint: Endpoint, handler: type[Completions], renderer: ChatRenderer
) -> None:
    """As an endpoint does from the second version on."""
    older = load_policy(endpoint.asked)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in older.parameters():
            weight.add_(torch.randn_like(weight) * 0.02 * weight.abs().mean())
    serve_model(handler, older, renderer)
    asked_for = len(handler.seen)
    with pytest.raises(StageError, match="serves another model") as caught:
        endpoint.draw()
    assert str(endpoint.asked) in (caught.value.remedy or "")
    assert endpoint.proofs == []
    assert len(handler.seen) - asked_for == 8, "nothing but the canary was drawn"
    served_wrongly = load_policy(endpoint.asked, dtype="bfloat16")
    serve_model(handler, served_wrongly, renderer)
    with pytest.raises(StageError, match="serves another model"):
        endpoint.draw()


# A server of ours.


class Home:
    """The fake vLLM, and what it wrote down."""

    def __init__(self, folder: Path, policy: Path):
        self.folder, self.policy = folder, policy
        self.python = installed_in(folder)
        self.progress = Lines()

    def rows(self, name: str) -> list[Any]:
        path = self.folder / name
        return [json.loads(row) for row in path.read_text().splitlines()] if path.exists() else []

    def pids(self) -> list[int]:
        path = self.folder / "pids"
        return [int(word) for word in path.read_text().split()] if path.exists() else []

    def alive(self) -> list[int]:
        return [pid for pid in self.pids() if psutil.pid_exists(pid)]

    def open(self) -> Any:
        return open_engine(
            self.policy,
            InferenceConfig(engine="vllm", vllm={"python": str(self.python)}),
            COMPUTE,
            GenerationConfig(max_new_tokens=8),
            keep=self.folder / "keep",
            log=self.folder / "servers" / "log",
        )

    def draw(self, opened: Opened) -> list[list[Sample]]:
        return opened.engine.sample([[5, 6], [7, 8]], [range(10), range(10)], FEW, self.progress)


@pytest.fixture
def home(
    tmp_path: Path, stage_inputs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Home]:
    def agree(*_: Any) -> Callable[..., list[list[float]]]:
        return lambda _prompts, answers: [[LOGPROB] * len(one.token_ids) for one in answers]

    monkeypatch.setattr("alignment.inference.engine_factory.score_by", agree)
    monkeypatch.setattr("alignment.inference.vllm_plan.check_head_size", lambda _size: None)
    made = Home(tmp_path, stage_inputs["policy"] / "model")
    yield made
    assert made.alive() == []


def of_the_call(home: Home) -> list[Any]:
    """The requests that were answered, without the canary's."""
    return [row for row in home.rows("answered.jsonl") if row[0] in ([5, 6], [7, 8])]


def test_a_server_is_started_and_ended(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy:1")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setenv("RANK", "3")
    with home.open() as opened:
        assert home.pids() == [], "it starts at the first draw"
        drawn = home.draw(opened)
        assert len(home.alive()) == 2
    assert home.alive() == []
    assert [len(group) for group in drawn] == [10, 10]
    assert len(of_the_call(home)) == 20
    (start,) = home.rows("started.jsonl")
    words, variables = start["words"], start["variables"]
    for option, value in {
        "serve": str(home.policy),
        "--dtype": "float32",
        "--max-model-len": "128",
        "--generation-config": "vllm",
        "--logprobs-mode": "processed_logprobs",
        "--host": "127.0.0.1",
        "--served-model-name": f"policy@{weights_digest(home.policy)[:16]}",
    }.items():
        assert words[words.index(option) + 1] == value
    assert "--enable-prefix-caching" in words
    assert "--no-enable-chunked-prefill" in words
    assert variables["VLLM_API_KEY"] not in words
    assert {"SOME_TOKEN", "RANK"}.isdisjoint(variables)
    assert "127.0.0.1" in variables["no_proxy"]
    assert variables["VLLM_NO_USAGE_STATS"] == variables["HF_HUB_OFFLINE"] == "1"
    assert any("ready" in line for line in home.progress.said)


def test_a_server_that_dies_is_started_again_for_what_was_lost(home: Home) -> None:
    (home.folder / "die_after").write_text("15")  # 8 of them the canary's
    with home.open() as opened:
        drawn = home.draw(opened)
    assert len(home.rows("started.jsonl")) == 2
    assert any("starting it again for 13 of 20" in line for line in home.progress.said)
    answered = of_the_call(home)
    assert len(answered) == 20, "none twice"
    assert sorted(map(json.dumps, answered)) == sorted(set(map(json.dumps, answered)))
    with home.open() as opened:  # the same call again asks for nothing
        assert home.draw(opened) == drawn
    assert len(home.rows("started.jsonl")) == 2


def test_what_was_drawn_is_not_drawn_again_by_the_next_process(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alignment.inference.served._STARTS", 0)  # its own end, so to say
    (home.folder / "die_after").write_text("15")
    with home.open() as opened, pytest.raises(StageError, match="the vLLM server ended"):
        home.draw(opened)
    kept = next((home.folder / "keep" / "drawn").glob("*.jsonl"))
    assert len(kept.read_text().splitlines()) == len(of_the_call(home)) == 7
    with kept.open("a") as file:
        file.write("[0, 9, [5, 6")  # it was writing when it died
    with home.open() as opened:
        home.draw(opened)
    answered = list(map(json.dumps, of_the_call(home)))
    assert len(answered) == len(set(answered)) == 20


def test_a_server_that_cannot_start_is_told_with_its_log(home: Home) -> None:
    (home.folder / "never").touch()
    with home.open() as opened, pytest.raises(StageError, match="no KV cache fits") as caught:
        home.draw(opened)
    assert "before it was ready" in caught.value.message
    assert len(home.rows("started.jsonl")) == 3, "it may have been killed, so it gets more chances"
    assert "max_prompt_tokens" in (caught.value.remedy or "")
    assert caught.value.where == str(home.folder / "servers" / "log")


OURS = """
import sys, time
from pathlib import Path
from alignment.inference.server_command import ServerPlan
from alignment.inference.server_process import ServerProcess
from alignment.utils.progress import SilentProgress

python, folder = map(Path, sys.argv[1:])
plan = ServerPlan(python, folder, "policy", "float32", 64, cache_gib=1)
ServerProcess(plan, folder / "log", SilentProgress())
print("ready", flush=True)
time.sleep(600)
"""


def test_no_process_outlives_ours(home: Home) -> None:
    ours = subprocess.Popen(
        [sys.executable, "-c", OURS, str(home.python), str(home.folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert ours.stdout is not None
    assert ours.stdout.readline() == "ready\n"
    server, engine = home.alive()
    assert psutil.Process(engine).ppid() == server
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    ours.stdout.close()
    until = time.monotonic() + 20
    while home.alive() and time.monotonic() < until:
        time.sleep(0.05)
    assert home.alive() == []


def test_engines_by_configuration(home: Home) -> None:
    def opens(match: str, **more: Any) -> None:
        given: dict[str, Any] = {"inference": {}, "generation": {"max_new_tokens": 8}, **more}
        with (
            pytest.raises(ConfigError, match=match) as caught,
            open_engine(
                home.policy,
                InferenceConfig(**given["inference"]),
                COMPUTE,
                GenerationConfig(**given["generation"]),
                keep=home.folder / "keep",
                log=home.folder / "log",
            ),
        ):
            pass
        assert caught.value.remedy

    opens("no room", generation={"max_new_tokens": 128})
    nowhere = {"engine": "vllm", "vllm": {"python": str(home.folder / "nothing")}}
    opens("there is no program", inference=nowhere)
    plain = {"engine": "vllm", "vllm": {"python": sys.executable}}
    opens("no usable vLLM", inference=plain)
    with pytest.raises(ValueError, match=r"needs endpoint\.url"):
        InferenceConfig(engine="endpoint")
