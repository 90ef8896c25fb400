"""What `ppo_overoptimisation.py` makes of its rows: best-of-n beside, stops, and the picture.

    python tests/benchmarks/overoptimisation.py FOUND.json PICTURE.png

draws again what `ppo_overoptimisation.py --out FOUND.json` found.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from best_of_kl import COUNTS, Scene, of_best

from alignment.config.ppo import StopConfig
from alignment.models.chat_renderer import Tokens
from alignment.preferences.prompts import Prompt
from alignment.sampling.best_of import kl_bound
from alignment.training.ppo.early_stopping import EarlyStopping
from alignment.training.ppo.scoring import CombinedReward, Episode, PromptItem

GUARDS = ("guard", "spoilt guard")
COLOURS = {"gold": "black", "reward": "tab:red", "guard": "tab:blue", "spoilt guard": "tab:green"}


def best_of_rows(
    scene: Scene,
    policy: Any,
    prompts: list[Prompt],
    items: Sequence[PromptItem],
    judges: Mapping[str, CombinedReward],
    most: int,
) -> list[dict[str, float]]:
    """Reward, guards and gold of the best of n by reward, for n up to `most`; prints them.

    √KL is that of the bound log n − (n−1)/n.
    """
    drawn = scene.answers(policy, prompts, most, seed=2)
    episodes = [
        Episode(item, Tokens(list(item.ids), list(one.token_ids)), one.finished, scene.renderer)
        for item, group in zip(items, drawn, strict=True)
        for one in group
    ]
    scores = {
        name: judge.unwhitened(episodes).reshape(len(prompts), most)
        for name, judge in judges.items()
    }
    scores["gold"] = scene.gold(prompts, drawn)
    rows = []
    for n in (count for count in COUNTS if count <= most):
        row: dict[str, float] = {"n": n, "sqrt_kl": round(math.sqrt(kl_bound(n)), 4)}
        for name, values in scores.items():
            best = of_best(scores["reward"], values, n)[1]
            row[name] = round(float(best.mean()), 4)
            if name == "gold":
                row["gold_error"] = round(float(best.std() / math.sqrt(len(best))), 4)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def verdicts(
    rows: Sequence[dict[str, float]], patience: int, confirm: float, forgetting: float
) -> list[dict[str, Any]]:
    """Where gold peaks, and what each rule of stopping keeps of it."""
    peak = max(rows, key=lambda row: row["gold"])
    found = []
    for name in GUARDS:
        for share, most in ((0.0, None), (confirm, None), (0.0, forgetting)):
            config = StopConfig(patience=patience, confirm=share, forgetting=most)
            stopping, stopped = EarlyStopping(config), None
            for row in rows:
                looked = (row[name], row["reward"], row.get("text_loss"))
                stopping.observe(int(row["iteration"]), *looked)
                if stopping.reason(0.0) is not None:
                    stopped = int(row["iteration"])
                    break
            kept = next(row for row in rows if row["iteration"] == stopping.best_iteration)
            places = {"peak": peak, "kept": kept, "last": rows[-1]}
            shown = {
                place: {key: row[key] for key in ("iteration", "sqrt_kl", "gold")}
                for place, row in places.items()
            }
            of_peak = round(kept["gold"] / peak["gold"], 4)
            found.append(
                {
                    "by": name,
                    "confirm": share,
                    "forgetting": most,
                    **shown,
                    "stopped": stopped,
                    "kept_of_peak": of_peak,
                }
            )
    return found


def draw(found: dict[str, Any], path: Path) -> None:
    """Gold above, training reward and guards below, against √KL; PPO solid, best-of-n dashed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.5, 8.0), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    sides = {"PPO": found["rows"], "best of n": found["best_of"]}
    for title, rows in sides.items():
        if not rows:
            continue
        line = {"linestyle": "-" if title == "PPO" else "--"}
        distance = [row["sqrt_kl"] for row in rows]
        gold = np.array([row["gold"] for row in rows])
        error = 1.96 * np.array([row["gold_error"] for row in rows])
        colour, marker = ("black", "o") if title == "PPO" else ("tab:orange", "s")
        above.plot(distance, gold, color=colour, marker=marker, label=f"gold, {title}", **line)
        above.fill_between(distance, gold - error, gold + error, color=colour, alpha=0.12, lw=0)
        for name in ("reward", *GUARDS):
            label = f"{'training reward' if name == 'reward' else name}, {title}"
            values = [row[name] for row in rows]
            below.plot(distance, values, color=COLOURS[name], marker=".", label=label, **line)
        peak = rows[int(gold.argmax())]
        where = f"gold's peak, {title}" if peak is not rows[-1] else f"{title}: no peak yet"
        for axes in (above, below):
            axes.axvline(peak["sqrt_kl"], color=colour, linestyle=":", label=where)
    for row in found["best_of"]:
        place = (row["sqrt_kl"], row["gold"])
        above.annotate(f"n={row['n']}", place, (-4, 7), textcoords="offset points", ha="right")
    _mark_stops(above, found["stops"])
    above.set_ylabel("gold reward (band: 95 %)")
    below.set_ylabel("score on held-out prompts")
    below.set_xlabel("√KL from the start (best of n: upper bound, log n − (n−1)/n)")
    for axes in (above, below):
        axes.grid(alpha=0.25)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def _mark_stops(axes: Any, stops: Sequence[dict[str, Any]]) -> None:
    """A ring where each rule's kept weights lie, with what they keep of the peak."""
    for number, one in enumerate(stops):
        kept, marker, rule = one["kept"], "o", ""
        if one["confirm"]:
            marker, rule = "*", f", {one['confirm']:g} confirmed"
        if one["forgetting"]:
            marker, rule = "s", f", {one['forgetting']:.0%} forgotten at most"
        axes.plot(
            kept["sqrt_kl"],
            kept["gold"],
            marker=marker,
            markersize=13 + 3 * number,
            markeredgewidth=2,
            fillstyle="none",
            linestyle="none",
            color=COLOURS[one["by"]],
            label=f"kept by {one['by']}{rule}:\n{one['kept_of_peak']:.0%} of the peak",
        )


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
