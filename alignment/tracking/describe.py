"""The Markdown text on a version's page in MLflow."""

from __future__ import annotations

from alignment.reporting.headline import HEADLINES
from alignment.reporting.origin import in_words, learned_from
from alignment.tracking.history import Try, VersionHistory, origin
from alignment.tracking.naming import version_title
from alignment.tracking.standings import Standings

MARK = {"done": "✓", "superseded": "↺", "failed": "✗", "killed": "✗", "running": "…"}


def version_note(history: VersionHistory, standings: Standings) -> str:
    """Where the version stands and why, made from what, how good, at what price.

    MLflow shows the first lines only until one asks for more, so the answer comes first.
    """
    version = history.version
    lines = []
    verdict = standings.verdicts.get(version, {}).get("verdict")
    title = {
        "champion": "★ Champion.",
        "former champion": "Champion once, replaced since.",
        "challenger": "Not promoted.",
        "not promoted": "Not promoted.",
    }.get(standings.of_version(version))
    if title is not None:
        lines += [f"**{title}** {verdict or ''}".strip(), ""]
    decision = standings.decisions.get(version)
    if decision is not None:
        verb = "Approved" if decision["approved"] else "Rejected"
        reason = f": {decision['reason']}" if decision["reason"] else ""
        lines += [f"{verb} by {decision['by']} on {decision['when'][:10]}{reason}.", ""]
    if version.startswith("rlhf-"):
        learned = learned_from(standings.batches, version)
        lines += [f"Made from {in_words(learned)}. {_origin(history)}", ""]
    lines += _figures(history)
    lines += _datasets(history)
    lines += _stages(history)
    return "\n".join(lines).strip() + "\n"


def _origin(history: VersionHistory) -> str:
    config = history.config.version(history.version)
    bag = "its own samples" if config.bag == "previous" else "the best samples of all versions"
    sampler, start = origin(history, "sample", "policy"), origin(history, "finetune", "start")
    if sampler is None:
        return "Nothing is sampled yet."
    text = (
        f"Answers sampled from **{version_title(sampler)}** and scored by this version's two "
        "reward models"
    )
    if start is not None:
        text += f"; fine-tuned from **{version_title(start)}** on {bag}"
    return f"{text}; then PPO on the combined reward." if config.ppo else f"{text}."


def _figures(history: VersionHistory) -> list[str]:
    figures = history.headline()
    if not figures:
        return []
    shown = [item for item in HEADLINES if item.name in figures]
    # What each is stands below: pages that do not wrap cells would cut it off.
    return [
        "### Headline figures",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {item.title} | {item.show(figures)} |" for item in shown),
        "",
        *(f"- *{item.title}*: {item.description}" for item in shown),
        "",
    ]


def _datasets(history: VersionHistory) -> list[str]:
    rows = []
    seen = set()
    for stage, manifest in history.current.items():
        for item in manifest.datasets:
            key = (item["name"], item["digest"], item["role"])
            if key not in seen:
                seen.add(key)
                rows.append(
                    f"| {item['name']} | {item['role']} | {item['rows']:,} | "
                    f"`{item['digest'][:12]}` | {stage} |"
                )
    if not rows:
        return []
    head = [
        "### Made from",
        "",
        "| data | role | rows | digest | stage |",
        "|---|---|---:|---|---|",
    ]
    return [*head, *rows, ""]


def _stages(history: VersionHistory) -> list[str]:
    rows = []
    for node in history.nodes:
        tries = history.tries.get(node.stage, [])
        if not tries:
            rows.append(f"| {node.stage} | – | | | |")
        else:
            rows.append(_stage_row(node.stage, tries, history))
    head = [
        "### Stages",
        "",
        "| stage | state | attempts | seconds | outputs |",
        "|---|---|---:|---:|---|",
    ]
    return [*head, *rows]


def _stage_row(stage: str, tries: list[Try], history: VersionHistory) -> str:
    manifest = history.current.get(stage)
    last = tries[-1].attempt
    state = "done" if manifest else last.status
    seconds = manifest.seconds if manifest else last.seconds
    took = f"{seconds:.1f}" if seconds is not None else ""
    digest = f"`{manifest.digest[:12]}`" if manifest else ""
    return f"| {stage} | {MARK[state]} {state} | {len(tries)} | {took} | {digest} |"
