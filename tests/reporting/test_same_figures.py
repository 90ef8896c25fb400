"""A figure is the same on every page: terminal, report and JSON; and what is said is true."""

import html
import re

import matplotlib as mpl
import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine
from rich.console import Console

from alignment.evaluation.degenerate import DEGENERATE
from alignment.reporting import sections_training
from alignment.reporting.comparison import compare
from alignment.reporting.headline import HEADLINES
from alignment.reporting.html_report import render_report
from alignment.reporting.overoptimisation import ONE_JUDGE, over_optimisation
from alignment.reporting.plots import winrate_matrix
from alignment.reporting.sections_answers import TEXT_FIGURES
from alignment.reporting.style import STYLE, new_figure, png
from alignment.reporting.version_table import View, grid, percent
from alignment.utils.files import atomic_write_json, read_json


@pytest.fixture
def series(world, planted):
    world.evaluate(planted("sft"))
    for number, gold in ((1, 0.6), (2, 1.4)):
        name = f"rlhf-v{number}"
        world.reward(name, 0.85 - 0.05 * number)
        world.evaluate(planted(name, gold=gold), kl=3.0 * number)
        world.decide(name)
    return world


def terminal(comparison):
    console = Console(width=220, record=True)
    console.print(View(comparison))
    return console.export_text()


def cells(page):
    """The rows of the first table of a report."""
    table = page.split('id="versions"')[1].split("</table>")[0]
    return [
        [html.unescape(re.sub("<[^>]+>", "", cell)) for cell in re.findall("<td.*?</td>", row)]
        for row in re.findall("<tr.*?</tr>", table, flags=re.DOTALL)[1:]
    ]


def only_rm(world):
    """As on real data: no gold, no guard, no language model."""
    for version, stages in world.stages.items():
        path = stages["evaluate"] / "winrates.json"
        values = read_json(path)
        judges = [] if version == "sft" else ["rm"]
        atomic_write_json(path, {**values, "judges": judges})
    return compare(world.stages)


def test_terminal_report_and_json_show_the_same_cells(series):
    comparison = compare(series.stages)
    _, rows = grid(comparison)
    assert cells(render_report(series.stages, title="x")) == rows
    text = terminal(comparison)
    data = {entry["name"]: entry for entry in comparison.to_dict()["versions"]}
    for row in rows:
        assert re.search(r"\s+".join(map(re.escape, row)), text), row
    for name in ("rlhf-v1", "rlhf-v2"):
        figures, headline = data[name]["figures"], data[name]["headline"]
        for axis in ("helpfulness", "safety"):
            ends = [figures[f"win/gold/{axis}{end}"] for end in ("", "_low", "_high")]
            assert percent(*ends) in text
        # What status and MLflow show is what the table shows, to the digit.
        for item in HEADLINES:
            if item.name in headline and not item.name.startswith("own_test"):
                assert headline[item.name] == pytest.approx(figures[item.name], rel=1e-5)


def test_accuracies_side_by_side_are_on_the_same_comparisons(series, monkeypatch):
    # Each version's own test set: 80 %, then 75 %. On the second's: 71.6 %, then 75 %.
    for axis in ("helpfulness", "safety"):
        path = series.stages["rlhf-v2"][f"reward_{axis}"] / "evaluation.json"
        values = read_json(path)
        values["growth"]["points"][0]["all"] = {"accuracy": 0.716, "low": 0.66, "high": 0.77}
        atomic_write_json(path, values)
    comparison = compare(series.stages)
    text = terminal(comparison)
    assert "71.6 [66–77]" in text
    assert "75.0 [70–80]" in text
    assert "80.0 [" not in text
    assert "on the same held-out comparisons" in text
    assert "80.0 [" not in html.unescape(render_report(series.stages, title="x")).split("matrix")[0]
    titles = [item.title for item in HEADLINES if item.name.startswith("own_test")]
    assert all("own test set" in title for title in titles)
    drawn = {}
    monkeypatch.setattr(
        sections_training, "lines", lambda curves, title, **_: drawn.update({title: curves}) or b""
    )
    sections_training.reward_accuracy(series.stages, comparison)
    assert drawn["safety reward model: accuracy by strength"] == {"all": [(0, 0.716), (1, 0.75)]}
    # Only the versions shown: the measure is then the newest of them.
    earlier = {name: series.stages[name] for name in ("sft", "rlhf-v1")}
    assert "80.0 [75–85]" in terminal(compare(earlier))


def test_without_an_independent_judge_the_first_line_says_so(series):
    assert "No independent judge" not in terminal(compare(series.stages))
    alone = only_rm(series)
    assert terminal(alone).startswith("No independent judge: ")
    page = render_report(series.stages, title="x", comparison=alone)
    body = page.split("</h1>")[1]
    assert body.index("No independent judge") < body.index("hampion")
    assert "No independent judge" in str(alone.to_dict()["warning"])


def test_one_judge_draws_no_over_optimisation(series):
    two = over_optimisation(series.stages, compare(series.stages))
    assert len(two["pictures"]) == 2
    one = over_optimisation(series.stages, only_rm(series))
    assert (one["pictures"], one["findings"]) == ([], [ONE_JUDGE])
    assert ONE_JUDGE in html.unescape(render_report(series.stages, title="x"))


def with_language_model(world, win_rates):
    """As on real data with a language model for a second judge, and its win rates over SFT."""
    for version, stages in world.stages.items():
        path = stages["evaluate"] / "winrates.json"
        values = read_json(path)
        judges = ["judge"] if version == "sft" else ["rm", "judge"]
        rows = [
            {"b": "sft", "judge": "judge", "axis": axis, "ties": 0.0, "length_gap": 0.0, "n": 80}
            | {"a": side, "win_rate": rate, "low": rate - 0.05, "high": rate + 0.05}
            | {"lc_win_rate": rate, "lc_low": rate - 0.05, "lc_high": rate + 0.05}
            for side, rate in win_rates.items()
            for axis in ("helpfulness", "safety")
        ]
        mine = [row for row in values["rows"] if row["judge"] == "rm"]
        atomic_write_json(path, {**values, "judges": judges, "rows": mine + rows})
        path = stages["evaluate"] / "standings.json"
        values = read_json(path)
        for entry in values:
            rate = 0.5 if entry["side"] == "sft" else win_rates.get(entry["side"])
            entry["figures"] = {
                name: value for name, value in entry["figures"].items() if "gold" not in name
            } | {f"win/judge/{axis}": rate for axis in ("helpfulness", "safety") if rate}
        atomic_write_json(path, values)
    return compare(world.stages)


def test_a_language_model_that_objects_is_heard_though_it_gives_no_scores(series):
    comparison = with_language_model(series, {"rlhf-v1": 0.3})
    section = over_optimisation(series.stages, comparison)
    assert section["pictures"] == []
    first, *others = section["findings"]
    assert first == ONE_JUDGE
    assert any("LM judge does not" in line for line in others), others
    assert comparison.warning is None


def test_a_judge_that_compared_nothing_is_no_independent_judge(series):
    comparison = with_language_model(series, {})
    assert comparison.warning.startswith("No independent judge")
    assert "judge compared nothing" in comparison.warning
    # The measure is what is shown: SFT against itself is no comparison.
    assert with_language_model(series, {"rlhf-v2": 0.6}).warning is None


def test_a_category_of_a_few_prompts_is_not_lost(world, planted):
    world.evaluate(planted("sft", per_category=9))
    world.evaluate(planted("rlhf-v1", gold=1.5, per_category=9))
    world.evaluate(planted("rlhf-v2", gold=1.5, rhyme=-9.0, per_category=9))
    comparison = compare(world.stages)
    assert not any(row["forgotten"] for row in comparison.forgetting["rlhf-v2"])
    assert "lost in" not in terminal(comparison)
    # An evaluation of an older release said so.
    for row in comparison.forgetting["rlhf-v2"]:
        row["forgotten"] = True
    assert "lost in" not in terminal(comparison)


def test_what_is_lost_is_said_with_its_number_of_prompts(world, planted):
    world.evaluate(planted("sft"))
    world.evaluate(planted("rlhf-v1", gold=1.0))
    world.evaluate(planted("rlhf-v2", gold=1.5, rhyme=-3.0))
    assert re.search(
        r"lost in helpfulness / rhyme: .* against rlhf-v1 on 40 prompts",
        terminal(compare(world.stages)),
    )
    assert "<td>40</td>" in render_report(world.stages, title="x").split('id="forgetting"')[1]


def test_the_report_repeats_what_is_ill_about_ppo(series):
    ppo = series.root / "rlhf-v2" / "ppo"
    ppo.mkdir()
    lines = [f'{{"step": {n}, "score/mean": {n}.0, "kl/reference": 0.5}}\n' for n in range(5)]
    (ppo / "series.jsonl").write_text("".join(lines))
    verdicts = [
        {"name": "length", "level": "bad", "message": "Answers shrank.", "remedy": "Look at it."},
        {"name": "critic", "level": "ok", "message": "The critic explains 9%.", "remedy": ""},
    ]
    atomic_write_json(ppo / "health.json", {"verdicts": verdicts})
    series.stages["rlhf-v2"]["ppo"] = ppo
    page = render_report(series.stages, title="x")
    assert "V2: Answers shrank. Look at it." in page
    assert "The critic explains" not in page


def styled_figure(width, panels):
    with mpl.rc_context(STYLE):
        return new_figure(width, 3, (1,) * panels)


def titles_within(figure):
    png(figure)
    for panel in figure.axes:
        title = panel.get_title(loc="left")
        (artist,) = (one for one in panel.findobj() if getattr(one, "_text", None) == title)
        yield artist.get_window_extent().x1 <= figure.bbox.width


@pytest.mark.parametrize("width", [2.5, 4.0, 8.0])
def test_titles_are_not_cut(width):
    figure, panels = styled_figure(width, 1)
    panels[0].set_title(
        loc="left", label="helpfulness: row beats column, % (RM of the newest version)"
    )
    assert all(titles_within(figure))


def test_titles_of_panels_do_not_meet():
    figure, panels = styled_figure(7, 2)
    for panel in panels:
        panel.set_title(
            loc="left",
            label="a title that is far too long for half of the figure's width, at 13 points",
        )
    assert all(titles_within(figure))
    assert panels[0].get_title(loc="left").count("\n") >= 1


@pytest.mark.parametrize(("title", "times"), [("short", 1), ("long " * 30, 2)])
def test_a_picture_is_laid_out_again_only_for_a_broken_title(monkeypatch, title, times):
    laid_out = []
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine,
        "execute",
        lambda engine, figure: laid_out.append(figure) or execute(engine, figure),
    )
    figure, panels = styled_figure(7, 2)
    panels[0].set_title(loc="left", label=title)
    png(figure)
    assert len(laid_out) == times


def test_what_the_gate_bounds_is_shown(series):
    page = html.unescape(render_report(series.stages, title="x")).split('id="texts"')[1]
    titles = {name: title for name, title, _, _ in TEXT_FIGURES}
    for name in DEGENERATE:
        for part in titles[name].split("\n"):
            assert part in page.split("</thead>")[0], name


def test_the_matrix_of_two_versions_is_drawn(series):
    some = {name: series.stages[name] for name in ("sft", "rlhf-v1")}
    assert winrate_matrix(compare(some), "gold", "helpfulness").startswith(b"\x89PNG")
