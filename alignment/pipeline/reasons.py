"""Says why a stage is run: what differs from the last time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from alignment.pipeline.fingerprints import WITHDRAWN, Fingerprints
from alignment.pipeline.ledger import SHOWN
from alignment.pipeline.migrate import Untranslatable, todays_slice
from alignment.pipeline.node import Node
from alignment.pipeline.records import Unfinished
from alignment.pipeline.slices import stage_declaration
from alignment.preferences.store import PreferenceStore
from alignment.preferences.what_counts import taken_back

FIRST = "never run"
GONE = "its outputs are gone or damaged"
ENOUGH = 6  # differences named in a message


def why_run(node: Node, fingerprints: Fingerprints) -> str:
    """Why the node must run, although it may have run before.

    Compares code version, settings and inputs with those of the current outputs
    (`Ledger.current`).
    """
    old = fingerprints.ledger.current(node.version, node.stage)
    if old is None:
        return _without_outputs(node, fingerprints)
    config, code_version, inputs = fingerprints.request(node)
    reasons = _taken_back(node, fingerprints)
    told = bool(reasons) and node.module != "intake"
    kept = stage_declaration(node.module).keeps_work(old.code_version, old.config)
    if old.code_version != code_version and not kept:
        reasons.append(f"code version {old.code_version} → {code_version}")
    try:
        then = todays_slice(old, node, fingerprints.program)
    except Untranslatable as error:
        reasons.append(f"made by an older release, whose settings are gone: {error.message}")
    else:
        reasons += changes(then["config"], config)
        reasons += changes(then["options"], dict(node.options))
    for name, digest in inputs.items():
        if name == WITHDRAWN:
            continue  # said above
        if name not in old.inputs:
            reasons.append(f"new input {name}")
        elif digest is None:
            if told:
                continue  # what was taken back has made the inputs stale too
            source = node.inputs[name]
            reasons.append(f"input {name} must be made again ({source[0]}/{source[1]})")
        elif old.inputs[name]["digest"] != digest:
            reasons.append(f"input {name} changed")
    reasons += [f"input {name} is gone" for name in old.inputs if name not in inputs]
    if not reasons and fingerprints.seed(node) != old.seed:
        reasons.append("seed")
    more = [f"and {len(reasons) - ENOUGH} more"] if len(reasons) > ENOUGH else []
    return "; ".join([*reasons[:ENOUGH], *more]) or GONE


def _taken_back(node: Node, fingerprints: Fingerprints) -> list[str]:
    """What people took back, or gave back, since the node ran, in words.

    That is said of an intake, and of all stages after it as long as it is not run again.
    """
    nodes = {(item.version, item.stage): item for item in fingerprints.plan}
    waiting, seen, lines = [node], {node.key}, list[str]()
    while waiting:
        item = waiting.pop()
        if item.module == "intake" and _withdrawn_since(item, fingerprints):
            store = PreferenceStore(fingerprints.program.workspace / "preferences")
            lines += taken_back(store, item.version) or ["all that was taken back counts again"]
        for source in item.inputs.values():
            above = nodes[source]
            if above.key not in seen and fingerprints.manifest(*source) is None:
                seen.add(above.key)
                waiting.append(above)
    return list(dict.fromkeys(lines))


def _withdrawn_since(node: Node, fingerprints: Fingerprints) -> bool:
    old = fingerprints.ledger.current(node.version, node.stage)
    then = old.inputs.get(WITHDRAWN, {}).get("digest") if old is not None else None
    return old is not None and then != fingerprints.request(node)[2].get(WITHDRAWN)


def _without_outputs(node: Node, fingerprints: Fingerprints) -> str:
    attempts = fingerprints.ledger.attempts(node.version, node.stage)
    if not attempts:
        return FIRST
    last, key = attempts[-1], fingerprints.of(node)
    if last.status == "superseded":
        return "its outputs were set aside"
    if last.status == "done":
        return GONE
    if key and fingerprints.ledger.partial_dir(node.version, node.stage, key).exists():
        return f"attempt {last.number} is unfinished ({last.status})"
    waits = fingerprints.missing(node)
    if waits:
        return f"after {', '.join(waits[:ENOUGH])}"
    return f"attempt {last.number} did not finish ({last.status})"


def left_behind(
    nodes: Iterable[Node], fingerprints: Fingerprints, at_least: float = 0.0
) -> list[str]:
    """A line on each node whose last attempt is unfinished and would not be continued, and why.

    Args:
        at_least: seconds of work; attempts with less are passed over.
    """
    lines = []
    for node in nodes:
        item = _unfinished_before(node, fingerprints)
        if item is not None and item.seconds >= at_least:
            at = f" at step {item.step}" if item.step is not None else ""
            lines.append(
                f"{node.key}: unfinished attempt{at} of other settings ({clock(item.seconds)} of "
                f"work) is kept, not continued: {_why_not_continued(item, node, fingerprints)}"
            )
    return lines


def _unfinished_before(node: Node, fingerprints: Fingerprints) -> Unfinished | None:
    attempts = fingerprints.ledger.attempts(node.version, node.stage)
    if not attempts or attempts[-1].status not in ("killed", "failed"):
        return None
    last = attempts[-1].fingerprint[:SHOWN]
    if (fingerprints.of(node) or "")[:SHOWN] == last or fingerprints.manifest(
        node.version, node.stage
    ):
        return None
    unfinished = fingerprints.ledger.unfinished(node.version, node.stage)
    return next((item for item in unfinished if item.name == last), None)


def _why_not_continued(item: Unfinished, node: Node, fingerprints: Fingerprints) -> str:
    if item.request is None:
        return "an older release made it"
    config, code_version, inputs = fingerprints.request(node)
    reasons = changes(item.request["config"], config)
    if item.request["code_version"] != code_version:
        reasons.insert(0, f"code version {item.request['code_version']} → {code_version}")
    for name, digest in inputs.items():
        if digest is None:
            reasons.append(f"input {name} must be made again first")
        elif item.request["inputs"].get(name) != digest:
            reasons.append(f"input {name} changed")
    return "; ".join(reasons[:ENOUGH]) or "an option changed"


def changes(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`key before → after` for every dotted key that differs."""
    lines: list[str] = []
    for name in sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += changes(old, new, f"{prefix}{name}.")
        elif old != new:
            lines.append(f"{prefix}{name} {_word(old)} → {_word(new)}")
    return lines


def _word(value: Any) -> str:
    return "unset" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def clock(seconds: float) -> str:
    """Seconds as a person would say them: `4 s`, `3 min`, `2.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
