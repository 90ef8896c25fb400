"""Two processes sample, select, collect and evaluate as one does: to the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from processes import run
from shared_child import work

from alignment.evaluation.responses import read_table
from alignment.models.load import load_policy, load_tokenizer, save_model
from alignment.preferences.prompts import Prompt, read_prompts, write_prompts
from alignment.utils.files import read_json, sha256_file

STAGES = ("sample", "select", "collect", "evaluate")


@pytest.fixture(scope="module")
def inputs(
    stage_inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Two policies, two reward models, prompts, and an evaluation of the older policy."""
    root = tmp_path_factory.mktemp("inputs")
    old = stage_inputs["policy"]
    newer = load_policy(old / "model")
    torch.manual_seed(3)
    with torch.no_grad():
        for weights in newer.parameters():
            weights += 0.05 * weights.std() * torch.randn_like(weights)
    save_model(newer, load_tokenizer(old / "model"), root / "newer" / "model")
    pool = read_prompts(stage_inputs["prepare"] / "prompts.jsonl")
    others = [
        Prompt(
            messages=[{"role": "user", "content": f"and {prompt.messages[0]['content']} you"}],
            domain=prompt.domain,
            category=prompt.category,
        )
        for prompt in pool
    ]
    prepare = root / "prepare"
    for name, prompts in (("prompts", pool), ("eval_prompts", others)):
        write_prompts(prepare / f"{name}.jsonl", prompts)
    policies = {"policy": root / "newer", "earlier": old, "sft_policy": old}
    return {**stage_inputs, **policies, "prepare": prepare}


def outputs(root: Path) -> dict[str, str]:
    """Output of any stage → digest."""
    files = (path for stage in STAGES for path in sorted((root / stage / "out").rglob("*")))
    return {str(path.relative_to(root)): sha256_file(path) for path in files if path.is_file()}


def test_the_same_bytes_from_one_process_and_from_two(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        work(tmp_path / "one", inputs)
    finally:
        torch.set_num_threads(before)
    given = json.dumps({name: str(path) for name, path in inputs.items()})
    run(2, "shared_child", tmp_path, given)
    two = tmp_path / "none"
    assert len(outputs(tmp_path / "one")) > 15
    assert outputs(two) == outputs(tmp_path / "one")
    dealt = [read_json(two / f"dealt-{rank}.json") for rank in (0, 1)]
    for stage in ("sample", "collect", "evaluate"):  # a selection so small is one forward pass
        assert min(part[stage] for part in dealt) > 0
    # A reward model that is split rounds otherwise; what is drawn does not depend on it.
    split = outputs(tmp_path / "full")
    assert split["sample/out/samples.parquet"] == outputs(two)["sample/out/samples.parquet"]
    for stage in ("select", "evaluate"):
        one, other = (
            read_table(root / stage / "out" / "scores.parquet") for root in (two, tmp_path / "full")
        )
        for name in one.columns:
            if one[name].dtype == float:
                assert other[name].to_numpy() == pytest.approx(
                    one[name].to_numpy(), abs=1e-4, nan_ok=True
                )
    # Where a server draws for the first process, policies are split too, to measure their KL.
    one, other = (
        read_json(root / "evaluate" / "out" / "metrics.json") for root in (two, tmp_path / "served")
    )
    assert {"kl_sft", "entropy"} <= {name.rpartition("/")[2] for name in one}
    assert other == pytest.approx(one, abs=1e-4)
