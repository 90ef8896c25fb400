"""What must be true after a soak, and the calm run it is compared with."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.execution.runner import Runner
from alignment.pipeline.approval import Decisions
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.ledger import Ledger
from alignment.pipeline.plan import build_plan
from alignment.pipeline.readiness import frontier
from alignment.preferences.inbox import ingest_inbox
from alignment.preferences.store import PreferenceStore


def problems(program: ProgramConfig, sound: dict[str, bytes], calm: Path) -> list[str]:
    """Everything that is not as it must be, in words."""
    done = done_versions(program)
    return [
        *batch_problems(program, sound),
        *version_problems(program, done),
        *attempt_problems(program),
        *tracking_problems(program),
        *calm_problems(program, sound, done, calm),
    ]


def done_versions(program: ProgramConfig) -> list[str]:
    """RLHF versions with every stage done."""
    stopped_at = frontier(program).version
    names = program.version_names
    reached = names if stopped_at is None else names[: names.index(stopped_at)]
    return [name for name in reached if name.startswith("rlhf-")]


def batch_problems(program: ProgramConfig, sound: dict[str, bytes]) -> list[str]:
    """Every sound file is one batch, in exactly one version; nothing else is a batch."""
    store = PreferenceStore(program.workspace / "preferences")
    found = {batch.manifest["sources"][0]["sha256"]: batch for batch in store.batches()}
    said = []
    if len(found) != len(store.batches()):
        said.append("a file was accepted twice")
    names = {sha256(data): name for name, data in sound.items()}
    for digest, name in names.items():
        if digest not in found:
            said.append(f"{name} never became a batch")
        elif len(found[digest].versions) != 1:
            said.append(f"{name} is in {found[digest].versions or 'no version'}")
    said += [f"batch {batch.name} is none of ours" for d, batch in found.items() if d not in names]
    return said


def version_problems(program: ProgramConfig, done: list[str]) -> list[str]:
    """Versions are done in order, and every one that took batches in is done."""
    store = PreferenceStore(program.workspace / "preferences")
    begun = [name for name in program.version_names if store.assignment(name) is not None]
    return [] if begun == done else [f"begun are {begun}, done are {done}"]


def attempt_problems(program: ProgramConfig) -> list[str]:
    """No stage was carried out to its end twice for the same fingerprint; none seems to run."""
    ledger = Ledger(program.workspace)
    finished: Counter[tuple[str, str, str]] = Counter()
    said = []
    for node in build_plan(program, Decisions.load(program)):
        for attempt in ledger.attempts(node.version, node.stage):
            if attempt.status in ("done", "superseded"):
                finished[node.version, node.stage, attempt.fingerprint] += 1
            elif attempt.status == "running":
                said.append(f"{node.key} attempt {attempt.number} seems to run")
            elif attempt.status == "failed":
                said.append(f"{node.key} attempt {attempt.number} failed: {attempt.error}")
    said += [f"{key} was done {count} times" for key, count in finished.items() if count > 1]
    return said


def tracking_problems(program: ProgramConfig) -> list[str]:
    """MLflow has a finished run for every stage that is done, and none that runs."""
    from alignment.tracking.sync import Sync

    sync = Sync(program)
    runs: list[Any] = []
    token = None
    while True:
        page = sync.client.search_runs([sync.store.experiment], max_results=500, page_token=token)
        runs += page
        token = page.token
        if not token:
            break
    said = [f"MLflow: {run.info.run_name} runs" for run in runs if run.info.status == "RUNNING"]
    finished = Counter(
        run.data.tags["rlhf.attempt"]
        for run in runs
        if run.info.status == "FINISHED" and "rlhf.attempt" in run.data.tags
    )
    ledger = Ledger(program.workspace)
    known = Fingerprints(program, ledger, build_plan(program, Decisions.load(program)))
    for node in build_plan(program, Decisions.load(program)):
        manifest = known.manifest(node.version, node.stage)
        if manifest is not None:
            name = f"{node.key}#{manifest.attempt}"
            if finished.pop(name, 0) != 1:
                said.append(f"MLflow has not exactly one finished run of {name}")
    return said + [f"MLflow: {name} is not in the ledger" for name in finished]


def calm_problems(
    program: ProgramConfig, sound: dict[str, bytes], done: list[str], calm: Path
) -> list[str]:
    """A calm run with the same batches in the same versions gives the same bytes, every stage."""
    store = PreferenceStore(program.workspace / "preferences")
    names = {sha256(data): name for name, data in sound.items()}
    quiet = program.model_copy(update={"workspace": calm})
    inbox = calm / "inbox"
    inbox.mkdir(parents=True)
    with Runner(quiet) as runner:
        _do(runner, ["base", "sft"])
        for version in done:
            for batch in store.batches():
                if version in batch.versions:
                    source = batch.manifest["sources"][0]  # its copy may have come first
                    (inbox / source["file"]).write_bytes(sound[names[source["sha256"]]])
                    ingest_inbox(calm, quiet.intake, 0)
            _do(runner, [version])
    return [
        f"{node.key}: {one} after the soak, {other} in a calm run"
        for node in build_plan(program, Decisions.load(program))
        if node.version in ("base", "sft", *done)
        for one, other in [(_digest(program, node), _digest(quiet, node))]
        if one != other
    ]


def _do(runner: Runner, versions: list[str]) -> None:
    for node in runner.plan:
        if node.version in versions:
            runner.run_node(node)


def _digest(program: ProgramConfig, node: Any) -> str | None:
    ledger = Ledger(program.workspace)
    manifest = ledger.current(node.version, node.stage)
    return None if manifest is None else manifest.digest


def sha256(data: bytes) -> str:
    """sha256 (hex) of bytes."""

    return hashlib.sha256(data).hexdigest()
