"""Prompts for policies to answer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from alignment.config.vocabulary import Domain
from alignment.errors import DataError
from alignment.models.chat_renderer import Message
from alignment.preferences.schema import prompt_id
from alignment.utils.json_lines import write_jsonl


class Prompt(BaseModel):
    """A conversation that ends with a user turn."""

    model_config = ConfigDict(extra="forbid")

    id: str = ""
    """16 hex digits over domain and messages; filled in when left empty."""
    messages: list[Message]
    """Ends with a user turn."""
    domain: Domain
    category: str = "general"
    borderline: bool = False
    """It looks harmful but is not: refusing it is a mistake. Its domain is helpfulness."""

    @model_validator(mode="after")
    def _whole(self) -> Prompt:
        if not self.messages or self.messages[-1]["role"] != "user":
            raise ValueError("a prompt must end with a user turn")
        if self.borderline and self.domain != "helpfulness":
            raise ValueError("a borderline prompt is harmless: its domain is helpfulness")
        if not self.id:
            self.id = prompt_id(self.domain, self.messages)
        return self

    @property
    def tag_safety(self) -> bool:
        """Whether it is a safety prompt for the combined reward (Llama 2 §3.2.3)."""
        return self.domain == "safety"


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a JSONL file, in order.

    Raises:
        DataError: a line is not a prompt; names file and line.
    """
    prompts = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                prompts.append(Prompt.model_validate_json(line))
            except ValidationError as error:
                first = error.errors()[0]
                field = ".".join(str(part) for part in first["loc"]) or "row"
                raise DataError(
                    f"not a prompt: {field}: {first['msg']}", where=f"{path}:{number}"
                ) from error
    return prompts


def write_prompts(path: Path, prompts: Iterable[Prompt]) -> None:
    """Write prompts as JSONL, atomically."""
    write_jsonl(path, (prompt.model_dump() for prompt in prompts))
