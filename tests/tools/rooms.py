"""Draw the rooms and their arrows from the code: `python -m tests.tools.rooms` writes the picture.

The layers come from the import contract in pyproject.toml, the sentences from each room's
docstring, the arrows from the imports. An arrow is left out where a longer way says the same.
"""

from __future__ import annotations

import ast
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("alignment.", "flows")
PICTURE = ROOT / "docs" / "rooms.svg"

WIDTH, ROW, BOX, GAP = 1080, 74, 54, 12
STYLE = (
    "text{font-family:sans-serif;font-size:13px;fill:#1b1f24}"
    ".name{font-weight:bold}.small{font-size:10.5px}"
    "rect{fill:#eef3fb;stroke:#5b7db1}path{fill:none;stroke:#8a98ad}"
)


def layers() -> list[list[str]]:
    """Rooms from top to bottom, those side by side in one list."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    rows = next(one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    return [[name.strip().removeprefix("alignment.") for name in row.split("|")] for row in rows]


def room_of(module: str) -> str:
    """`rewards` of alignment.rewards.model, `flows` of anything in flows."""
    first, _, rest = module.partition(".")
    return first if first == "flows" else rest.partition(".")[0]


def imports() -> dict[str, set[str]]:
    """The rooms that each room imports, wherever the import stands in its files."""
    found: dict[str, set[str]] = {room: set() for row in layers() for room in row}
    for top in ("alignment", "flows"):
        for path in (ROOT / top).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            importer = room_of(module.removesuffix(".__init__"))
            for node in ast.walk(ast.parse(path.read_text())):
                names: list[str] = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [f"{node.module}.{alias.name}" for alias in node.names]
                needed = {room_of(name) for name in names if name.startswith(PACKAGES)}
                found.setdefault(importer, set()).update(needed & found.keys())
    return {room: needs - {room} for room, needs in found.items() if room}


def reduced(needs: dict[str, set[str]]) -> list[tuple[str, str]]:
    """The arrows that no way over other rooms implies."""

    def reach(room: str) -> set[str]:
        below = set(needs[room])
        for other in needs[room]:
            below |= reach(other)
        return below

    return [
        (room, other)
        for room in needs
        for other in sorted(needs[room])
        if not any(other in reach(via) for via in needs[room] - {other})
    ]


def question(room: str) -> str:
    """The first sentences of the room's docstring."""
    path = ROOT / "flows" if room == "flows" else ROOT / "alignment" / room
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(path.read_text())) or "").split("\n")[0].replace("`", "")


def wrapped(words: str, width: int) -> list[str]:
    """At most `width` characters a line."""
    lines = [""]
    for word in words.split():
        if len(lines[-1]) + len(word) >= width and lines[-1]:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def draw() -> str:
    """The picture as SVG."""
    boxes: dict[str, tuple[float, float, float]] = {}
    parts: list[str] = []
    rows = layers()
    for level, row in enumerate(rows):
        width = (WIDTH - 200) / len(row) - GAP if len(row) > 1 else 560
        left = (WIDTH - len(row) * (width + GAP) + GAP) / 2
        for place, room in enumerate(row):
            x, y = left + place * (width + GAP), 10 + level * ROW
            boxes[room] = (x, y, width)
            parts.append(f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{BOX}" rx="5"/>')
            if len(row) > 1:
                words = wrapped(question(room), int(width / 5.3))[:3]
                parts.append(label(x + 8, y + 13, "name", room))
                parts += [label(x + 8, y + 25 + 10.5 * i, "small", w) for i, w in enumerate(words)]
            else:
                parts.append(label(x + 8, y + 20, "name", room))
                parts.append(label(x + 8, y + 37, "small", question(room)))
    arrows = []
    level_of = {room: level for level, row in enumerate(rows) for room in row}
    for upper, lower in reduced(imports()):
        (x1, y1, w1), (x2, y2, w2) = boxes[upper], boxes[lower]
        if level_of[lower] == level_of[upper] + 1:
            a, b = x1 + w1 / 2, x2 + w2 / 2
            arrows.append(f"M{a:g} {y1 + BOX} L{b:g} {y2}")
        else:  # around the boxes between them
            right = x1 + w1 / 2 >= WIDTH / 2
            side = WIDTH - 20 if right else 20
            a, b = (x1 + w1, x2 + w2) if right else (x1, x2)
            arrows.append(f"M{a:g} {y1 + 30} C{side} {y1 + 50} {side} {y2 - 10} {b:g} {y2 + 12}")
    lines = [f'<path d="{arrow}" marker-end="url(#tip)"/>' for arrow in arrows]
    height = 10 + len(rows) * ROW
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
            f"<title>The rooms of align</title><style>{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto"><path d="M0 0L8 4L0 8"/></marker></defs>',
            f'<rect x="0" y="0" width="{WIDTH}" height="{height}" style="fill:#fff;stroke:none"/>',
            *lines,
            *parts,
            "</svg>\n",
        ]
    )


def label(x: float, y: float, style: str, words: str) -> str:
    """A line of text."""
    return f'<text x="{x:g}" y="{y:g}" class="{style}">{escape(words)}</text>'


if __name__ == "__main__":
    PICTURE.write_text(draw())
