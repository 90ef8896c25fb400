"""How things are called in MLflow: run names, tags, parameters, times. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from alignment.config.program import ProgramConfig
from alignment.pipeline.records import Attempt, Manifest

KIND = "rlhf.kind"  # version | base | stage | progress | superseded
VERSION = "rlhf.version"
STAGE = "rlhf.stage"
ATTEMPT = "rlhf.attempt"
PROGRAM = "rlhf.program"
HEADLINE = "main/"
"""MLflow shows metrics in groups by what stands before the slash, in the order of the alphabet, and
those without a group last: the figures that matter need one that comes first."""
DIGEST_LENGTH = 36  # MLflow refuses longer dataset digests
VALUE_LENGTH = 500  # a parameter is for reading; the whole configuration is in manifest.json

STATUS = {
    "running": "RUNNING",
    "done": "FINISHED",
    "superseded": "FINISHED",
    "failed": "FAILED",
    "killed": "KILLED",
}


def version_title(version: str) -> str:
    """`rlhf-v1` as people write it: RLHF-V1."""
    return version.upper()


def version_run_name(version: str, champion: str | None) -> str:
    """`RLHF-V5 ★` for the champion: the run's name is the one thing that every page shows."""
    return f"{version_title(version)} ★" if version == champion else version_title(version)


def version_number(version: str) -> int | None:
    """Step of a version in the series: SFT is 0, RLHF-V1 is 1; base has none."""
    if version == "sft":
        return 0
    number = version.rpartition("v")[2]
    return int(number) if version.startswith("rlhf-") and number.isdigit() else None


def attempt_key(attempt: Attempt) -> str:
    """The one name of an attempt: `rlhf-v1/sample#2`."""
    return f"{attempt.version}/{attempt.stage}#{attempt.number}"


def attempt_title(stage: str, number: int) -> str:
    """Run name of an attempt: `reward_safety #1`."""
    return f"{stage} #{number}"


def milliseconds(stamp: str | None) -> int | None:
    """A ledger time (`2026-01-31T12:00:00Z`) as MLflow counts it."""
    if stamp is None:
        return None
    moment = datetime.strptime(stamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)


def attempt_tags(program: str, attempt: Attempt, manifest: Manifest | None) -> dict[str, str]:
    """What a stage run is found and told apart by."""
    tags = {
        PROGRAM: program,
        KIND: "stage",
        VERSION: attempt.version,
        STAGE: attempt.stage,
        ATTEMPT: attempt_key(attempt),
        "rlhf.status": attempt.status,
        "rlhf.fingerprint": attempt.fingerprint,
        "rlhf.log": f"versions/{attempt.version}/{attempt.stage}/attempts/{attempt.number:03d}.log",
    }
    if attempt.resumed_from is not None:
        tags["rlhf.continues"] = attempt_title(attempt.stage, attempt.resumed_from)
    if attempt.error:
        tags["rlhf.error"] = attempt.error[:VALUE_LENGTH]
    if attempt.status == "superseded":
        tags["rlhf.superseded"] = "true"
    if manifest is not None:
        tags["rlhf.digest"] = manifest.digest
        tags["rlhf.code_version"] = manifest.code_version
        for name, source in manifest.inputs.items():
            origin = f"{source['version']}/{source['stage']} " if "stage" in source else ""
            tags[f"rlhf.input.{name}"] = f"{origin}{source['digest'][:12]}"
    return tags


def clean(name: str) -> str:
    """A parameter's or metric's name as MLflow admits it: letters, digits, `_ - . : /`, spaces."""
    return re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)[:250]


def stage_figure(stage: str, name: str) -> str:
    """The name of a stage's figure: a reward model's accuracy says on which test set it is, for
    charts show those of several versions side by side."""
    own = stage.startswith(("reward_", "guard_")) and re.match(r"accuracy(_low|_high|/|$)", name)
    return clean(f"own_test_{name}" if own else name)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted names; lists as JSON; long values cut."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        elif value is None:
            continue
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            cut = text if len(text) <= VALUE_LENGTH else text[: VALUE_LENGTH - 1] + "…"
            flat[clean(name)] = cut
    return flat


def stage_params(manifest: Manifest) -> dict[str, str]:
    """Parameters of a stage run: its slice of the configuration, its options and its seed."""
    return {
        **flatten(manifest.config),
        **{f"option.{key}": value for key, value in flatten(manifest.options).items()},
        "seed": str(manifest.seed),
    }


CURATED = (
    "rewards.init",
    "rewards.margin",
    "rewards.learning_rate",
    "rewards.epochs",
    "combine.method",
    "combine.weights.helpfulness",
    "combine.weights.safety",
    "sample.k",
    "sample.prompts",
    "sample.temperature",
    "select.safety_threshold",
    "finetune.rejection.learning_rate",
    "finetune.rejection.epochs",
    "finetune.sft.learning_rate",
    "finetune.sft.epochs",
    "ppo.algorithm",
    "ppo.kl.coefficient",
    "ppo.iterations",
    "ppo.episodes",
    "ppo.learning_rate",
)
"""Settings that set versions apart, shown on the version's own run where they exist."""


def version_params(program: ProgramConfig, seen: ProgramConfig, version: str) -> dict[str, str]:
    """Parameters of a version run: few, so that MLflow's compare view stays legible.

    `seen` is the program with the version's own settings applied.
    """
    every = flatten(seen.model_dump(mode="json"))
    params = {"seed": str(program.seed), "base.source": str(program.base.source)}
    own: set[str] = set()
    if version not in ("base", "sft"):
        config = program.version(version)
        params |= {"start": config.start, "bag": config.bag, "ppo": str(config.ppo).lower()}
        own = set(config.set)
    skip = "ppo." if params.get("ppo") != "true" else "\0"
    for name in (*CURATED, *sorted(own)):
        if name in every and not name.startswith(skip):
            params[name] = every[name]
    if version in ("base", "sft"):
        prefixes = ("seed", "base.source", "finetune.sft.")
        params = {key: value for key, value in params.items() if key.startswith(prefixes)}
    return params


def tidy(value: float) -> float:
    """A figure with six significant digits: what a chart's hover text should show."""
    return float(f"{value:.6g}")
