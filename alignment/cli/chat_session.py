"""Talking with a version in the terminal, or with two side by side. The library behind `chat`."""

from __future__ import annotations

import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.columns import Columns
from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.text import Text

from alignment.config.generation import GenerationConfig
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError
from alignment.inference.counter_noise import GumbelNoise, step_keys
from alignment.inference.decode import Ends, Row, decode
from alignment.inference.engine import end_ids
from alignment.inference.engine_factory import open_engine
from alignment.inference.types import Engine, SamplingSettings
from alignment.models.chat_renderer import ChatRenderer, Message
from alignment.models.load import (
    context_length,
    context_of,
    load_policy,
    load_tokenizer,
    resolve_device,
)
from alignment.models.stepper import ModelStepper
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed

HELP = "/reset starts a new conversation, /quit (or Ctrl-D) leaves, Ctrl-C stops an answer."


class Session(ABC):
    """A conversation with one model so far.

    Args:
        temperature: 0 answers greedily.
        seed: of everything drawn; the same seed and inputs give the same answers.
    """

    def __init__(
        self,
        renderer: ChatRenderer,
        *,
        name: str,
        temperature: float = 0.7,
        max_new_tokens: int = 256,
        seed: int | None = None,
    ):
        if temperature < 0 or max_new_tokens < 1:
            raise ConfigError("temperature must be at least 0 and max_new_tokens at least 1")
        self.name = name
        self.messages: list[Message] = []
        self._renderer = renderer
        self._temperature, self._limit = temperature, max_new_tokens
        self._seed = secrets.randbits(62) if seed is None else seed
        self._answers = 0

    def reset(self) -> None:
        """Forget the conversation."""
        self.messages = []

    def reply(self, text: str) -> Iterator[str]:
        """Say `text`; yields the answer piece by piece and remembers both.

        A caller that stops listening cuts the answer there; what was said is remembered.
        """
        self.messages.append({"role": "user", "content": text})
        tokens: list[int] = []
        shown = ""
        try:
            for token in self._tokens():
                tokens.append(token)
                whole = self._renderer.text(tokens)
                # A character may need several tokens: wait until it is whole.
                if not whole.endswith("\ufffd") and len(whole) > len(shown):
                    yield whole[len(shown) :]
                    shown = whole
            whole = self._renderer.text(tokens)
            if len(whole) > len(shown):
                yield whole[len(shown) :]
        finally:
            answer = self._renderer.text(tokens)
            self.messages.append({"role": "assistant", "content": answer})

    @abstractmethod
    def _tokens(self) -> Iterator[int]:
        """The next answer's ids, without the one that ends it."""

    def _next_seed(self) -> int:
        seed = derive_seed(self._seed, "answer", self._answers)
        self._answers += 1
        return seed


class ChatSession(Session):
    """A conversation with a model in this process; answers come token by token."""

    def __init__(self, model: Any, renderer: ChatRenderer, **settings: Any):
        super().__init__(renderer, **settings)
        self._model = model
        device = next(model.parameters()).device
        self._ends = end_ids(model, renderer)
        self._end_tensor = torch.tensor(sorted(self._ends), device=device)
        self._gumbel = GumbelNoise(model.get_output_embeddings().weight.shape[0], device)

    def _tokens(self) -> Iterator[int]:
        context = context_length(self._model.config) or 1 << 20
        # A prompt keeps at least half of the model's window; long answers are cut before that.
        room = max(context - self._limit, context // 2)
        ids = self._renderer.prompt(self.messages, limit=room)
        settings = SamplingSettings(
            max_new_tokens=min(self._limit, context - len(ids)), temperature=self._temperature
        )
        seed = self._next_seed()
        keys = step_keys([seed], settings.max_new_tokens).to(self._end_tensor.device)
        stepper = ModelStepper(self._model, settings.max_new_tokens)
        row = Row(0, 0, ids, seed)
        for drawn in decode(stepper, [row], keys, settings, Ends(self._end_tensor), self._gumbel):
            token = int(drawn[0])
            if token in self._ends:
                return
            yield token


class ServedSession(Session):
    """A conversation with a model behind a server; answers come whole."""

    def __init__(self, engine: Engine, renderer: ChatRenderer, progress: Progress, **settings: Any):
        super().__init__(renderer, **settings)
        self._engine, self._progress = engine, progress

    def _tokens(self) -> Iterator[int]:
        prompt = self._renderer.prompt(self.messages)
        settings = SamplingSettings(max_new_tokens=self._limit, temperature=self._temperature)
        seeds = [[self._next_seed()]]
        ((answer,),) = self._engine.sample([prompt], seeds, settings, self._progress)
        yield from answer.token_ids


class Spoken(SilentProgress):
    """Prints what an engine says, such as how long a server has been starting."""

    def say(self, message: str) -> None:
        """See `Progress`."""
        print(message, file=sys.stderr)


@contextmanager
def open_served(path: Path, program: ProgramConfig, **settings: Any) -> Iterator[Session]:
    """A session with a model directory through the program's engine; `settings` are a session's.

    Raises:
        AlignError: as `open_engine`.
    """
    most = settings.get("max_new_tokens", 256)
    context = context_of(path)
    # A prompt keeps at least half of the model's window.
    limits = GenerationConfig(max_new_tokens=most if context is None else min(most, context // 2))
    log = program.workspace / "servers" / f"chat-{settings['name'].replace('/', '-')}.log"
    with (
        TemporaryDirectory(prefix="align-chat-") as keep,
        open_engine(
            path, program.inference, program.compute, limits, keep=Path(keep), log=log
        ) as opened,
    ):
        limit = {"max_new_tokens": limits.max_new_tokens}
        yield ServedSession(opened.engine, opened.renderer, Spoken(), **{**settings, **limit})


def open_session(path: Path, device: str = "auto", **settings: Any) -> ChatSession:
    """Load a model directory (full or adapter) for talking; `settings` are a session's own."""
    model = load_policy(path, dtype="float32", device=resolve_device(device))
    return ChatSession(model, ChatRenderer(load_tokenizer(path)), **settings)


def talk(sessions: Sequence[Session], console: Console | None = None) -> None:
    """Read lines and answer them until the user leaves. With two sessions both answer."""
    console = console or Console()
    names = " and ".join(session.name for session in sessions)
    console.print(f"Talking with {names}. {HELP}", style="dim", markup=False, highlight=False)
    while True:
        try:
            line = console.input("[bold]you>[/bold] ").strip()
        except (EOFError, KeyboardInterrupt):
            console.print()
            return
        if line in ("/quit", "/exit"):
            return
        if line == "/reset":
            for session in sessions:
                session.reset()
            console.print("A new conversation.", style="dim")
        elif line.startswith("/"):
            console.print(HELP, style="dim", markup=False, highlight=False)
        elif line:
            _answer(sessions, line, console)


def _answer(sessions: Sequence[Session], line: str, console: Console) -> None:
    replies = [session.reply(line) for session in sessions]
    try:
        if len(sessions) == 1:
            console.print(f"{sessions[0].name}> ", style="bold cyan", end="", markup=False)
            for piece in replies[0]:
                console.print(piece, end="", markup=False, highlight=False, soft_wrap=True)
            console.print()
        else:
            _side_by_side(sessions, replies, console)
    except KeyboardInterrupt:
        console.print(" …", style="dim")
    finally:
        for reply in replies:
            reply.close()  # type: ignore[attr-defined]


def _side_by_side(
    sessions: Sequence[Session], replies: Sequence[Iterator[str]], console: Console
) -> None:
    """A panel each; they take turns, one piece at a time."""
    texts = ["" for _ in sessions]
    going = set(range(len(sessions)))

    def panels() -> Columns:
        width = max(20, console.width // len(sessions) - 2)
        return Columns(
            [
                Panel(Text(text), title=Text(session.name), width=width)
                for session, text in zip(sessions, texts, strict=True)
            ]
        )

    with Live(panels(), console=console, refresh_per_second=12) as live:
        while going:
            for number in sorted(going):
                piece = next(replies[number], None)
                if piece is None:
                    going.discard(number)
                else:
                    texts[number] += piece
            live.update(panels())
    if not console.is_terminal:
        console.line()  # Live ends its last line on terminals only
