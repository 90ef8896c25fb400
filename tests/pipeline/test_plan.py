"""The plan: what each stage needs, under every kind of decision and of program."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import load_program
from alignment.pipeline.approval import Decision, Decisions, Verdict
from alignment.pipeline.plan import WORLD, build_plan

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"


def decisions(program: Any, words: dict[str, bool], verdicts: dict[str, bool]) -> Decisions:
    return Decisions(
        program,
        {name: Decision(name, yes, "", "ana", "", "f") for name, yes in words.items()},
        {name: Verdict("f", {"promoted": yes}) for name, yes in verdicts.items()},
    )


def digest(plan: Any) -> str:
    rows = [
        [
            *(node.version, node.stage, node.module),
            [[name, list(source)] for name, source in node.inputs.items()],
            dict(node.options),
        ]
        for node in plan
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()[:16]


# Taken from release 0.1: stages, inputs in their order and options all go into fingerprints, so a
# change here runs everybody's finished stages again. Only with a bumped CODE_VERSION. Since then a
# bag holds nothing of rejected versions, which changes the three plans with rejections, and the
# built-in world is another one.
PINNED = [
    ([], {}, {}, "580806cc4d64dd49"),
    ([], {"rlhf-v1": True, "rlhf-v2": False}, {}, "f288814e7afb616a"),
    (
        ["promote.approval=person"],
        {"rlhf-v1": True, "rlhf-v2": False, "rlhf-v3": True},
        {"rlhf-v4": False},
        "12a8b3d600845dd2",
    ),
    (
        ["promote.parent=champion"],
        {},
        {"rlhf-v1": True, "rlhf-v2": False, "rlhf-v3": False},
        "d41adc2f58d1125e",
    ),
    (["rewards.guard_share=0.2"], {}, {}, "c7fd81f4c97a945b"),
    (["rewards.init=sft"], {}, {}, "149fa468ce3a8d3b"),
    (["intake.source=inbox"], {}, {}, "47376d07e6936673"),
]


@pytest.mark.parametrize(("settings", "words", "verdicts", "pinned"), PINNED)
def test_the_plan_of_the_demo_is_that_of_release_0_1(
    settings: list[str],
    words: dict[str, bool],
    verdicts: dict[str, bool],
    pinned: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = load_program(DEMO, settings)
    today = build_plan(program, decisions(program, words, verdicts))
    assert today[0].options == WORLD
    monkeypatch.setattr("alignment.pipeline.plan.WORLD", {})
    assert digest(build_plan(program, decisions(program, words, verdicts))) == pinned


def test_the_release_of_the_built_in_world_concerns_no_other_program(tmp_path: Path) -> None:
    base = [f"base.path={tmp_path}", "base.source=path", f"data.path={tmp_path}"]
    program = load_program(DEMO, [*base, "intake.source=inbox"])
    assert build_plan(program, Decisions(program))[0].options == {}


def test_planning_reads_no_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    program = load_program(DEMO)

    def forbidden(*_: Any, **__: Any) -> Any:
        raise AssertionError("the plan looked at the disk")

    for name in ("open", "read_text", "is_file", "exists"):
        monkeypatch.setattr(Path, name, forbidden)
    assert len(build_plan(program, Decisions(program))) == 51


def test_the_champion_is_the_last_one_approved_or_passed() -> None:
    program = load_program(DEMO, ["promote.approval=person"])
    assert decisions(program, {}, {"rlhf-v1": True}).champion == "sft", "nobody has said yes"
    assert decisions(program, {"rlhf-v1": True, "rlhf-v2": False}, {}).champion == "rlhf-v1"
    gated = load_program(DEMO)
    assert decisions(gated, {}, {"rlhf-v1": True, "rlhf-v2": False}).champion == "rlhf-v1"
    assert decisions(gated, {"rlhf-v2": True}, {"rlhf-v2": False}).champion == "rlhf-v2"


def test_a_temperature_search_knows_whether_selection_takes_unfinished_answers() -> None:
    options = {
        given: next(n for n in build_plan(p, Decisions(p)) if n.key == "rlhf-v1/sample").options
        for given in ((), ("select.finished_only=false",), ("select.bag_keep=2",))
        for p in [load_program(DEMO, given)]
    }
    assert list(options.values()) == [{}, {"finished_only": False}, {}]
    fixed = load_program(DEMO, ["select.finished_only=false", "sample.temperature=1.0"])
    assert not any(n.options for n in build_plan(fixed, Decisions(fixed)) if n.stage == "sample")


def test_ppo_reads_another_reference_only_where_it_is_asked_for() -> None:
    for reference, wanted in (("start", None), ("sft", ("sft", "finetune"))):
        program = load_program(DEMO, [f"ppo.reference={reference}"])
        nodes = {node.key: node for node in build_plan(program, Decisions(program))}
        assert nodes["rlhf-v5/ppo"].inputs.get("reference") == wanted


def test_fresh_prompts_are_those_that_no_standing_version_sampled_for() -> None:
    def earlier(*given: str) -> list[list[str]]:
        program = load_program(DEMO, list(given))
        plan = build_plan(program, decisions(program, {"rlhf-v2": False}, {}))
        nodes = [node for node in plan if node.stage == "sample"]
        return [
            [source[0] for name, source in node.inputs.items() if name.startswith("earlier/")]
            for node in nodes
        ]

    # Nothing was learned from the answers to the prompts of the rejected version.
    expected = [[], ["rlhf-v1"], ["rlhf-v1"], ["rlhf-v1", "rlhf-v3"]]
    approved = "promote.approval=person"
    assert earlier("sample.fresh_prompts=true", approved)[:4] == expected
    # Unless it is set versions draw anew: the samples of programs of before stay valid.
    assert not any(earlier(approved))
