"""Writes the world's files for a program: corpus, demonstrations, prompts."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from alignment.config.world import WorldConfig
from alignment.preferences.prompts import write_prompts
from alignment.preferences.stop_set import STOP_TEXTS
from alignment.utils.files import atomic_write_text, canonical_json
from alignment.utils.seeds import derive_seed
from alignment.world import corpus
from alignment.world.demonstrations import answer, quality
from alignment.world.prompts import ByCategory, WorldPrompt, draw, split

STOP_DOCUMENTS = 256


def build(config: WorldConfig, seed: int, out: Path) -> dict[str, int]:
    """Write corpus.jsonl, demonstrations.jsonl, prompts.jsonl, eval_prompts.jsonl and
    stop_texts.jsonl, documents as in the corpus that nobody learns from, into `out`.

    Neither demonstrations nor prompts ask what evaluation asks, in any words; the dialogues of the
    corpus do, in others.

    Returns:
        Rows of each file but the last.
    """
    prompts = split(config, derive_seed(seed, "world"))
    texts, others = (
        corpus.documents(
            prompts.talk, count, config.corpus_truth, random.Random(derive_seed(seed, name))
        )
        for name, count in (("corpus", config.corpus_documents), ("stop texts", STOP_DOCUMENTS))
    )
    demonstrations = _demonstrations(prompts.train, config, seed)
    pool = draw(prompts.train, config, config.prompts, derive_seed(seed, "pool"))
    asked = [each for all_ in prompts.evaluation.values() for each in all_]
    _write(out / "corpus.jsonl", [{"text": text} for text in texts])
    _write(out / STOP_TEXTS, [{"text": text} for text in others])
    _write(out / "demonstrations.jsonl", demonstrations)
    write_prompts(out / "prompts.jsonl", [each.prompt for each in pool])
    write_prompts(out / "eval_prompts.jsonl", [each.prompt for each in asked])
    return {
        "corpus": len(texts),
        "demonstrations": len(demonstrations),
        "prompts": len(pool),
        "eval_prompts": len(asked),
    }


def _demonstrations(prompts: ByCategory, config: WorldConfig, seed: int) -> list[dict[str, Any]]:
    rng = random.Random(derive_seed(seed, "demonstrations"))
    drawn: list[WorldPrompt] = []
    # Of as many as there are categories, the largest share is one at least.
    count = max(config.demonstrations, len(prompts))
    while len(drawn) < config.demonstrations:
        # A small category runs out early: its prompts repeat with other answers.
        drawn += draw(prompts, config, count, rng.getrandbits(63))
    return [
        {
            "messages": list(each.messages),
            "response": answer(each.task, quality(rng), rng),
            "domain": each.task.domain,
            "category": each.task.category,
        }
        for each in drawn[: config.demonstrations]
    ]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    atomic_write_text(path, "".join(canonical_json(row) + "\n" for row in rows))
