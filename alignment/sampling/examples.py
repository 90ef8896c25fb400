"""A sample sheet for people: the best and the worst answers side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alignment.preferences.prompts import Prompt
from alignment.sampling.selection import Candidate
from alignment.utils.seeds import derive_seed


def best_and_worst(
    candidates: Sequence[Candidate], prompts: Mapping[str, Prompt], count: int, seed: int
) -> str:
    """Markdown with the best and the worst answer to `count` prompts, picked by hash."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(candidate.prompt_id, []).append(candidate)
    names = sorted(groups, key=lambda name: derive_seed(seed, "example", name))[:count]
    lines = ["# Best and worst of the samples", ""]
    for name in names:
        group = sorted(groups[name], key=lambda one: (-one.reward, one.text))
        lines += [f"## {prompts[name].domain}: {prompts[name].category}", ""]
        for message in prompts[name].messages:
            lines += [f"**{message['role']}**", "", _quoted(message["content"]), ""]
        for title, one in (("best", group[0]), ("worst", group[-1])):
            scores = (
                f"reward {one.reward:.2f}, helpfulness {one.helpfulness:.2f}, "
                f"safety {one.safety:.2f}, {one.tokens} tokens"
                + ("" if one.finished else ", cut at the limit")
            )
            lines += [f"**{title} of {len(group)}** ({scores})", "", _quoted(one.text), ""]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" if line else ">" for line in text.splitlines() or [""])
