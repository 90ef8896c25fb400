"""Each reader on rows worked out by hand, and on the real files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alignment.config.intake import FormatName, IntakeConfig
from alignment.errors import DataError
from alignment.preferences.intake import ingest
from alignment.preferences.prepare_files import native
from alignment.preferences.readers import FORMATS, choose, named
from alignment.preferences.readers.format import Format, common_prefix
from alignment.preferences.rows import REASONS, Draft, RowError, check
from alignment.preferences.schema import Comparison
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import find_sources
from alignment.preferences.store import PreferenceStore

CONFIG = IntakeConfig(domain="helpfulness")
Q = [("user", "q")]


def read(row: dict[str, Any], config: IntakeConfig = CONFIG) -> tuple[str, list[Draft | RowError]]:
    """Format that is detected for a row, and what it makes of it."""
    found = choose([row], "here")
    return found.name, found.read(row, config, {})


def one(row: dict[str, Any], config: IntakeConfig = CONFIG) -> tuple[str, Draft]:
    name, found = read(row, config)
    assert len(found) == 1
    assert isinstance(found[0], Draft)
    return name, found[0]


def reason(row: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(RowError) as caught:
        read(row)
    return caught.value.reason, caught.value.field


def test_hh_splits_at_the_last_common_answer() -> None:
    start = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: q?\n\nAssistant:"
    name, draft = one({"chosen": f"{start} yes.", "rejected": f"{start} no."})
    assert name == "hh"
    assert draft.turns == [("user", "hi"), ("assistant", "hello"), ("user", "q?")]
    assert (draft.chosen, draft.rejected) == ("yes.", "no.")
    assert reason({"chosen": f"{start} a", "rejected": "\n\nHuman: other\n\nAssistant: b"}) == (
        "no_common_prompt",
        "rejected",
    )
    # One side goes on with a turn of its own: no answer to the same conversation.
    more = f"{start} a\n\nHuman: and?\n\nAssistant: b"
    assert reason({"chosen": more, "rejected": f"{start} c"}) == ("no_common_prompt", "chosen")
    assert reason({"chosen": "\n\nHuman: q", "rejected": start})[0] == "missing_prompt"


@pytest.mark.parametrize(
    ("answer", "stray"),
    [
        (" Human: and then?", True),
        ("Well, I would not.  Human:  Why not?", True),
        (" Yes.\nHuman: Thanks!", True),
        (" He said “no.” Assistant: right", True),
        (" The word Human: is a marker", False),
        (" An “Assistant: yes” is a quotation", False),
        (" Human beings: all of us", False),
        (" Superhuman: a film", False),
    ],
)
def test_an_answer_that_speaks_for_its_user_teaches_nobody(answer: str, stray: bool) -> None:
    """Some of HH's answers go on with the next turn, without the blank line that marks one."""
    start = "\n\nHuman: q?\n\nAssistant:"
    for field in ("chosen", "rejected"):
        row = {"chosen": f"{start} yes", "rejected": f"{start} no", field: f"{start}{answer}"}
        if stray:
            assert reason(row) == ("markup", field)
        else:
            assert getattr(one(row)[1], field) == answer.strip()


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "a", "rejected": "b"},
        {"prompt": "\n\nHuman: q\n\nAssistant:", "chosen": " a", "rejected": " b"},
        {
            "prompt": [{"role": "user", "content": "q"}],
            "chosen": [{"role": "assistant", "content": "a"}],
            "rejected": [{"role": "assistant", "content": "b"}],
        },
        {
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        {  # UltraFeedback: the prompt once more as text
            "prompt": "q",
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}],
        },
        {
            "chosen": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}],
            "rejected": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "b"}],
        },
        {"chosen": "q a", "rejected": "q b"},
    ],
)
def test_all_shapes_of_trl_say_the_same(row: dict[str, Any]) -> None:
    name, draft = one(row)
    assert name == "trl"
    assert (draft.turns, draft.chosen, draft.rejected) == (Q, "a", "b")


def test_trl_names_what_is_wrong() -> None:
    assert reason({"chosen": "x", "rejected": "y"})[0] == "missing_prompt"
    assert reason({"prompt": 3, "chosen": "x", "rejected": "y"}) == ("wrong_type", "prompt")
    assert reason({"prompt": "q", "chosen": None, "rejected": "y"}) == ("missing_field", "chosen")
    assert reason({"prompt": "q", "chosen": [], "rejected": "y"})[0] == "wrong_type"


@pytest.mark.parametrize(
    ("gap", "strength"),
    [(3.0, "significantly"), (2.0, "significantly"), (1.5, "better"), (1.0, "better"),
     (0.5, "slightly"), (0.25, "negligibly")],
)  # fmt: skip
def test_webgpt_gap_is_the_strength(gap: float, strength: str) -> None:
    row = {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": 0.0, "score_1": gap}
    name, draft = one(row)
    assert name == "webgpt"
    assert (draft.chosen, draft.rejected, draft.strength) == ("b", "a", strength)
    original = {**row, "question": {"full_text": "q", "id": 3}}
    assert one(original)[1].turns == Q
    (tie,) = read({**row, "score_1": 0.0})[1]
    assert isinstance(tie, RowError)
    assert tie.reason == "tie"


@pytest.mark.parametrize(
    ("votes", "expected"),
    [
        ((1, 1, 1), ("x", "significantly", ["chosen"] * 3)),
        ((2, 2, 1), ("y", "slightly", ["chosen", "chosen", "rejected"])),
        ((2, 0, 2), ("y", "slightly", ["chosen", "tie", "chosen"])),
        ((1, 2, 0), None),
        ((0, 0, 1), None),
        ((0, 0, 0), None),
    ],
)
def test_pandalm_votes_become_a_majority(
    votes: tuple[int, int, int], expected: tuple[str, str, list[str]] | None
) -> None:
    row = {"instruction": "do", "input": "this", "response1": "x", "response2": "y"}
    row |= {f"annotator{n}": vote for n, vote in enumerate(votes, 1)}  # type: ignore[dict-item]
    if expected is None:
        assert reason(row) == ("tie", "votes")
        return
    name, draft = one(row)
    assert name == "pandalm"
    assert draft.turns == [("user", "do\n\nthis")]
    assert (draft.chosen, draft.strength, draft.votes) == expected


def test_a_ranking_becomes_all_its_pairs_as_one_group() -> None:
    row = {
        "prompt": "q",
        "responses": ["w", {"text": "x", "version": "sft", "temperature": 1}, "y", "z"],
        "ranks": [2, 1, 3, 3],
    }
    name, found = read(row)
    assert name == "ranking"
    pairs = [(d.chosen, d.rejected) for d in found if isinstance(d, Draft)]
    assert pairs == [("x", "w"), ("w", "y"), ("w", "z"), ("x", "y"), ("x", "z")]
    assert [d.reason for d in found if isinstance(d, RowError)] == ["tie"]
    assert len({d.group for d in found if isinstance(d, Draft)}) == 1
    ordered = {"prompt": "q", "responses": row["responses"], "ranking": [1, 0, [2, 3]]}
    again = [(d.chosen, d.rejected) for d in read(ordered)[1] if isinstance(d, Draft)]
    assert again == pairs
    assert reason({**ordered, "ranking": [1, 0, 2]}) == ("bad_vote", "ranking")
    assert reason({**row, "responses": ["w"], "ranks": [1]}) == ("missing_field", "responses")


@pytest.mark.parametrize(
    ("path", "name", "accepted"),
    [
        ("hh-rlhf/harmless.jsonl.gz", "hh", 1766),
        ("hh-rlhf/helpful.jsonl.gz", "hh", 1767),
        ("webgpt/comparisons.jsonl.gz", "webgpt", 429),
        ("pandalm/human_annotations.jsonl.gz", "pandalm", 439),
    ],
)
def test_real_files_are_counted_to_the_last_row(
    path: str, name: str, accepted: int, shared: Path, tmp_path: Path
) -> None:
    store = PreferenceStore(tmp_path)
    values = ingest(store, [shared / "data" / path], IntakeConfig()).values
    assert values["sources"][0]["format"] == name
    rows = values["rows"]
    assert rows["accepted"] == accepted
    assert rows["read"] == rows["accepted"] + rows["quarantined"] + rows["dropped"]
    with gzip.open(shared / "data" / path) as file:
        assert rows["read"] == sum(1 for _ in file)
    held = sum(values["counts"]["heldout"].values())
    assert abs(held - 0.1 * accepted) <= 2


def test_native_parquet_and_dataset_directories_say_what_jsonl_says(
    shared: Path, tmp_path: Path
) -> None:
    import datasets

    source = find_sources([shared / "data" / "webgpt"])[0]
    drafts = [d for _, d in SourceReader(IntakeConfig()).open(source)[1] if isinstance(d, Draft)]
    rows = [native(draft) for draft in drafts]
    jsonl = tmp_path / "a.jsonl"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    datasets.Dataset.from_list(rows).save_to_disk(tmp_path / "c")
    array = tmp_path / "d.json"
    array.write_text(json.dumps(rows))
    ids = []
    for number, path in enumerate([jsonl, tmp_path / "b.parquet", tmp_path / "c", array]):
        store = PreferenceStore(tmp_path / f"store-{number}")
        report = ingest(store, [path], IntakeConfig())
        assert report.values["rows"]["accepted"] == len(rows)
        ids.append([row.id for row in store.training([report.id])])
    assert ids[0] == ids[1] == ids[2] == ids[3]


def test_what_was_taken_in_comes_back_as_it_was(tmp_path: Path) -> None:
    row = {
        "conversation": [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": "größe 😀"},
        ],
        "chosen": " a \n",
        "rejected": "b",
        "strength": "negligibly",
        "domain": "safety",
        "safety_bin": "both_safe",
        "chosen_by": {"version": "rlhf-v1", "temperature": 0.5},
        "annotator": "17",
        "group": "g",
        "votes": ["chosen", "tie"],
        "category": "c",
    }
    path = tmp_path / "one.jsonl"
    path.write_text(json.dumps(row))
    store = PreferenceStore(tmp_path / "store")
    report = ingest(store, [path], IntakeConfig())
    (found,) = store.training([report.id]) + store.heldout([report.id])
    assert found == Comparison.model_validate(row)
    assert found.id == Comparison.model_validate(row).id
    index = store.index([report.id])
    assert f"{int(index['id'][0]):016x}" == found.id


def test_domains_come_from_row_then_option_then_file_name(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "a", "rejected": "b"} for n in range(20)]
    rows[0]["domain"] = "safety"
    path = tmp_path / "helpful-base.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    count = ingest(PreferenceStore(tmp_path / "1"), [path], IntakeConfig()).values["domains"]
    assert count == {"helpfulness": 19, "safety": 1}
    told = ingest(PreferenceStore(tmp_path / "2"), [path], IntakeConfig(), domain="safety").values
    assert told["domains"] == {"safety": 20}
    with pytest.raises(DataError, match="domain") as caught:
        ingest(PreferenceStore(tmp_path / "3"), [path], IntakeConfig(domains={}))
    assert "--domain" in str(caught.value)


def test_an_unknown_format_or_name_is_explained() -> None:
    with pytest.raises(DataError, match="the first row has: a, b"):
        choose([{"a": 1, "b": 2}], "x.jsonl")
    with pytest.raises(DataError, match="no format 'parquet'") as caught:
        named("parquet")
    assert "webgpt" in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)
NAMES = sorted(
    {
        "conversation", "prompt", "chosen", "rejected", "strength", "domain", "safety_bin",
        "chosen_by", "group", "votes", "category", "annotator", "question", "answer_0", "answer_1",
        "score_0", "score_1", "instruction", "input", "response1", "response2", "annotator1",
        "responses", "ranks", "ranking", "data", "annotations", "fields", "metadata", "id",
        "preference", "answer1", "answer2", "align_task", "preference.responses",
        "preference.responses.users", "safety1",
    }
)  # fmt: skip


def outcome(reader: Format, row: dict[str, Any]) -> list[str | Draft]:
    """Reasons and sound drafts; anything but a `RowError` comes through and fails the test."""
    try:
        found = reader.read(row, CONFIG, {})
    except RowError as error:
        return [error.reason]
    said: list[str | Draft] = []
    for draft in found:
        try:
            if isinstance(draft, RowError):
                raise draft
            draft.domain = draft.domain or "safety"
            check(draft, 1000)
            said.append(draft)
        except RowError as error:
            said.append(error.reason)
    return said


@example(row={"preference.responses": [], "preference.responses.users": 1.0})
@given(row=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8))
@settings(max_examples=150)
def test_no_row_breaks_a_reader(row: dict[str, Any]) -> None:
    for reader in FORMATS:
        for said in outcome(reader, row):
            if isinstance(said, Draft):
                Comparison.model_validate(native(said))
            else:
                assert said in REASONS


@pytest.mark.parametrize("number", [10**400, float("inf"), float("nan"), True, "1", None])
def test_numbers_that_are_none(number: Any) -> None:
    scored = {"question": "q", "answer_0": "a", "answer_1": "b", "score_0": number, "score_1": 1}
    assert outcome(named("webgpt"), scored)[0] in ("wrong_type", "missing_field")
    ranked = {"prompt": "q", "responses": ["a", "b"], "ranks": [1, number]}
    assert outcome(named("ranking"), ranked) == ["bad_vote"]
    by = {"version": "sft", "temperature": number}
    row = {"conversation": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}
    assert outcome(named("native"), {**row, "chosen_by": by}) == ["wrong_type"]
    by |= {"temperature": 1.0, "finished": number}
    if number is not True and number is not None:
        assert outcome(named("native"), {**row, "chosen_by": by}) == ["wrong_type"]


def test_an_answer_ended_unless_it_says_that_it_did_not() -> None:
    """Tables write null where a row has no such key."""
    row = {"conversation": [{"role": "user", "content": "q"}], "chosen": "a", "rejected": "b"}
    for said, ended in (({}, True), ({"finished": None}, True), ({"finished": False}, False)):
        by = {"version": "sft", "temperature": 1.0, **said}
        (draft,) = named("native").read({**row, "chosen_by": by}, IntakeConfig(), {})
        assert isinstance(draft, Draft)
        assert draft.chosen_by == ("sft", 1.0, ended)


def test_intake_format_knows_every_reader() -> None:
    assert set(get_args(FormatName)) == {reader.name for reader in FORMATS}


def test_who_wrote_a_cut_answer_of_a_ranking_must_be_said() -> None:
    """Else it would count as one that ended."""
    cut = {"text": "a", "finished": False}
    by = {"version": "sft", "temperature": 1.0}
    ranked = {"prompt": "q", "responses": [cut, "b"], "ranks": [1, 2], "domain": "helpfulness"}
    assert outcome(named("ranking"), ranked) == ["missing_field"]
    ranked["responses"] = [cut | by, {"text": "b", "finished": True}]
    (draft,) = named("ranking").read(ranked, IntakeConfig(), {})
    assert isinstance(draft, Draft)
    assert (draft.chosen_by, draft.rejected_by) == (("sft", 1.0, False), None)


@given(left=st.text("ab", max_size=12), right=st.text("ab", max_size=12))
def test_common_prefix(left: str, right: str) -> None:
    length = common_prefix(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]
