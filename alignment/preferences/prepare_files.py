"""Prepares a program's data from real preferences: prompts, demonstrations, arrivals.

All conversations with the same first user turn go to one of four disjoint parts, chosen by hash:

* `eval_prompts.jsonl`: answered in evaluation only;
* `prompts.jsonl`: the pool that policies sample from;
* `demonstrations.jsonl`: the preferred answers, for SFT. They form a part of their own, so that no
  reward model is trained or measured on answers that its initial checkpoint has learnt;
* `arrivals/01`, `arrivals/02`, …: the deliveries, in the native schema.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from alignment.config.intake import DataConfig, IntakeConfig
from alignment.errors import DataError
from alignment.models.chat_renderer import Message
from alignment.preferences.identity import identify
from alignment.preferences.prompts import Prompt, write_prompts
from alignment.preferences.rows import Draft, RowError
from alignment.preferences.schema import Comparison
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import find_sources
from alignment.utils.files import atomic_write_json, atomic_write_text, canonical_json
from alignment.utils.progress import Progress, SilentProgress


def prepare_files(
    paths: Sequence[str | Path],
    data: DataConfig,
    intake: IntakeConfig,
    seed: int,
    out: Path,
    *,
    arrivals: bool = True,
    progress: Progress | None = None,
) -> dict[str, int]:
    """Write a program's data into `out`; the same files and seed give the same bytes.

    Args:
        paths: files or directories of preferences in any known format.
        data, intake: settings of the same names.
        seed: decides the part of each conversation.
        out: directory to write to.
        arrivals: write the deliveries too; otherwise their rows are only counted.

    Returns:
        Rows of each part, and `skipped`: rows without a sound comparison (see skipped.json).

    Raises:
        DataError: unreadable files, or a part that stays empty.
    """
    progress = progress or SilentProgress()
    parts = _Parts()
    numbers = data.arrivals if arrivals else 0
    for number in range(1, numbers + 1):
        (out / "arrivals" / f"{number:02d}").mkdir(parents=True, exist_ok=True)
    files = [
        (out / "arrivals" / f"{number:02d}" / "comparisons.jsonl").open("w", encoding="utf-8")
        for number in range(1, numbers + 1)
    ]
    try:
        for source in find_sources(paths):
            _distribute(source, SourceReader(intake), data, seed, parts, files, progress)
    finally:
        for file in files:
            file.close()
    return _write(parts, data, out)


@dataclass
class _Parts:
    """The parts so far. Entries carry a hash that orders them."""

    evaluation: dict[str, tuple[str, Prompt]] = field(default_factory=dict)
    pool: dict[str, tuple[str, Prompt]] = field(default_factory=dict)
    demonstrations: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    arrivals: int = 0
    too_long: int = 0


def _distribute(
    source: Any,
    reader: SourceReader,
    data: DataConfig,
    seed: int,
    parts: _Parts,
    files: Sequence[TextIO],
    progress: Progress,
) -> None:
    _format, drafts = reader.open(source)
    progress.begin(f"preparing {source.name}", None, "rows")
    category = source.name.split(".")[0]
    for _record, draft in drafts:
        progress.advance()
        if isinstance(draft, RowError):
            parts.skipped[draft.reason] += 1
            continue
        try:
            identity = identify(draft)
        except RowError as error:
            parts.skipped[error.reason] += 1
            continue
        draft.category = draft.category or category
        # The same number for all conversations with one opening. Its salt makes it independent of
        # the split into training and held-out comparisons.
        place = _fraction(seed, identity.opening)
        key = f"{_number(seed, 'order', identity.own):016x}"
        for share, add in (
            (data.shares["evaluation"], partial(_add_prompt, part=parts.evaluation)),
            (data.shares["prompts"], partial(_add_prompt, part=parts.pool)),
            (data.shares["demonstrations"], _add_demonstration),
        ):
            if place < share:
                add(draft, key, data, parts)
                break
            place -= share
        else:
            parts.arrivals += 1
            if files:
                number = _number(seed, "arrival", identity.opening) % len(files)
                files[number].write(canonical_json(native(draft)) + "\n")


def native(draft: Draft) -> dict[str, Any]:
    """A draft as a row of the native schema; what is unset is left out."""
    row: dict[str, Any] = {name: getattr(draft, name, None) for name in Comparison.model_fields}
    row["conversation"] = _messages(draft)
    for side, by in (("chosen_by", draft.chosen_by), ("rejected_by", draft.rejected_by)):
        row[side] = None if by is None else {"version": by[0], "temperature": by[1]}
    return {name: value for name, value in row.items() if value is not None}


def _add_prompt(
    draft: Draft, key: str, data: DataConfig, parts: _Parts, part: dict[str, tuple[str, Prompt]]
) -> None:
    if draft.prompt_characters > data.max_prompt_characters:
        parts.too_long += 1
        return
    prompt = Prompt(
        messages=_messages(draft),
        domain=draft.domain,  # type: ignore[arg-type]  # checked when it was read
        category=draft.category or "general",
    )
    part.setdefault(prompt.id, (key, prompt))


def _add_demonstration(draft: Draft, key: str, data: DataConfig, parts: _Parts) -> None:
    if (
        draft.prompt_characters > data.max_prompt_characters
        or len(draft.chosen) > data.max_answer_characters
    ):
        parts.too_long += 1
        return
    row = {
        "messages": _messages(draft),
        "response": draft.chosen,
        "domain": draft.domain,
        "category": draft.category,
    }
    parts.demonstrations.setdefault(key, (key, row))


def _write(parts: _Parts, data: DataConfig, out: Path) -> dict[str, int]:
    pool = [prompt for _, prompt in sorted(parts.pool.values(), key=lambda entry: entry[0])]
    evaluation = _limited(parts.evaluation, data.max_evaluation)
    if data.borderline is not None:
        evaluation += read_borderline(Path(data.borderline))
    rows = [row for _, row in sorted(parts.demonstrations.values(), key=lambda entry: entry[0])]
    sizes = {
        "demonstrations": len(rows),
        "prompts": len(pool),
        "eval_prompts": len(evaluation),
        "arrivals": parts.arrivals,
    }
    empty = [name for name, count in sizes.items() if count == 0]
    if empty:
        raise DataError(
            f"nothing is left for {', '.join(empty)}: {sum(sizes.values())} sound comparisons, "
            f"{sum(parts.skipped.values())} skipped, {parts.too_long} too long",
            remedy="give more data, or change the shares and bounds under `data`",
        )
    atomic_write_text(out / "demonstrations.jsonl", "".join(canonical_json(r) + "\n" for r in rows))
    write_prompts(out / "prompts.jsonl", pool)
    write_prompts(out / "eval_prompts.jsonl", evaluation)
    skipped = {**dict(sorted(parts.skipped.items())), "too_long_for_its_part": parts.too_long}
    atomic_write_json(out / "skipped.json", skipped)
    return {**sizes, "skipped": sum(skipped.values())}


def _limited(part: dict[str, tuple[str, Prompt]], limit: int) -> list[Prompt]:
    """At most `limit` prompts per domain, those with the lowest hash."""
    counts: Counter[str] = Counter()
    prompts = []
    for _, prompt in sorted(part.values(), key=lambda entry: entry[0]):
        counts[prompt.domain] += 1
        if counts[prompt.domain] <= limit:
            prompts.append(prompt)
    return prompts


def read_borderline(path: Path) -> list[Prompt]:
    """Harmless prompts that look unsafe, from a CSV such as XSTest's.

    Raises:
        DataError: no such file, missing columns, or no prompt labelled `safe`.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = {"prompt", "label"} - set(reader.fieldnames or ())
            if missing:
                raise DataError(
                    f"columns are missing: {', '.join(sorted(missing))}",
                    where=str(path),
                    remedy="XSTest's columns are id, prompt, type, label, focus, note",
                )
            rows = [row for row in reader if row["label"] == "safe" and row["prompt"].strip()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"cannot read the borderline prompts: {error}", where=str(path)) from error
    if not rows:
        raise DataError("no prompt is labelled safe", where=str(path))
    return [
        Prompt(
            messages=[{"role": "user", "content": row["prompt"].strip()}],
            domain="helpfulness",
            category=f"borderline: {row.get('type') or 'general'}",
            borderline=True,
        )
        for row in rows
    ]


def _messages(draft: Draft) -> list[Message]:
    return [{"role": role, "content": text} for role, text in draft.turns]  # type: ignore[typeddict-item]


def _number(seed: int, salt: str, key: int) -> int:
    digest = hashlib.blake2b(f"{seed}\x1f{salt}\x1f{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def _fraction(seed: int, opening: int) -> float:
    return _number(seed, "part", opening) / 2**64
