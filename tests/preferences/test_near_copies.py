"""Prompts that are the same but for case and punctuation, and those that are almost the same."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment.config.intake import IntakeConfig
from alignment.preferences.identity import opening_key
from alignment.preferences.intake import ingest
from alignment.preferences.near_copies import near_copies, question, shingles
from alignment.preferences.schema import plain
from alignment.preferences.split import EarlierSplit
from alignment.preferences.store import PreferenceStore


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is a fox?", "what is a fox"),
        ("What is  a\nfox ?!", "What is a fox"),
        ("Où est le café ?", "ou\u0300 est le cafe\u0301"),
        ("“What is a fox”…", "What is a fox"),
        ("ＷＨＡＴ is a fox", "what is a fox"),
        ("भारत क्या है?", "भारत क्या है"),
    ],
)
def test_another_spelling_is_the_same_opening(one: str, other: str) -> None:
    assert opening_key([("user", one)]) == opening_key([("user", other)])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a fox", "a box"),
        ("?", "!"),
        ("5 + 3?", "5 - 3?"),
        ("C++", "C#"),
        ("é + 1", "é - 1"),
        ("foxes", "fox es"),
        ("2 + 2 = 4 €", "2 + 2 = 4 £"),
        ("कि", "की"),
    ],
)
def test_another_question_is_another_opening(one: str, other: str) -> None:
    assert plain(one) != plain(other)


def test_the_role_counts_and_later_turns_do_not() -> None:
    turns = [("system", "Be kind."), ("user", "Hello!"), ("assistant", "Yes?"), ("user", "Why?")]
    assert opening_key(turns) == opening_key([("system", "be kind"), ("user", "hello")])
    assert opening_key(turns) != opening_key([("user", "be kind"), ("user", "hello")])


def test_near_copies_are_those_of_all_pairs() -> None:
    rng = np.random.default_rng(0)
    words = np.array(list("abcde"))
    texts = [" ".join(rng.choice(words, rng.integers(1, 9))) for _ in range(150)]
    asked, others = texts[:60], texts[60:]
    expected = np.zeros(len(asked), dtype=bool)
    for (number, one), other in itertools.product(enumerate(asked), others):
        a, b = shingles(one), shingles(other)
        expected[number] |= len(a & b) / len(a | b) >= 0.7
    assert 0 < expected.sum() < len(asked)
    np.testing.assert_array_equal(near_copies(asked, others), expected)


def test_one_word_more_of_many_is_near() -> None:
    long = "please tell me how I can best grow red tomatoes on a small balcony"
    assert near_copies([long.upper() + " today?"], [long])[0]  # 12 of 13 triples
    assert not near_copies(["grow tomatoes"], [long])[0]


def test_a_system_message_that_all_share_makes_no_near_copies() -> None:
    system = {"role": "system", "content": " ".join(f"rule {n} is kept" for n in range(30))}
    bread, sky = (
        question([system, {"role": "user", "content": text}, {"role": "assistant", "content": ""}])
        for text in ("How do I bake bread?", "Why is the sky blue?")
    )
    assert (bread, question([])) == ("how do i bake bread", "")
    assert not near_copies([bread], [sky])[0]


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    path = tmp_path / "a.jsonl"
    row = {"chosen": "yes", "rejected": "no", "domain": "safety"}
    asked = [f"{word}{end}" for word in ("How", "Why", "When") for end in ("?", "!", ".")]
    rows = [row | {"conversation": [{"role": "user", "content": text}]} for text in asked]
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    made = PreferenceStore(tmp_path / "preferences")
    ingest(made, [path], IntakeConfig())
    return made


def test_an_index_of_before_gets_openings_without_case(store: PreferenceStore) -> None:
    (batch,) = store.batches()
    path = batch.directory / "index.parquet"
    index = pq.read_table(path)
    new = store.index([batch.id])["opening"]
    assert len(new) == 9
    assert len(set(new)) == 3
    old = pa.array(np.arange(len(index), dtype=np.uint64))
    table = index.set_column(1, "opening", old).replace_schema_metadata(None)
    moved = Path(shutil.copytree(store.root, store.root.parent / "older"))
    pq.write_table(table, moved / path.relative_to(store.root))
    older = PreferenceStore(moved).index([batch.id])
    np.testing.assert_array_equal(older["opening"], new)
    np.testing.assert_array_equal(older["heldout"], store.index([batch.id])["heldout"])


def test_an_opening_that_earlier_batches_have_on_both_sides_is_held_out() -> None:
    split = EarlierSplit.of(np.array([7, 7, 9], np.uint64), np.array([False, True, False]))
    assert split.look_up(np.array([7, 9], np.uint64))[1].tolist() == [True, False]
