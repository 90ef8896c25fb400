"""Sections of the report on what the stages of a version recorded: reward models, sampling, PPO."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignment.config.vocabulary import DOMAINS, STRENGTHS, version_order
from alignment.reporting.comparison import Comparison, Stages
from alignment.reporting.origin import batches
from alignment.reporting.plots import Curve, Picture, lines, short
from alignment.utils.files import read_json
from alignment.utils.metrics_log import Series

PPO_CURVES = (
    ("score/mean", "reward of the answers"),
    ("kl/reference", "KL from the reference, nats per answer"),
    ("answer/tokens", "tokens per answer"),
    ("policy/entropy", "entropy, nats per token"),
    ("look/text_loss", "loss on held-out texts, nats per token"),
)


def files_of(stages: Stages, stage: str, name: str) -> dict[str, Path]:
    """Version → the file that its `stage` left, for versions that have it, in order."""
    paths = {
        version: stages[version][stage] / name
        for version in sorted(stages, key=version_order)
        if stage in stages[version]
    }
    return {version: path for version, path in paths.items() if path.is_file()}


def reward_accuracy(stages: Stages, _comparison: Comparison) -> dict[str, Any] | None:
    """Accuracy by strength, over the versions, on the held-out comparisons of the newest (Llama 2,
    Table 8), and of each version's model on each batch (Fig 6: how it grows as batches come in)."""
    came_with = {batch.id: short(batch.version) for batch in batches(stages)}
    pictures = []
    for axis in DOMAINS:
        paths = files_of(stages, f"reward_{axis}", "evaluation.json")
        by_strength: dict[str, Curve] = {}
        by_batch: dict[str, Curve] = {}
        figures: dict[str, Any] = {}
        for place, figures in enumerate(map(read_json, paths.values())):
            for batch, strengths in figures.get("by_batch", {}).get(axis, {}).items():
                title = f"batch of {came_with.get(batch, batch)}"
                _add(by_batch, title, place, strengths.get("all"))
        # Not each version on its own test set: these grow, and do not compare.
        points = {point["version"]: point for point in figures.get("growth", {}).get("points", [])}
        for place, version in enumerate(paths):
            for strength in ("all", *STRENGTHS):
                _add(by_strength, strength, place, points.get(version, {}).get(strength))
        if len(by_batch) == 1:
            by_batch = {}  # the curve "all" once more
        for curves, shown in ((by_strength, "by strength"), (by_batch, "by batch")):
            if curves:
                picture = lines(
                    curves,
                    title=f"{axis} reward model: accuracy {shown}",
                    x="reward model of version",
                    y="held-out comparisons ranked right, %",
                    ticks=[short(version) for version in paths],
                    percent=True,
                )
                pictures.append(Picture(picture, f"{axis} reward models: accuracy {shown}"))
    return {"pictures": pictures} if pictures else None


def _add(curves: dict[str, Curve], name: str, place: int, cell: dict[str, Any] | None) -> None:
    accuracy = (cell or {}).get("accuracy")
    if accuracy is not None:
        curves.setdefault(name, []).append((place, accuracy))


def best_of_n(stages: Stages, _comparison: Comparison) -> dict[str, Any] | None:
    """Expected best and median reward of n samples (Llama 2, Fig 7), one curve a version."""
    paths = files_of(stages, "select", "curves.json")
    if not paths:
        return None
    rows = {short(version): read_json(path)["best_of_n"] for version, path in paths.items()}
    best = {name: [(row["n"], row["best"]) for row in own] for name, own in rows.items()}
    gain = {
        name: [(row["n"], row["best"] - row["median"]) for row in own] for name, own in rows.items()
    }
    return {
        "pictures": [
            Picture(
                lines(curves, title=title, x="n samples", y="combined reward", markers=False),
                title,
            )
            for curves, title in (
                (best, "expected reward of the best of n"),
                (gain, "best of n above the median"),
            )
        ],
        "distances": _distances(stages, paths),
    }


def _distances(stages: Stages, versions: Iterable[str]) -> list[list[str]]:
    """What selection asks for at most, and how far the policy really went, nats per answer."""
    selected = files_of(stages, "select", "metrics.json")
    evaluated = files_of(stages, "evaluate", "metrics.json")
    rows = []
    for version in versions:
        if version not in selected or version not in evaluated:
            continue
        bounds, measured = read_json(selected[version]), read_json(evaluated[version])
        if "kl_parent" in measured and "kl_upper_bound" in bounds:
            rows.append(
                [
                    short(version) + (" with PPO" if "ppo" in stages[version] else ""),
                    f"{bounds['kl_upper_bound']:.2f}",
                    f"{bounds['kl_estimate']:.2f}",
                    f"{measured['kl_parent']:.2f} "
                    f"[{measured['kl_parent_low']:.2f}–{measured['kl_parent_high']:.2f}]",
                ]
            )
    return rows


def temperature(stages: Stages, _comparison: Comparison) -> dict[str, Any] | None:
    """Expected best of K at each temperature tried (Llama 2, Fig 8), one curve a version."""
    curves: dict[str, Curve] = {}
    chosen, pictures = [], []
    for version, path in files_of(stages, "sample", "temperature.json").items():
        values = read_json(path)
        chosen.append(f"{short(version)} {values['temperature']:g}")
        search = values.get("search") or []
        if len(search) > 1:
            # Above the lowest: levels of different reward models do not compare.
            low = min(one["expected"] for one in search)
            curves[short(version)] = sorted(
                (one["temperature"], one["expected"] - low) for one in search
            )
    if curves:
        picture = lines(
            curves,
            title="best of K by temperature",
            x="temperature",
            y="expected reward of the best, above the lowest",
        )
        pictures.append(Picture(picture, "temperature"))
    return {"chosen": chosen, "pictures": pictures} if chosen else None


def ppo(stages: Stages, _comparison: Comparison) -> dict[str, Any] | None:
    """What PPO did, step by step, and what is ill about it in words."""
    pictures = []
    for version, path in files_of(stages, "ppo", "series.jsonl").items():
        rows = Series(path).rows()
        for name, title in PPO_CURVES:
            curves = {short(version): _curve(rows, name)}
            if name == "score/mean":
                # Release 0.1 wrote `guard/score`, whether a guard model had given it or not.
                curves["held out"] = _curve(rows, "look/score") or _curve(rows, "guard/score")
            curves = {key: curve for key, curve in curves.items() if len(curve) > 1}
            if short(version) in curves:
                picture = lines(
                    curves,
                    title=f"{short(version)}: {title}",
                    x="iteration",
                    y=title,
                    markers=False,
                )
                pictures.append(Picture(picture, title))
    health = [
        f"{short(version)}: {verdict['message']} {verdict['remedy']}"
        for version, path in files_of(stages, "ppo", "health.json").items()
        for verdict in read_json(path)["verdicts"]
        if verdict["level"] != "ok"
    ]
    return {"pictures": pictures, "health": health} if pictures else None


def _curve(rows: list[dict[str, float]], name: str) -> Curve:
    return [(row["step"], row[name]) for row in rows if name in row]
