"""A program whose stages take no time: real runner, real ledger, invented results."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from alignment.config.load import check_program
from alignment.config.program import ProgramConfig
from alignment.config.vocabulary import DOMAINS
from alignment.evaluation.bound_checks import CLEAN
from alignment.execution.runner import Runner
from alignment.pipeline.slices import stage_declaration
from alignment.preferences.prompts import Prompt, write_prompts
from alignment.utils.files import sha256_file

WEIGHTS = {"pretrain": 1, "import_base": 1, "finetune": 1, "ppo": 1, "reward": 1}


def fake_program(workspace: Path, versions: int = 2, **values: Any) -> ProgramConfig:
    """A small program on the built-in world."""
    named: list[dict[str, Any]] = [{"name": f"rlhf-v{n}"} for n in range(1, versions + 1)]
    named[-1]["ppo"] = True
    return check_program({"name": "fake", "workspace": str(workspace), "versions": named, **values})


class FakeStages:
    """Stands in for the modules of `alignment.stages`.

    Attributes:
        before: called with the context before a stage writes; may raise.
        ran: keys of the stages that ran, in order.
    """

    def __init__(self) -> None:
        self.before: Callable[[Any], None] = lambda _context: None
        self.ran: list[str] = []

    def import_module(self, name: str) -> Any:
        """What the runner calls in place of `importlib.import_module`."""
        module = name.rpartition(".")[2]
        declared = stage_declaration(module)
        return SimpleNamespace(
            CODE_VERSION=declared.code_version,
            READS=declared.reads,
            run=lambda context: self._run(module, context),
        )

    def _run(self, module: str, context: Any) -> None:
        self.before(context)
        self.ran.append(f"{context.version}/{context.stage}")
        lineage = [sha256_file(path / "result.txt") for path in context.inputs.values()]
        text = json.dumps([context.version, context.stage, sorted(lineage)])
        (context.out / "result.txt").write_text(text)
        if module in WEIGHTS:
            (context.out / "model").mkdir(exist_ok=True)
            (context.out / "model" / "model.safetensors").write_text(text)
            for step in range(1, 6):
                context.series.log(step * 10, loss=1.0 / step, accuracy=0.5 + step / 20)
            context.dataset(
                f"{context.version}-data", sha256_file(context.out / "result.txt"), 7, "training"
            )
        if module == "prepare":
            prompts = [
                Prompt(messages=[{"role": "user", "content": domain}], domain=domain)
                for domain in DOMAINS
            ]
            write_prompts(context.out / "prompts.jsonl", prompts)
        number = int(context.version[-1]) if context.version.startswith("rlhf") else 0
        if module == "intake":
            counts = {"training": {"safety": 3, "helpfulness": 4}, "heldout": {"safety": 1}}
            batch = {"id": f"batch{number}", "digest": "0" * 64, "counts": counts}
            values = {"version": context.version, "batches": [batch]}
            (context.out / "batch.json").write_text(json.dumps(values))
        if module in ("sample", "collect"):
            context.metric(tokens_generated=1000 * number + 7)
        if module == "reward":
            context.metric(tokens_trained=500.0)
            context.metric(accuracy=0.6 + number / 100, accuracy_low=0.5, accuracy_high=0.7)
            points = [  # every model so far, on this one's test set
                {"version": f"rlhf-v{n}", "all": {"accuracy": 0.5 + n / 10 - number / 100}}
                for n in range(1, number + 1)
            ]
            growth = {"growth": {"points": points}}
            (context.out / "evaluation.json").write_text(json.dumps(growth))
        if module == "evaluate":
            context.metric(
                win_helpfulness=0.5 + number / 10,
                win_helpfulness_low=0.4 + number / 10,
                win_helpfulness_high=0.6 + number / 10,
                win_safety=0.5 + number / 12,
                kl_sft=2.0 * number,
                false_refusal=0.01,
                length=12.5,
                undefined=float("nan"),
                **{"category/rhyme": 0.3},
            )
        if module == "promote":
            promoted = number != 2
            decision = {
                "version": context.version,
                "promoted": promoted,
                "champion": context.version if promoted else "rlhf-v1",
                "verdict": f"{context.version} {'is' if promoted else 'is not'} promoted.",
                "checks": [{"name": CLEAN, "ok": True, "said": "no degenerate answers"}],
            }
            (context.out / "decision.json").write_text(json.dumps(decision))


def run_all(program: ProgramConfig, observers: Any = ()) -> None:
    """Every stage, in plain Python."""
    with Runner(program, observers=observers) as runner:
        for node in runner.plan:
            runner.run_node(node)
