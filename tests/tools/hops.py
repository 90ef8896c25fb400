"""Draw the way of `align run` to a stage: `python -m tests.tools.hops` writes the picture.

A test holds every hop against the code: the function is there, and it names the next one.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "hops.svg"

HOPS = (
    ("alignment/cli/run.py", "run", "read the YAML file and --set"),
    ("alignment/cli/launch.py", "run_program", "take in the inbox, check, show what is left"),
    ("alignment/cli/launch.py", "run_stages", "make the runner, which locks the workspace"),
    ("flows/local_run.py", "run", "find or start a Prefect server"),
    ("flows/definitions/program.py", "program", "flow: every version that can be done now"),
    ("flows/definitions/iteration.py", "iteration", "flow: the stages of one version"),
    ("flows/definitions/stage_task.py", "run_stage", "task: one stage, under its own name"),
    (
        "alignment/execution/runner.py",
        "run_node",
        "skip what the ledger has; check disk and inputs",
    ),
    ("alignment/execution/runner.py", "execute", "one attempt: context, directories, seed"),
    ("alignment/stages/<stage>.py", "run", "the work itself"),
)
"""File, function, what it does there."""

ASIDE = {
    "run_stages": "with --no-prefect: straight to run_node",
    "run_node": "on failure: retries.py decides on another attempt",
    "execute": "in processes of its own: isolated_stage.py, stage_main.py",
}

WIDTH, ROW = 980, 58


def draw() -> str:
    """The picture as SVG: a box a hop, from top to bottom."""
    parts = []
    for number, (file, function, what) in enumerate(HOPS, start=1):
        y = 8 + (number - 1) * ROW
        if number > 1:
            parts.append(f'<path d="M330 {y - 18} L330 {y}" marker-end="url(#tip)"/>')
        parts.append(f'<rect x="10" y="{y}" width="640" height="40" rx="5"/>')
        parts.append(f'<text x="22" y="{y + 17}" class="name">{number}  {escape(function)}</text>')
        parts.append(f'<text x="160" y="{y + 17}">{escape(file)}</text>')
        parts.append(f'<text x="22" y="{y + 33}" class="small">{escape(what)}</text>')
        if function in ASIDE and file != HOPS[-1][0]:
            parts.append(f'<text x="664" y="{y + 24}" class="small">{ASIDE[function]}</text>')
    height = 8 + len(HOPS) * ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
            "<title>From align run to a stage</title><style>"
            "text{font-family:sans-serif;font-size:13px;fill:#1b1f24}.name{font-weight:bold}"
            ".small{font-size:11.5px}rect{fill:#eef3fb;stroke:#5b7db1}"
            "path{fill:none;stroke:#8a98ad}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8"/></marker></defs>',
            f'<rect x="0" y="0" width="{WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>',
            *parts,
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    PICTURE.write_text(draw())
