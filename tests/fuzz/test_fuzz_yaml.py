"""Whatever a file of settings holds: a program, or an error that names the file."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

from fuzzing import fuzzing
from hypothesis import given
from hypothesis import strategies as st

from alignment.config.load import check_program, load_program
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
SHIPPED = [path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.yaml"))]
PATIENCE = 20.0  # seconds; a hang is longer

SCALARS = st.sampled_from(
    [
        *("no", "Yes", "on", "OFF", "true", "~", "", "010", "0x1F", "1_000", "12:30", "1e5", "-0"),
        *(".inf", "-.INF", ".nan", "1e999", "1e-999", "9" * 30, "9" * 5000, "2024-01-01", "'8'"),
        *('"\\0"', '"\\ud800"', '"\\U00110000"', "!!python/name:os.system", "!!int '3'", "=", "<<"),
        *("*a", "&a 1", "[1, true]", "{a: 1, a: 2}", "{<<: *a}", "&r [*r]", "\t1", "|\n  x", "'"),
        *("{", "$HOME/x", "~/x", "a #b"),
    ]
)
WORDS = SCALARS | st.integers().map(str) | st.floats().map(str) | st.text(max_size=12)
KEYS = st.sampled_from(
    [
        *("name", "seed", "workspace", "sample", "k", "ppo", "versions", "set", "data", "shares"),
        *("learning_rate", "rewards", "orchestration", "timezone", "iteration_cron", "compute"),
        *("dtype", "<<"),
    ]
) | st.text(max_size=6)
NESTED = st.recursive(
    WORDS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]")
        | st.dictionaries(KEYS, inner, max_size=3).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        )
    ),
    max_leaves=8,
)
DOCUMENTS = st.lists(st.tuples(KEYS, NESTED), max_size=6).map(
    lambda rows: "".join(f"{key}: {value}\n" for key, value in rows)
)


def read(content: bytes, overrides: tuple[str, ...] = ()) -> ProgramConfig | None:
    """The program, or None after an error that names the file or the option."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "program.yaml"
        path.write_bytes(content)
        started = time.monotonic()
        try:
            return load_program(path, overrides)
        except ConfigError as error:
            if str(path) in str(error) or (overrides and "--set" in str(error)):
                return None
            raise
        finally:
            assert time.monotonic() - started < PATIENCE


def check(program: ProgramConfig | None) -> None:
    """What is kept in a workspace is the same program when it is read again."""
    if program is not None:
        kept = json.loads(json.dumps(program.model_dump(mode="json"), allow_nan=False))
        assert check_program(kept) == program


@fuzzing
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    check(read(content))


@fuzzing
@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    check(read(text.encode("utf-8", "surrogatepass")))


@fuzzing
@given(DOCUMENTS)
def test_any_document(text: str) -> None:
    check(read(f"name: x\nworkspace: w\n{text}".encode("utf-8", "surrogatepass")))


@fuzzing
@given(st.data())
def test_a_real_configuration_with_one_mistake(data: st.DataObject) -> None:
    lines = data.draw(st.sampled_from(SHIPPED)).splitlines()
    place = data.draw(st.integers(0, len(lines) - 1))
    line = lines[place]
    mistake = data.draw(st.sampled_from(["drop", "twice", "value", "swap", "insert", "cut"]))
    match mistake:
        case "drop":
            del lines[place]
        case "twice":
            lines.insert(place, line)
        case "value":
            lines[place] = f"{line.partition(':')[0]}: {data.draw(NESTED)}"
        case "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[place], lines[other] = lines[other], line
        case "insert":
            at = data.draw(st.integers(0, len(line)))
            lines[place] = line[:at] + data.draw(st.characters(codec="utf-8")) + line[at:]
        case "cut":
            lines = [*lines[:place], line[: data.draw(st.integers(0, len(line)))]]
    program = read("\n".join(lines).encode())
    check(program)
    if mistake == "twice" and line.strip() and not line.lstrip().startswith(("#", "-")):
        assert program is None, f"a line was given twice: {line}"


@fuzzing
@given(KEYS, KEYS, NESTED)
def test_any_override(first: str, second: str, value: str) -> None:
    check(read(SHIPPED[0].encode(), (f"{first}.{second}={value}",)))
