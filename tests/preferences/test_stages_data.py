"""The stages `prepare` and `intake`, on real files and on the built-in world."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from alignment.config.base import BaseConfig
from alignment.config.intake import DataConfig, IntakeConfig
from alignment.config.world import WorldConfig
from alignment.errors import ConfigError, DataError
from alignment.preferences.identity import opening_key
from alignment.preferences.inbox import ingest_inbox
from alignment.preferences.prompts import read_prompts
from alignment.preferences.store import PreferenceStore
from alignment.stages import intake, prepare
from alignment.stages.context import StageContext
from alignment.utils.progress import SilentProgress
from alignment.utils.seeds import derive_seed


def context(
    root: Path, version: str, stage: str, inputs: dict[str, Path] | None = None, **sections: Any
) -> StageContext:
    """A stage's surroundings in `root`, as the runner would make them."""
    for name in ("out", "scratch"):
        (root / version / stage / name).mkdir(parents=True, exist_ok=True)
    given = {
        "base": BaseConfig(),
        "world": WorldConfig(),
        "data": DataConfig(),
        "intake": IntakeConfig(),
    } | sections
    return StageContext(
        version=version,
        stage=stage,
        config=SimpleNamespace(**given),  # type: ignore[arg-type]
        options={},
        inputs=inputs or {},
        out=root / version / stage / "out",
        scratch=root / version / stage / "scratch",
        seed=derive_seed(0, version, stage),
        workspace=root / "workspace",
    )


def real(shared: Path, **changes: Any) -> dict[str, Any]:
    """Sections of a program on HH-RLHF."""
    return {
        "base": BaseConfig(source="path", path="model"),
        "intake": IntakeConfig(source="split", path=str(shared / "data" / "hh-rlhf")),
        "data": DataConfig(**changes),
    }


def opening(row: dict[str, Any]) -> int:
    """What `identify` calls the opening, from a JSON row."""
    messages = row.get("conversation") or row["messages"]
    return opening_key((message["role"], message["content"]) for message in messages)


class Telling(SilentProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, message: str) -> None:
        self.said.append(message)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_real_data_is_dealt_into_parts_that_share_nothing(shared: Path, tmp_path: Path) -> None:
    ctx = context(tmp_path, "base", "prepare", **real(shared))
    prepare.run(ctx)
    parts = {
        name: {opening(row) for row in rows(ctx.out / f"{name}.jsonl")}
        for name in ("demonstrations", "prompts", "eval_prompts")
    }
    arrivals = sorted(path.name for path in (ctx.out / "arrivals").iterdir())
    assert arrivals == ["01", "02", "03", "04", "05"]
    total = 0
    for name in arrivals:
        found = rows(ctx.out / "arrivals" / name / "comparisons.jsonl")
        assert 250 < len(found) < 500
        assert {row["domain"] for row in found} == {"helpfulness", "safety"}
        parts[name] = {opening(row) for row in found}
        total += len(found)
    assert total == ctx.metrics["arrivals"]
    names = list(parts)
    for index, left in enumerate(names):
        for right in names[index + 1 :]:
            assert not parts[left] & parts[right], f"{left} and {right} share a conversation"
    evaluation = read_prompts(ctx.out / "eval_prompts.jsonl")
    assert {prompt.category for prompt in evaluation} == {"helpful", "harmless"}
    # Every row is somewhere, or counted among the skipped or the repeated prompts.
    skipped = json.loads((ctx.out / "skipped.json").read_text())
    assert sum(skipped.values()) == ctx.metrics["skipped"]
    placed = total + sum(
        ctx.metrics[name] for name in ("demonstrations", "prompts", "stop_prompts")
    )
    placed += len(evaluation) + ctx.metrics["skipped"]
    assert 3590 <= placed <= 3600


def test_data_of_which_much_cannot_be_read_are_refused_and_the_rest_is_told(
    tmp_path: Path,
) -> None:
    def written(bad: int) -> str:
        path = tmp_path / "rows.jsonl"
        path.write_text(
            "".join(
                json.dumps({"prompt": f"q {n}", "chosen": "yes", "rejected": "no" * (n >= bad)})
                + "\n"
                for n in range(200)
            )
        )
        return str(path)

    settings = {
        "base": BaseConfig(source="path", path="model"),
        "intake": IntakeConfig(source="split", domain="helpfulness", path=written(bad=21)),
    }
    with pytest.raises(DataError, match=r"21 of 200 rows are bad .*rows.jsonl:1, field rejected"):
        prepare.run(context(tmp_path, "base", "prepare", **settings))
    written(bad=20)
    ctx = context(tmp_path, "base", "prepare", **settings)
    ctx.progress = Telling()
    prepare.run(ctx)
    assert any("left out of 200 rows: 20 × an answer without text" in x for x in ctx.progress.said)
    assert ctx.metrics["skipped"] == 20


def test_an_answer_that_was_cut_is_no_demonstration(tmp_path: Path) -> None:
    """SFT would learn to end where it was cut."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            json.dumps(
                {
                    "conversation": [{"role": "user", "content": f"question {n}"}],
                    "chosen": f"answer {n}",
                    "rejected": "no",
                    "domain": "helpfulness",
                    "chosen_by": {"version": "old", "temperature": 1.0, "finished": n % 2 == 0},
                }
            )
            + "\n"
            for n in range(400)
        )
    )
    settings = {
        "base": BaseConfig(source="path", path="model"),
        "intake": IntakeConfig(source="split", path=str(path)),
    }
    ctx = context(tmp_path, "base", "prepare", **settings)
    prepare.run(ctx)
    shown = rows(ctx.out / "demonstrations.jsonl")
    cut = json.loads((ctx.out / "skipped.json").read_text())["cut_demonstrations"]
    assert min(len(shown), cut) > 20
    assert all(int(row["response"].split()[1]) % 2 == 0 for row in shown)
    arrived = [row for file in ctx.out.glob("arrivals/*/*.jsonl") for row in rows(file)]
    assert {row["chosen_by"]["finished"] for row in arrived} == {True, False}


def test_prepare_is_repeatable_and_reads_borderline_prompts(shared: Path, tmp_path: Path) -> None:
    path = shared / "data" / "xstest" / "xstest_prompts.csv"
    outs = []
    for name in ("a", "b"):
        ctx = context(tmp_path / name, "base", "prepare", **real(shared, borderline=str(path)))
        prepare.run(ctx)
        outs.append(ctx.out)
    files = sorted(p.relative_to(outs[0]) for p in outs[0].rglob("*") if p.is_file())
    assert len(files) == 10
    for name in files:
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    prompts = read_prompts(outs[0] / "eval_prompts.jsonl")
    borderline = [prompt for prompt in prompts if prompt.borderline]
    assert len(borderline) == 250
    assert not any(prompt.tag_safety for prompt in borderline)


def test_split_versions_take_their_arrivals_and_prompts_keep_their_side(
    shared: Path, tmp_path: Path
) -> None:
    base = context(tmp_path, "base", "prepare", **real(shared))
    prepare.run(base)
    inputs = {"prepare": base.out}
    ids = []
    for number in (1, 2):
        version = f"rlhf-v{number}"
        ctx = context(tmp_path, version, "intake", dict(inputs), **real(shared))
        intake.run(ctx)
        taken = json.loads((ctx.out / "batch.json").read_text())
        assert taken["version"] == version
        assert len(taken["batches"]) == 1
        ids.append(taken["batches"][0]["id"])
        counts = taken["batches"][0]["counts"]
        assert (
            sum(counts["training"].values()) + sum(counts["heldout"].values())
            == (taken["batches"][0]["rows"]["accepted"])
        )
        assert (ctx.out / f"report-{ids[-1]}.png").stat().st_size > 10_000
        inputs[f"intake/{version}"] = ctx.out
    store = PreferenceStore(tmp_path / "workspace" / "preferences")
    index = store.index(ids)
    held = set(index["opening"][index["heldout"]])
    assert held
    assert not held & set(index["opening"][~index["heldout"]])
    safety = store.training(ids, "safety")
    assert safety
    assert all(row.domain == "safety" for row in safety)
    late = context(tmp_path, "rlhf-v6", "intake", dict(inputs), **real(shared))
    with pytest.raises(DataError, match="no arrival"):
        intake.run(late)


def test_a_repeated_intake_finds_its_batch_again_whatever_else_is_in_the_store(
    shared: Path, tmp_path: Path
) -> None:
    base = context(tmp_path, "base", "prepare", **real(shared))
    prepare.run(base)
    outs = []
    for attempt in range(2):
        ctx = context(tmp_path, "rlhf-v1", "intake", {"prepare": base.out}, **real(shared))
        intake.run(ctx)
        outs.append({path.name: path.read_bytes() for path in sorted(ctx.out.iterdir())})
        if attempt == 0:  # somebody else's batch comes in between
            other = context(tmp_path, "rlhf-v2", "intake", {"prepare": base.out}, **real(shared))
            intake.run(other)
    assert outs[0] == outs[1]
    assert len(PreferenceStore(tmp_path / "workspace" / "preferences").batches()) == 2


def test_the_worlds_annotators_go_through_the_same_door(tmp_path: Path) -> None:
    small = WorldConfig(corpus_documents=50, demonstrations=50, prompts=60)
    ctx = context(tmp_path, "base", "prepare", world=small)
    prepare.run(ctx)
    pairs = []
    for prompt in read_prompts(ctx.out / "prompts.jsonl"):
        pairs.append(
            {
                "id": prompt.id,
                "conversation": prompt.messages,
                "responses": [
                    {"text": f"the answer is {side}.", "version": side, "temperature": 1.0}
                    for side in ("sft", "rlhf-v1")
                ],
                "domain": prompt.domain,
                "category": prompt.category,
            }
        )
    collect = tmp_path / "collect"
    collect.mkdir()
    lines = "".join(json.dumps(pair) + "\n" for pair in pairs)
    (collect / "pairs.jsonl").write_text(lines)
    taken = context(tmp_path, "rlhf-v1", "intake", {"collect": collect}, world=small)
    intake.run(taken)
    figures = json.loads((taken.out / "report.json").read_text())["batches"][0]
    assert figures["rows"]["read"] == len(pairs)
    assert figures["newer_wins"]["pairs"] == figures["rows"]["accepted"]
    (collect / "pairs.jsonl").write_text("")
    with pytest.raises(DataError, match="no pairs"):
        intake.run(taken)


def test_the_inbox_gives_each_version_what_came_since_the_last(
    shared: Path, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    source = shared / "data" / "webgpt" / "comparisons.jsonl.gz"
    (inbox / "webgpt-1.jsonl.gz").write_bytes(source.read_bytes())
    (inbox / "webgpt-2.jsonl.gz.part").write_bytes(b"half")
    setting = IntakeConfig(source="inbox", path=str(inbox))
    assert [taken.outcome for taken in ingest_inbox(tmp_path / "workspace", setting, 0)] == [
        "accepted"
    ]
    first = context(tmp_path, "rlhf-v1", "intake", intake=setting)
    intake.run(first)
    before = (first.out / "batch.json").read_bytes()
    second = context(tmp_path, "rlhf-v2", "intake", intake=setting)
    with pytest.raises(DataError, match="no new preferences"):
        intake.run(second)
    panda = (shared / "data" / "pandalm" / "human_annotations.jsonl.gz").read_bytes()
    (inbox / "pandalm.jsonl.gz").write_bytes(panda)
    assert [taken.file for taken in ingest_inbox(tmp_path / "workspace", setting, 0)] == [
        "pandalm.jsonl.gz"
    ]
    intake.run(second)
    taken = json.loads((second.out / "batch.json").read_text())["batches"]
    assert [batch["rows"]["read"] for batch in taken] == [600]
    intake.run(first)  # once more: the same batches as before, not what came since
    assert (first.out / "batch.json").read_bytes() == before
    versions = [b.versions for b in PreferenceStore(tmp_path / "workspace/preferences").batches()]
    assert versions == [("rlhf-v1",), ("rlhf-v2",)]


def test_real_data_needs_a_path(tmp_path: Path) -> None:
    sections = {
        "base": BaseConfig(source="path", path="model"),
        "intake": IntakeConfig(source="split"),
    }
    with pytest.raises(ConfigError, match="no preference data"):
        prepare.run(context(tmp_path, "base", "prepare", **sections))
