"""The engine of a stage that draws answers, and what its server showed, among the outputs.

`engine.json` holds, for each policy that a server answered for, the digest of its weights and how
far the server's log-probabilities were from the checkpoint's; the metrics hold the largest
difference. Our own loop writes neither.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignment.config.generation import GenerationConfig
from alignment.inference.engine_factory import Opened, open_engine
from alignment.stages.context import StageContext
from alignment.utils.files import atomic_write_json, read_json

ENGINE = "engine.json"
_PROOF = "proof.json"
LOGS = "servers"  # in the workspace: the scratch directory goes with the stage


@contextmanager
def policy_engine(
    ctx: StageContext,
    policy: str,
    model: Path,
    generation: GenerationConfig,
    *,
    section: str | None = None,
    beside: int = 0,
) -> Iterator[Opened]:
    """The configured engine for the policy in `model`; see `open_engine`.

    Args:
        policy: names it within the stage.
    """
    keep = ctx.scratch / f"engine-{policy}"
    name = "-".join((ctx.version, ctx.stage, policy))
    with open_engine(
        model,
        ctx.config.inference,
        ctx.config.compute,
        generation,
        keep=keep,
        log=ctx.workspace / LOGS / f"{name}.log",
        section=section,
        beside=beside,
        on_proof=lambda proof: atomic_write_json(keep / _PROOF, proof.record()),
    ) as opened:
        yield opened


def write_proofs(ctx: StageContext) -> None:
    """Write what servers showed to this stage, in this process or in one that was killed."""
    paths = sorted(ctx.scratch.glob(f"engine-*/{_PROOF}"))
    proofs = {path.parent.name.removeprefix("engine-"): read_json(path) for path in paths}
    if proofs:
        atomic_write_json(ctx.out / ENGINE, proofs)
        ctx.metric(
            engine_difference=max(proof["mean_difference"] for proof in proofs.values()),
            engine_tolerance=max(proof["tolerance"] for proof in proofs.values()),
        )
