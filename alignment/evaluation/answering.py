"""Samples one answer to each evaluation prompt, and many to a few of them; a killed run resumes
where it stopped. Several processes share the work."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from alignment.config.evaluate import EvaluateConfig
from alignment.evaluation.divergence import measure
from alignment.evaluation.diversity import SAMPLES, diversity_figures, number_of_prompts
from alignment.evaluation.responses import side_name, subject_numbers
from alignment.evaluation.standings import bounded
from alignment.evaluation.winrate import LEVEL
from alignment.inference.engine import sample_seeds
from alignment.inference.engine_factory import Opened
from alignment.inference.types import Engine, Sample, SamplingSettings
from alignment.models.chat_renderer import Tokens
from alignment.models.load import Dtype, load_policy
from alignment.models.sharded_load import load_sharded
from alignment.preferences.prompts import Prompt
from alignment.utils import distributed, graceful_stop
from alignment.utils.files import atomic_write_json, read_json
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed
from alignment.utils.statistics import bootstrap_mean


@dataclass(frozen=True)
class Arm:
    """A policy to evaluate and the policies its distance is measured from."""

    version: str
    name: str
    policy: Path
    references: Mapping[str, Path]
    """`sft`, `parent` → model directory."""


@dataclass(frozen=True)
class ArmAnswers:
    """The answers of an arm and its distances from its references."""

    table: pd.DataFrame
    figures: dict[str, float]
    tokens: int
    """Tokens drawn, those of the samples behind `self_bleu_per_prompt` included."""


def choose_prompts(prompts: Sequence[Prompt], per_domain: int | None) -> list[Prompt]:
    """At most `per_domain` prompts of each domain, those with the lowest ids.

    Ids are digests, so the choice is random, the same for every version, and a larger number keeps
    the smaller choice.
    """
    if per_domain is None:
        return sorted(prompts, key=lambda prompt: prompt.id)
    chosen: list[Prompt] = []
    for domain in sorted({prompt.domain for prompt in prompts}):
        of_domain = [prompt for prompt in prompts if prompt.domain == domain]
        chosen += sorted(of_domain, key=lambda prompt: prompt.id)[:per_domain]
    return sorted(chosen, key=lambda prompt: prompt.id)


def prompts_digest(prompts: Sequence[Prompt]) -> str:
    """sha256 over the ids of the prompts, in order."""
    return hashlib.sha256("\n".join(prompt.id for prompt in prompts).encode()).hexdigest()


def answer(
    arm: Arm,
    prompts: Sequence[Prompt],
    subjects: Mapping[str, str],
    config: EvaluateConfig,
    open_policy: Callable[[], AbstractContextManager[Opened]],
    *,
    seed: int,
    dtype: Dtype,
    device: torch.device,
    sharded: bool = False,
    scratch: Path,
    progress: Progress,
) -> ArmAnswers:
    """Answer every prompt once and measure the distances; answer a few prompts many times and
    measure how the answers repeat each other, unless the likeliest tokens are taken.

    An answer depends on the seed and its prompt's id alone, so all arms of a version sample with
    the same random numbers.

    Args:
        subjects: prompt id → subject; prompts of one subject are not independent.
        open_policy: opens the engine of the arm's policy.
        seed: of the version.
        dtype, device: precision and device of all models.
        sharded: split them over all processes, if a server draws.
        scratch: answers are saved here every `config.checkpoint_every` prompts.

    Raises:
        ConfigError: `max_new_tokens` leaves no room for a prompt in the model's context.
    """
    label = side_name(arm.version, arm.name)
    seeds = [[derive_seed(seed, prompt.id)] for prompt in prompts]
    few = prompts_of_diversity(prompts) if config.generation.temperature > 0 else []
    with open_policy() as opened:
        renderer = opened.renderer
        rendered = [renderer.prompt(prompt.messages) for prompt in prompts]
        progress.begin(f"answers of {label}", total=len(prompts), unit="prompts")
        served = opened.model is None
        drawing = _Drawing(opened.engine, served, config, scratch, progress)
        answers = [reply for (reply,) in drawing.all(f"drawn-{arm.name}", rendered, seeds)]
        if few:
            progress.begin(f"diversity of {label}", total=len(few), unit="prompts")
        samples = drawing.all(
            f"diversity-{arm.name}",
            [renderer.prompt(prompt.messages) for prompt in few],
            sample_seeds(derive_seed(seed, "diversity"), [prompt.id for prompt in few], SAMPLES),
        )
    distributed.meet()  # a server has left the device by now
    split = sharded and opened.model is None  # what drew in this process is whole
    load = partial(_load, dtype=dtype, device=device, sharded=split)
    model = opened.model or load(arm.policy)
    table = pd.DataFrame(
        {
            "side": label,
            "version": arm.version,
            "arm": arm.name,
            "prompt_id": [prompt.id for prompt in prompts],
            "domain": [prompt.domain for prompt in prompts],
            "category": [prompt.category for prompt in prompts],
            "borderline": [prompt.borderline for prompt in prompts],
            "subject": [subjects[prompt.id] for prompt in prompts],
            "text": [reply["text"] for reply in answers],
            "n_tokens": [len(reply["token_ids"]) for reply in answers],
            "finished": [reply["finished"] for reply in answers],
        }
    )
    items = [
        Tokens(prompt, reply["token_ids"]) for prompt, reply in zip(rendered, answers, strict=True)
    ]
    figures = _distances(arm, model, load, items, table, renderer.pad, config, seed, progress)
    tokens = int(table.n_tokens.sum())
    if few:
        tokens += sum(len(reply["token_ids"]) for replies in samples for reply in replies)
        figures |= diversity_figures(
            [[reply["text"] for reply in replies] for replies in samples],
            [subjects[prompt.id] for prompt in few],
            seed=derive_seed(seed, "bootstrap", "diversity"),
            resamplings=config.bootstrap_samples,
            level=LEVEL,
        )
    return ArmAnswers(table, figures, tokens)


def prompts_of_diversity(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that are answered many times: of all domains alike, those with the lowest ids."""
    wanted = number_of_prompts(len(prompts))
    ranked = sorted(prompts, key=lambda prompt: prompt.id)
    rank: Counter[str] = Counter()
    order = []
    for prompt in ranked:
        order.append((rank[prompt.domain], prompt.id, prompt))
        rank[prompt.domain] += 1
    return [prompt for _, _, prompt in sorted(order, key=lambda entry: entry[:2])[:wanted]]


@dataclass(frozen=True)
class _Saying(SilentProgress):
    """Passes on what an engine says; prompts are counted here."""

    progress: Progress

    def say(self, message: str) -> None:
        self.progress.say(message)


@dataclass(frozen=True)
class _Drawing:
    """Draws answers and saves them every `config.checkpoint_every` answers."""

    engine: Engine
    served: bool
    """By a server, which the first process owns."""
    config: EvaluateConfig
    scratch: Path
    progress: Progress

    def all(
        self, name: str, prompts: Sequence[list[int]], seeds: Sequence[Sequence[int]]
    ) -> list[list[dict[str, Any]]]:
        """Prompt by prompt an answer for each of its seeds; all prompts have equally many."""
        settings = SamplingSettings.of(self.config.generation)
        step = max(1, self.config.checkpoint_every // max(map(len, seeds), default=1))
        starts = range(0, len(prompts), step)
        shards = {start: self.scratch / f"{name}-{start:06d}.json" for start in starts}
        claimed = distributed.claim(
            starts, lambda start: shards[start].exists(), by_first=self.served
        )
        for start in claimed:
            part = slice(start, start + step)
            saying = _Saying(self.progress)
            drawn = self.engine.sample(prompts[part], seeds[part], settings, saying)
            atomic_write_json(shards[start], [list(map(_reply, samples)) for samples in drawn])
            graceful_stop.stop_if_requested()
            self.progress.advance(len(prompts[part]))
        distributed.meet()  # a server may draw on the GPUs of those that wait
        answers: list[list[dict[str, Any]]] = []
        for start, shard in shards.items():
            answers += read_json(shard)
            if start not in claimed:
                self.progress.advance(len(prompts[start : start + step]))
        return answers


def _load(path: Path, *, dtype: Dtype, device: torch.device, sharded: bool) -> PreTrainedModel:
    if sharded:
        return load_sharded(path, "policy", dtype=dtype, learns=False, device=device)
    return load_policy(path, dtype=dtype, device=device)


def _reply(sample: Sample) -> dict[str, Any]:
    return {"token_ids": sample.token_ids, "finished": sample.finished, "text": sample.text}


def _distances(
    arm: Arm,
    model: PreTrainedModel,
    load: Callable[[Path], PreTrainedModel],
    items: list[Tokens],
    table: pd.DataFrame,
    pad: int,
    config: EvaluateConfig,
    seed: int,
    progress: Progress,
) -> dict[str, float]:
    """KL figures; adds `logprob` and `entropy` to the table.

    The distance from a reference that is the policy itself is 0. A directory with two names is
    measured once.
    """
    models = {
        str(path): load(path)
        for path in dict.fromkeys(arm.references.values())
        if path != arm.policy
    }
    measured = measure(
        model,
        models,
        items,
        pad=pad,
        temperature=config.generation.temperature,
        batch_tokens=config.max_tokens_per_micro_batch,
        progress=progress,
    )
    table["logprob"], table["entropy"] = measured.logprob, measured.entropy
    figures = {"entropy": float(measured.entropy.mean())}
    for name, path in arm.references.items():
        zero = np.zeros(len(items))
        distance = measured.references.get(str(path))
        exact, k1, k3 = (distance.exact, distance.k1, distance.k3) if distance else (zero,) * 3
        interval = bootstrap_mean(
            exact,
            seed=derive_seed(seed, "bootstrap", "kl"),
            samples=config.bootstrap_samples,
            level=LEVEL,
            clusters=subject_numbers(table),
        )
        figures |= bounded(f"kl_{name}", interval)
        figures |= {f"kl_{name}_k1": float(k1.mean()), f"kl_{name}_k3": float(k3.mean())}
    return figures
