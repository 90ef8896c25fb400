"""The report and its pictures from planted versions."""

import json
import re

import numpy as np
import pytest

from alignment.preferences.prompts import Prompt
from alignment.reporting import plots
from alignment.reporting.comparison import compare
from alignment.reporting.html_report import environment, render_report, write_report
from alignment.reporting.label_placement import Box, place_labels
from alignment.reporting.overoptimisation import diverging, fit_law
from alignment.reporting.pareto_plot import path_picture
from alignment.utils.files import atomic_write_json, read_json


@pytest.fixture
def whole(world, planted):
    """Three versions, the last with PPO, with everything a report can show."""
    world.evaluate(planted("sft"))
    for number, gold in ((1, 0.6), (2, 1.1)):
        name = f"rlhf-v{number}"
        world.reward(name, 0.6 + 0.05 * number)
        world.evaluate(planted(name, gold=gold), kl=3.0 * number)
        world.decide(name)
    world.reward("rlhf-v3", 0.75)
    world.evaluate(planted("rlhf-v3", "no_ppo", gold=1.4), planted("rlhf-v3", gold=2.0), kl=14.0)
    world.decide("rlhf-v3")
    for name in ("rlhf-v1", "rlhf-v2", "rlhf-v3"):
        cells = {"significantly": {"accuracy": 0.9}, "slightly": {"accuracy": None}, "all": {
            "accuracy": 0.7}}  # fmt: skip
        for axis in ("helpfulness", "safety"):
            path = world.stages[name][f"reward_{axis}"] / "evaluation.json"
            batches = {f"batch-of-rlhf-v{n}": cells for n in range(1, int(name[-1]) + 1)}
            atomic_write_json(path, read_json(path) | {"by_batch": {axis: batches}})
        select = world.root / name / "select"
        select.mkdir()
        measured = world.stages[name]["evaluate"] / "metrics.json"
        figures = {"kl_parent": 1.5, "kl_parent_low": 1.44, "kl_parent_high": 1.56}
        atomic_write_json(measured, (read_json(measured) if measured.is_file() else {}) | figures)
        rows = [{"n": n, "best": np.log(n), "median": 0.0} for n in range(1, 9)]
        atomic_write_json(select / "curves.json", {"best_of_n": rows})
        atomic_write_json(
            select / "metrics.json", {"kl_upper_bound": 1.2044, "kl_estimate": 1.1251}
        )
        world.stages[name]["select"] = select
        sample, intake = world.root / name / "sample", world.root / name / "intake"
        sample.mkdir()
        intake.mkdir()
        tried = [{"temperature": t, "expected": -abs(t - 0.9)} for t in (0.7, 0.9, 1.2)]
        atomic_write_json(sample / "temperature.json", {"temperature": 0.9, "search": tried})
        counts = {"training": {"helpfulness": 50, "safety": 30}, "heldout": {"safety": 9}}
        batch = {"id": f"batch-of-{name}", "digest": "0" * 64, "counts": counts}
        atomic_write_json(intake / "batch.json", {"version": name, "batches": [batch]})
        origin = {"seconds": 3.0, "peak_memory_mb": 10.0, "digest": f"{name}-digest", "seed": 11,
                  "metrics": {"tokens_trained": 1234.0}, "inputs": {"start": {"version": "sft",
                  "stage": "finetune"}}}  # fmt: skip
        finetune = world.root / name / "finetune"
        finetune.mkdir()
        atomic_write_json(finetune / "manifest.json", origin)
        world.stages[name] |= {"sample": sample, "intake": intake, "finetune": finetune}
        manifest = {"seconds": 12.5, "peak_memory_mb": 321.0}
        atomic_write_json(world.stages[name]["evaluate"] / "manifest.json", manifest)
    ppo = world.root / "rlhf-v3" / "ppo"
    ppo.mkdir()
    lines = [{"step": n, "score/mean": n / 10, "kl/reference": n / 5.0} for n in range(10)]
    (ppo / "series.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    world.stages["rlhf-v3"]["ppo"] = ppo
    with (world.stages["rlhf-v3"]["evaluate"] / "prompts.jsonl").open("w") as file:
        for domain, category in (("helpfulness", "facts"), ("safety", "fraud")):
            prompt = Prompt(
                id=f"{category}-001",
                messages=[{"role": "user", "content": f"<script>alert('{category}')</script>"}],
                domain=domain,
                category=category,
            )
            file.write(prompt.model_dump_json() + "\n")
    return world


def test_report_is_whole_self_contained_and_escaped(whole, tmp_path):
    target = tmp_path / "deep" / "report.html"
    write_report(whole.stages, target, title="demo & friends")
    page = target.read_text()
    assert "No data yet" not in page
    for anchor in ("versions", "path", "decisions", "matrix", "over-optimisation", "rewards",
                   "accuracy", "best-of-n", "ppo", "texts", "samples", "cost",
                   "lineage", "temperature"):  # fmt: skip
        assert f'<section id="{anchor}">' in page, anchor
    assert "<script" not in page
    assert "&lt;script&gt;alert(&#39;fraud&#39;)" in page
    assert "&lt;b&gt;" in page  # answers hold tags too
    assert "demo &amp; friends" in page
    assert "rlhf-v3 becomes champion in place of rlhf-v2" in page
    for axis in ("helpfulness", "safety"):
        for shown in ("by strength", "by batch"):
            assert f'alt="{axis} reward models: accuracy {shown}"' in page
    assert "Made from: 3 batches, 240 comparisons (batch-of-rlhf-v1" in page
    assert "<td>1,234</td>" in page  # tokens trained
    assert "<td>V3 with PPO</td><td>1.20</td><td>1.13</td><td>1.50 [1.44–1.56]</td>" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page), "nothing is fetched"
    assert str(tmp_path) not in page


def test_commands_are_set_as_such_and_nothing_else_gets_through():
    text = "see `align lineage <VERSION>` & <b>"
    made = "see <code>align lineage &lt;VERSION&gt;</code> &amp; &lt;b&gt;"
    template = environment().from_string("<p>{{ text | code }}</p>{{ text }}")
    page = template.render(text=text)
    assert page == f"<p>{made}</p>see `align lineage &lt;VERSION&gt;` &amp; &lt;b&gt;"


def test_same_figures_same_page(world, planted):
    world.evaluate(planted("sft"))
    world.evaluate(planted("rlhf-v1", gold=1.0))
    assert render_report(world.stages, title="x") == render_report(world.stages, title="x")


def test_report_with_little_data_says_what_is_missing(world, planted):
    table = planted("sft").drop(columns=["rm_helpfulness", "rm_safety"])
    world.evaluate(table)
    page = render_report(world.stages, title="x")
    assert "No data yet for:" in page
    assert "PPO" in page


def test_pictures_are_pngs_of_a_legible_size(whole):
    found = compare(whole.stages)
    picture = path_picture(found)
    assert picture == path_picture(found)
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    width = int.from_bytes(picture[16:20], "big")
    assert width == 1200
    assert b"matplotlib" not in picture
    assert plots.winrate_matrix(found, "gold", "safety")[:4] == b"\x89PNG"


def test_labels_do_not_cover_each_other_or_the_marks():
    rng = np.random.default_rng(0)
    frame = Box(0, 0, 560, 560)
    for _ in range(20):
        centre = rng.uniform(100, 460, 2)
        anchors = [tuple(centre + rng.normal(0, 25, 2)) for _ in range(7)]
        boxes = place_labels(anchors, [(50.0, 16.0)] * 7, [], frame)
        for i, box in enumerate(boxes):
            assert box.overlap(frame) == pytest.approx(box.area)
            assert all(box.overlap(other) == 0 for other in boxes[:i])
            assert all(not Box(*anchor, *anchor).grown(5).overlap(box) for anchor in anchors)


def test_law_recovers_planted_coefficients():
    d = np.linspace(0, 6, 7)
    law = fit_law(d, d * (1.5 - 0.2 * d))
    assert law.alpha == pytest.approx(1.5)
    assert law.beta == pytest.approx(0.2)
    assert law.peak == pytest.approx(3.75)
    assert law.residual == pytest.approx(0, abs=1e-9)
    assert fit_law([0, 1, 2], [0, 1, 2]) is None
    assert fit_law(d, d).peak is None


def test_divergence_of_reward_and_gold_is_named(world, planted):
    world.evaluate(planted("sft"))
    world.evaluate(planted("rlhf-v1", gold=1.0))
    world.evaluate(planted("rlhf-v2", gold=-1.0, rm=4.0))
    found = compare(world.stages)
    assert diverging(found, "safety", "rm", "gold") == ["rlhf-v2"]
    assert "the reward models prefer rlhf-v2" in render_report(world.stages, title="x")


def test_before_there_is_a_way_no_picture_of_one_is_drawn(world, planted):
    world.evaluate(planted("sft"), planted("sft", "student"))
    assert not (world.stages["sft"]["evaluate"] / "path.png").exists()
    page = render_report(world.stages, title="x")
    assert "sft (student)" in page
    assert '<section id="path">' not in page
