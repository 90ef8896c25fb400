"""`align bench intake`: speed and memory of intake.

The delivery repeats real comparisons, each with its own number in its first turn, so that sizes and
texts are real and no two rows are the same. The measurement does not include making the delivery,
but everything that `align ingest` does with it, including the digest of the file.
"""

from __future__ import annotations

import gzip
import json
import tempfile
import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Literal

from alignment.bench.conditions import peak_rss_mb
from alignment.config.intake import IntakeConfig
from alignment.errors import DataError
from alignment.preferences.intake import ingest
from alignment.preferences.prepare_files import native
from alignment.preferences.rows import Draft
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import find_sources
from alignment.preferences.store import PreferenceStore
from alignment.utils.processor import processor

Shape = Literal["hh", "native"]


def run(
    *, data: Path, rows: int = 500_000, shape: Shape = "hh", packed: bool = False
) -> dict[str, Any]:
    """Measure the intake of one synthetic delivery.

    Args:
        data: file or directory of real preferences in any known format.
        shape: write the delivery as transcripts of HH-RLHF or in our own schema.

    Raises:
        DataError: `data` contains no valid comparison.
    """
    with tempfile.TemporaryDirectory(prefix="align-bench-") as name:
        place = Path(name)
        delivery = place / ("delivery.jsonl.gz" if packed else "delivery.jsonl")
        make_delivery(data, rows, shape, delivery)
        store = PreferenceStore(place / "preferences")
        began, cpu = time.perf_counter(), time.process_time()
        report = ingest(store, [delivery], IntakeConfig(domain="helpfulness"))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        counts = report.values["rows"]
        return {
            "bench": "intake",
            "processor": processor(),
            "shape": shape,
            "rows": counts["read"],
            "rows_per_s": round(counts["read"] / seconds, 1),
            "peak_rss_mb": round(peak_rss_mb(), 1),
            "seconds": round(seconds, 4),
            "cpu_seconds": round(cpu, 4),
            "accepted": counts["accepted"],
            "quarantined": counts["quarantined"],
            "dropped": counts["dropped"],
            "delivery_mb": round(delivery.stat().st_size / 1e6, 1),
            "packed": packed,
            "store_mb": round(sum(f.stat().st_size for f in report.directory.iterdir()) / 1e6, 1),
        }


def make_delivery(data: Path, rows: int, shape: Shape, path: Path) -> None:
    """Write `rows` different comparisons of real sizes to `path` as JSON lines."""
    drafts = _sound(data)
    packed = path.suffix == ".gz"
    write = _transcript if shape == "hh" else native
    with gzip.open(path, "wb", 6) if packed else path.open("wb") as file:
        for number, draft in enumerate(islice(cycle(drafts), rows)):
            turns = draft.turns
            first = next(place for place, turn in enumerate(turns) if turn[0] == "user")
            draft.turns = [*turns]
            draft.turns[first] = ("user", f"({number}) {turns[first][1]}")
            file.write(json.dumps(write(draft), ensure_ascii=False).encode() + b"\n")
            draft.turns = turns


def _sound(data: Path) -> Sequence[Draft]:
    reading = SourceReader(IntakeConfig(domain="helpfulness"))
    drafts = [
        draft
        for source in find_sources([data])
        for _, draft in reading.open(source)[1]
        if isinstance(draft, Draft)
    ]
    if not drafts:
        raise DataError("no valid comparison to make a delivery from", where=str(data))
    return drafts


def _transcript(draft: Draft) -> dict[str, Any]:
    names = {"user": "Human", "assistant": "Assistant", "system": "Human"}
    before = "".join(f"\n\n{names[role]}: {text}" for role, text in draft.turns)
    return {
        "chosen": f"{before}\n\nAssistant: {draft.chosen}",
        "rejected": f"{before}\n\nAssistant: {draft.rejected}",
    }
