"""Best-of-K beside the usual way: transformers' `generate`, then two sequence classifiers.

    python tests/benchmarks/sample_vs_generate.py --model DIR [--ends 426]

The usual way is `generate(num_return_sequences=16)` over 8 prompts a batch and the two
classifiers over the batches it made. Same prompts, K, tokens, temperature and machine. Each side
runs in a process of its own, in turns. `--ends` names more token ids that end an answer, so that
answers end at different lengths.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from last_json import last_json

SIDES = ("align", "transformers")


def usual(options: argparse.Namespace) -> dict[str, Any]:
    """transformers alone."""
    import torch

    from alignment.bench.ppo import openings
    from alignment.models.load import load_policy, load_scalar, load_tokenizer, resolve_device

    place = resolve_device(options.device)
    policy = load_policy(options.model, dtype=options.dtype, device=place)
    tokenizer = load_tokenizer(options.model)
    pad = tokenizer.eos_token_id
    rewards = [load_scalar(options.model, dtype=options.dtype, device=place) for _ in range(2)]
    rows = openings(tokenizer, options.prompts)
    ends = [tokenizer.eos_token_id, *options.ends]
    torch.manual_seed(0)
    began, cpu = time.perf_counter(), time.process_time()
    made: list[tuple[Any, Any]] = []
    tokens = 0
    for start in range(0, len(rows), options.prompt_batch):
        part = rows[start : start + options.prompt_batch]
        width = max(map(len, part))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in part], device=place)
        mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in part], device=place)
        out = policy.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            num_return_sequences=options.k,
            max_new_tokens=options.max_new_tokens,
            eos_token_id=ends,
            pad_token_id=pad,
        )
        answer = out[:, width:]
        over = torch.isin(answer, torch.tensor(ends, device=place)).cumsum(1)
        present = (over - torch.isin(answer, torch.tensor(ends, device=place)).long()) == 0
        tokens += int(present.sum())
        whole = torch.cat([mask.repeat_interleave(options.k, 0), present.long()], dim=1)
        made.append((out, whole))
    generated = time.perf_counter()
    with torch.no_grad():
        for reward in rewards:
            for out, whole in made:
                reward(input_ids=out, attention_mask=whole).logits.cpu()
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    samples = options.prompts * options.k
    return {
        "bench": "sample",
        "implementation": "transformers",
        "samples_per_s": round(samples / seconds, 2),
        "tokens_per_s": round(tokens / seconds, 1),
        "samples": samples,
        "tokens": tokens,
        "seconds": round(seconds, 3),
        "generate_seconds": round(generated - began, 3),
        "score_seconds": round(began + seconds - generated, 3),
        "cpu_seconds": round(cpu, 3),
        "threads": torch.get_num_threads(),
        "device": str(place),
    }


def main() -> None:
    """Run both sides in turns and print a JSON line with the ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--prompt-batch", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--ends", type=int, nargs="*", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    options = parser.parse_args()
    if options.side == "transformers":
        print(json.dumps(usual(options)))
        return
    if options.side == "align":
        from alignment.bench.sample import run

        found = run(
            model=options.model,
            prompts=options.prompts,
            k=options.k,
            max_new_tokens=options.max_new_tokens,
            batch_size=options.batch_size,
            ends=options.ends,
            device=options.device,
            dtype=options.dtype,
        )
        print(json.dumps(found))
        return
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(options.repeats):
        for side in SIDES:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            runs[side].append(last_json(command))
            print(json.dumps(runs[side][-1]), flush=True)

    def middle(side: str, figure: str) -> float:
        return statistics.median(float(run[figure]) for run in runs[side])

    # Tokens per second: where answers end by chance, the two sides draw different lengths.
    summary = {
        "bench": "sample_vs_generate",
        "ratio": round(middle("align", "tokens_per_s") / middle("transformers", "tokens_per_s"), 2),
        "ratio_cpu": round(
            (middle("transformers", "cpu_seconds") / middle("transformers", "tokens"))
            / (middle("align", "cpu_seconds") / middle("align", "tokens")),
            2,
        ),
        "align_samples_per_s": middle("align", "samples_per_s"),
        "transformers_samples_per_s": middle("transformers", "samples_per_s"),
        "mean_tokens": round(middle("align", "tokens") / middle("align", "samples"), 1),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
