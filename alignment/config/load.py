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
from alignment.config.yaml_reader import LARGEST, compose, values_of
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
        for_version(program, version.name, lines, source)
    return program


def for_version(
    program: ProgramConfig,
    name: str,
    lines: dict[str, str] | None = None,
    source: str = "configuration",
) -> ProgramConfig:
    """The program as version `name` sees it: its `set` applied, and overrides filled up.

    Args:
        lines: dotted key → place, for messages; `source` where a key has none.

    Raises:
        ConfigError: a key of `set` is unknown or its value is wrong.
    """
    overrides = {} if name in ("base", "sft") else program.version(name).set
    if not overrides:
        return effective(program)
    own = f"versions.{program.version_names.index(name) - 2}.set."
    places = {
        key.removeprefix(own): place for key, place in (lines or {}).items() if key.startswith(own)
    }
    source = f"{source}: versions: {name}: set"
    _refuse_old(overrides, places, source)
    values = program.model_dump(mode="json")
    for key, value in overrides.items():
        where = places.get(key, f"{source}: {key}")
        if key.split(".")[0] in SAME_FOR_ALL:
            raise ConfigError(f"{key} cannot differ between versions", where=where)
        set_dotted(values, key, value, where=where)
    try:
        return effective(ProgramConfig.model_validate(values))
    except ValidationError as error:
        raise _explain(error, places, source) from None


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Values of a YAML file, and for each dotted key the `file:line` where it stands.

    Raises:
        ConfigError: missing or unreadable file, bad YAML (see `alignment.config.yaml_reader`), or
            no mapping at the top.
    """
    text = _text_of(path)
    try:
        node = compose(text)
    except yaml.YAMLError as error:
        raise _bad_yaml(error, path) from None
    if node is None:
        raise ConfigError("the file holds no settings", where=str(path))
    values, lines = values_of(node, lambda node: f"{path}:{node.start_mark.line + 1}")
    if not isinstance(values, dict):
        raise ConfigError("the file holds no settings", where=str(path))
    return values, lines


def _text_of(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            text = file.read(LARGEST + 1)
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.yaml")])
        hint = f"did you mean {path.parent / near[0]}?" if near else "give the path of a YAML file"
        raise ConfigError(f"no configuration file {path}", remedy=hint) from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text in UTF-8", remedy="save it as UTF-8") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from None
    if len(text) > LARGEST:
        raise ConfigError(f"{path} is too long for a configuration ({LARGEST:,} characters)")
    return text


def _bad_yaml(error: yaml.YAMLError, path: Path) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    tab = "indent with spaces: YAML allows no tab there" if "'\\t'" in problem else None
    return ConfigError(f"not valid YAML: {problem}", where=f"{path}{line}", remedy=tab)


def parse_override(text: str) -> tuple[str, Any]:
    """`a.b=c` as key and YAML value; what is no YAML is text, and `#` begins no comment.

    Raises:
        ConfigError: there is no `=`, or a value that no file may hold either.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(
            f"--set {text!r} is not KEY=VALUE", remedy="for example: --set sample.k=8"
        )
    try:
        node = compose(value)
    except yaml.YAMLError:
        return key.strip(), value
    if node is None:
        return key.strip(), value.strip() or None
    if node.tag == "plain" and node.value != value.strip():
        return key.strip(), value.strip()
    return key.strip(), values_of(node, lambda _: f"--set {text}")[0]


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
        if here.get(part) is None:
            here[part] = {}
        here = here[part]
    if not isinstance(here, dict):
        raise ConfigError(f"{key!r} does not lead to a setting", where=where)
    lost = (
        [name for name in here.get(last) or () if name not in value] if _whole(key, value) else []
    )
    if lost:
        raise ConfigError(
            f"{key} would lose {', '.join(lost)}",
            where=where,
            remedy="; ".join(f"{key}.{name}: {given}" for name, given in value.items()),
        )
    here[last] = value


def _whole(key: str, value: Any) -> bool:
    """Whether a whole section is given at once, which would replace what another place says."""
    return isinstance(value, dict) and bool(_known_keys(ProgramConfig, key.split(".")))


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
    *above, last = map(str, first["loc"] or ("",))
    location = [part for part in above if "[" not in part and part != "float"]
    if first["type"] == "extra_forbidden" or ("[" not in last and last != "float"):
        location.append(last)
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
