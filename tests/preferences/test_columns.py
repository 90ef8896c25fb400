"""A column that is not understood never changes the meaning of a row without a word."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.preferences.intake import ingest
from alignment.preferences.readers import FORMATS, KNOWN, choose
from alignment.preferences.readers.markup import marker_in, token_in
from alignment.preferences.report import BatchReport
from alignment.preferences.rows import Draft, RowError, is_blank
from alignment.preferences.schema import Comparison
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import find_sources, records
from alignment.preferences.store import PreferenceStore

CONFIG = IntakeConfig(domain="helpfulness", heldout_share=0.0, max_quarantine=1.0)
SIDES = {"chosen": "yes", "rejected": "no"}
TALK = "\n\nHuman: q\n\nAssistant:"


def outcomes(rows: list[dict[str, Any]], folder: Path) -> list[Draft | str]:
    """What becomes of each row of a file: a draft, or the reason why there is none."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = SourceReader(CONFIG).open(find_sources([path])[0])[1]
    return [one.reason if isinstance(one, RowError) else one for _, one in found]


def message(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"instruction": "q", "input": "", **SIDES}, [("user", "q")]),
        ({"instruction": "q", "input": "x", **SIDES}, [("user", "q\n\nx")]),
        ({"instruction": "q", "input": "[]", **SIDES}, [("user", "q\n\n[]")]),
        ({"prompt": "{}", "history": "[]", **SIDES}, [("user", "{}")]),
        ({"prompt": "q", "system": "null", **SIDES}, [("user", "q")]),
        ({"prompt": "q", "has_image": False, "num_tools": 0, **SIDES}, [("user", "q")]),
        ({"chosen": "Of course. yes", "rejected": "Of course. no", "strength": "better",
          "tools": "[]"}, [("user", "Of course.")]),
        ({"question": "q", **SIDES}, [("user", "q")]),
        ({"query": "q", **SIDES}, [("user", "q")]),
        ({"context": [message("user", "q")], **SIDES}, [("user", "q")]),
        ({"conversations": [{"from": "human", "value": "q"}], **SIDES}, [("user", "q")]),
        ({"prompt": "q", "system": "s", **SIDES}, [("system", "s"), ("user", "q")]),
        ({"prompt": [message("developer", "s"), message("user", "q")], **SIDES},
         [("system", "s"), ("user", "q")]),
        ({"prompt": "q", "history": [["a", "b"]], **SIDES},
         [("user", "a"), ("assistant", "b"), ("user", "q")]),
        ({"prompt": "q", "question": "q ", **SIDES}, [("user", "q")]),
        ({"chosen": f"\n\nSystem: s{TALK} yes", "rejected": f"\n\nSystem: s{TALK} no"},
         [("system", "s"), ("user", "q")]),
        ({"prompt": TALK, "chosen": f"{TALK} yes", "rejected": f"{TALK} no"}, [("user", "q")]),
        ({"chosen": f"{TALK} yes", "rejected": f"{TALK} no", "system": "s"},
         [("system", "s"), ("user", "q")]),
        ({"prompt": "q", "chosen": [message("system", "s"), message("user", "q"),
                                    message("assistant", "yes")],
          "rejected": [message("system", "s"), message("user", "q"), message("assistant", "no")]},
         [("system", "s"), ("user", "q")]),
        ({"prompt": [message("user", [{"type": "text", "text": "q"}])], **SIDES}, [("user", "q")]),
        ({"prompt": "Is it so?", "chosen": "Is it so? yes", "rejected": "Is it so?\nno"},
         [("user", "Is it so?")]),
    ],
)  # fmt: skip
def test_the_question_is_found(
    row: dict[str, Any], turns: list[tuple[str, str]], tmp_path: Path
) -> None:
    (found,) = outcomes([row], tmp_path)
    assert isinstance(found, Draft), found
    assert (found.turns, found.chosen, found.rejected) == (turns, "yes", "no")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": "Of course. yes", "rejected": "Of course. no", "topic": "eggs"},
         "missing_prompt"),
        ({"prompt": "q", "question": "another", **SIDES}, "two_prompts"),
        ({"chosen": f"{TALK} yes", "rejected": f"{TALK} no", "question": "other"}, "two_prompts"),
        ({"prompt": [message("system", "s"), message("user", "q")], "system": "t", **SIDES},
         "two_prompts"),
        ({"prompt": "q", "tools": [{"name": "f"}], **SIDES}, "unreadable"),
        ({"prompt": "q", "images": ["a.png"], **SIDES}, "unreadable"),
        ({"prompt": "q", "chosen": [message("assistant", "yes", tool_calls=[{"f": 1}])],
          "rejected": [message("assistant", "no")]}, "unreadable"),
        ({"prompt": "q", "chosen": [message("assistant", "yes", reasoning_content="why")],
          "rejected": [message("assistant", "no")]}, "unreadable"),
        ({"prompt": [message("user", [{"type": "text", "text": "q"}, {"type": "image_url"}])],
          **SIDES}, "unreadable"),
        ({"prompt": [message("tool", "q")], **SIDES}, "unknown_role"),
        ({"prompt": "q", "score_chosen": 6, "score_rejected": 6.0, **SIDES}, "tie"),
        ({"prompt": "q", "chosen-rating": 3, "rejected-rating": 4, **SIDES}, "scores_against"),
        ({"prompt": "q", "is_tie": True, **SIDES}, "tie"),
        ({"prompt": "q", "scores": [4, 4], **SIDES}, "tie"),
        ({"prompt": "q", "rating": [9.0, 9.0], "status": "unchanged", **SIDES}, "tie"),
        ({"prompt": "q", "status": "tie", **SIDES}, "tie"),
        ({"prompt": "q", "winner": "Tie (bothbad)", **SIDES}, "tie"),
        ({"prompt": "q", "winner": "both_bad", **SIDES}, "tie"),
        ({"prompt": "q", "label": "draw", **SIDES}, "tie"),
        ({"prompt": "q", "winner_tie": 1, **SIDES}, "tie"),
        ({"prompt": "q", "has_image": True, **SIDES}, "unreadable"),
        ({"prompt": "", **SIDES}, "missing_prompt"),
        ({"prompt": "q", "toolCalls": ["f"], **SIDES}, "unreadable"),
        ({"prompt": "q", "margin": -1, **SIDES}, "scores_against"),
        ({"prompt": "q", "score_chosen": 6, **SIDES}, "missing_field"),
        ({"prompt": "USER: q ASSISTANT:", **SIDES}, "markup"),
        ({"prompt": "q", "chosen": "yes<|im_end|>", "rejected": "no"}, "markup"),
        ({"prompt": "[{'role': 'user', 'content': 'q'}]", **SIDES}, "markup"),
        ({"prompt": "q", "chosen": "q yes", "rejected": "q no"}, "repeated_prompt"),
        ({"prompt": "q", "chosen": "\u200b\u2800", "rejected": "no"}, "empty_answer"),
        ({"prompt": "q", "chosen": "caf\u00e9", "rejected": "cafe\u0301"}, "identical_answers"),
    ],
)  # fmt: skip
def test_what_would_change_the_meaning_is_not_taken_in(
    row: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert outcomes([row], tmp_path) == [reason]


@pytest.mark.parametrize(
    ("columns", "strength"),
    [
        ({"score_chosen": 8.5, "score_rejected": 2.0}, "significantly"),
        ({"chosen_score": "x", "rating_chosen": 3, "rating_rejected": 2.4}, None),
        ({"rating_chosen": 3, "rating_rejected": 2.4}, "slightly"),
        ({"margin": 3}, "significantly"),
        ({"margin": 2}, "better"),
        ({"margin": 1}, "slightly"),
        ({"margin": 0}, "negligibly"),
        ({"margin": 0.2}, "negligibly"),
        ({"strength": "slightly", "margin": 3}, "slightly"),
        ({"score_chosen": float("nan"), "score_rejected": None}, "negligibly"),
    ],
)
def test_scores_and_margins_are_the_strength(
    columns: dict[str, Any], strength: str | None, tmp_path: Path
) -> None:
    (found,) = outcomes([{"prompt": "q", **SIDES, **columns}], tmp_path)
    assert (found.strength if isinstance(found, Draft) else None) == strength


def test_the_report_lists_what_was_not_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": f"q {n}", **SIDES, "source": "web", "note": None} for n in range(4)]
    rows[1]["prompt"] = [message("user", "q", weight=1)]
    rows[0] |= {"likes": 3, "category": {"rude": True, "false": False}}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = PreferenceStore(tmp_path / "store")
    report = ingest(store, [path], CONFIG)
    assert report.values["sources"][0]["unused"] == {
        "source": {"rows": 4, "share": 1.0},
        "likes": {"rows": 1, "share": 0.25},
        "prompt[].weight": {"rows": 1, "share": 0.25},
    }
    assert store.training([report.id])[0].category == "rude"
    from rich.console import Console

    console = Console(width=200)
    with console.capture() as shown:
        console.print(BatchReport(report.values, tmp_path, 1, already=False).render())
    assert "columns seen and not used" in shown.get()


@pytest.mark.parametrize(
    "text",
    [
        "<|eot_id|>", "[INST] q [/INST]", "<start_of_turn>user", "a</s>", "<im_end>",
        "<human>: q\n<bot>: a", "[|assistant|]a", "<reserved_106>q", "a<extra_id_1>User",
        "a[UNUSED_TOKEN_145]",
    ],
)  # fmt: skip
def test_special_tokens_are_found(text: str) -> None:
    assert token_in(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "<s>old</s> new",
        "if a <| b then c |> d",
        "[1, 2]",
        "The user: a study",
        "Q: a\nA: b",
        "ssh <human>@host",
        "a[|b",
    ],
)
def test_plain_words_are_no_markup(text: str) -> None:
    assert token_in(text) is None
    assert marker_in(text) is None


def test_a_text_that_shows_nothing_is_blank() -> None:
    assert all(is_blank(text) for text in ("", " \n", "\u200b", "\u3164 \ufeff", "\u2060\u00ad"))
    assert not any(is_blank(text) for text in ("a", "\u200ba", "é", "😀", "。"))


def test_two_spellings_of_an_accent_are_one_prompt(tmp_path: Path) -> None:
    rows = [
        {"prompt": "caf\u00e9", **SIDES},
        {"prompt": "cafe\u0301", **SIDES},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = PreferenceStore(tmp_path / "store")
    report = ingest(store, [path], CONFIG)
    assert report.values["reasons"] == {"duplicate": 1}
    (found,) = store.training([report.id])
    index = store.index([report.id])
    assert f"{int(index['id'][0]):016x}" == found.id == Comparison.model_validate(
        {**found.model_dump(), "conversation": [{"role": "user", "content": "cafe\u0301"}]}
    ).id  # fmt: skip


def test_a_key_that_stands_twice_is_quarantined(tmp_path: Path) -> None:
    twice = '{"prompt": "q", "chosen": "yes", "chosen": "other", "rejected": "no"}'
    sound = '{"prompt": "r", "chosen": "yes", "rejected": "no"}'
    for number, text in enumerate((f"{twice}\n{sound}\n", f"[{twice},\n{sound}]")):
        path = tmp_path / f"{number}.json"
        path.write_text(text)
        found = ingest(PreferenceStore(tmp_path / f"store{number}"), [path], CONFIG).values
        assert found["reasons"] == {"repeated_key": 1}
        assert found["rows"]["accepted"] == 1


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b"\n \n", "no rows"),
        (b"[]", "no rows"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
    ],
)
def test_a_file_that_is_no_delivery_is_called_what_it_is(
    data: bytes, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(data)
    with pytest.raises(DataError, match=said):
        ingest(PreferenceStore(tmp_path / "store"), [path], CONFIG)


def test_a_clone_from_the_hub_is_looked_through_and_its_parts_kept_apart(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    (clone / "data").mkdir(parents=True)
    (clone / "README.md").write_text("a card")
    row = json.dumps({"prompt": "q", **SIDES})
    (clone / "data" / "train-00000-of-00001.jsonl").write_text(row)
    assert [one.name for one in find_sources([clone])] == ["train-00000-of-00001.jsonl"]
    (clone / "data" / "test-00000-of-00001.jsonl").write_text(row)
    with pytest.raises(DataError, match="training and the test part"):
        find_sources([clone])


def test_a_dataset_of_several_pieces_is_read_to_its_last_row(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": f"q {n}", **SIDES} for n in range(2500)]
    parts = [datasets.Dataset.from_list(rows[n : n + 500]) for n in range(0, 2500, 500)]
    datasets.concatenate_datasets(parts).save_to_disk(tmp_path / "saved", num_shards=3)
    found = [record.value for record in records(find_sources([tmp_path / "saved"])[0], 2**30)]
    assert found == rows


def test_splits_are_not_poured_together(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": f"q {n}", **SIDES} for n in range(3)]
    part = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": part, "test": part}).save_to_disk(tmp_path / "both")
    with pytest.raises(DataError, match="2 splits: test, train") as caught:
        ingest(PreferenceStore(tmp_path / "store"), [tmp_path / "both"], CONFIG)
    assert "both/train" in str(caught.value)
    found = ingest(PreferenceStore(tmp_path / "store"), [tmp_path / "both" / "train"], CONFIG)
    assert found.values["rows"]["accepted"] == 3


def test_an_unknown_format_names_the_known_ones() -> None:
    assert KNOWN.keys() == {one.name for one in FORMATS}
    with pytest.raises(DataError) as caught:
        choose([{"a": 1}], "x.jsonl")
    assert all(name in str(caught.value) for name in ("webgpt", "prompt, chosen, rejected", "docs"))
