"""The few pieces of HTML that the report is made of. Every text goes through `escape`."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from html import escape as escape

STYLE = """
:root { --ink: #1d1d1f; --soft: #666; --line: #dcdcdc; --paper: #fff; --mark: #e8f5ef; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 1180px; margin: 0 auto; padding: 24px 20px 80px; }
h1 { font-size: 28px; margin: 8px 0 4px; }
h2 { font-size: 21px; margin: 44px 0 8px; border-top: 1px solid var(--line); padding-top: 18px; }
h3 { font-size: 16px; margin: 18px 0 6px; }
p, li { max-width: 80ch; }
.soft { color: var(--soft); }
.verdict { background: var(--mark); border-left: 4px solid #009e73; padding: 12px 16px;
  margin: 16px 0; }
nav { display: flex; flex-wrap: wrap; gap: 4px 14px; }
nav a { white-space: nowrap; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; margin: 10px 0; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
th { text-align: right; vertical-align: bottom; font-weight: 600; white-space: pre-line; }
th:first-child, td:first-child { text-align: left; }
tr.champion td { background: var(--mark); font-weight: 600; }
table.texts { table-layout: fixed; width: max-content; }
table.texts td, table.texts th { text-align: left; white-space: pre-wrap; width: 250px;
  overflow-wrap: anywhere; }
table.texts td.ask { width: 200px; background: #f6f6f6; position: sticky; left: 0; }
figure { margin: 12px 0; }
img { max-width: 100%; height: auto; }
.row { display: flex; flex-wrap: wrap; gap: 12px 20px; align-items: flex-start; }
.row figure { flex: 1 1 440px; max-width: 580px; margin: 0; }
small { color: var(--soft); }
code { background: #f2f2f2; padding: 1px 4px; font-size: 90%; }
"""


def image(png: bytes, alt: str) -> str:
    """A picture inside the page."""
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(alt)}" src="data:image/png;base64,{data}"></figure>'


def row(*parts: str) -> str:
    """Pictures side by side where the window is wide enough."""
    return f'<div class="row">{"".join(parts)}</div>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], *, marked: Sequence[int] = ()) -> str:
    """A table of plain texts; rows whose number is in `marked` stand out."""
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr{' class=champion' if number in marked else ''}>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + "</tr>"
        for number, cells in enumerate(rows)
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def paragraph(text: str, kind: str = "") -> str:
    """One paragraph of plain text; `commands` between backquotes are set as such."""
    return f"<p{f' class={kind}' if kind else ''}>{_with_code(text)}</p>"


def bullets(lines: Sequence[str]) -> str:
    """A list of plain texts, each as in `paragraph`."""
    return f"<ul>{''.join(f'<li>{_with_code(line)}</li>' for line in lines)}</ul>"


def _with_code(text: str) -> str:
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(text))


def page(title: str, sections: Sequence[tuple[str, str, str]], top: str) -> str:
    """A whole page.

    Args:
        sections: (anchor, heading, HTML) each.
        top: HTML below the title.
    """
    links = "".join(
        f'<a href="#{escape(anchor)}">{escape(heading)}</a>' for anchor, heading, _ in sections
    )
    body = "".join(
        f'<section id="{escape(anchor)}"><h2>{escape(heading)}</h2>{content}</section>'
        for anchor, heading, content in sections
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{top}<nav>{links}</nav>{body}</body></html>\n"
    )
