"""The conditions of a measurement, which every line of `align bench` states."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch

from alignment.bench.clock import watching
from alignment.bench.operators import operators
from alignment.bench.phases import Recorder
from alignment.bench.sizes import find
from alignment.config.compute import FastCPU
from alignment.fastpath import choices, choosing
from alignment.models.checkpoint_files import stored_parameters
from alignment.utils.processor import processor


def under(
    fast_cpu: FastCPU,
    run: Callable[..., Mapping[str, Any]],
    *,
    model: str,
    profile: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """The figures of `run` on a model, with the conditions of the measurement.

    Args:
        model: a directory or a size (`sizes.find`).
        profile: say where the time goes too: `phases` (seconds) of this run, `operators` (shares)
            of a second one with these of the options changed, for torch's profiler slows it down.
    """
    directory = find(model)
    with choosing(fast_cpu):
        recorder = Recorder()
        if profile is None:
            figures = dict(run(model=directory, **options))
        else:
            with watching(recorder):
                figures = dict(run(model=directory, **options))
            figures["phases"] = recorder.phases()
            figures["operators"] = operators(lambda: run(model=directory, **{**options, **profile}))
        return {
            **figures,
            "model": model,
            "parameters": stored_parameters(directory),
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "fast_cpu": fast_cpu,
            "passes": choices(),
        }


def peak_rss_mb() -> float:
    """Highest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def table(figures: Mapping[str, Any]) -> str:
    """What `--profile` measured, for people."""
    seconds = sum(figures["phases"].values())
    lines = [f"{'phase':<52} {'seconds':>9} {'share':>7}"]
    for name, part in figures["phases"].items():
        lines.append(f"{name:<52} {part:9.3f} {part / seconds:7.1%}")
    lines += ["", f"{'operator':<52} {'':>9} {'share':>7}"]
    for name, share in figures["operators"].items():
        lines.append(f"{name[:52]:<52} {'':>9} {share:7.1%}")
    lines += [
        "",
        f"products: {figures['gflop']:,.1f} GFLOP at {figures['peak_gflops']:,.1f} GFLOP/s would "
        f"take {figures['of_limit']:.1%} of {figures['seconds']:.3f} s",
    ]
    return "\n".join(lines)
