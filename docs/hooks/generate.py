"""Pages that the site makes: the settings, the library's reference, the files of the root."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).resolve().parents[2]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}
LIBRARY = {
    "ppo": (
        "Losses and advantages",
        ("training.ppo.losses", "training.ppo.advantages", "training.ppo.kl"),
    ),
    "rewards": ("Reward models", ("rewards.losses", "rewards.combined", "rewards.model")),
    "sampling": ("Sampling", ("sampling.selection", "sampling.best_of", "inference.types")),
    "preferences": (
        "Preferences",
        ("preferences.schema", "preferences.split", "preferences.readers.format"),
    ),
    "evaluation": (
        "Evaluation",
        ("evaluation.gate", "evaluation.winrate", "utils.statistics"),
    ),
    "pipeline": (
        "Pipeline",
        ("pipeline.node", "pipeline.plan", "pipeline.ledger", "pipeline.fingerprints"),
    ),
    "execution": (
        "Stages and runner",
        ("stages.context", "execution.runner", "execution.failures", "errors"),
    ),
}
"""Page → its title and its modules."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    from mkdocs.structure.files import File

    pages = {"settings.md": settings_page()}
    pages |= {target: root_page(source) for source, target in ROOT_PAGES.items()}
    pages |= {f"reference/{name}.md": library_page(name) for name in LIBRARY}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def root_page(name: str) -> str:
    """A page of the repository's root, its links seen from docs/."""
    text = (ROOT / name).read_text()
    for source, target in ROOT_PAGES.items():
        text = text.replace(f"]({source})", f"]({target})")
    return re.sub(r"\]\(docs/", "](", text)


def library_page(name: str) -> str:
    """mkdocstrings fills in the modules."""
    title, modules = LIBRARY[name]
    return "\n".join([f"# {title}", "", *(f"::: alignment.{module}\n" for module in modules)])


def settings_page() -> str:
    """Every setting of a program: key, type, default, and the sentence beside the field."""
    from alignment.config.neutral import NEUTRAL
    from alignment.config.program import ProgramConfig

    lines = [
        "# Settings",
        "",
        "Every key of a program's YAML file, made from the models in `alignment/config`. "
        "`--set key=value` changes one for a run. A key marked ◦ cannot change a result and is in "
        "no fingerprint. `[]` stands for the number of an entry in a list.",
    ]
    section = None
    for key, field in settings(ProgramConfig):
        table = key.partition(".")[0] if "." in key else "the program"
        if table != section:
            section = table
            lines += ["", f"## {section}", "", "| key | type | default | |", "|---|---|---|---|"]
        sentence = " ".join((field.description or "").split())
        mark = " ◦" if key in NEUTRAL else ""
        cells = (f"`{key}`{mark}", f"`{kind(field.annotation)}`", default(field), sentence)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, ""])


def settings(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every leaf key with its field, in the order of the models."""
    for name, field in model.model_fields.items():
        inner, listed = section_in(field.annotation)
        key = f"{prefix}{name}"
        if inner is None:
            yield key, field
        else:
            yield from settings(inner, f"{key}[]." if listed else f"{key}.")


def section_in(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, if any, and whether it holds a list of them."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    listed = get_origin(annotation) in (tuple, list)
    for argument in get_args(annotation):
        found, inside = section_in(argument)
        if found is not None:
            return found, listed or inside
    return None, False


def kind(annotation: Any) -> str:
    """A type as people write it."""
    if annotation is type(None):
        return "null"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return kind(arguments[0])
    if origin is Literal:
        return " or ".join(str(argument) for argument in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(kind(argument) for argument in arguments)
    if origin in (tuple, list):
        return f"list of {kind(arguments[0])}"
    if origin is dict:
        return "mapping"
    return {"str": "text", "bool": "true or false", "int": "integer", "float": "number"}.get(
        getattr(annotation, "__name__", str(annotation)),
        getattr(annotation, "__name__", str(annotation)).lower(),
    )


def default(field: FieldInfo) -> str:
    """The default as YAML has it."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "`null`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{list(value) if isinstance(value, tuple) else value}`"
