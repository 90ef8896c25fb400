"""Speed by size of model, with the hand-written CPU passes and without, beside the usual ways.

    python -m tests.benchmarks.fast_cpu [--sizes 260k 25m 135m] [--data harmless.jsonl.gz]

Models are random Llamas made on the spot, with the tokenizer of the small real model. For each
size: reward training beside TRL's RewardTrainer, best-of-16 with two reward models beside
`generate` and two classifiers, and PPO. Every run has a process of its own, one after the other,
and work in proportion to the model, so that the whole table takes under ten minutes on two idle
cores. Prints each JSON line as it comes, then a table in Markdown; ratios are to the usual way, for
PPO to the plain one.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

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


def runs(size: str, kind: str, model: Path, data: Path) -> dict[str, list[str]]:
    """The commands of one kind of work: ours both ways and, where there is one, the usual way."""
    options = [word for name, value in WORK[size][kind].items() for word in (f"--{name}", value)]
    words = ["--model", str(model), *map(str, options)]
    words += ["--data", str(data)] if kind == "reward" else []
    ours = ["-m", "alignment.cli.main", "bench", kind, *words, "--fast-cpu"]
    found = {"auto": [*ours, "auto"], "off": [*ours, "off"]}
    if kind == "reward":
        found["usual"] = [str(HERE / "reward_vs_trl.py"), *words, "--only", "trl"]
    elif kind == "sample":
        found["usual"] = [str(HERE / "sample_vs_generate.py"), *words, "--side", "transformers"]
    return found


def row(size: str, kind: str, lines: dict[str, dict[str, Any]]) -> str:
    """A line of the table."""
    rates = {side: float(line[RATES[kind]]) for side, line in lines.items()}
    base = rates.get("usual", rates["off"])
    cells = [size, f"{kind}, {RATES[kind].removesuffix('_per_s')}/s"]
    cells.append(f"{rates['usual']:.2f}" if "usual" in rates else "")
    cells += [f"{rates[side]:.2f} ({rates[side] / base:.2f}×)" for side in ("off", "auto")]
    passes = "; ".join(f"{name}: {said}" for name, said in lines["auto"]["passes"].items())
    return "| " + " | ".join([*cells, passes]) + " |"


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    root = HERE.parents[1]
    shared = Path(os.environ.get("ALIGN_SHARED", root.parent / "shared"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=sorted(SHAPES), default=list(SHAPES))
    parser.add_argument("--kinds", nargs="+", choices=sorted(RATES), default=list(RATES))
    parser.add_argument("--tokenizer", type=Path, default=shared / "models" / "stories260k")
    parser.add_argument(
        "--data", type=Path, default=shared / "data" / "hh-rlhf" / "harmless.jsonl.gz"
    )
    given = parser.parse_args(arguments)
    began = time.monotonic()
    rows = []
    directory = Path(tempfile.mkdtemp(prefix="align-bench-"))
    # What pays is measured anew, not taken from an earlier day's cache.
    environment = {**os.environ, "ALIGN_CACHE_DIR": str(directory / "cache")}
    environment["PYTHONPATH"] = str(root)
    line: dict[str, Any] = {}
    try:
        for size in given.sizes:
            model = directory / size
            make(size, given.tokenizer, model)
            for kind in given.kinds:
                lines = {}
                for side, words in runs(size, kind, model, given.data).items():
                    done = subprocess.run(
                        [sys.executable, *words],
                        capture_output=True,
                        text=True,
                        env=environment,
                        check=False,
                    )
                    if done.returncode:
                        raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
                    line = json.loads(done.stdout.strip().splitlines()[-1])
                    lines[side] = line
                    print(json.dumps({"size": size, "side": side, **line}), flush=True)
                rows.append(row(size, kind, lines))
                line = lines["auto"]
    finally:
        shutil.rmtree(directory)
    print(f"\n{line['processor']}, {line['threads']} threads, {time.monotonic() - began:.0f} s\n")
    print("| model | work | usual way | `fast_cpu: off` | `fast_cpu: auto` | passes |")
    print("|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    sys.path.insert(0, str(HERE.parents[1]))
    main()
