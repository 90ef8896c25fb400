"""The stages of a program and their inputs: a directed acyclic graph in topological order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig, VersionConfig
from alignment.config.vocabulary import DOMAINS
from alignment.pipeline.approval import Decisions
from alignment.pipeline.node import FIRST_CHAMPION, STUDENT, Key, Node
from alignment.pipeline.slices import student_option

PREPARE: dict[str, Key] = {"prepare": ("base", "prepare")}
WORLD = {"world": 4}
"""Option of the built-in world's `prepare`. Since 2 it asks and judges otherwise than older
releases, since 3 a second answer costs. Finished stages of before do not go with it, while those of
other programs stay done."""


def build_plan(program: ProgramConfig, decisions: Decisions) -> list[Node]:
    """All stages of the program, each after its inputs. Reads nothing from disk.

    A version starts from the one before it, or from the champion if that one was rejected. This
    changes inputs but not the list of stages.

    Args:
        decisions: those on its versions so far; `Decisions(program)` if there are none.
    """
    base = policy_key(program, "base")
    module = "pretrain" if program.base.source == "world" else "import_base"
    options = WORLD if program.base.source == "world" else {}
    nodes = [
        Node("base", "prepare", "prepare", options=options),
        Node(*base, module, PREPARE),
        *_sft(program, base),
    ]
    for version in program.versions:
        turn = _Turn(program, version, decisions)
        nodes += [node for stage in _STAGES for node in stage(turn)]
    return nodes


def policy_key(program: ProgramConfig, version: str) -> Key:
    """The stage whose `model/` is the policy of `version`, or of `base`.

    Raises:
        KeyError: the program has no such version.
    """
    if version == "base":
        return ("base", "pretrain" if program.base.source == "world" else "import")
    if version == "sft":
        return ("sft", "finetune")
    climbs = {item.name: item.ppo for item in program.versions}
    return (version, "ppo" if climbs[version] else "finetune")


def downstream(plan: list[Node], key: Key) -> list[Node]:
    """`key`'s node and every node that depends on it, in order."""
    tainted = {key}
    for node in plan:
        if any(source in tainted for source in node.inputs.values()):
            tainted.add((node.version, node.stage))
    return [node for node in plan if (node.version, node.stage) in tainted]


def _sft(program: ProgramConfig, base: Key) -> list[Node]:
    policy: Key = ("sft", "finetune")
    nodes = [
        Node("sft", "finetune", "finetune", {"start": base, **PREPARE}),
        *_student_start(program),
        Node(
            "sft",
            "evaluate",
            "evaluate",
            {"policy": policy, "sft_policy": policy, **PREPARE, **_students(program, "sft")},
        ),
    ]
    if program.intake.source != "split":
        nodes.append(Node("sft", "collect", "collect", {"policy": policy, **PREPARE}))
    return nodes


def _student_start(program: ProgramConfig) -> list[Node]:
    """The smaller model before it learns from samples: the bare model, then trained on
    demonstrations."""
    if program.finetune.student is None:
        return []
    inputs = {"start": ("base", STUDENT), **PREPARE}
    return [
        Node("base", STUDENT, STUDENT, PREPARE, student_option(program)),
        Node("sft", STUDENT, STUDENT, inputs),
    ]


def _students(program: ProgramConfig, version: str) -> dict[str, Key]:
    """Inputs of an evaluation that concern the smaller model, if there is one."""
    if program.finetune.student is None:
        return {}
    return {"student": (version, STUDENT), "sft_student": ("sft", STUDENT)}


@dataclass(frozen=True)
class _Turn:
    """One version within its program, and the versions before it."""

    program: ProgramConfig
    version: VersionConfig
    decisions: Decisions

    @property
    def name(self) -> str:
        return self.version.name

    @cached_property
    def config(self) -> ProgramConfig:
        """The program with the version's own settings applied."""
        return for_version(self.program, self.name)

    @cached_property
    def earlier(self) -> list[str]:
        """The versions of the loop before this one."""
        names = [version.name for version in self.program.versions]
        return names[: names.index(self.name)]

    @property
    def previous(self) -> str:
        """The version before it, which has the newest batch and reward models so far."""
        return self.earlier[-1] if self.earlier else FIRST_CHAMPION

    @cached_property
    def standing(self) -> list[str]:
        """The earlier versions that were not rejected."""
        return [version for version in self.earlier if self.decisions.accepted(version)]

    @property
    def parent(self) -> str:
        """The version it starts from: the last earlier one that was not rejected."""
        return self.standing[-1] if self.standing else FIRST_CHAMPION

    @property
    def rewards(self) -> dict[str, Key]:
        return {f"reward_{domain}": (self.name, f"reward_{domain}") for domain in DOMAINS}

    @property
    def guards(self) -> dict[str, Key]:
        if self.config.rewards.guard_share <= 0:
            return {}
        return {f"guard_{domain}": (self.name, f"guard_{domain}") for domain in DOMAINS}

    @property
    def batches(self) -> dict[str, Key]:
        return {f"intake/{version}": (version, "intake") for version in (*self.earlier, self.name)}

    @property
    def collects(self) -> bool:
        return self.program.intake.source != "split"

    def policy(self, version: str) -> Key:
        return policy_key(self.program, version)

    def node(self, stage: str, inputs: dict[str, Key], module: str = "", **options: Any) -> Node:
        return Node(self.name, stage, module or stage, inputs, options)


# The inputs of each stage of a version. A stage reads its inputs in this order, so the order is
# part of its result.


def _intake(turn: _Turn) -> list[Node]:
    # Earlier batches decide which comparisons are duplicates and on which side of the split a
    # prompt stays.
    inputs: dict[str, Key] = {}
    if turn.collects:
        inputs["collect"] = (turn.previous, "collect")
    if turn.program.intake.source != "inbox":  # an inbox takes its prompts from the deliveries
        inputs |= PREPARE
    inputs |= {f"intake/{version}": (version, "intake") for version in turn.earlier}
    return [turn.node("intake", inputs)]


def _reward_inputs(turn: _Turn) -> dict[str, Key]:
    inputs = {**turn.batches, **PREPARE}
    init = {"latest": turn.parent, "sft": "sft", "base": "base"}.get(turn.config.rewards.init)
    if init is not None:  # otherwise `rewards.init` is a model directory of the user's
        inputs["init"] = turn.policy(init)
    return inputs


def _rewards(turn: _Turn) -> list[Node]:
    nodes = []
    for domain in DOMAINS:
        inputs = _reward_inputs(turn)
        if turn.earlier:
            inputs["previous_reward"] = (turn.previous, f"reward_{domain}")
        # Measured on the same comparisons, to show accuracy against the amount of data.
        for version in turn.earlier[:-1]:
            inputs[f"earlier_reward/{version}"] = (version, f"reward_{domain}")
        nodes.append(turn.node(f"reward_{domain}", inputs, "reward", domain=domain, **_cut(turn)))
    return nodes


def _cut(turn: _Turn) -> dict[str, Any]:
    """The limit of prompts: the one key of `generation` that reward models follow, if it is set."""
    limit = turn.config.generation.max_prompt_tokens
    return {} if limit is None else {"max_prompt_tokens": limit}


def _guards(turn: _Turn) -> list[Node]:
    nodes = []
    for domain in DOMAINS if turn.guards else ():
        # The main model is read only to measure how far the two agree.
        inputs = {**_reward_inputs(turn), "reward": turn.rewards[f"reward_{domain}"]}
        options = {"domain": domain, "guard": True, **_cut(turn)}
        nodes.append(turn.node(f"guard_{domain}", inputs, "reward", **options))
    return nodes


def _sample(turn: _Turn) -> list[Node]:
    inputs = {"policy": turn.policy(turn.parent), **PREPARE, **turn.rewards}
    if turn.config.sample.fresh_prompts:
        # Not those of rejected versions, from whose prompts this policy never learned.
        inputs |= {f"earlier/{version}": (version, "sample") for version in turn.standing}
    options: dict[str, Any] = {}
    if turn.parent != turn.previous:
        options["sampler"] = turn.parent
    # An option, not a section that it reads: nothing else of `select` may make samples stale.
    if turn.config.sample.temperature == "search" and not turn.config.select.finished_only:
        options["finished_only"] = False
    return [turn.node("sample", inputs, **options)]


def _select(turn: _Turn) -> list[Node]:
    inputs = {"sample": (turn.name, "sample"), **PREPARE, **turn.rewards}
    if turn.version.bag == "all":
        # Nothing of rejected versions: what they wrote was found wanting.
        inputs |= {f"earlier/{version}": (version, "select") for version in turn.standing}
    return [turn.node("select", inputs, bag=turn.version.bag)]


def _finetune(turn: _Turn) -> list[Node]:
    start = turn.parent if turn.version.start == "previous" else turn.version.start
    selected: Key = (turn.name, "select")
    nodes = [turn.node("finetune", {"start": turn.policy(start), "select": selected, **PREPARE})]
    if turn.program.finetune.student is not None:
        inputs: dict[str, Key] = {"start": (turn.parent, STUDENT), "select": selected, **PREPARE}
        nodes.append(turn.node(STUDENT, inputs))
    return nodes


def _ppo(turn: _Turn) -> list[Node]:
    if not turn.version.ppo:
        return []
    inputs: dict[str, Key] = {"policy": (turn.name, "finetune"), **PREPARE}
    if turn.config.ppo.reference == "sft":
        inputs["reference"] = turn.policy("sft")
    return [turn.node("ppo", {**inputs, **turn.rewards, **turn.guards})]


def _evaluate(turn: _Turn) -> list[Node]:
    inputs: dict[str, Key] = {"no_ppo": (turn.name, "finetune")} if turn.version.ppo else {}
    inputs |= {"policy": turn.policy(turn.name), "sft_policy": turn.policy("sft"), **PREPARE}
    inputs |= turn.rewards | turn.guards | _students(turn.program, turn.name)
    inputs |= turn.batches  # evaluation prompts must not be among them
    inputs["parent_policy"] = turn.policy(turn.parent)
    inputs |= {f"earlier/{version}": (version, "evaluate") for version in ("sft", *turn.earlier)}
    options: dict[str, Any] = {}
    if turn.config.evaluate.judge is not None and turn.standing:  # compares with the champion
        inputs["verdict"] = (turn.standing[-1], "promote")
        options = turn.decisions.champion_option(turn.standing)
    return [turn.node("evaluate", inputs, **options)]


def _promote(turn: _Turn) -> list[Node]:
    inputs: dict[str, Key] = {"evaluate": (turn.name, "evaluate")}
    inputs |= {f"earlier/{version}": (version, "promote") for version in turn.standing}
    return [turn.node("promote", inputs, **turn.decisions.champion_option(turn.standing))]


def _collect(turn: _Turn) -> list[Node]:
    if not turn.collects:
        return []
    inputs = {"policy": turn.policy(turn.name), "earlier": turn.policy(turn.parent), **PREPARE}
    return [turn.node("collect", inputs, earlier_version=turn.parent)]


_STAGES = (
    _intake,
    _rewards,
    _guards,
    _sample,
    _select,
    _finetune,
    _ppo,
    _evaluate,
    _promote,
    _collect,
)
