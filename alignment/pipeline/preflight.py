"""Checks before the first stage of what a later stage will need: hours would be lost otherwise.

What is needed of the data is checked when the first stage has made them (`execution.data_check`),
and the ports of `align serve` when it begins (`flows.servers.web_pages`).
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from alignment.config.finetune import FinetuneConfig
from alignment.config.generation import GenerationConfig
from alignment.config.load import for_version
from alignment.config.program import ProgramConfig
from alignment.config.rewards import RewardsConfig
from alignment.errors import AlignError, ConfigError
from alignment.models.enough_steps import check_steps
from alignment.pipeline.disk_space import check_program_space
from alignment.pipeline.fingerprints import Fingerprints
from alignment.pipeline.node import Node
from alignment.pipeline.sharding_choice import check_sharding
from alignment.pipeline.work import UNKNOWN_PARAMETERS, base_size
from alignment.pipeline.workspace import make_workspace, refuse_another
from alignment.preferences.inbox import domains_without_data
from alignment.preferences.sources import part_of
from alignment.preferences.stop_set import read_texts
from alignment.preferences.store import PreferenceStore
from alignment.utils.import_string import load_callable

FREE_BYTES = 200 * 2**20


def preflight(program: ProgramConfig, nodes: Sequence[Node] = ()) -> None:
    """Check models, data, lengths, reward functions, engines, judges, memory and disk.

    Args:
        nodes: the stages to do, which must fit the memory and their outputs the disk.

    Raises:
        ConfigError: a model or data are missing or unfit, answers are longer than a model's
            context, a reward function cannot be imported, an
            engine cannot do its work, or a judge has no key; the error names the key.
        AlignError: the workspace is not writable or another program's, the disk is too full, or
            the memory too small.
    """
    refuse_another(program)
    make_workspace(program.workspace)
    free = shutil.disk_usage(program.workspace).free
    if free < FREE_BYTES:
        raise AlignError(
            f"only {free / 2**20:.0f} MiB are free; at least {FREE_BYTES >> 20} MiB are needed",
            where=str(program.workspace),
            remedy="free some space or set another workspace",
        )
    check_program_space(program, nodes)
    _check_memory(program)
    check_sharding(program, nodes)
    if program.base.source == "path":
        _check_data(program)
    _check_collected(program)
    contexts = {where: _check_model(path, where) for where, path in _models(program)}
    for version in ("sft", *(item.name for item in program.versions)):
        _check_version(program, version, contexts)


def _models(program: ProgramConfig) -> Iterator[tuple[str, str]]:
    """The models of the user's: setting → directory or hub name."""
    if program.base.source == "path":
        yield "base.path", program.base.existing_path()
    student = program.finetune.student
    if student is not None and student.path is not None:
        yield "finetune.student.path", student.path
    for version in program.versions:
        init = for_version(program, version.name).rewards.init
        if init not in ("latest", "sft", "base"):
            yield "rewards.init", init


def _check_model(path: str, where: str) -> int | None:
    """Check a model's files, its tokenizer and its chat template; returns its context.

    A hub name that is not on this disk is checked when it is imported.
    """
    from transformers import AutoConfig

    from alignment.models.chat_renderer import ChatRenderer
    from alignment.models.checkpoint_files import check_tokenizer_files, stored_parameters
    from alignment.models.kv_cache import new_cache
    from alignment.models.load import check_model_directory, context_of, load_tokenizer

    local = Path(path).expanduser()
    try:
        check_model_directory(path)
        if not local.exists():
            return None
        stored_parameters(local)  # cut off or damaged weights
        check_tokenizer_files(local)
        try:
            tokenizer = load_tokenizer(local)
        except (OSError, ValueError, KeyError, ImportError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"the tokenizer of {path} does not load: {reason}") from None
        ChatRenderer(tokenizer)
        context = context_of(local)
        if (local / "config.json").is_file():
            new_cache(AutoConfig.from_pretrained(local), 1)  # is made for every answer
        return context
    except ConfigError as error:
        raise ConfigError(error.message, where=where, remedy=error.remedy) from None


def _check_data(program: ProgramConfig) -> None:
    """Check the preference data from which `stages/prepare` makes prompts and demonstrations."""
    location, key = program.data.location(program.intake)
    path, _part = part_of(location)
    looks_like_hub = location.count("/") == 1 and not path.parent.exists()
    if not path.exists() and not looks_like_hub:
        raise ConfigError(
            f"no file or directory {path}",
            where=key,
            remedy="give the directory with the preference files",
        )


def _check_version(program: ProgramConfig, version: str, contexts: dict[str, int | None]) -> None:
    """Check what the stages of one version need."""
    from alignment.models.limits import prompt_limit

    config = for_version(program, version)
    climbs = version != "sft" and program.version(version).ppo
    student = config.finetune.student
    own_base = program.base.source == "path"
    base = contexts["base.path"] if own_base else config.base.pretrain.context
    generating: list[tuple[str, GenerationConfig, int | None]] = [
        ("evaluate", config.evaluate.generation, base)
    ]
    if version != "sft":
        generating.append(("sample", config.sample.generation, base))
    if program.intake.source != "split":
        generating.append(("collect", config.collect.generation, base))
    if climbs:
        generating.append(("ppo", config.ppo.generation, base))
    if student is not None:
        made = student.size
        context = contexts["finetune.student.path"] if made is None else made.context
        generating.append(("evaluate", config.evaluate.generation, context))
    for section, generation, context in generating:
        prompt_limit(context, generation, section=section)
    _check_steps(program, config, version)
    if climbs and config.ppo.stop.texts is not None:
        read_texts(Path(config.ppo.stop.texts))
    for part in config.ppo.parts if climbs else ():
        load_callable(part.function, "ppo.parts")
    if climbs and config.ppo.ptx.coefficient and config.ppo.ptx.source == "corpus" and own_base:
        raise ConfigError(
            "PPO-ptx needs the corpus, which only the built-in world has",
            where="ppo.ptx.source",
            remedy="set ppo.ptx.source to demonstrations, or ppo.ptx.coefficient to 0",
        )
    _check_engine(config)
    if config.evaluate.judge is not None:
        config.evaluate.judge.key()
    _check_adapters(program, config, climbs)


def _check_steps(program: ProgramConfig, config: ProgramConfig, version: str) -> None:
    """Check that a version's trainings take enough steps, as far as settings alone tell: all that
    can be selected or collected is trained on."""
    recipe, each = config.finetune.rejection, 1
    if config.select.rule != "top1":
        each = min(config.select.per_prompt, config.sample.k)
    if version != "sft" and config.version(version).bag == "previous":
        answers = round(config.sample.prompts * each * (1 + recipe.demonstrations))
        key = "finetune.rejection.batch"
        _check_training(
            program, version, "finetune", f"{version}'s fine-tuning", key, answers, recipe
        )
    if config.intake.source == "simulated" and version == config.versions[0].name:
        safety = round(config.collect.pairs * config.collect.safety_share)
        check_first_rewards(program, config.collect.pairs - safety, safety)


def check_first_rewards(program: ProgramConfig, helpful: int, safety: int) -> None:
    """Check that the first version's reward models, guards too, take enough steps.

    Args:
        helpful, safety: comparisons of the program's own at most. With what people delivered there
            are more, which is not counted here.

    Raises:
        ConfigError: they take too few.
    """
    batches = PreferenceStore(program.workspace / "preferences").batches()
    if any(batch.manifest["origin"] == "delivery" and not batch.withdrawal for batch in batches):
        return
    version = program.versions[0].name
    settings = for_version(program, version).rewards
    rest = min(safety, settings.mixture.rest("helpfulness", helpful, 0))
    most = {
        "helpfulness": helpful + rest,
        "safety": min(helpful + safety, round(safety / settings.mixture.safety_share)),
    }
    guarded = settings.guard_share
    parts = {"reward": 1 - guarded} | (
        {"guard": guarded * (1 + settings.guard_spoilt)} if guarded else {}
    )
    for part, share in parts.items():
        for domain, count in most.items():
            name = f"the {domain} {'guard' if part == 'guard' else 'reward model'}"
            # A hash decides who is a guard's: more than three deviations over the mean are not.
            rows = min(count, math.ceil(share * count + 3 * math.sqrt(share * count)))
            stage = f"{part}_{domain}"
            _check_training(program, version, stage, name, "rewards.batch", rows, settings)


def _check_training(
    program: ProgramConfig,
    version: str,
    stage: str,
    name: str,
    key: str,
    examples: int,
    settings: FinetuneConfig | RewardsConfig,
) -> None:
    """Check that a training on `examples` at most takes enough steps, unless it is done."""
    try:
        check_steps(
            math.ceil(examples / settings.batch) * settings.epochs,
            examples,
            settings.epochs,
            what=f"{name} (at most)",
            key=key,
            say=lambda _line: None,  # the stage knows how many there are, and says it
        )
    except ConfigError:
        if Fingerprints.load(program).manifest(version, stage) is None:
            raise


def _check_engine(config: ProgramConfig) -> None:
    """Check the device and the address of an endpoint; `execution.engine_check` checks vLLM."""
    from alignment.models.load import resolve_device
    from alignment.utils.http import is_http

    resolve_device(config.compute.device)
    url = config.inference.endpoint.url
    if url is not None and not is_http(url):
        raise ConfigError(f"{url!r} is not an HTTP address", where="inference.endpoint.url")


def _check_adapters(program: ProgramConfig, config: ProgramConfig, climbs: bool) -> None:
    """Check that the layers that are to get an adapter are in the model."""
    base = Path(program.base.path or "").expanduser()
    if program.base.source != "path" or not base.is_dir():
        return
    from alignment.models.adapters import unknown_targets

    for section, lora in (
        ("finetune.sft", config.finetune.sft.lora),
        ("finetune.rejection", config.finetune.rejection.lora),
        ("rewards", config.rewards.lora),
        ("ppo", config.ppo.lora if climbs else None),
    ):
        unknown = unknown_targets(base, lora) if lora is not None else []
        if unknown:
            raise ConfigError(
                f"no layer of {base} is called {', '.join(unknown)}",
                where=f"{section}.lora.target_modules",
                remedy="use all-linear, or names of layers of this architecture",
            )


def _check_collected(program: ProgramConfig) -> None:
    """Check that there are comparisons to come for every version and for both reward models."""
    source, store = program.intake.source, PreferenceStore(program.workspace / "preferences")
    without = [version.name for version in program.versions][program.data.arrivals :]
    delivered = store.unassigned()  # the first version without an arrival takes them in
    left = [name for name in without if store.assignment(name) is None][bool(delivered) :]
    if source == "split" and left:
        raise ConfigError(
            f"{len(program.versions)} versions need as many arrivals, and there are "
            f"{program.data.arrivals}",
            where="data.arrivals",
            remedy=f"set it to {len(program.versions)} before anything is run; later on that deals "
            f"all data anew: then `align ingest FILE` for {left[0]}",
        )
    if source == "simulated" and domains_without_data(store, program.versions[0].name):
        pairs = program.collect.pairs
        safety = round(pairs * program.collect.safety_share)
        if not 0 < safety < pairs:
            key = "safety_share" if pairs > 1 else "pairs"
            raise ConfigError(
                f"{pairs - safety} helpfulness and {safety} safety pairs would be collected, and "
                "both reward models need some",
                where=f"collect.{key}",
                remedy="raise collect.pairs, or choose a collect.safety_share between 0 and 1",
            )


def _check_memory(program: ProgramConfig) -> None:
    """Refuse a base model whose weights alone exceed this machine's memory."""
    parameters = base_size(program).parameters
    if parameters == UNKNOWN_PARAMETERS:
        return
    width = 2 if program.compute.dtype == "bfloat16" else 4
    needed, there = width * parameters, psutil.virtual_memory().total
    if needed > there:
        raise AlignError(
            f"the base model's weights take {needed / 2**30:.1f} GiB in {program.compute.dtype}, "
            f"this machine has {there / 2**30:.1f} GiB of memory",
            where="base.path" if program.base.source == "path" else "base.pretrain",
            remedy="take a smaller model, or a larger machine",
        )
