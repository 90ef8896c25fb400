"""Talking with a model: streaming, memory of turns, two side by side."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from model_helpers import CHATML, FAMILIES, bytes_tokenizer, tiny_model
from rich.console import Console

from alignment.cli.chat_session import ChatSession, ServedSession, talk
from alignment.inference.engine import TransformersEngine
from alignment.models.chat_renderer import ChatRenderer
from alignment.utils.progress import SilentProgress


def session(family: str = "llama", **more: Any) -> ChatSession:
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    settings: dict[str, Any] = {"name": "one", "max_new_tokens": 12, "seed": 1, **more}
    return ChatSession(tiny_model(family, seed=settings.pop("weights", 0)), renderer, **settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_streaming_is_greedy_generation(family: str) -> None:
    chat = session(family, temperature=0)
    pieces = list(chat.reply("the cat"))
    renderer, model = chat._renderer, chat._model
    ids = renderer.prompt([{"role": "user", "content": "the cat"}])
    with torch.inference_mode():
        whole = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
        )[0, len(ids) :]
    assert "".join(pieces) == renderer.text(whole.tolist())
    assert chat.messages[-1] == {"role": "assistant", "content": "".join(pieces)}


def test_the_seed_decides_and_turns_are_remembered() -> None:
    first, second = session(temperature=1.0), session(temperature=1.0)
    for line in ("the cat", "and the hat?"):
        assert list(first.reply(line)) == list(second.reply(line))
    assert [message["role"] for message in first.messages] == ["user", "assistant"] * 2
    first.reset()
    assert first.messages == []


def test_an_answer_cut_by_the_listener_is_remembered() -> None:
    chat = session(temperature=1.0, max_new_tokens=100)
    reply = chat.reply("the cat")
    said = next(reply)
    assert isinstance(reply, Iterator)
    reply.close()  # type: ignore[attr-defined]
    assert chat.messages[-1]["role"] == "assistant"
    assert chat.messages[-1]["content"].startswith(said[:1])


def test_a_long_talk_stays_within_the_window() -> None:
    chat = session(temperature=1.0, max_new_tokens=60)
    for _ in range(12):
        list(chat.reply("the cat sat on the mat. what is the colour of the hat?"))
    assert len(chat.messages) == 24


@pytest.mark.parametrize("count", [1, 2])
def test_the_terminal_loop(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [session(name=f"model-{n}", weights=n) for n in range(count)]
    lines = iter(["[bold]hi[/bold]", "/help", "", "/reset", "hello", "/quit"])
    monkeypatch.setattr("builtins.input", lambda *_: next(lines))
    screen = io.StringIO()
    talk(sessions, Console(file=screen, width=100))
    for each in sessions:
        assert each.name in screen.getvalue()
        assert each.messages[0]["content"] == "hello"
    assert "/reset starts" in screen.getvalue()
    assert "╯you>" not in screen.getvalue(), "a question begins on a line of its own"


def test_end_of_input_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: Any) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", ended)
    talk([session()], Console(file=io.StringIO()))


def test_a_talk_through_an_engine() -> None:
    renderer = ChatRenderer(bytes_tokenizer(CHATML))
    engine = TransformersEngine(tiny_model("llama", seed=0), renderer)
    for temperature in (0.0, 1.0):
        settings: dict[str, Any] = {"max_new_tokens": 12, "seed": 1, "temperature": temperature}
        served = ServedSession(engine, renderer, SilentProgress(), name="one", **settings)
        ours = session(temperature=temperature)
        for line in ("the cat", "and the hat?"):
            assert "".join(served.reply(line)) == "".join(ours.reply(line))
        assert served.messages == ours.messages
