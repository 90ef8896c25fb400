"""Speed by size of model, with the hand-written CPU passes and without, beside the usual ways.

    python tests/benchmarks/fast_cpu.py [--sizes 260k 25m 135m] [--rounds 3] [--trl-python PYTHON]

Models are random Llamas made on the spot, with the tokenizer of the small real model. For each
size: reward training beside TRL's RewardTrainer, best-of-16 with two reward models beside
`generate` and two classifiers, and PPO beside TRL 1.12's, the last one, if `--trl-python` names an
interpreter that has it (see ppo_vs_trl.py). Every run has a process of its own; in every round all
sides take turns. Which passes pay is tried before the first round: a machine does so once. The work
is in proportion to the model, so that a round takes about ten minutes on two idle cores. Prints
each JSON line as it comes, then a table of medians in Markdown; ratios are to the usual way, for
PPO without TRL 1.12 to the plain one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from last_json import last_json

HERE = Path(__file__).resolve().parent
SHAPES: dict[str, dict[str, int]] = {
    "260k": {
        "hidden_size": 64,
        "intermediate_size": 172,
        "num_hidden_layers": 5,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 512,
    },
    "25m": {
        "hidden_size": 512,
        "intermediate_size": 1376,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "vocab_size": 4096,
    },
    # SmolLM's.
    "135m": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
}
WORK: dict[str, dict[str, dict[str, int]]] = {
    "260k": {
        "reward": {"pairs": 256, "batch": 32, "max-length": 512},
        "sample": {"prompts": 32, "k": 16, "max-new-tokens": 96},
        "ppo": {"episodes": 128, "batch": 64, "new-tokens": 48, "epochs": 4},
    },
    "25m": {
        "reward": {"pairs": 16, "batch": 8, "max-length": 256},
        "sample": {"prompts": 4, "k": 16, "max-new-tokens": 48},
        "ppo": {"episodes": 16, "batch": 16, "new-tokens": 24, "epochs": 2},
    },
    "135m": {
        "reward": {"pairs": 4, "batch": 2, "max-length": 256},
        "sample": {"prompts": 2, "k": 16, "max-new-tokens": 24},
        "ppo": {"episodes": 8, "batch": 8, "new-tokens": 16, "epochs": 1},
    },
}
RATES = {"reward": "pairs_per_s", "sample": "tokens_per_s", "ppo": "episodes_per_s"}


def make(size: str, tokenizer: Path, directory: Path) -> None:
    """A random Llama of a size in `SHAPES`, with the files of a tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from alignment.models.load import load_tokenizer

    words = load_tokenizer(tokenizer)
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[size],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    words.save_pretrained(directory)


def write_prompts(model: Path, episodes: int) -> Path:
    """The prompts of `align bench ppo`, for TRL; a file beside the model."""
    from alignment.bench.ppo import openings
    from alignment.models.load import load_tokenizer

    path = model / "prompts.json"
    path.write_text(json.dumps(openings(load_tokenizer(model), episodes)))
    return path


def runs(
    size: str, kind: str, model: Path, data: Path, trl_python: str | None
) -> dict[str, list[str]]:
    """The commands of one kind of work: ours both ways and, where there is one, the usual way."""
    options = [word for name, value in WORK[size][kind].items() for word in (f"--{name}", value)]
    words = ["--model", str(model), *map(str, options)]
    words += ["--data", str(data)] if kind == "reward" else []
    ours = ["-m", "alignment.cli.main", "bench", kind, *words, "--fast-cpu"]
    sides = {way: [sys.executable, *ours, way] for way in ("auto", "off")}
    if kind == "reward":
        peer = [sys.executable, str(HERE / "reward_vs_trl.py"), *words, "--only", "trl"]
    elif kind == "sample":
        script = str(HERE / "sample_vs_generate.py")
        peer = [sys.executable, script, *words, "--side", "transformers"]
    elif trl_python is None:
        return sides
    else:
        work = WORK[size]["ppo"]
        prompts = write_prompts(model, work["episodes"])
        peer = [trl_python, str(HERE / "trl_ppo.py"), "--model", str(model)]
        peer += ["--prompts", str(prompts), "--batch", str(work["batch"])]
        peer += ["--new-tokens", str(work["new-tokens"]), "--epochs", str(work["epochs"])]
    return sides | {"usual": peer}


def row(size: str, kind: str, lines: dict[str, list[dict[str, Any]]]) -> str:
    """A line of the table: medians over the rounds."""
    rates = {
        side: statistics.median(float(line[RATES[kind]]) for line in rounds)
        for side, rounds in lines.items()
    }
    base = rates.get("usual", rates["off"])
    cells = [size, f"{kind}, {RATES[kind].removesuffix('_per_s')}/s"]
    cells.append(f"{rates['usual']:.2f}" if "usual" in rates else "")
    cells += [f"{rates[side]:.2f} ({rates[side] / base:.2f}×)" for side in ("off", "auto")]
    passes = "; ".join(f"{name}: {said}" for name, said in lines["auto"][-1]["passes"].items())
    return "| " + " | ".join([*cells, passes]) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    root = HERE.parents[1]
    shared = Path(os.environ.get("ALIGN_SHARED", root.parent / "shared"))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", choices=sorted(SHAPES), default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", choices=sorted(RATES), default=list(RATES))
    parser.add_argument("--tokenizer", type=Path, default=shared / "models" / "stories260k")
    parser.add_argument(
        "--data", type=Path, default=shared / "data" / "hh-rlhf" / "harmless.jsonl.gz"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--trl-python", default=None)
    given = parser.parse_args(arguments)
    began = time.monotonic()
    rows = []
    directory = Path(tempfile.mkdtemp(prefix="align-bench-"))
    # What pays is measured anew, not taken from an earlier day's cache.
    environment = {"ALIGN_CACHE_DIR": str(directory / "cache"), "PYTHONPATH": str(root)}
    line: dict[str, Any] = {}
    try:
        for size in given.sizes:
            model = directory / size
            make(size, given.tokenizer, model)
            for kind in given.kinds:
                sides = runs(size, kind, model, given.data, given.trl_python)
                lines: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
                last_json(sides["auto"], environment)
                for _ in range(given.rounds):
                    for side, command in sides.items():
                        lines[side].append(last_json(command, environment))
                        print(json.dumps({"size": size, "side": side, **lines[side][-1]}))
                        sys.stdout.flush()
                rows.append(row(size, kind, lines))
                line = lines["auto"][-1]
    finally:
        shutil.rmtree(directory)
    print(f"\n{line['processor']}, {line['threads']} threads, {time.monotonic() - began:.0f} s\n")
    print("| model | work | usual way | `fast_cpu: off` | `fast_cpu: auto` | passes |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    main()
