"""Evaluation prompts that come back in a batch are found, told, and left out."""

import json
import unicodedata

import pytest

from alignment.config.intake import IntakeConfig
from alignment.errors import StageError
from alignment.evaluation.leaks import find_leaks, training_conversations, without_leaks
from alignment.preferences.intake import ingest
from alignment.preferences.prompts import Prompt
from alignment.preferences.store import PreferenceStore
from alignment.utils.files import atomic_write_json


def turns(*texts):
    return [
        {"role": "assistant" if number % 2 else "user", "content": text}
        for number, text in enumerate(texts)
    ]


def prompt(*texts, category="facts"):
    return Prompt(messages=turns(*texts), domain="helpfulness", category=category)


class Told:
    def __init__(self):
        self.lines = []

    def say(self, message):
        self.lines.append(message)


def test_the_prompt_itself_and_what_goes_on_from_it():
    asked = [prompt("How old is the sun?"), prompt("Hi", "Hello.", "How old is it?"), prompt("Ho!")]
    training = [
        ("b1", turns("What is a fox?")),
        ("b1", turns("how  old is\nthe SUN")),
        ("b1", turns("Hi", "Hello.", "How old is it?", "Ten.", "And now?")),
        ("b2", turns("Hi", "Good day.", "How old is it?")),
        ("b2", turns("How old is the sun?")),
    ]
    found = [(leak.prompt_id, leak.found_in, leak.row) for leak in find_leaks(asked, training)]
    assert sorted(found) == sorted(
        [(asked[0].id, "b1", 2), (asked[0].id, "b2", 2), (asked[1].id, "b1", 3)]
    )


def test_another_spelling_of_an_accent_is_the_same_prompt():
    asked = [prompt("Where is the café?")]
    training = [("b1", turns(unicodedata.normalize("NFD", "Where is the Café?")))]
    assert [leak.prompt_id for leak in find_leaks(asked, training)] == [asked[0].id]


def test_against_a_brute_force_search():
    asked = [prompt(f"question {n % 7}", *(["answer", f"then {n}"] if n % 2 else [])) for n in
             range(12)]  # fmt: skip
    training = [(f"b{n % 3}", turns(f"Question {n % 9}", "answer", f"then {n}")) for n in range(40)]
    found = {(leak.prompt_id, leak.found_in) for leak in find_leaks(asked, training)}
    expected = set()
    for one in asked:
        for place, conversation in training:
            cut = [message["content"].lower() for message in conversation[: len(one.messages)]]
            if cut == [message["content"] for message in one.messages]:
                expected.add((one.id, place))
    assert found == expected
    assert expected


def test_real_batches_of_the_store(tmp_path):
    rows = [
        {"prompt": f"Question {n}?", "chosen": "Yes, indeed.", "rejected": "No.", "domain":
         "helpfulness"} for n in range(40)]  # fmt: skip
    path = tmp_path / "delivery.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = PreferenceStore(tmp_path / "preferences")
    report = ingest(store, [path], IntakeConfig())
    intake, prepare = tmp_path / "intake", tmp_path / "prepare"
    intake.mkdir()
    prepare.mkdir()
    atomic_write_json(intake / "batch.json", {"batches": [{"id": report.id}]})
    line = {"messages": turns("Shown how to answer?"), "response": "So."}
    (prepare / "demonstrations.jsonl").write_text(json.dumps(line) + "\n")
    trained = {row.conversation[-1]["content"] for row in store.training([report.id])}
    held = {f"Question {n}?" for n in range(40)} - trained
    assert held
    asked = [prompt(sorted(trained)[0]), prompt(sorted(held)[0]), prompt("Shown how to answer?")]
    found = find_leaks(asked, training_conversations(prepare, [intake], store))
    assert {(leak.prompt_id, leak.found_in) for leak in found} == {
        (asked[0].id, report.id),
        (asked[2].id, "demonstrations"),
    }


def test_few_are_left_out_and_told_many_stop_the_stage():
    asked = [prompt(f"question {n}") for n in range(10)]
    leaks = find_leaks(asked, [("b7", turns("tea?")), ("b7", turns("question 3"))])
    told = Told()
    assert without_leaks(asked, leaks, 0.1, told) == asked[:3] + asked[4:]
    assert told.lines == [
        "1 of 10 evaluation prompts are in the training data: 1 in b7 (row 2 the first); "
        "they are left out of the evaluation"
    ]
    with pytest.raises(StageError, match="1 of 10 evaluation prompts") as caught:
        without_leaks(asked, leaks, 0.05, told)
    assert "evaluate.max_leaked" in caught.value.remedy
    assert "helpfulness / facts" in caught.value.where
    assert without_leaks(asked, [], 0.0, told) == asked
