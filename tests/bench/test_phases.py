"""Where the time goes: the phases add up to it, and operators are seen in every thread."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from alignment.bench import limit, ppo, reward, sample
from alignment.bench.clock import measured, watching
from alignment.bench.conditions import under
from alignment.bench.operators import InTurn, operators
from alignment.bench.phases import Recorder, Span, divided, phase
from alignment.cli.bench import bench
from alignment.inference import engine

CPU = torch.device("cpu")


def test_time_is_divided_by_threads() -> None:
    """Two threads; by hand: 2 s nobody, 4 s two phases at once, 3 s one of them alone, then 1 s of
    a phase on both threads."""
    spans = [
        Span("backward", 2.0, 9.0, 1),
        Span("forward", 2.0, 6.0, 1),
        Span("optimiser", 9.0, 10.0, 2),
        Span("scoring", -5.0, 0.0, 2),  # before
    ]
    found = {name: part for name, part in divided(spans, 0.0, 10.0, 2).items() if part}
    assert found == {
        "other": 2.0,
        "forward": 2.0,
        "backward": 2.0 + 1.5,
        "waiting": 1.5,
        "optimiser": 1.0,
    }


def test_more_threads_than_the_machine_has_share_it() -> None:
    spans = [Span("forward", 0.0, 1.0, 2), Span("backward", 0.0, 1.0, 2)]
    found = divided(spans, 0.0, 1.0, 2)
    assert (found["forward"], found["backward"], found["waiting"]) == (0.5, 0.5, 0.0)


def test_a_phase_within_a_phase_is_the_outer_ones() -> None:
    recorder = Recorder()
    with watching(recorder), measured(CPU) as clock, phase("scoring"), phase("forward"):
        time.sleep(0.02)
    found = recorder.phases()
    assert set(found) <= {"scoring", "other"}
    assert found["scoring"] >= 0.02
    assert sum(found.values()) == pytest.approx(clock.seconds, abs=0.01)


@pytest.mark.parametrize("kind", ["reward", "sample", "ppo"])
def test_phases_add_up_to_the_measured_time(
    kind: str, stories: Path, shared: Path, fast: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limit, "_SECONDS", 1e-3)
    data = shared / "data" / "hh-rlhf" / "harmless.jsonl.gz"
    run, options, expected = {
        "reward": (
            reward.run,
            {"data": data, "pairs": 4, "batch": 2, "max_length": 128, "device": "cpu"},
            {"preparation", "forward", "backward", "optimiser"},
        ),
        "sample": (
            sample.run,
            {"prompts": 2, "k": 4, "max_new_tokens": 4, "device": "cpu"},
            {"preparation", "decoding", "scoring"},
        ),
        "ppo": (
            ppo.run,
            {"episodes": 4, "batch": 4, "new_tokens": 4, "epochs": 1, "device": "cpu"},
            {"preparation", "forward", "backward", "optimiser", "decoding", "scoring"},
        ),
    }[kind]
    line = under("auto", run, model=str(stories), profile={}, **options)
    phases = line["phases"]
    assert set(phases) - {"waiting", "other"} == expected
    assert sum(phases.values()) == pytest.approx(line["seconds"], abs=0.02)
    # What is named is most of it: a hook that no longer meets its function would show here.
    assert phases["other"] < 0.4 * line["seconds"]
    assert sum(line["operators"].values()) == pytest.approx(1.0, abs=0.01)
    assert any("mm" in name or "linear" in name for name in line["operators"])
    assert 0 < line["of_limit"] < 1
    assert (line["model"], line["parameters"], line["dtype"]) == (str(stories), 260032, "float32")
    assert line["threads"] == torch.get_num_threads()


def test_hooks_are_gone_afterwards() -> None:
    before = (engine.decode, torch.autograd.backward, engine.ThreadPoolExecutor)
    with watching(Recorder()), measured(CPU):
        assert engine.decode is not before[0]
    with pytest.raises(ZeroDivisionError):
        operators(lambda: 1 / 0)
    assert (engine.decode, torch.autograd.backward, engine.ThreadPoolExecutor) == before


def test_operators_of_workers_are_seen() -> None:
    def run() -> None:
        with measured(CPU), engine.ThreadPoolExecutor(2) as pool:
            pool.submit(torch.mm, torch.ones(200, 200), torch.ones(200, 200)).result()

    assert "mm" in operators(run)
    assert engine.ThreadPoolExecutor is ThreadPoolExecutor
    with pytest.raises(ZeroDivisionError):
        InTurn().submit(lambda: 1 / 0).result()


def test_one_line_on_stdout_and_a_table_on_stderr(
    stories: Path, fast: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", "--model", str(stories), "--prompts", "2", "--k", "2"]
    bench([*words, "--max-new-tokens", "4", "--profile"], result_action="return_value")
    told = capsys.readouterr()
    assert len(told.out.splitlines()) == 1
    line = json.loads(told.out)
    assert f"{line['phases']['decoding']:.3f}" in told.err
    assert next(iter(line["operators"])) in told.err
