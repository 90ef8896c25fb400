"""The ONE place where a conversation becomes tokens.

SFT, both reward models, sampling and PPO all use `ChatRenderer`, so a model is always trained and
scored on exactly the tokens it generates. The rules:

* Every turn is tokenised separately, so the ids of a conversation are a prefix of the ids of the
  same conversation one turn later.
* An answer ends with exactly one end token: the one that the chat template writes after answers
  (`<end_of_turn>`, `<|im_end|>`), else EOS. An answer cut at the token limit has none:
  `response(text, finished=False)`.
* The tokenizer's chat template is used, as `chat_template` found it to work. Without one, the
  format is the plain transcript of HH-RLHF (`Human: ... Assistant: ...`), which any vocabulary can
  encode.
* A special token inside a message (`</s>`) is broken up by a space, so that no message can end an
  answer or open a turn.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Literal, cast

from typing_extensions import TypedDict  # pydantic accepts typing.TypedDict from Python 3.12 only

from alignment.errors import ConfigError, DataError
from alignment.models.chat_template import HOLE, ChatTemplate
from alignment.models.text_ids import encoder_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = Literal["system", "user", "assistant"]


class Message(TypedDict):
    """One turn."""

    role: Role
    content: str


Conversation = Sequence[Message]


@dataclass(frozen=True)
class Tokens:
    """A prompt and one answer to it, as ids. A finished `response` ends with the end token."""

    prompt: list[int]
    response: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.response)

    @property
    def ids(self) -> list[int]:
        """Prompt and response concatenated."""
        return self.prompt + self.response


TRANSCRIPT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}"
    "{{ '\\n\\nHuman: ' + message['content'] | trim + '\\n\\nAssistant:' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] | trim + eos_token }}"
    "{% else %}{{ message['content'] | trim + '\\n\\n' }}{% endif %}{% endfor %}"
)
"""The plain transcript as a chat template, for exported models whose tokenizer has none."""


class ChatRenderer:
    """Converts conversations into ids and ids into text for one tokenizer.

    Args:
        max_prompt_tokens: longer prompts lose whole turns from the front, then tokens from the
            front; None sets no limit.
        context: most tokens of a prompt with its answer, which shorten the prompt likewise.

    Attributes:
        eos: id of the tokenizer's EOS token.
        end: id that ends the answers that are learned.
        ends: ids that end an answer, `eos` and `end`.
        template: the tokenizer's chat template; None for plain transcripts.

    Raises:
        ConfigError: the tokenizer has no EOS token, or a chat template that cannot render a
            dialogue.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_prompt_tokens: int | None = None,
        context: int | None = None,
    ):
        if tokenizer.eos_token_id is None:
            raise ConfigError(
                "the tokenizer has no EOS token, so an answer could never end",
                remedy="set eos_token in tokenizer_config.json",
            )
        self.tokenizer = tokenizer
        self.max_prompt_tokens = max_prompt_tokens
        self.context = context
        self.eos: int = tokenizer.eos_token_id
        self.end = self.eos
        self.template = ChatTemplate(tokenizer) if tokenizer.chat_template else None
        if self.template is not None and self.template.closing:
            self.end = cast(int, tokenizer.convert_tokens_to_ids(self.template.closing))
        self.ends = frozenset([self.eos, self.end])
        self._ids_of = encoder_of(tokenizer)
        self._encoded: dict[str, list[int]] = {}
        self._special = _special_tokens(tokenizer, self.template)
        # The text between the prompt and the answer's first word. SentencePiece tokenizers add a
        # space before every text themselves.
        self._opening = self._earlier_opening = ""
        self._lead = "" if _brings_space(tokenizer) else " "
        if self.template is not None:
            self._opening, self._lead = self._around_answers(self.template)
            # What is no blank space before the last answer may be absent before earlier ones.
            self._earlier_opening = self.template.between_earlier if self._opening else ""

    @property
    def pad(self) -> int:
        """Id that fills batches. It is always masked, so EOS serves if there is no pad token."""
        pad = self.tokenizer.pad_token_id
        return self.eos if pad is None else int(pad)

    def prompt(self, messages: Conversation, *, limit: int | None = None) -> list[int]:
        """Ids of a conversation that ends with a user turn, up to where the answer begins.

        Args:
            limit: overrides `max_prompt_tokens`. A longer prompt loses whole exchanges from the
                front (a system message stays), then tokens from the front (BOS stays).

        Raises:
            DataError: the conversation is empty, does not end with a user turn, or the tokenizer's
                chat template refuses it.
        """
        if not messages or messages[-1]["role"] != "user":
            raise DataError(
                "a prompt must end with a user turn",
                remedy="drop the trailing assistant turn or add the user's message",
            )
        limit = self.max_prompt_tokens if limit is None else limit
        ids = self._conversation(messages)
        if limit is None or len(ids) <= limit:
            return ids
        for shorter in _without_oldest(messages):
            ids = self._conversation(shorter)
            if len(ids) <= limit:
                return ids
        bos = self.tokenizer.bos_token_id
        head = ids[:1] if limit > 1 and bos is not None and ids[0] == bos else []
        return head + ids[len(ids) - limit + len(head) :]

    def response(self, text: str, *, finished: bool = True) -> list[int]:
        """Ids of an answer; `finished` appends the end token."""
        ids = self._encode(self._lead + self._defuse(text).strip())
        return [*ids, self.end] if finished else list(ids)

    def tokens(self, messages: Conversation, answer: str, *, finished: bool = True) -> Tokens:
        """Prompt and answer together."""
        return self.join(messages, self.response(answer, finished=finished))

    def join(self, messages: Conversation, response: list[int]) -> Tokens:
        """The prompt, as long as the limits and the answer leave it, and the answer's ids."""
        room = None if self.context is None else self.context - len(response)
        limits = [limit for limit in (self.max_prompt_tokens, room) if limit is not None]
        # An answer that fills the context leaves no prompt to cut; the caller cuts the whole.
        limit = min(limits) if limits and min(limits) > 0 else None
        return Tokens(self.prompt(messages, limit=limit), response)

    def side_by_side(self, messages: Conversation, responses: Sequence[list[int]]) -> list[Tokens]:
        """Answers to be compared, behind one prompt, which leaves room for the longest of them."""
        prompt = self.join(messages, max(responses, key=len)).prompt
        return [Tokens(prompt, response) for response in responses]

    def text(self, response: Sequence[int]) -> str:
        """The text of response ids up to the first end token, without special tokens, stripped."""
        ids = list(takewhile(lambda id: id not in self.ends, response))
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def _conversation(self, messages: Conversation) -> list[int]:
        safe: list[Message] = [
            {"role": message["role"], "content": self._defuse(message["content"])}
            for message in messages
        ]
        if self.template is None:
            return self._transcript(safe)
        return self._templated(safe, self.template)

    def _transcript(self, messages: Conversation) -> list[int]:
        ids = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
        for message in messages:
            if message["role"] == "assistant":
                ids += self.response(message["content"])
            elif message["role"] == "system":
                ids += self._encode(f"{message['content'].strip()}\n\n")
            else:
                ids += self._encode(f"\n\nHuman: {message['content'].strip()}\n\nAssistant:")
        return ids

    def _templated(self, messages: Conversation, template: ChatTemplate) -> list[int]:
        """Apply the template turn by turn and tokenise the text between two answers separately.

        A placeholder replaces the last answer, and the text after the placeholder is used. A
        comparison of the text before and after a turn would be simpler, but some templates rewrite
        earlier turns (they move the system message, or drop reasoning).
        """
        ids: list[int] = []
        answered: int | None = None
        hole = HOLE
        while any(hole in message["content"] for message in messages):
            hole += HOLE  # the placeholder must be no text of the conversation's
        for index, message in enumerate(messages):
            if message["role"] == "assistant":
                ids += self.response(message["content"], finished=False)
                answered = index
            elif index + 1 == len(messages) or messages[index + 1]["role"] == "assistant":
                turns = list(messages[: index + 1])
                if answered is not None:
                    turns[answered] = {"role": "assistant", "content": hole}
                text = template.render(turns, generate=True).rpartition(hole)[2]
                if answered is not None:
                    ends, text = template.after_answer(text)
                    ids += [self.end] if ends else []
                last = index + 1 == len(messages)
                ids += self._encode(text + (self._opening if last else self._earlier_opening))
        return ids

    def _around_answers(self, template: ChatTemplate) -> tuple[str, str]:
        """The text that the template puts between its generation prompt and an answer.

        Returns:
            (text that belongs to the prompt, such as an empty reasoning block; blank space that
            belongs to the answer, such as the one after Llama 2's `[/INST]`).
        """
        between = template.between
        if between.strip():
            return between, ""
        return "", "" if between == " " and _brings_space(self.tokenizer) else between

    def _defuse(self, text: str) -> str:
        if self._special is None:
            return text
        return self._special.sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def _encode(self, text: str) -> list[int]:
        # Prompts repeat K times and turns repeat across a batch: remember what was tokenised.
        ids = self._encoded.get(text)
        if ids is None:
            if len(self._encoded) > 200_000:
                self._encoded.clear()
            ids = self._ids_of(text)
            self._encoded[text] = ids
        return ids


def _without_oldest(messages: Conversation) -> list[list[Message]]:
    """The conversation without its one, two, … oldest exchanges; system messages stay."""
    first = next(index for index, message in enumerate(messages) if message["role"] == "user")
    system = [message for message in messages[:first] if message["role"] == "system"]
    starts = [
        index
        for index in range(first + 1, len(messages))
        if messages[index]["role"] == "user" and messages[index - 1]["role"] != "user"
    ]
    return [[*system, *messages[start:]] for start in starts]


def _special_tokens(
    tokenizer: PreTrainedTokenizerBase, template: ChatTemplate | None
) -> re.Pattern[str] | None:
    """A pattern for the text of any special token, or token of the template, of two characters or
    more."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {token.content for token in added if token.special}
    names |= set(getattr(tokenizer, "all_special_tokens", ()))
    names |= template.tokens if template is not None else set()
    spelled = sorted((name for name in names if len(name) > 1), key=len, reverse=True)
    return re.compile("|".join(re.escape(name) for name in spelled)) if spelled else None


def _brings_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer adds a space before a text."""
    pieces = getattr(tokenizer, "convert_ids_to_tokens", None)
    ids = tokenizer.encode("a", add_special_tokens=False)
    return bool(pieces and ids and str(pieces(ids[:1])[0]).startswith(("▁", "Ġ")))
