"""Prepares a program's data from real preferences: prompts, demonstrations, arrivals.

All conversations with the same first user turn go to one of four disjoint parts, chosen by hash:

* `eval_prompts.jsonl`: answered in evaluation only;
* `prompts.jsonl`: the pool that policies sample from;
* `demonstrations.jsonl`: the preferred answers that ended, for SFT. They form a part of their own,
  so that no reward model is trained or measured on answers that its initial checkpoint has learnt;
* `arrivals/01`, `arrivals/02`, …: the deliveries, in the native schema.
"""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

from alignment.config.intake import PARTS, DataConfig, IntakeConfig, Part
from alignment.errors import DataError
from alignment.models.chat_renderer import Message
from alignment.preferences.identity import identify
from alignment.preferences.prompts import Prompt, write_prompts
from alignment.preferences.refusals import Refusals
from alignment.preferences.rows import Draft, RowError
from alignment.preferences.schema import Comparison
from alignment.preferences.source_reader import SourceReader
from alignment.preferences.sources import Source, find_sources
from alignment.preferences.tally import printable
from alignment.utils.files import atomic_write_json, atomic_write_text, canonical_json
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.stand_ins import LONGEST, stand_in


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
        DataError: unreadable files, a larger share of bad rows than `intake.max_quarantine`, or a
            part that stays empty.
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
    parts.refusals.check_share(parts.read, intake.max_quarantine, ", ".join(map(str, paths)))
    if parts.refusals.reasons:
        progress.say(f"left out of {parts.read:,} rows: {parts.refusals.summary()}")
    for note, rows in parts.notes.items():
        progress.say(f"{rows:,} rows: {note}")
    return _write(parts, data, out)


@dataclass
class _Parts:
    """The parts so far. Prompts carry the hash that orders them, demonstrations have it as key."""

    prompts: dict[str, dict[str, tuple[str, Prompt]]] = field(
        default_factory=lambda: {"evaluation": {}, "prompts": {}}
    )
    demonstrations: dict[str, dict[str, Any]] = field(default_factory=dict)
    refusals: Refusals = field(default_factory=Refusals)
    notes: Counter[str] = field(default_factory=Counter)
    read: int = 0
    arrivals: int = 0
    too_long: int = 0
    cut: int = 0


def _distribute(
    source: Source,
    reader: SourceReader,
    data: DataConfig,
    seed: int,
    parts: _Parts,
    files: Sequence[TextIO],
    progress: Progress,
) -> None:
    unused: Counter[str] = Counter()
    _format, drafts = reader.open(source, unused)
    progress.begin(f"preparing {source.name}", None, "rows")
    category = source.name.split(".")[0]
    for record, draft in drafts:
        progress.advance()
        parts.read += 1
        try:
            if isinstance(draft, RowError):
                raise draft
            identity = identify(draft)
        except RowError as error:
            parts.refusals.add(error, source.name, record.line)
            continue
        parts.notes.update(draft.notes)
        draft.category = draft.category or category
        key = f"{_number(seed, 'order', identity.own):016x}"
        part = _part(seed, identity.opening, data.shares)
        if part == "arrivals":
            parts.arrivals += 1
            if files:
                number = _number(seed, "arrival", identity.opening) % len(files)
                files[number].write(canonical_json(native(draft)) + "\n")
        elif draft.prompt_characters > data.max_prompt_characters or (
            part == "demonstrations" and len(draft.chosen) > data.max_answer_characters
        ):
            parts.too_long += 1
        elif part == "demonstrations" and draft.chosen_by and not draft.chosen_by.finished:
            parts.cut += 1
        elif part == "demonstrations":
            demonstration = {
                "messages": _messages(draft),
                "response": draft.chosen,
                "domain": draft.domain,
                "category": draft.category,
            }
            parts.demonstrations.setdefault(key, demonstration)
        else:
            prompt = Prompt(
                messages=_messages(draft),
                domain=draft.domain,  # type: ignore[arg-type]  # checked when it was read
                category=draft.category or "general",
            )
            parts.prompts[part].setdefault(prompt.id, (key, prompt))
    if unused:
        names = ", ".join(f"{printable(name)} ({rows:,})" for name, rows in unused.most_common(20))
        progress.say(f"{source.name}: columns seen and not used (rows): {names}")


def _part(seed: int, opening: int, shares: Mapping[Part, float]) -> Part | Literal["arrivals"]:
    """The part of all conversations with one opening."""
    # The salt makes it independent of the split into training and held-out comparisons.
    place = _number(seed, "part", opening) / 2**64
    for part in PARTS:
        if place < shares[part]:
            return part
        place -= shares[part]
    return "arrivals"


def native(draft: Draft) -> dict[str, Any]:
    """A draft as a row of the native schema; what is unset is left out."""
    row: dict[str, Any] = {name: getattr(draft, name, None) for name in Comparison.model_fields}
    row["conversation"] = _messages(draft)
    for side, by in (("chosen_by", draft.chosen_by), ("rejected_by", draft.rejected_by)):
        row[side] = None if by is None else by._asdict()
    return {name: value for name, value in row.items() if value is not None}


def _write(parts: _Parts, data: DataConfig, out: Path) -> dict[str, int]:
    pool = _ordered(parts.prompts["prompts"])
    evaluation = _limited(_ordered(parts.prompts["evaluation"]), data.max_evaluation)
    if data.borderline is not None:
        evaluation += read_borderline(Path(data.borderline))
    rows = [row for _, row in sorted(parts.demonstrations.items())]
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
            f"{parts.refusals.reasons.total()} skipped, {parts.too_long} too long, {parts.cut} cut",
            remedy="give more data, or change the shares and bounds under `data`",
        )
    atomic_write_text(out / "demonstrations.jsonl", "".join(canonical_json(r) + "\n" for r in rows))
    write_prompts(out / "prompts.jsonl", pool)
    write_prompts(out / "eval_prompts.jsonl", evaluation)
    reasons = sorted(parts.refusals.reasons.items())
    skipped = {**dict(reasons), "too_long_for_its_part": parts.too_long}
    if parts.cut:
        skipped["cut_demonstrations"] = parts.cut
    atomic_write_json(out / "skipped.json", skipped)
    return {**sizes, "skipped": sum(skipped.values())}


def _ordered(part: dict[str, tuple[str, Prompt]]) -> list[Prompt]:
    return [prompt for _, prompt in sorted(part.values(), key=lambda entry: entry[0])]


def _limited(prompts: Sequence[Prompt], limit: int) -> list[Prompt]:
    """The first `limit` prompts of each domain, in order."""
    counts: Counter[str] = Counter()
    chosen = []
    for prompt in prompts:
        counts[prompt.domain] += 1
        if counts[prompt.domain] <= limit:
            chosen.append(prompt)
    return chosen


def read_borderline(path: Path) -> list[Prompt]:
    """Harmless prompts that look unsafe, from a CSV such as XSTest's.

    Raises:
        DataError: no such file, missing columns, or no prompt labelled `safe`.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            if found := stand_in(file.read(LONGEST).encode()):
                raise DataError(f"the file is {found[0]}", where=str(path), remedy=found[1])
            file.seek(0)
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
