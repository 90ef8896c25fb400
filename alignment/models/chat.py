"""The ONE place where a conversation becomes tokens.

SFT, both reward models, sampling and PPO all call `ChatRenderer`, so a model is never scored or
trained on text that is spelled differently from the text it wrote. The rules:

* every turn is tokenised on its own, so the ids of a conversation are a prefix of the ids of the
  same conversation one turn later;
* an answer ends with exactly one EOS token, also in the middle of a conversation. An answer cut at
  the token limit has none: `response(text, finished=False)`;
* a tokenizer that brings a chat template is asked for it, one without gets the plain transcript of
  HH-RLHF (`Human: ... Assistant: ...`), which any vocabulary can spell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from alignment.errors import ConfigError, DataError

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One turn."""

    role: Role
    content: str


Conversation = Sequence[Message]


class Tokenizer(Protocol):
    """What we use of a transformers tokenizer."""

    eos_token_id: int | None
    bos_token_id: int | None
    pad_token_id: int | None
    chat_template: str | None

    def encode(self, text: str, *, add_special_tokens: bool = ...) -> list[int]: ...

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = ...) -> str: ...


@dataclass(frozen=True)
class Tokens:
    """A prompt and one answer to it, as ids. `response` ends with EOS if the answer is finished."""

    prompt: list[int]
    response: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    @property
    def ids(self) -> list[int]:
        """Prompt and response in a row."""
        return self.prompt + self.response


class ChatRenderer:
    """Turns conversations into ids and ids into text for one tokenizer.

    Args:
        tokenizer: a transformers tokenizer with an EOS token.
        max_prompt_tokens: longer prompts lose whole turns from the front, then tokens from the
            front; `None` means never.
    """

    def __init__(self, tokenizer: Tokenizer, max_prompt_tokens: int | None = None):
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no EOS token, so an answer could never end",
                remedy="set eos_token in tokenizer_config.json",
            )
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self.eos: int = tokenizer.eos_token_id
        self._encoded: dict[str, list[int]] = {}

    @property
    def pad(self) -> int:
        """Id used to fill batches; always masked, so EOS does where a tokenizer has no pad."""
        pad = self.tokenizer.pad_token_id
        return self.eos if pad is None else pad

    def prompt(self, messages: Conversation) -> list[int]:
        """Ids of a conversation that ends with a user turn, up to where the answer begins.

        Raises:
            DataError: the conversation is empty or does not end with a user turn.
        """
        if not messages or messages[-1]["role"] != "user":
            raise DataError(
                "a prompt must end with a user turn",
                remedy="drop the trailing assistant turn or add the user's message",
            )
        ids = self._conversation(messages)
        limit = self.max_prompt_tokens
        start = 0
        while limit is not None and len(ids) > limit and start + 2 < len(messages):
            start += 2 if messages[start]["role"] == "user" else 1
            ids = self._conversation(messages[start:])
        return ids if limit is None else ids[-limit:]

    def response(self, text: str, *, finished: bool = True) -> list[int]:
        """Ids of an answer; `finished` appends the EOS token."""
        ids = self._encode(self._answer_text(text))
        return [*ids, self.eos] if finished else list(ids)

    def tokens(self, messages: Conversation, answer: str, *, finished: bool = True) -> Tokens:
        """Prompt and answer together."""
        return Tokens(self.prompt(messages), self.response(answer, finished=finished))

    def text(self, response: Sequence[int]) -> str:
        """The answer behind response ids: up to the first EOS, special tokens and edges removed."""
        ids = list(response)
        if self.eos in ids:
            ids = ids[: ids.index(self.eos)]
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def _conversation(self, messages: Conversation) -> list[int]:
        if self.tokenizer.chat_template:
            return self._templated(messages)
        ids = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        for message in messages:
            if message["role"] == "assistant":
                ids += [*self._encode(self._answer_text(message["content"])), self.eos]
            elif message["role"] == "system":
                ids += self._encode(f"{message['content'].strip()}\n\n")
            else:
                ids += self._encode(f"\n\nHuman: {message['content'].strip()}\n\nAssistant:")
        return ids

    def _templated(self, messages: Conversation) -> list[int]:
        """Walk the template turn by turn: what each user turn adds is tokenised on its own."""
        ids: list[int] = []
        rendered = ""
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                ids += [*self._encode(self._answer_text(message["content"])), self.eos]
                rendered = self._apply(messages[: index + 1], generate=False)
            elif index + 1 == len(messages) or messages[index + 1]["role"] == "assistant":
                full = self._apply(messages[: index + 1], generate=True)
                ids += self._encode(full[_common_prefix(full, rendered) :])
                rendered = full
        return ids

    def _apply(self, messages: Conversation, *, generate: bool) -> str:
        apply = self.tokenizer.apply_chat_template  # type: ignore[attr-defined]
        return str(apply(list(messages), tokenize=False, add_generation_prompt=generate))

    def _answer_text(self, text: str) -> str:
        # The plain transcript leaves "Assistant:" without a space: the answer brings it.
        return text.strip() if self.tokenizer.chat_template else f" {text.strip()}"

    def _encode(self, text: str) -> list[int]:
        # Prompts repeat K times and turns repeat across a batch: remember what was tokenised.
        ids = self._encoded.get(text)
        if ids is None:
            if len(self._encoded) > 200_000:
                self._encoded.clear()
            ids = list(self.tokenizer.encode(text, add_special_tokens=False))
            self._encoded[text] = ids
        return ids


def _common_prefix(left: str, right: str) -> int:
    length = min(len(left), len(right))
    for index in range(length):
        if left[index] != right[index]:
            return index
    return length
