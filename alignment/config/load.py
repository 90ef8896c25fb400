"""From a YAML file and `--set` overrides to a checked `ProgramConfig`, with errors for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from alignment.config.effective import effective
from alignment.config.program import ProgramConfig
from alignment.config.renames import DROPPED, RENAMES, leaves
from alignment.errors import ConfigError

# What a version cannot set.
SAME_FOR_ALL = ("versions", "name", "seed", "workspace", "tracking", "cost", "orchestration")


def load_program(path: Path, overrides: Sequence[str] = ()) -> ProgramConfig:
    """Read `path`, apply `a.b=c` overrides in order, check everything.

    Raises:
        ConfigError: unreadable file, bad YAML, unknown key, wrong type or impossible combination;
            names the file, line and key, and the nearest valid key.
    """
    values, lines = read_yaml(path)
    for override in overrides:
        key, value = parse_override(override)
        _refuse_old([key], {key: f"--set {override}"}, "")
        set_dotted(values, key, value, where=f"--set {override}")
        lines[key] = f"--set {override}"
    return check_program(values, lines, str(path))


def check_program(
    values: dict[str, Any], lines: dict[str, str] | None = None, source: str = "configuration"
) -> ProgramConfig:
    """Validate plain values; also the per-version `set` of every version.

    Raises:
        ConfigError: the first problem found, with all others counted.
    """
    _refuse_old([key for key, _ in leaves(values)], lines or {}, source)
    try:
        program = ProgramConfig.model_validate(values)
    except ValidationError as error:
        raise _explain(error, lines or {}, source) from None
    for version in program.versions:
        for_version(program, version.name)
    return program


def for_version(program: ProgramConfig, name: str) -> ProgramConfig:
    """The program as version `name` sees it: its `set` applied, and overrides filled up.

    Raises:
        ConfigError: a key of `set` is unknown or its value is wrong.
    """
    overrides = {} if name in ("base", "sft") else program.version(name).set
    if not overrides:
        return effective(program)
    _refuse_old(overrides, {}, f"versions: {name}: set")
    values = program.model_dump(mode="json")
    for key, value in overrides.items():
        if key.split(".")[0] in SAME_FOR_ALL:
            raise ConfigError(
                f"{key} cannot differ between versions", where=f"versions: {name}: set: {key}"
            )
        set_dotted(values, key, value, where=f"versions: {name}: set")
    try:
        return effective(ProgramConfig.model_validate(values))
    except ValidationError as error:
        raise _explain(error, {}, f"versions: {name}: set") from None


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of a YAML file, and for each dotted key the `file:line` where it stands.

    Raises:
        ConfigError: missing or unreadable file, bad YAML, or no mapping at the top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")])
        hint = f"did you mean {path.parent / near[0]}?" if near else "give the path of a YAML file"
        raise ConfigError(f"no configuration file {path}", remedy=hint) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigError(f"not valid YAML: {problem}", where=f"{path}{line}") from None
    if not isinstance(values, dict) or node is None:
        raise ConfigError("the file holds no settings", where=str(path))
    lines: dict[str, str] = {}
    _collect_lines(node, "", str(path), lines)
    return values, lines


def _collect_lines(node: yaml.Node, prefix: str, path: str, lines: dict[str, str]) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            dotted = f"{prefix}.{key.value}" if prefix else str(key.value)
            lines[dotted] = f"{path}:{key.start_mark.line + 1}"
            _collect_lines(value, dotted, path, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[f"{prefix}.{index}"] = f"{path}:{value.start_mark.line + 1}"
            _collect_lines(value, f"{prefix}.{index}", path, lines)


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=c` as key and YAML value.

    Raises:
        ConfigError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"--set {text!r} is not KEY=VALUE", remedy="for example: --set sample.k=8"
        )
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.strip(), value


def set_dotted(values: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    """Set `values["a"]["b"]` for key `a.b`, making mappings on the way.

    Raises:
        ConfigError: the way leads through something that is no mapping.
    """
    *parents, last = key.split(".")
    here: Any = values
    for part in parents:
        if isinstance(here, list) and part.isdigit() and int(part) < len(here):
            here = here[int(part)]
            continue
        if not isinstance(here, dict):
            raise ConfigError(f"{part!r} in {key!r} is no section", where=where)
        if not isinstance(here.get(part), dict | list):
            here[part] = {}
        here = here[part]
    if not isinstance(here, dict):
        raise ConfigError(f"{key!r} does not lead to a setting", where=where)
    here[last] = value


def _refuse_old(keys: Iterable[str], lines: dict[str, str], source: str) -> None:
    """Raise for a key by its old name, or for one that is a constant now."""
    for given in keys:
        where = _line_of(given.split("."), lines) or source
        key = next((old for old in RENAMES if given.startswith(f"{old}.")), given)
        if key in RENAMES:
            raise ConfigError(
                f"{key} has another name now", where=where, remedy=f"say {RENAMES[key]}"
            )
        if key in DROPPED:
            raise ConfigError(
                f"{key} is no setting any more: it is always {DROPPED[key]!r}",
                where=where,
                remedy="take the line out",
            )


def _explain(error: ValidationError, lines: dict[str, str], source: str) -> ConfigError:
    problems = error.errors(include_url=False)
    first = problems[0]
    # pydantic also names the member of a union and, in square brackets, a table's word
    location = [part for part in map(str, first["loc"]) if "[" not in part and part != "float"]
    dotted = ".".join(location)
    where = _line_of(location, lines) or source
    if first["type"] == "extra_forbidden":
        valid = _known_keys(ProgramConfig, location[:-1])
        message = f"unknown key {dotted!r}"
        near = difflib.get_close_matches(location[-1], valid, n=1, cutoff=0.5)
        if near:
            remedy = f"did you mean {'.'.join([*location[:-1], near[0]])}?"
        else:
            remedy = _elsewhere(location[-1]) or f"known keys here: {', '.join(sorted(valid))}"
    else:
        problem = str(first["msg"]).removeprefix("Value error, ")
        message = f"{dotted}: {problem}" if dotted else problem
        given = first.get("input")
        short = isinstance(given, str | int | float | bool)
        remedy = f"the value given is {given!r}" if short else ""
    if len(problems) > 1:
        remedy = f"{remedy} ({len(problems) - 1} more problems in the same configuration)".strip()
    return ConfigError(message, where=where, remedy=remedy or None)


def _line_of(location: Sequence[str], lines: dict[str, str]) -> str | None:
    for end in range(len(location), 0, -1):
        dotted = ".".join(location[:end])
        below = (place for key, place in lines.items() if key.startswith(f"{dotted}."))
        if place := lines.get(dotted) or next(below, None):
            return place
    return None


def _section_of(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    sections = (_section_of(argument) for argument in get_args(annotation))
    return next((section for section in sections if section is not None), None)


def _known_keys(model: type[BaseModel], location: Iterable[str]) -> list[str]:
    here = model
    for part in location:
        if part.isdigit():
            continue
        field = here.model_fields.get(part)
        section = _section_of(field.annotation) if field else None
        if section is None:
            return []
        here = section
    return list(here.model_fields)


def all_keys(model: type[BaseModel] = ProgramConfig, prefix: str = "") -> list[str]:
    """Every dotted key a program may set."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(f"{prefix}{name}")
        section = _section_of(field.annotation)
        if section is not None:
            keys += all_keys(section, f"{prefix}{name}.")
    return keys


def _elsewhere(name: str) -> str | None:
    """A key of that name in another section."""
    keys = [key for key in all_keys() if key.rpartition(".")[2] == name]
    return f"did you mean {keys[0]}?" if keys else None
