"""Readers on rows of random columns, types and texts: each is counted, none changed."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from fuzzing import fuzzing
from hypothesis import example, given
from hypothesis import strategies as st

from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.preferences.intake import ingest
from alignment.preferences.readers import FORMATS, Format, asked, named
from alignment.preferences.readers.transcripts import is_transcript
from alignment.preferences.rows import REASONS, Draft
from alignment.preferences.schema import Comparison
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import find_sources
from alignment.preferences.store import PreferenceStore

CONFIG = IntakeConfig(domain="helpfulness", max_quarantine=1.0, heldout_share=0.0)
WORDS = (
    "yes", "no", "q", "a  b", " x ", "é", "e\u0301", "\u200b", "\u2028", "", "\0", "\ud800",
    "safety", "better", "tie", "answer1", "left", "user", "assistant", "submitted",
    "<|im_end|>", "align-1", "[]", "{}",
    "\n\nHuman: q\n\nAssistant: yes", "\n\nHuman: q\n\nAssistant: no", "USER: q ASSISTANT: yes",
    "\n\nSystem: s\n\nHuman: q\n\nAssistant:", "q yes", "q no",
)  # fmt: skip
COLUMNS = sorted(
    {
        "chosen", "rejected", "responses", "ranking", "ranks", "data", "annotations", "fields",
        "preference", "answer_0", "answer_1", "score_0", "score_1", "response1", "response2",
        "annotator1", "preference.responses", "preference.responses.status", "votes", "group",
        "safety_bin", "metadata", "id", "tools", "images", "note", "\ud800", "x" * 300,
        *(column for one in FORMATS for column in one.columns),
    }
)  # fmt: skip
text = st.sampled_from(WORDS) | st.text(max_size=6)
scalar = st.none() | st.booleans() | st.integers(-2, 3) | st.floats() | text | st.just(10**400)
message = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool", "GPT"]), "content": text},
    optional={"tool_calls": scalar, "value": text},
)
answer = st.fixed_dictionaries(
    {"user_id": scalar, "value": text}, optional={"status": st.sampled_from(["submitted", "draft"])}
)
value = st.recursive(
    scalar | st.lists(message, max_size=3) | st.lists(answer, min_size=1, max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(text | st.sampled_from(COLUMNS), inner, max_size=3)
    ),
    max_leaves=6,
)
CORES: tuple[tuple[str, ...], ...] = (
    ("chosen", "rejected"),
    ("prompt", "chosen", "rejected"),
    ("conversation", "chosen", "rejected"),
    ("question", "answer_0", "answer_1", "score_0", "score_1"),
    ("instruction", "response1", "response2", "annotator1"),
    ("prompt", "responses", "ranks"),
    ("prompt", "answer1", "answer2", "preference"),
    ("data", "annotations"),
    ("fields", "responses"),
)


@st.composite
def row(draw: st.DrawFn) -> dict[str, Any]:
    """A row that some reader half knows, with further columns."""
    core = draw(st.sampled_from(CORES))
    likely = {
        "conversation": st.lists(message, min_size=1, max_size=2),
        "responses": st.lists(text, min_size=2, max_size=3),
        "ranks": st.lists(st.integers(1, 3), min_size=2, max_size=3),
    }
    found = {name: draw(likely.get(name, text | st.integers(0, 2)) | value) for name in core}
    return found | draw(st.dictionaries(st.sampled_from(COLUMNS), value, max_size=3))


def texts(found: Any) -> list[str]:
    """All texts in a row, at any depth."""
    if isinstance(found, dict):
        return [part for inner in found.values() for part in texts(inner)]
    if isinstance(found, list):
        return [part for inner in found for part in texts(inner)]
    return [found] if isinstance(found, str) else []


def check_unchanged(found: Draft | Comparison, given_texts: list[str]) -> None:
    """Every stored text stood in a row (an instruction and its input stand in two columns)."""
    turns = (
        found.turns
        if isinstance(found, Draft)
        else [(turn["role"], turn["content"]) for turn in found.conversation]
    )
    for part in (*(content for _, content in turns), found.chosen, found.rejected):
        pieces = [part] if any(part in one for one in given_texts) else part.split("\n\n")
        assert all(any(piece in one for one in given_texts) for piece in pieces), part


def check_nothing_lost(draft: Draft, found: dict[str, Any]) -> None:
    """Every text of a column of the conversation is in the conversation."""
    spoken = "\n\n".join(content for _, content in draft.turns)
    for name in asked.COLUMNS & found.keys():
        held = found[name].strip() if isinstance(found[name], str) else ""
        silent = name in (*asked.SYSTEMS, "history") and held in ("[]", "{}", "null")
        if not silent and not is_transcript(held):
            assert held in spoken, name


def write(rows: list[dict[str, Any]], folder: str) -> Path:
    path = Path(folder) / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize("name", [one.name for one in FORMATS])
@given(rows=st.lists(row(), min_size=1, max_size=6))
@example(rows=[{"prompt": "q", "answer1": "yes", "answer2": "no", "preference": "answer1"}] * 2)
@example(rows=[{"instruction": "q", "input": "[]", "chosen": "yes", "rejected": "no"}])
@fuzzing
def test_a_reader_answers_for_every_row(name: str, rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (source,) = find_sources([write(rows, folder)])
        found = list(SourceReader(CONFIG, format=name).open(source)[1])
    assert {record.line for record, _ in found} == set(range(1, len(rows) + 1))
    given_texts = texts(rows)
    for record, draft in found:
        if isinstance(draft, Draft):
            check_unchanged(draft, given_texts)
            if name in ("trl", "webgpt", "ranking", "pandalm"):
                assert isinstance(record.value, dict)
                check_nothing_lost(draft, record.value)
        else:
            assert draft.reason in REASONS


@given(rows=st.lists(row(), min_size=1, max_size=6), one=st.sampled_from(FORMATS))
@example(rows=[{"prompt": "q", "chosen": "yes", "rejected": "no", "\ud800": 1}], one=named("trl"))
@fuzzing
def test_no_row_is_lost_or_changed(rows: list[dict[str, Any]], one: Format) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = PreferenceStore(Path(folder) / "store")
        try:
            report = ingest(store, [write(rows, folder)], CONFIG, format=one.name)
        except DataError:  # nothing sound among them: refused whole, with every row's reason
            (kept,) = (Path(folder) / "store" / "refused").iterdir()
            counts = json.loads((kept / "report.json").read_text())
            accepted = []
        else:
            kept, counts = report.directory, report.values
            accepted = list(store.training([report.id]))
        lines = (kept / "quarantine.jsonl").read_text().splitlines()
    total, refused = counts["rows"], sum(counts["reasons"].values())
    assert total["read"] >= len(rows)  # a ranking is several comparisons
    assert total["read"] == total["accepted"] + total["quarantined"] + total["dropped"]
    assert total["accepted"] == len(accepted) == total["read"] - refused
    assert len(lines) == refused
    for found in accepted:
        check_unchanged(found, texts(rows))


@given(data=st.binary(max_size=200) | st.lists(text, max_size=4).map(lambda p: "\n".join(p).encode(
    "utf-8", "surrogatepass")))  # fmt: skip
@example(data=b"")
@example(data=b"[]")
@example(data=b'{"chosen": 1, "chosen": 2}')
@example(data=b'[{"prompt": "q", "chosen": "a", "chosen": "b", "rejected": "c"}]')
@example(data=b"version https://git-lfs.github.com/spec/v1\n")
@fuzzing
def test_no_file_breaks_intake(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(data)
        with pytest.raises(DataError):
            ingest(PreferenceStore(Path(folder) / "store"), [path], CONFIG)
