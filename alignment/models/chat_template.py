"""What a tokenizer's chat template does with a conversation, found out once by rendering probes.

Templates differ in what they write after an answer, in whether they know a system turn, in where
they look for a text, and in whether they write today's date. `ChatTemplate` answers these questions
before anything is trained, and refuses a template with which no conversation can be rendered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from alignment.errors import ConfigError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Placeholders for texts. Private-use characters: neither templates nor texts contain them.
HOLE = "\ue000\ue001\ue000"
_ASKED = "\ue000\ue002\ue000"
_SYSTEM = "\ue000\ue003\ue000"

DATE = {
    "%Y": "2024", "%y": "24", "%B": "July", "%b": "Jul", "%h": "Jul", "%m": "07", "%-m": "7",
    "%d": "26", "%-d": "26", "%e": "26", "%A": "Friday", "%a": "Fri", "%j": "208", "%u": "5",
    "%w": "5", "%V": "30", "%H": "00", "%-H": "0", "%I": "12", "%-I": "12", "%p": "AM",
    "%M": "00", "%S": "00", "%f": "000000", "%F": "2024-07-26", "%D": "07/26/24",
    "%T": "00:00:00", "%R": "00:00", "%X": "00:00:00", "%x": "07/26/24",
    "%c": "Fri Jul 26 00:00:00 2024", "%s": "1721952000", "%Z": "UTC", "%z": "+0000",
}  # fmt: skip
"""`strftime` directive → its text on the fixed day, 26 July 2024, which Llama 3's own templates
write where nobody tells them the date."""

_DATE_MACRO = (
    "{%- macro strftime_now(format) -%}{{- format"
    + "".join(f" | replace('{code}', '{text}')" for code, text in DATE.items())
    + " -}}{%- endmacro -%}"
)

_FAILURES = (TypeError, ValueError, KeyError, AttributeError, IndexError)


def frozen(template: str) -> str:
    """`template` with a fixed date where it asks for today's, so that every day renders alike."""
    if "strftime_now" not in template or template.startswith(_DATE_MACRO):
        return template
    return _DATE_MACRO + template


def freeze(tokenizer: PreTrainedTokenizerBase) -> None:
    """Fix the date in a tokenizer's template, also in what is saved and exported with it."""
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        tokenizer.chat_template = {name: frozen(text) for name, text in template.items()}
    elif template:
        tokenizer.chat_template = frozen(template)


class ChatTemplate:
    """The chat template of one tokenizer.

    Attributes:
        closing: the text of the token that ends an answer; "" if the template writes none.
        between: the text from the end of a question to the last answer.
        between_earlier: the same before an earlier answer: Qwen3's drops the empty reasoning block.
        knows_system: whether a system turn is shown. Else it goes in front of the first question.
        tokens: texts of the special and added tokens that the template writes around turns.

    Raises:
        ConfigError: the template refuses a plain dialogue, or leaves out what was said.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        apply: Any = tokenizer.apply_chat_template
        self._apply = apply
        try:
            self._text = frozen(tokenizer.get_chat_template())
        except ValueError as error:
            raise ConfigError(
                f"the tokenizer has several chat templates and none for a plain chat: {error}",
                remedy="name one `default` in its chat_template",
            ) from None
        self.knows_system = True
        self._in_parts = False
        dialogue = [*_exchange(), _turn("user", "?")]
        self._in_parts = not self._shows(dialogue, _ASKED, HOLE)
        if self._in_parts and not self._shows(dialogue, _ASKED, HOLE):
            self._refuse(dialogue)
        self.knows_system = self._shows(
            [_turn("system", _SYSTEM), _turn("user", _ASKED)], _SYSTEM, _ASKED
        )
        marks = _marks(tokenizer)
        self._marks = sorted(marks, key=len, reverse=True)
        question = self.render([_turn("user", _ASKED)], generate=True)
        whole = self.render(dialogue, generate=True)
        try:
            answered = self.render(_exchange(), generate=False)
        except DataError:  # some templates want a question last
            answered = whole.partition(HOLE)[0] + HOLE
        before, _, after = question.partition(_ASKED)
        self.closing = self._closing(
            self._leading(answered.partition(HOLE)[2]),
            self._leading(whole.partition(HOLE)[2]),
            before=before,
            between=answered.partition(_ASKED)[2].partition(HOLE)[0],
        )
        spoken = before + after + self.closing
        self.tokens = {name for name in marks if len(name) > 1 and name in spoken}
        between = answered.partition(HOLE)[0]
        self.between = between[len(question) :] if between.startswith(question) else ""
        earlier = whole.partition(HOLE)[0]
        self.between_earlier = (
            earlier[len(question) :] if earlier.startswith(question) else self.between
        )

    def render(self, messages: Sequence[Mapping[str, Any]], *, generate: bool) -> str:
        """The text of a conversation; `generate` adds what introduces the next answer.

        Raises:
            DataError: the template refuses the conversation.
        """
        from jinja2 import TemplateError

        turns = self._folded(messages)
        try:
            return str(
                self._apply(
                    [self._as_read(turn) for turn in turns],
                    chat_template=self._text,
                    tokenize=False,
                    add_generation_prompt=generate,
                )
            )
        except (TemplateError, *_FAILURES) as error:
            raise DataError(
                f"the tokenizer's chat template refuses a conversation: {error}",
                where="roles: " + ", ".join(str(turn["role"]) for turn in messages),
                remedy="user and assistant must alternate; some templates know no other role",
            ) from None

    def notes(self, eos: str) -> list[str]:
        """What a person should know of this template before training with it.

        Args:
            eos: the text of the tokenizer's EOS token.
        """
        notes = []
        if not self.knows_system:
            notes.append(
                "the chat template shows no system turn: its text goes in front of the first "
                "question"
            )
        if self._text.startswith(_DATE_MACRO):
            notes.append(
                "the chat template writes today's date: it is fixed at 26 July 2024, here and in "
                "what is exported"
            )
        if not self.closing:
            notes.append(
                f"the chat template writes no end after an answer: {eos} ends the answers that "
                "are learned"
            )
        elif self.closing != eos:
            notes.append(
                f"the chat template ends an answer with {self.closing}, not with the tokenizer's "
                f"EOS {eos}: answers are learned with the template's end"
            )
        return notes

    def after_answer(self, text: str) -> tuple[bool, str]:
        """What of the text after an answer is left once its end is written.

        Returns:
            (whether the end token must be written, the text after it). It is not written where the
            template ends the answers of history with a token of its own.
        """
        stripped = text.lstrip()
        if self.closing and stripped.startswith(self.closing):
            return True, stripped[len(self.closing) :]
        return not (self._amid and stripped.startswith(self._amid)), text

    def _folded(self, messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The conversation with its system turn in front of the next question if need be."""
        if len(messages) < 2 or messages[0]["role"] != "system" or self.knows_system:
            return list(messages)
        system, first, *rest = messages
        text = f"{str(system['content']).strip()}\n\n{first['content']}"
        return [{"role": first["role"], "content": text}, *rest]

    def _as_read(self, turn: Mapping[str, Any]) -> dict[str, Any]:
        content = turn["content"]
        if self._in_parts:
            content = [{"type": "text", "text": content}]
        return {"role": turn["role"], "content": content}

    def _shows(self, messages: Sequence[Mapping[str, Any]], *texts: str) -> bool:
        try:
            shown = self.render(messages, generate=True)
        except DataError:
            return False
        return all(text in shown for text in texts)

    def _refuse(self, dialogue: Sequence[Mapping[str, Any]]) -> None:
        """Say why no conversation can be rendered."""
        self._in_parts = False
        try:
            self.render(dialogue, generate=True)
        except DataError as error:
            problem = error.message.replace("a conversation", "a plain dialogue")
        else:
            problem = "the tokenizer's chat template leaves out what user or assistant said"
        raise ConfigError(
            problem,
            remedy="correct chat_template in tokenizer_config.json or chat_template.jinja, or "
            "remove it to train on plain transcripts",
        )

    def _closing(self, last: str, amid: str, *, before: str, between: str) -> str:
        """The token that ends an answer, or "".

        Args:
            last, amid: the token after an answer, at the end and in the middle of a conversation.
            before, between: text before a question, and from there to the answer.
        """
        self._amid = "" if amid in before else amid  # not what opens the next turn
        return last if last and (last == amid or last not in between) else self._amid

    def _leading(self, text: str) -> str:
        stripped = text.lstrip()
        return next((name for name in self._marks if stripped.startswith(name)), "")


def _marks(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """The texts of special tokens, and of added ones that are neither words nor blank space."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = {token.content for token in added if not token.content.isalnum()}
    return {name for name in names | set(tokenizer.all_special_tokens) if name.strip()}


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _exchange() -> list[dict[str, str]]:
    return [_turn("user", _ASKED), _turn("assistant", HOLE)]
