"""What later stages need of a program's data, checked as soon as `base/prepare` has made them.

It is the first stage and takes seconds. Otherwise a lack would be found hours later: by the reward
models, by a temperature search, or by PPO in the last version.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.config.thresholds import ENOUGH_LABELS
from alignment.config.vocabulary import DOMAINS
from alignment.errors import ConfigError, DataError
from alignment.pipeline.preflight import check_first_rewards
from alignment.preferences.inbox import domains_without_data
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.preferences.store import PreferenceStore
from alignment.sampling.prompt_sampling import without_categories
from alignment.utils.json_lines import read_jsonl

UNSAFE = ("chosen_safe", "both_unsafe")  # safety bins with an unsafe answer


def check_prepared(program: ProgramConfig, prepared: Path) -> None:
    """Check the outputs of `base/prepare` against the settings of every version.

    Raises:
        ConfigError: no prompt is left to sample for or of a kind that PPO needs, a threshold is to
            be fitted to labels that the data do not have, or the first reward models would take too
            few steps.
        DataError: a domain has no comparison to train its reward model on.
    """
    pool = read_prompts(prepared / "prompts.jsonl")
    for version in program.versions:
        config = for_version(program, version.name)
        without_categories(pool, config.sample.skip_categories)
        if version.ppo:
            _check_ppo(config, pool)
    if program.intake.source == "split":
        _check_first_arrival(program, prepared / "arrivals" / "01")


def _check_ppo(config: ProgramConfig, pool: list[Prompt]) -> None:
    if config.ppo.safety_share is None:
        return
    count = config.ppo.episodes // config.ppo.samples_per_prompt
    safety = round(count * config.ppo.safety_share)
    tagged = sum(prompt.tag_safety for prompt in pool)
    for needed, there, kind in (
        (safety, tagged, "safety"),
        (count - safety, len(pool) - tagged, "helpfulness"),
    ):
        if needed and not there:
            raise ConfigError(
                f"the pool has no {kind} prompt, and PPO needs {needed} in each iteration",
                where="ppo.safety_share",
                remedy="unset it, or add preferences of that domain",
            )


def _check_first_arrival(program: ProgramConfig, arrival: Path) -> None:
    """The first version's reward models learn from the first arrival, and from what people have
    delivered already."""
    domains: Counter[str] = Counter()
    unsafe = 0
    for path in sorted(arrival.glob("*.jsonl")):
        for row in read_jsonl(path):
            domains[row["domain"]] += 1
            unsafe += row.get("safety_bin") in UNSAFE
    store = PreferenceStore(program.workspace / "preferences")
    missing = [
        name for name in domains_without_data(store, program.versions[0].name) if not domains[name]
    ]
    if missing:
        counts = ", ".join(f"{domains[name]:,} {name}" for name in DOMAINS)
        raise DataError(
            f"no {missing[0]} comparison for the first version's {missing[0]} reward model "
            f"({counts})",
            where="intake.path",
            remedy="give data of both domains; `intake.domains` says which file is which",
        )
    check_first_rewards(program, domains["helpfulness"], domains["safety"])
    first = for_version(program, program.versions[0].name).combine
    if first.threshold_for is not None and not unsafe and not store.batches():
        raise ConfigError(
            "no comparison says which answer is unsafe (safety_bin), so no threshold can be fitted",
            where="combine.threshold_for",
            remedy="set combine.threshold by hand, or give data with safety bins",
        )


def without_labels(program: ProgramConfig, prepared: Path) -> str | None:
    """A line about thresholds on P(safe) that will be off, as the data hardly label answers."""
    uses = (
        ("select.safety_threshold", program.select.safety_threshold is not None),
        ("combine.method: piecewise", program.combine.method == "piecewise"),
    )
    keys = " and ".join(key for key, used in uses if used)
    if program.intake.source != "split" or not keys:
        return None
    arrived = sorted((prepared / "arrivals").glob("*/*.jsonl"))
    labelled = 2 * sum(
        row.get("safety_bin") is not None for path in arrived for row in read_jsonl(path)
    )
    if labelled >= ENOUGH_LABELS:
        return None
    return (
        f"the data label {labelled} answers as safe or unsafe (safety_bin); below {ENOUGH_LABELS} "
        f"a safety reward model does not know P(safe), so thresholds on it will be off: {keys}"
    )
