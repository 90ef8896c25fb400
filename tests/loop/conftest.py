"""One small program, run once for all tests of this folder, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest
from warm_align import start

PROGRAM = """
name: small
seed: 3
workspace: WORKSPACE
base:
  pretrain: {vocabulary: 768, hidden: 32, layers: 2, heads: 2, kv_heads: 1, intermediate: 64,
             context: 128, length: 64, batch: 8, steps: 60, checkpoint_every: 20}
world: {corpus_documents: 1200, demonstrations: 160, prompts: 300,
        evaluation: {helpfulness: 12, safety: 10, borderline: 4}}
finetune:
  sft: {learning_rate: 2.0e-3, batch: 16, per_device_train_batch_size: 16, max_length: 128,
        packing: false, checkpoint_every: 5}
  rejection: {learning_rate: 1.0e-3, epochs: 2, batch: 2, per_device_train_batch_size: 2,
              checkpoint_every: 8}
rewards: {learning_rate: 1.0e-3, batch: 1, max_length: 128, checkpoint_every: 8}
generation: {max_new_tokens: 16}
sample: {prompts: 24, k: 3, grid: [0.8, 1.0], search_prompts: 4,
         shard_prompts: 8}
select: {finished_only: false}
collect: {pairs: 80}
ppo: {iterations: 4, episodes: 16, minibatch: 8, generation: {max_new_tokens: 12},
      learning_rate: 1.0e-4, warmup_iterations: 1, checkpoint_every: 1,
      stop: {look_every: 2, heldout_prompts: 8}}
evaluate: {bootstrap_samples: 100, checkpoint_every: 8}
compute: {threads: 1}
versions:
  - {name: rlhf-v1, bag: previous}
  - {name: rlhf-v2, bag: all, ppo: true}
"""


def align(
    *words: str, cwd: Path, check: bool = True, timeout: float = 500
) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "stdout"), Path(folder, "stderr")
        process = start(words, cwd, output)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
        code = process.exitcode
        stdout, stderr = (path.read_text(encoding="utf-8") for path in output)
    if code is None or (check and code):
        raise AssertionError(f"align {' '.join(words)}: {code}\n{stdout}\n{stderr}")
    return subprocess.CompletedProcess(words, code, stdout, stderr)


def write_program(folder: Path) -> Path:
    """The small program's YAML, its workspace beside it."""
    path = folder / "small.yaml"
    path.write_text(PROGRAM.replace("WORKSPACE", str(folder / "workspace")))
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small program, run to its end through Prefect."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = tmp_path_factory.mktemp("finished")
    align("run", str(write_program(folder)), cwd=folder)
    return folder
