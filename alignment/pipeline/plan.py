"""The stages of a program and what each needs: a directed acyclic graph in topological order."""

from __future__ import annotations

from typing import Any

from alignment.config.load import for_version
from alignment.config.program import ProgramConfig, VersionConfig
from alignment.pipeline.approval import accepted, find_approval
from alignment.pipeline.node import DOMAINS, STUDENT, Key, Node


def build_plan(program: ProgramConfig) -> list[Node]:
    """Every stage of the program, each after what it needs.

    A version starts from the one before it, or from the champion if that was rejected
    (`alignment.pipeline.approval`); which stages there are does not depend on it.
    """
    nodes = [Node("base", "prepare", "prepare")]
    base_stage = "pretrain" if program.base.source == "world" else "import"
    module = "pretrain" if program.base.source == "world" else "import_base"
    base: Key = ("base", base_stage)
    nodes.append(Node(*base, module, {"prepare": ("base", "prepare")}))
    nodes += _sft(program, base)
    policies: dict[str, Key] = {"base": base, "sft": ("sft", "finetune")}
    previous = parent = "sft"
    standing: list[str] = []  # versions that nothing speaks against
    for version in program.versions:
        nodes += _version(program, version, previous, parent, policies, standing)
        previous = version.name
        if accepted(program, previous):
            parent = previous
            standing.append(previous)
    return nodes


def policy_of(plan: list[Node], version: str) -> Key:
    """The stage whose `model/` is the policy of `version`.

    Raises:
        KeyError: the plan has no such version.
    """
    stages = [node.stage for node in plan if node.version == version]
    for stage in ("ppo", "finetune", "pretrain", "import"):
        if stage in stages:
            return (version, stage)
    raise KeyError(version)


def downstream(plan: list[Node], key: Key) -> list[Node]:
    """`key`'s node and every node that depends on it, in order."""
    tainted = {key}
    for node in plan:
        if any(source in tainted for source in node.inputs.values()):
            tainted.add((node.version, node.stage))
    return [node for node in plan if (node.version, node.stage) in tainted]


def _prepare() -> dict[str, Key]:
    return {"prepare": ("base", "prepare")}


def _sft(program: ProgramConfig, base: Key) -> list[Node]:
    policy: Key = ("sft", "finetune")
    nodes = [
        Node("sft", "finetune", "finetune", {"start": base, **_prepare()}),
        *_student_start(program),
        Node(
            "sft",
            "evaluate",
            "evaluate",
            {"policy": policy, "sft_policy": policy, **_prepare(), **_students(program, "sft")},
        ),
    ]
    if program.intake.source != "split":
        nodes.append(Node("sft", "collect", "collect", {"policy": policy, **_prepare()}))
    return nodes


def _student_start(program: ProgramConfig) -> list[Node]:
    """The smaller model before it learns from samples: as it comes, then on demonstrations."""
    if program.finetune.student is None:
        return []
    given = {"student": program.finetune.student.model_dump(mode="json")}
    inputs = {"start": ("base", STUDENT), **_prepare()}
    return [
        Node("base", STUDENT, STUDENT, _prepare(), given),
        Node("sft", STUDENT, STUDENT, inputs),
    ]


def _students(program: ProgramConfig, version: str) -> dict[str, Key]:
    """What an evaluation needs of the smaller model, if there is one."""
    if program.finetune.student is None:
        return {}
    return {"student": (version, STUDENT), "sft_student": ("sft", STUDENT)}


def _version(
    program: ProgramConfig,
    version: VersionConfig,
    previous: str,
    parent: str,
    policies: dict[str, Key],
    standing: list[str],
) -> list[Node]:
    """The stages of one version.

    Args:
        previous: the version before it: its batch and its reward models came last.
        parent: the version it starts from: `previous`, or the champion if that was rejected.
        standing: the earlier versions that were not rejected.
    """
    name = version.name
    seen = for_version(program, name)
    earlier = [v for v in policies if v not in ("base",)]
    earlier_rlhf = [v for v in earlier if v != "sft"]
    collects = program.intake.source != "split"
    rewards: dict[str, Key] = {f"reward_{d}": (name, f"reward_{d}") for d in DOMAINS}
    guards: dict[str, Key] = {}
    if seen.rewards.guard_share > 0:
        guards = {f"guard_{d}": (name, f"guard_{d}") for d in DOMAINS}
    nodes = [Node(name, "intake", "intake", _intake_inputs(program, previous, earlier_rlhf))]
    batches: dict[str, Key] = {f"intake/{v}": (v, "intake") for v in (*earlier_rlhf, name)}
    init = {"latest": parent, "sft": "sft", "base": "base"}.get(seen.rewards.init)
    common = {**batches, **_prepare()}
    if init is not None:  # otherwise `rewards.init` is a model directory of the user's
        common["init"] = policies[init]
    for domain in DOMAINS:
        inputs = dict(common)
        if previous != "sft":
            inputs["previous_reward"] = (previous, f"reward_{domain}")
        # Measured beside it on the same comparisons: accuracy against data learned from.
        older = [v for v in earlier_rlhf if v != previous]
        inputs |= {f"earlier_reward/{v}": (v, f"reward_{domain}") for v in older}
        nodes.append(Node(name, f"reward_{domain}", "reward", inputs, {"domain": domain}))
    for domain in DOMAINS if guards else ():
        # Told how far the main model agrees with it; it learns nothing from that.
        inputs = {**common, "reward": rewards[f"reward_{domain}"]}
        options = {"domain": domain, "guard": True}
        nodes.append(Node(name, f"guard_{domain}", "reward", inputs, options))
    sample: dict[str, Key] = {"policy": policies[parent], **_prepare(), **rewards}
    sampler = {} if parent == previous else {"sampler": parent}
    nodes.append(Node(name, "sample", "sample", sample, sampler))
    select: dict[str, Key] = {"sample": (name, "sample"), **_prepare(), **rewards}
    if version.bag == "all":
        select |= {f"earlier/{v}": (v, "select") for v in earlier_rlhf}
    nodes.append(Node(name, "select", "select", select, {"bag": version.bag}))
    start = policies[parent if version.start == "previous" else version.start]
    nodes.append(
        Node(
            name, "finetune", "finetune", {"start": start, "select": (name, "select"), **_prepare()}
        )
    )
    if program.finetune.student is not None:
        learner: dict[str, Key] = {"start": (parent, STUDENT), "select": (name, "select")}
        nodes.append(Node(name, STUDENT, STUDENT, {**learner, **_prepare()}))
    policy: Key = (name, "finetune")
    evaluate: dict[str, Key] = {}
    if version.ppo:
        nodes.append(
            Node(
                name,
                "ppo",
                "ppo",
                {"policy": (name, "finetune"), **_prepare(), **rewards, **guards},
            )
        )
        evaluate["no_ppo"] = policy
        policy = (name, "ppo")
    evaluate |= {"policy": policy, "sft_policy": policies["sft"], **_prepare(), **rewards}
    evaluate |= guards | _students(program, name)
    evaluate |= batches  # evaluation prompts must not be among them
    evaluate["parent_policy"] = policies[parent]
    evaluate |= {f"earlier/{v}": (v, "evaluate") for v in earlier}
    champion: dict[str, Any] = {}
    if seen.evaluate.judge is not None and standing:  # which compares with the champion
        evaluate["verdict"] = (standing[-1], "promote")
        champion = _approved(program, standing)
    nodes.append(Node(name, "evaluate", "evaluate", evaluate, champion))
    nodes.append(_promote(program, name, standing))
    if collects:
        nodes.append(
            Node(
                name,
                "collect",
                "collect",
                {"policy": policy, "earlier": policies[parent], **_prepare()},
                {"earlier_version": parent},
            )
        )
    policies[name] = policy
    return nodes


def _promote(program: ProgramConfig, name: str, standing: list[str]) -> Node:
    inputs: dict[str, Key] = {"evaluate": (name, "evaluate")}
    inputs |= {f"earlier/{version}": (version, "promote") for version in standing}
    return Node(name, "promote", "promote", inputs, _approved(program, standing))


def _approved(program: ProgramConfig, standing: list[str]) -> dict[str, Any]:
    """The champion by a person's word on the last one, as an option; else the gate's counts."""
    word = find_approval(program.workspace, standing[-1]) if standing else None
    return {} if word is None else {"champion": standing[-1]}


def _intake_inputs(program: ProgramConfig, previous: str, earlier: list[str]) -> dict[str, Key]:
    # Earlier batches decide what is a duplicate, and on which side of the split a prompt stays.
    before: dict[str, Key] = {f"intake/{v}": (v, "intake") for v in earlier}
    if program.intake.source == "simulated":
        return {"collect": (previous, "collect"), **_prepare(), **before}
    if program.intake.source == "split":
        return {**_prepare(), **before}
    # The inbox: whatever people delivered; nothing upstream but the order of versions.
    return {"collect": (previous, "collect"), **before}
