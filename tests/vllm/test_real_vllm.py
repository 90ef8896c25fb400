"""The engine over a real vLLM: its numbers beside our own loop's, its deaths, a wrong model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from alignment.config.compute import ComputeConfig
from alignment.config.generation import GenerationConfig
from alignment.config.inference import InferenceConfig
from alignment.errors import StageError
from alignment.inference.canary import Proof, score_by
from alignment.inference.engine import sample_seeds
from alignment.inference.engine_factory import Opened, open_engine
from alignment.inference.server_process import ServerProcess
from alignment.inference.types import Sample, SamplingSettings
from alignment.inference.vllm_environment import installed
from alignment.inference.vllm_plan import plan_server
from alignment.models.chat_renderer import ChatRenderer
from alignment.models.digest import weights_digest
from alignment.models.load import resolve_device
from alignment.utils.progress import SilentProgress

pytestmark = pytest.mark.timeout(1800)

COMPUTE = ComputeConfig(threads=1)
GENERATION = GenerationConfig(max_new_tokens=64)
ASKED = ("the cat runs", "what is red and small", "a big dog sleeps and no tree", "you")
CLOSE = 1e-4  # nats a token in float32


class Printed(SilentProgress):
    """Shows what the engine says, and counts."""

    def __init__(self, at: int | None = None, do: Callable[[], None] = lambda: None):
        self.done, self._at, self._do = 0, at, do

    def advance(self, amount: int = 1, **figures: float) -> None:
        self.done += amount
        if self._at is not None and self.done >= self._at:
            self._at = None
            self._do()

    def say(self, message: str) -> None:
        print(message)


def prompts_of(renderer: ChatRenderer, times: int = 1) -> list[list[int]]:
    asked = [f"{text} {'the ' * number}" for number in range(times) for text in ASKED]
    return [renderer.prompt([{"role": "user", "content": text}]) for text in asked]


def worst(
    model: Path, prompts: Sequence[Sequence[int]], answers: Sequence[Sample], temperature: float
) -> float:
    """Largest difference between an engine's log-probabilities and the checkpoint's."""
    score = score_by(model, COMPUTE.dtype, resolve_device(COMPUTE.device), temperature)
    return max(
        abs(ours - theirs)
        for row, answer in zip(score(prompts, answers), answers, strict=True)
        for ours, theirs in zip(row, answer.logprobs, strict=True)
    )


def opens(
    model: Path, inference: InferenceConfig, folder: Path, proofs: list[Proof] | None = None
) -> Any:
    return open_engine(
        model,
        inference,
        COMPUTE,
        GENERATION,
        keep=folder / "keep",
        log=folder / "log",
        on_proof=[].append if proofs is None else proofs.append,
    )


@pytest.fixture(scope="module")
def proofs() -> list[Proof]:
    return []


@pytest.fixture(scope="module")
def served(
    inference: InferenceConfig,
    make_policy: Callable[[int], Path],
    tmp_path_factory: pytest.TempPathFactory,
    proofs: list[Proof],
) -> Iterator[Opened]:
    """The engine for policy 1; its server starts once."""
    with opens(make_policy(1), inference, tmp_path_factory.mktemp("served"), proofs) as opened:
        yield opened


@pytest.fixture
def ours(make_policy: Callable[[int], Path], tmp_path: Path) -> Iterator[Opened]:
    with opens(make_policy(1), InferenceConfig(), tmp_path) as opened:
        yield opened


def test_greedy_answers_are_those_of_our_own_loop(served: Opened, ours: Opened) -> None:
    prompts = prompts_of(ours.renderer)
    settings = SamplingSettings(max_new_tokens=64, temperature=0.0)
    theirs = served.engine.sample(prompts, [[1]] * len(prompts), settings, Printed())
    mine = ours.engine.sample(prompts, [[1]] * len(prompts), settings)
    for (one,), (other,) in zip(theirs, mine, strict=True):
        assert one.token_ids == other.token_ids
        assert (one.finished, one.text) == (other.finished, other.text)
        assert one.logprobs == pytest.approx(other.logprobs, abs=CLOSE)


def test_log_probabilities_are_those_of_the_temperature(
    served: Opened, make_policy: Callable[[int], Path], proofs: list[Proof]
) -> None:
    prompts = prompts_of(served.renderer)
    seeds = sample_seeds(0, [str(number) for number in range(len(prompts))], 4)
    for temperature in (1.0, 0.7):
        settings = SamplingSettings(max_new_tokens=64, temperature=temperature)
        drawn = served.engine.sample(prompts, seeds, settings, Printed())
        flat = [(prompt, one) for prompt, row in zip(prompts, drawn, strict=True) for one in row]
        found = worst(make_policy(1), [p for p, _ in flat], [one for _, one in flat], temperature)
        print(f"temperature {temperature}: largest difference {found:.2g}")
        assert found < CLOSE
        assert any(one.finished for _, one in flat)
        assert len({one.text for _, one in flat}) > len(flat) // 2
        again = served.engine.sample(prompts, seeds, replace(settings, batch_size=7), Printed())
        same = [
            a.token_ids == b.token_ids
            for x, y in zip(drawn, again, strict=True)
            for a, b in zip(x, y, strict=True)
        ]
        print(f"the same seeds again: {sum(same)} of {len(same)} answers are equal")
        assert sum(same) > 0.9 * len(same)
    (proof,) = proofs
    assert proof.weights == weights_digest(make_policy(1))[:16]
    assert proof.mean_difference < CLOSE


def test_an_answer_ends_as_in_our_own_loop(served: Opened, ours: Opened) -> None:
    prompts = prompts_of(ours.renderer, times=3)
    settings = SamplingSettings(max_new_tokens=64, temperature=0.0, stop=("dog", "big"))
    theirs = served.engine.sample(prompts, [[1]] * len(prompts), settings, Printed())
    mine = ours.engine.sample(prompts, [[1]] * len(prompts), settings)
    for (one,), (other,) in zip(theirs, mine, strict=True):
        assert (one.finished, one.text) == (other.finished, other.text)
    assert any(one.finished for (one,) in theirs)


def test_an_engine_that_is_killed_is_started_again(served: Opened) -> None:
    def kill() -> None:
        engine = next(
            process
            for process in psutil.Process().children(recursive=True)
            if "EngineCore" in " ".join([process.name(), *process.cmdline()])
        )
        engine.kill()

    prompts = prompts_of(served.renderer, times=8)
    seeds = sample_seeds(1, [str(number) for number in range(len(prompts))], 16)
    settings = SamplingSettings(max_new_tokens=64)
    progress = Printed(at=100, do=kill)
    drawn = served.engine.sample(prompts, seeds, settings, progress)
    assert [len(row) for row in drawn] == [16] * len(prompts)
    assert progress.done == 16 * len(prompts), "none twice"


def test_another_model_is_refused(
    inference: InferenceConfig,
    make_policy: Callable[[int], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An endpoint that serves policy 1 answers for it, and not for policy 2."""
    one, two = make_policy(1), make_policy(2)
    plan = plan_server(installed(inference.vllm), one, "x", inference.vllm, COMPUTE, context=256)
    server = ServerProcess(plan, tmp_path / "log", Printed())
    try:
        monkeypatch.setenv("ALIGN_SERVER_KEY", server.key)
        endpoint = InferenceConfig(engine="endpoint", endpoint={"url": server.url})
        few = SamplingSettings(max_new_tokens=8)
        with opens(one, endpoint, tmp_path / "1") as opened:
            prompts = prompts_of(opened.renderer)
            opened.engine.sample(prompts, [[1]] * len(prompts), few)
        with (
            opens(two, endpoint, tmp_path / "2") as opened,
            pytest.raises(StageError, match="serves another model") as caught,
        ):
            opened.engine.sample(prompts, [[1]] * len(prompts), few)
        print(caught.value)
    finally:
        server.stop()
    assert not server.running


OURS = """
import sys, time
from pathlib import Path
from alignment.config.compute import ComputeConfig
from alignment.config.inference import VLLMConfig
from alignment.inference.server_process import ServerProcess
from alignment.inference.vllm_environment import installed
from alignment.inference.vllm_plan import plan_server
from alignment.utils.progress import SilentProgress

python, model, log = map(Path, sys.argv[1:])
config = VLLMConfig(python=str(python))
plan = plan_server(installed(config), model, "x", config, ComputeConfig(threads=1), context=256)
ServerProcess(plan, log, SilentProgress())
print("ready", flush=True)
time.sleep(600)
"""


def test_no_process_outlives_ours(
    inference: InferenceConfig, make_policy: Callable[[int], Path], tmp_path: Path
) -> None:
    python = str(installed(inference.vllm).python)
    words = [sys.executable, "-c", OURS, python, str(make_policy(1)), str(tmp_path / "log")]
    ours = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert ours.stdout is not None
    assert ours.stdout.readline() == "ready\n", (tmp_path / "log").read_text()
    started = psutil.Process(ours.pid).children(recursive=True)
    print([process.name() for process in started])
    assert len(started) > 3
    os.kill(ours.pid, signal.SIGKILL)
    ours.wait()
    ours.stdout.close()
    _, alive = psutil.wait_procs(started, timeout=30)
    assert alive == []
