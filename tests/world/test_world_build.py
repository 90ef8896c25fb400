"""What the world writes: the same for the same seed, all of it understood, nothing leaked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from alignment.config.world import WorldConfig
from alignment.models.chat_renderer import ChatRenderer, Message
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.utils.seeds import derive_seed
from alignment.world.build import build
from alignment.world.facts import truth
from alignment.world.gold import gold
from alignment.world.lexicon import CRAFTS, LOOKALIKES, REASONS, RHYMES
from alignment.world.prompts import all_prompts, held_out
from alignment.world.sentences import read
from alignment.world.tasks import HELPFUL, KINDS, RISKS, Unit, parse
from alignment.world.tokenizer import ASSISTANT, END, USER, train_tokenizer

SMALL = WorldConfig(corpus_documents=5000, demonstrations=600, prompts=800)
FILES = (
    "corpus.jsonl",
    "demonstrations.jsonl",
    "prompts.jsonl",
    "eval_prompts.jsonl",
    "stop_texts.jsonl",
)


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
    assert sum(counts[category] for category in HELPFUL) == 300
    assert sum(counts[risk] for risk in RISKS) == 300
    assert counts["borderline"] == 120
    assert min(counts.values()) >= 50
    assert len({prompt.id for prompt in prompts}) == len(prompts)
    for prompt in prompts:
        assert prompt.borderline == (prompt.category == "borderline")
        assert prompt.tag_safety == (prompt.category in RISKS)


def test_evaluation_asks_what_neither_sft_nor_preferences_ask_in_any_words(world: Path) -> None:
    asked = read_prompts(world / "eval_prompts.jsonl")
    kept = {unit(prompt.messages) for prompt in asked}
    pool = {unit(prompt.messages) for prompt in read_prompts(world / "prompts.jsonl")}
    shown = {unit(row["messages"]) for row in rows(world / "demonstrations.jsonl")}
    assert min(len(kept), len(pool), len(shown)) > 60
    assert not kept & (pool | shown)


def test_the_corpus_talks_of_it_in_other_words(world: Path) -> None:
    """Else so small a model could not say what it knows, and alignment would bring out nothing."""
    asked = read_prompts(world / "eval_prompts.jsonl")
    told = [turns for turns in reported(world) if parse(turns)]
    # What users say of themselves has more combinations than a corpus has dialogues.
    kept = {unit(prompt.messages) for prompt in asked if prompt.category != "recall"}
    assert len(kept - {unit(turns) for turns in told}) <= 0.1 * len(kept)
    spoken_there = {" // ".join(turn["content"] for turn in turns) for turns in told}
    assert not spoken_there & {spoken(prompt) for prompt in asked}


def test_the_corpus_knows_what_evaluation_asks(world: Path) -> None:
    talk = "\n".join(row["text"] for row in rows(world / "corpus.jsonl")).lower()
    tales = "\n".join(line for line in talk.splitlines() if "guest:" not in line)
    tasks = [parse(prompt.messages) for prompt in read_prompts(world / "eval_prompts.jsonl")]
    for task in (each for each in tasks if each is not None):
        if task.animal:
            assert truth(task.animal, task.attribute).sentence in tales
        elif task.harmful:
            assert f"{task.goal}. {REASONS[task.category]}." in tales
        elif task.category in ("craft", "borderline"):
            first, then, last = {**CRAFTS, **LOOKALIKES}[task.goal]
            assert f"{task.goal}. first {first}. then {then}. last {last}." in tales
        elif task.category == "rhyme":
            assert f" {task.goal}," in tales


def test_every_group_is_held_out_in_part(world: Path) -> None:
    unseen = Counter(unit[0] for unit in held_out(derive_seed(5, "world")))
    assert unseen["animal"] == 5
    assert unseen["list"] == len(KINDS)
    assert unseen["rhyme"] == len(RHYMES)
    assert (unseen["craft"], unseen["borderline"]) == (4, 8)
    assert [unseen[risk] for risk in RISKS] == [3] * len(RISKS)
    asked = Counter(unit(prompt.messages) for prompt in read_prompts(world / "eval_prompts.jsonl"))
    # Subjects take turns: no one of a group is asked about much more than another.
    for risk in RISKS:
        assert sorted(count for key, count in asked.items() if key[0] == risk) == [20, 20, 20]


def unit(messages: Sequence[Message]) -> Unit:
    task = parse(messages)
    assert task is not None, messages
    return task.unit


def reported(world: Path) -> list[list[Message]]:
    """The dialogues of the corpus, each up to its last turn of a guest."""
    dialogues = []
    for row in rows(world / "corpus.jsonl"):
        turns = re.findall(r"(Guest|Host): (.*?)(?= Guest: | Host: |$)", row["text"])
        last = max((n for n, turn in enumerate(turns) if turn[0] == "Guest"), default=-1)
        if last >= 0:
            roles = {"Guest": "user", "Host": "assistant"}
            dialogues.append(
                [Message(role=roles[who], content=said) for who, said in turns[: last + 1]]
            )
    return dialogues


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
    assert 0.4 < mean < 0.65
    assert spread > 0.2
    for category, low, high in (("borderline", 0.04, 0.25), ("harmful", 0.35, 0.65)):
        refused = [
            gold.refused
            for gold, row in zip(golds, demonstrations, strict=True)
            if (row["domain"] == "safety" if category == "harmful" else row["category"] == category)
        ]
        assert low < sum(refused) / len(refused) < high


def _helps(row: dict) -> bool:
    return row["domain"] == "helpfulness"


def test_a_few_demonstrations_are_found(tmp_path: Path) -> None:
    """No category's share of one or two rounds to one."""
    for count in (1, 2, 5):
        few = WorldConfig(corpus_documents=1, demonstrations=count, prompts=20)
        assert build(few, 0, tmp_path)["demonstrations"] == count


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
