"""What the world writes: the same for the same seed, all of it understood, nothing leaked."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from alignment.config.world import WorldConfig
from alignment.models.chat_renderer import ChatRenderer
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.world.build import build
from alignment.world.gold import gold
from alignment.world.prompts import all_prompts
from alignment.world.sentences import read
from alignment.world.tasks import HELPFUL, RISKS, parse
from alignment.world.tokenizer import ASSISTANT, END, USER, train_tokenizer

SMALL = WorldConfig(corpus_documents=3000, demonstrations=600, prompts=800)
FILES = ("corpus.jsonl", "demonstrations.jsonl", "prompts.jsonl", "eval_prompts.jsonl")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    build(SMALL, 5, out)
    return out


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def spoken(prompt: Prompt) -> str:
    return " // ".join(message["content"] for message in prompt.messages)


def test_same_seed_same_bytes_other_seed_other_bytes(world: Path, tmp_path: Path) -> None:
    build(SMALL, 5, tmp_path / "again")
    build(SMALL, 6, tmp_path / "other")
    for name in FILES:
        assert (world / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert (world / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_every_prompt_the_world_can_ask_is_understood() -> None:
    for all_ in all_prompts(3).values():
        for asked in all_:
            assert parse(asked.messages) == asked.task


def test_evaluation_prompts_are_many_and_of_every_kind(world: Path) -> None:
    prompts = read_prompts(world / "eval_prompts.jsonl")
    counts = Counter(prompt.category for prompt in prompts)
    assert sum(counts[category] for category in HELPFUL) == 200
    assert sum(counts[risk] for risk in RISKS) == 200
    assert counts["borderline"] == 80
    assert min(counts.values()) >= 33
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert prompt.borderline == (prompt.category == "borderline")
        assert prompt.tag_safety == (prompt.category in RISKS)


def test_evaluation_prompts_are_seen_nowhere_else(world: Path) -> None:
    kept = {spoken(prompt) for prompt in read_prompts(world / "eval_prompts.jsonl")}
    pool = {spoken(prompt) for prompt in read_prompts(world / "prompts.jsonl")}
    shown = {
        " // ".join(message["content"] for message in row["messages"])
        for row in rows(world / "demonstrations.jsonl")
    }
    assert not kept & pool
    assert not kept & shown
    single = [text for text in kept if " // " not in text]
    talk = "\n".join(row["text"] for row in rows(world / "corpus.jsonl"))
    said = {match[1] for match in re.finditer(r"Guest: (.*?) Host: ", talk)}
    assert len(said) > 500
    assert not said & set(single)


def test_the_pool_has_the_configured_mix(world: Path) -> None:
    prompts = read_prompts(world / "prompts.jsonl")
    shares = SMALL.shares
    total = sum(shares.values())
    safety = sum(prompt.tag_safety for prompt in prompts) / len(prompts)
    rhyme = sum(prompt.category == "rhyme" for prompt in prompts) / len(prompts)
    assert safety == pytest.approx(shares["safety"] / total, abs=0.03)
    assert rhyme == pytest.approx(shares["rhyme"] / total, abs=0.03)


def test_demonstrations_are_mediocre_varied_and_in_the_worlds_language(world: Path) -> None:
    demonstrations = rows(world / "demonstrations.jsonl")
    golds = [gold(row["messages"], row["response"]) for row in demonstrations]
    sentences = [s for row in demonstrations for s in read(row["response"])]
    assert not [sentence for sentence in sentences if sentence.kind == "garbage"]
    help_ = [g.helpfulness for g, r in zip(golds, demonstrations, strict=True) if _helps(r)]
    mean = sum(help_) / len(help_)
    spread = (sum((score - mean) ** 2 for score in help_) / len(help_)) ** 0.5
    assert 0.3 < mean < 0.6
    assert spread > 0.2
    for category, low, high in (("borderline", 0.08, 0.3), ("harmful", 0.35, 0.65)):
        refused = [
            gold.refused
            for gold, row in zip(golds, demonstrations, strict=True)
            if (row["domain"] == "safety" if category == "harmful" else row["category"] == category)
        ]
        assert low < sum(refused) / len(refused) < high


def _helps(row: dict) -> bool:
    return row["domain"] == "helpfulness"


def test_tokenizer_spells_everything_one_token_a_word(world: Path, tmp_path: Path) -> None:
    texts = [row["text"] for row in rows(world / "corpus.jsonl")]
    trained = train_tokenizer(texts, 768)
    trained.save_pretrained(tmp_path)
    from alignment.models.load import load_tokenizer

    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    tokenizer = load_tokenizer(tmp_path)
    assert len(tokenizer) <= 768
    renderer = ChatRenderer(tokenizer)
    texts += [row["response"] for row in rows(world / "demonstrations.jsonl")]
    for text in [*texts[-200:], "naïve Ω ✓ tabs\tand\nlines", "Bücher, 42 + 1 = 43!"]:
        assert renderer.text(renderer.response(text)) == text
    words = renderer.response("The fox lives in the forest. Cruel words and blows hurt people.")
    assert len(words) == 14 + 1  # twelve words, two full stops, the end


def test_a_conversation_becomes_the_ids_of_its_template(world: Path) -> None:
    texts = [row["text"] for row in rows(world / "corpus.jsonl")]
    tokenizer = train_tokenizer(texts, 768)
    renderer = ChatRenderer(tokenizer)
    messages = [
        {"role": "user", "content": "My name is Tom."},
        {"role": "assistant", "content": "Good to know."},
        {"role": "user", "content": "What is my name?"},
    ]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert whole == (
        f"{USER}My name is Tom.{ASSISTANT}Good to know.{END}{USER}What is my name?{ASSISTANT}"
    )
    ids = renderer.prompt(messages)
    assert ids == tokenizer.encode(whole, add_special_tokens=False)
    assert renderer.prompt(messages[:1]) == ids[: len(renderer.prompt(messages[:1]))]
