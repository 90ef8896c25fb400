"""What settings were called in 0.1, and what they are called now.

`RENAMES` serves people: an old name in a YAML file or in `--set` is an error that names the new
one. `translate` serves workspaces: it turns what 0.1 wrote down into today's words.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

TRAININGS = (
    "base.pretrain",
    "finetune.student.size",
    "finetune.sft",
    "finetune.rejection",
    "rewards",
    "ppo",
)
OPTIMIZER = {
    "beta1": "optimizer.betas",
    "beta2": "optimizer.betas",
    "epsilon": "optimizer.adam_epsilon",
    "weight_decay": "optimizer.weight_decay",
}
SCHEDULE = {"final_rate": "min_lr_ratio", "warmup": "warmup_ratio"}
CLIP = {"clip": "optimizer.max_grad_norm"}
LORA = {
    "rank": "lora.r",
    "alpha": "lora.alpha",
    "dropout": "lora.dropout",
    "target_modules": "lora.target_modules",
}
GENERATION = {
    "max_new_tokens": "generation.max_new_tokens",
    "max_prompt_tokens": "generation.max_prompt_tokens",
    "batch_size": "generation.generation_batch_size",
}


def _adapter(section: str, old: str, method: str) -> dict[str, str]:
    names = {f"{old}.{name}": new for name, new in LORA.items()}
    return {
        **{f"{section}.{name}": f"{section}.{new}" for name, new in names.items()},
        f"{section}.{method}": f"{section}.lora (a section of its own for LoRA, null without)",
    }


def _within(section: str, *tables: Mapping[str, str]) -> dict[str, str]:
    return {
        f"{section}.{old}": f"{section}.{new}" for table in tables for old, new in table.items()
    }


_ASKED = ("helpfulness", "safety", "borderline")
_BOUNDS = ("significantly", "better", "slightly")
WORDS: dict[str, tuple[str, str]] = {
    **{f"world.evaluation_{word}": ("world.evaluation", word) for word in _ASKED},
    **{f"world.annotators.{word}": ("world.annotators.thresholds", word) for word in _BOUNDS},
    "data.evaluation_share": ("data.shares", "evaluation"),
    "data.prompt_share": ("data.shares", "prompts"),
    "data.demonstration_share": ("data.shares", "demonstrations"),
    "combine.helpfulness_weight": ("combine.weights", "helpfulness"),
    "combine.safety_weight": ("combine.weights", "safety"),
}
"""Old dotted key → the table it is a word of now."""

RENAMES: dict[str, str] = {
    **{old: f"{table} (its `{word}`)" for old, (table, word) in WORDS.items()},
    "combine.threshold_precision": "combine.threshold_for ({precision: …})",
    "combine.threshold_recall": "combine.threshold_for ({recall: …})",
    "rewards.margins": "rewards.margin (a table instead of a name)",
    "ppo.kl.adaptive": "ppo.kl.target (null leaves the coefficient where it is)",
    **{
        old: new
        for part in TRAININGS
        for old, new in _within(part, OPTIMIZER, {} if part == "ppo" else SCHEDULE | CLIP).items()
    },
    **{
        old: new
        for part in ("finetune.sft", "finetune.rejection", "rewards")
        for old, new in _adapter(part, "adapter", "adapter.method").items()
    },
    "finetune.sft.micro_batch": "finetune.sft.per_device_train_batch_size",
    "finetune.rejection.micro_batch": "finetune.rejection.per_device_train_batch_size",
    "rewards.tokens_per_batch": "rewards.max_tokens_per_micro_batch",
    "sample.engine": "inference.engine (endpoint for server)",
    "sample.url": "inference.endpoint.url",
    **_within("sample", GENERATION),
    **{f"sample.{name}": f"sample.generation.{name}" for name in ("top_p", "top_k", "stop")},
    **_within("collect", GENERATION),
    **_within("evaluate", GENERATION),
    "evaluate.temperature": "evaluate.generation.temperature",
    "evaluate.batch_tokens": "evaluate.max_tokens_per_micro_batch",
    "ppo.max_grad_norm": "ppo.optimizer.max_grad_norm",
    "ppo.max_new_tokens": "ppo.generation.max_new_tokens",
    "ppo.max_prompt_tokens": "ppo.generation.max_prompt_tokens",
    "ppo.temperature": "ppo.generation.temperature",
    "ppo.rollout_batch": "ppo.generation.generation_batch_size",
    "ppo.micro_batch_tokens": "ppo.max_tokens_per_micro_batch",
    "ppo.clip": "ppo.clip_range",
    "ppo.value_clip": "ppo.value_clip_range",
    "ppo.lam": "ppo.gae_lambda",
    "ppo.reward.clip": "ppo.reward.score_clip",
    "ppo.stop.guard_every": "ppo.stop.look_every",
    **_adapter("ppo", "adapters", "share_backbone"),
    "orchestration.parallel_rewards": "orchestration.parallel",
    "promote.guards": "promote.judges",
    "promote.guard_margin": "promote.judge_margin",
}
"""Old dotted key → new one, a few with a remark in brackets."""

DROPPED: dict[str, Any] = {
    "evaluate.level": 0.95,
    "evaluate.tie_margin": 1e-6,
    "evaluate.self_bleu_texts": 100,
    "evaluate.refusal_window": 120,
    "rewards.reference_rows": 256,
    "rewards.measure_rows": 2000,
    "rewards.bootstrap_samples": 1000,
    "select.examples": 5,
    "ppo.ptx.max_tokens": 512,
    "tracking.live_seconds": 20.0,
    "tracking.artifact_mb": 4.0,
}
"""Settings that never needed to differ: constants in the code now, with these values."""

_PAIRED = ("beta1", "beta2")


def translate(document: Mapping[str, Any]) -> dict[str, Any]:
    """A program of 0.1, or some sections of one, in today's vocabulary.

    Nothing is looked up and nothing checked: what is in no table stays as it is, so that a document
    of today comes back unchanged. Settings that are constants now go; see `lost`.

    Args:
        document: nested plain values, as in a workspace's `program.json` or in a manifest.
    """
    values = _translated(document)
    versions = document.get("versions")
    if isinstance(versions, list | tuple):
        values["versions"] = [_version(version, document, values) for version in versions]
    return values


def lost(document: Mapping[str, Any]) -> list[str]:
    """What `translate` cannot carry over: constants of today that had another value then."""
    own = [version.get("set", {}) for version in document.get("versions") or ()]
    return [
        f"{key}: {value!r} (now always {DROPPED[key]!r})"
        for settings in (document, *own)
        for key, value in leaves(settings)
        if key in DROPPED and value != DROPPED[key]
    ]


def leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key of nested values that leads to no mapping, with its value."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _translated(document: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(dict(document))
    for section in ("finetune.sft", "finetune.rejection", "rewards"):
        _lora(values, section, "adapter", "method")
    _lora(values, "ppo", "adapters", "share_backbone")
    for section in TRAININGS:
        _betas(values, section)
    _margin(values.get("rewards", {}))
    _threshold(values.get("combine", {}))
    _target(values.get("ppo", {}).get("kl", {}))
    _engine(values)
    words = {old: f"{table}.{word}" for old, (table, word) in WORDS.items()}
    for old, new in (RENAMES | words).items():
        name, here = _parent(values, old)
        if name in here:
            _put(values, new, here.pop(name))
    for old in DROPPED:
        name, here = _parent(values, old)
        here.pop(name, None)
    promote = values.get("promote", {})
    if promote.get("parent") == "latest":
        promote["parent"] = "previous"
    return values


def _lora(values: dict[str, Any], path: str, old: str, switch: str) -> None:
    """`adapter: {method: lora, …}` or `share_backbone: true` → `lora: {…}`, else null."""
    name, here = _parent(values, f"{path}.{old}")
    adapter = dict(here.pop(name, None) or {})
    holder = adapter if switch == "method" else here
    if not adapter and switch not in holder:
        return
    on = holder.pop(switch, False) in (True, "lora")
    if isinstance(adapter.get("target_modules"), str):
        adapter["target_modules"] = [adapter["target_modules"]]
    lora = {LORA[key].removeprefix("lora."): value for key, value in adapter.items() if key in LORA}
    here["lora"] = lora if on else None


def _betas(values: dict[str, Any], path: str) -> None:
    _, here = _parent(values, f"{path}.beta1")
    if any(key in here for key in _PAIRED):
        betas = [here.pop("beta1", 0.9), here.pop("beta2", 0.95)]
        here.setdefault("optimizer", {})["betas"] = betas


def _margin(rewards: dict[str, Any]) -> None:
    """`margin: own, margins: {…}` → `margin: {…}`."""
    own = rewards.pop("margins", None)
    if own is not None:
        rewards["margin"] = own


def _threshold(combine: dict[str, Any]) -> None:
    """`threshold_precision: 0.9` → `threshold_for: {precision: 0.9}`."""
    names = [name for name in ("precision", "recall") if f"threshold_{name}" in combine]
    wishes = {name: combine.pop(f"threshold_{name}") for name in names}
    if names:
        named = {name: wish for name, wish in wishes.items() if wish is not None}
        combine["threshold_for"] = named or None


def _target(kl: dict[str, Any]) -> None:
    """`adaptive: true, target: 6` → `target: 6`, else null."""
    if "adaptive" in kl:
        target = kl.pop("target", 6.0)
        kl["target"] = target if kl.pop("adaptive") else None


def _engine(values: dict[str, Any]) -> None:
    """`sample.engine: server` → `inference.engine: endpoint`."""
    name, sample = _parent(values, "sample.engine")
    if name in sample:
        engine = sample.pop(name)
        _put(values, "inference.engine", "endpoint" if engine == "server" else engine)


def _parent(values: dict[str, Any], key: str) -> tuple[str, dict[str, Any]]:
    """The last name of a dotted key, and the mapping it would stand in (an empty one if none)."""
    *path, name = key.split(".")
    here: Any = values
    for part in path:
        here = here.get(part) if isinstance(here, dict) else None
    return name, here if isinstance(here, dict) else {}


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    *path, name = key.split(".")
    here = values
    for part in path:
        here = here.setdefault(part, {})
    here[name] = value


def _version(
    version: Mapping[str, Any], document: Mapping[str, Any], values: Mapping[str, Any]
) -> dict[str, Any]:
    """A version whose `set` says in today's words what it changed."""
    own = dict(version)
    if own.get("set"):
        changed = copy.deepcopy(dict(document))
        for key, value in own["set"].items():
            _put(changed, key, value)
        own["set"] = _differences(values, _translated(changed))
    return own


def _differences(
    before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = ""
) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in after.items():
        key, then = f"{prefix}{name}", before.get(name)
        if key == "versions":
            continue
        free = key == "intake.domains"  # its words are file patterns, with dots in them
        if isinstance(value, Mapping) and isinstance(then, Mapping) and not free:
            changed |= _differences(then, value, f"{key}.")
        elif name not in before or then != value:
            changed[key] = value
    return changed
