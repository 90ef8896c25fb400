"""The batch report: every figure worked out by hand on five comparisons."""

from __future__ import annotations

from pathlib import Path

from alignment.config.intake import IntakeConfig
from alignment.preferences.intake import ingest
from alignment.preferences.rows import By, Draft, check
from alignment.preferences.store import PreferenceStore
from alignment.preferences.tally import Tally
from alignment.reporting.batch_plots import draw

NEW, OLD = By("rlhf-v2", 1.0), By("rlhf-v1", 0.7)


def comparison(
    turns: int, chosen: int, rejected: int, newer: bool | None, votes: str = "", safe: str = ""
) -> Draft:
    """One of `turns` user turns of 10 characters; answers of so many characters; `votes` by their
    first letters."""
    spoken = [("user", "u" * 10), ("assistant", "a" * 10)] * turns
    names = {"c": "chosen", "r": "rejected", "t": "tie"}
    draft = Draft(
        turns=spoken[:-1],
        chosen="c" * chosen,
        rejected="r" * rejected,
        strength="slightly" if safe else "better",
        domain="safety" if safe else "helpfulness",
        safety_bin=safe or None,
        chosen_by=None if newer is None else (NEW if newer else OLD),
        rejected_by=None if newer is None else (OLD if newer else NEW),
        annotator="ann",
        votes=[names[vote] for vote in votes] or None,
    )
    check(draft, 10**6)
    return draft


FIVE = [
    comparison(1, 30, 20, True, votes="ccr"),
    comparison(1, 20, 30, True, votes="ccc"),
    comparison(2, 50, 20, False, safe="both_safe"),
    comparison(3, 20, 20, True, safe="both_safe", votes="ct"),
    comparison(9, 90, 10, None, safe="chosen_safe"),
]


def tallied() -> Tally:
    tally = Tally()
    for opening, draft in enumerate(FIVE):
        tally.add(draft, opening=opening)
    return tally


def test_figures() -> None:
    found = tallied().to_dict()
    assert found["strengths"]["helpfulness"]["better"] == 2
    assert found["strengths"]["safety"]["slightly"] == 3
    assert found["safety_bins"] == {"chosen_safe": 1, "both_safe": 2, "both_unsafe": 0}
    assert found["safety_bins_llama2"] == {
        "chosen_safe": 0.18,
        "both_safe": 0.47,
        "both_unsafe": 0.35,
    }
    assert found["turns"] == {"mean": 3.2, "median": 2.0, "p95": 3.0, "max": 9.0}
    assert found["turn_counts"] == {"1": 2, "2": 1, "3": 1, "4": 0, "5": 0, "6+": 1}
    assert found["prompt_characters"]["max"] == 9 * 10 + 8 * 10
    # Gaps: 10, −10, 30, 0, 80; of the four that are not 0 three favour the longer answer.
    assert found["length_gap"]["mean"] == 22.0
    assert found["length_gap_quantiles"] == {
        "5": -10.0,
        "25": 0.0,
        "50": 10.0,
        "75": 30.0,
        "95": 30.0,
    }
    assert found["longer_wins"] == {"pairs": 4, "share": 0.75}
    assert (found["newer_wins"]["pairs"], found["newer_wins"]["share"]) == (4, 0.75)
    assert found["chosen_by"] == [
        {"version": "rlhf-v1", "temperature": 0.7, "comparisons": 1},
        {"version": "rlhf-v2", "temperature": 1.0, "comparisons": 3},
    ]
    # Pairs of people that agree: 1 of 3, 3 of 3, 0 of 1.
    assert found["annotators"]["agreement"] == round((1 / 3 + 1 + 0) / 3, 4)
    assert found["annotators"]["voted_pairs"] == 3
    assert found["annotators"]["busiest"] == {"ann": 5}


def test_nothing_is_no_error() -> None:
    found = Tally().to_dict()
    assert found["turn_counts"] == {}
    assert found["length_gap_quantiles"] == {}
    assert found["newer_wins"] == {"pairs": 0, "share": None}
    assert found["annotators"]["agreement"] is None


def test_the_same_report_gives_the_same_picture(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(
            f'{{"question": "q{n}", "answer_0": "a{"x" * n}", "answer_1": "b", "score_0": {n % 3},'
            f' "score_1": 1}}\n'
            for n in range(40)
        )
    )
    report = ingest(PreferenceStore(tmp_path / "p"), [path], IntakeConfig(domain="helpfulness"))
    pictures = []
    for name in ("a.png", "b.png"):
        draw(report.values, tmp_path / name)
        pictures.append((tmp_path / name).read_bytes())
    assert pictures[0] == pictures[1]
    # A batch that an older version took in knows fewer figures.
    old = {key: value for key, value in report.values.items() if "quantiles" not in key}
    del old["turn_counts"]
    draw(old, tmp_path / "old.png")
    assert (tmp_path / "old.png").read_bytes() != pictures[0]
