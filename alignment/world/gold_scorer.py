"""Gold scores for every conversation of the built-in world."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from alignment.config.world import WorldConfig
from alignment.errors import DataError
from alignment.models.chat_renderer import Message
from alignment.preferences.prompts import Prompt
from alignment.world.gold import Gold, gold
from alignment.world.tasks import Task, parse


class GoldScorer:
    """Gives gold scores in the built-in world of one program.

    Args:
        config: its settings.
        seed: the program's seed.
    """

    def __init__(self, config: WorldConfig, seed: int):
        self.config = config
        self.seed = seed
        self._tasks: dict[str, Task] = {}

    def task(self, prompt: Prompt | Sequence[Message]) -> Task:
        """The task of a conversation.

        Raises:
            DataError: the built-in world has no such task.
        """
        messages = prompt.messages if isinstance(prompt, Prompt) else prompt
        spoken = "\x1f".join(f"{message['role']}\x1e{message['content']}" for message in messages)
        key = hashlib.sha256(spoken.encode()).hexdigest()
        if key not in self._tasks:
            task = parse(messages)
            if task is None:
                last = messages[-1]["content"] if messages else ""
                raise DataError(
                    "the built-in world does not know this prompt, so it has no gold score",
                    where=repr(last[:80]),
                    remedy="score only prompts that the world's own prepare stage wrote",
                )
            self._tasks[key] = task
        return self._tasks[key]

    def gold(self, prompt: Prompt | Sequence[Message], text: str, finished: bool = True) -> Gold:
        """Gold scores of an answer.

        Args:
            finished: the answer ended with EOS.

        Raises:
            DataError: the built-in world does not know the prompt.
        """
        return gold(self.task(prompt), text, finished)
