"""One meaning for every value of a YAML file, or an error with the line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import load_program
from alignment.config.program import ProgramConfig
from alignment.errors import ConfigError

BOMB = "sample:\n  grid: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"  {name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


def read(tmp_path: Path, text: str, *overrides: str) -> ProgramConfig:
    path = tmp_path / "program.yaml"
    path.write_text(f"name: x\nworkspace: w\n{text}\n", encoding="utf-8")
    return load_program(path, overrides)


def refused(tmp_path: Path, text: str, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, text, *overrides)
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        # a key twice
        ("compute: {threads: 1}\ncompute: {dtype: bfloat16}", 4, "compute is given twice"),
        ("sample:\n  k: 1\n  'k': 2", 5, "sample.k is given twice"),
        ("versions:\n- {name: rlhf-v1, set: {sample.k: 1, sample.k: 2}}", 4, "given twice"),
        ("name: other", 3, "name is given twice"),
        # aliases
        ("sample: &r {k: *r}", 3, "sample.k contains itself"),
        ("sample: &r\n  grid: [1, *r]", 3, "sample.grid.1 contains itself"),
        (BOMB, 4, "aliases of aliases"),
        # numbers
        ("rewards: {learning_rate: .inf}", 3, ".inf is no finite number"),
        ("rewards: {learning_rate: -.INF}", 3, "no finite number"),
        ("rewards: {learning_rate: .NaN}", 3, "no finite number"),
        ("rewards: {learning_rate: 1e999}", 3, "beyond what a number can hold"),
        ("rewards: {learning_rate: 1e-999}", 3, "beyond what a number can hold"),
        ("rewards: {learning_rate: inf}", 3, "not the text 'inf'"),
        ("seed: 9223372036854775808", 3, "too large a number"),
        (f"seed: {'9' * 5000}", 3, "too large a number"),
        ("seed: 010", 3, "010 is read differently"),
        ("seed: 0o10", 3, "read differently"),
        ("seed: 0x10", 3, "read differently"),
        ("seed: 1_000", 3, "read differently"),
        ("seed: 12:30", 3, "read differently"),
        ("seed: '8'", 3, "not the text '8'"),
        ("seed: no", 3, "not the text 'no'"),
        ("seed: true", 3, "a number is wanted, not true"),
        ("seed: 1.5", 3, "valid integer"),
        ("sample:\n  grid: [1.0, true]", 4, "a number is wanted, not true"),
        ("data:\n  shares: {evaluation: yes}", 4, "not the text 'yes'"),
        ("rewards: {margin: {better: true}}", 3, "a number is wanted, not true"),
        ("ppo: {stop: {patience: on}}", 3, "not the text 'on'"),
        ("versions:\n- {name: rlhf-v1, set: {sample.k: off}}", 4, "not the text 'off'"),
        # text
        ("base: {revision: 1e10}", 3, "valid string"),
        ("base: {revision: 0123456}", 3, "read differently"),
        ("base: {revision: null}\nname: x", 4, "name is given twice"),
        ('tracking: {experiment: "a\\0b"}', 3, "null character"),
        ('tracking: {experiment: "\\ud800"}', 3, "lone surrogate"),
        # the rest of YAML
        ("sample:\n\tk: 1", 4, "not valid YAML"),
        ("seed: !!int '3'", 3, "the tag"),
        ("sample: !!python/object:os.system {}", 3, "the tag"),
        ("sample: {<<: 3}", 3, "this is none"),
        ("? [a]\n: 3", 3, "cannot be a key"),
        ("sample: 3", 3, "sample"),
        # a version's section, which would put every other setting of it back to its default
        ("versions:\n- {name: rlhf-v1, set: {sample: {k: 3}}}", 4, "would lose"),
    ],
)
def test_refused_with_file_and_line(tmp_path: Path, text: str, line: int, message: str) -> None:
    error = refused(tmp_path, text)
    assert message in error.message
    assert error.where == f"{tmp_path / 'program.yaml'}:{line}"


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("seed: +5", "seed", 5),
        ("seed: 0", "seed", 0),
        ("rewards: {learning_rate: 1e-5}", "rewards.learning_rate", 1e-5),
        ("rewards: {learning_rate: .5}", "rewards.learning_rate", 0.5),
        ("compute: {fast_cpu: off}", "compute.fast_cpu", "off"),
        ("rewards: {margin: none}", "rewards.margin", "none"),
        ("select: {finished_only: no}", "select.finished_only", False),
        ("select: {finished_only: On}", "select.finished_only", True),
        ("tracking: {experiment: no}", "tracking.experiment", "no"),
        ("tracking: {experiment: 2024-01-01}", "tracking.experiment", "2024-01-01"),
        ("tracking: {experiment: '010'}", "tracking.experiment", "010"),
        ("tracking: {experiment: ~}", "tracking.experiment", None),
        ("compute: &c {threads: 2, dtype: bfloat16}", "compute.threads", 2),
        ("sample: {<<: {k: 3}, prompts: 4}", "sample.k", 3),
        ("sample: {<<: {k: 3}, k: 4}", "sample.k", 4),
        ("sample: {<<: [{k: 5}, {k: 6}]}", "sample.k", 5),
    ],
)
def test_read_as_meant(tmp_path: Path, text: str, key: str, value: Any) -> None:
    here: Any = read(tmp_path, text)
    for part in key.split("."):
        here = getattr(here, part)
    assert here == value
    assert type(here) is type(value)


def test_both_places_of_a_key_are_named(tmp_path: Path) -> None:
    error = refused(tmp_path, "compute: {threads: 1}\nseed: 2\ncompute: {dtype: bfloat16}")
    assert error.where is not None
    assert error.where.endswith("program.yaml:5")
    assert "program.yaml:3" in (error.remedy or "")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=no", "not the text 'no'"),
        ("seed=010", "read differently"),
        ("seed=true", "not true"),
        ("rewards.learning_rate=.inf", "no finite number"),
        ("sample={k: 1, k: 2}", "given twice"),
        ("sample=&a {k: *a}", "contains itself"),
        ("sample.k=3 # of 4", "not the text '3 # of 4'"),
        ("seed.x=3", "does not lead to a setting"),
        ("sample={k: 3}", "would lose prompts"),
    ],
)
def test_overrides_are_read_likewise(tmp_path: Path, override: str, message: str) -> None:
    error = refused(tmp_path, "seed: 1\nsample: {prompts: 2}", override)
    assert message in error.message
    assert error.where == f"--set {override}"


def test_an_override_has_no_comments_and_may_be_no_yaml(tmp_path: Path) -> None:
    assert read(tmp_path, "", "base.path=runs #3").base.path == "runs #3"
    cron = read(tmp_path, "", "orchestration.intake_cron=*/5 * * * *").orchestration.intake_cron
    assert cron == "*/5 * * * *"


@pytest.mark.parametrize("content", [b"\xff\xfename: x", b"\x00", b"name: \x07", b"#" * 400_000])
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "program.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_program(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "program.yaml"
    path.write_bytes(b"\xef\xbb\xbfname: x\r\nworkspace: w\r\n")
    assert load_program(path).name == "x"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("timezone: Europe/Nowhere", "no time zone 'Europe/Nowhere'"),
        ("timezone: europe/berlin", "did you mean Europe/Berlin?"),
        ("timezone: '+02:00'", "no time zone"),
        ("timezone: ../../etc/passwd", "no time zone"),
        ("timezone: ''", "no time zone"),
        ("iteration_cron: '99 99 * * *'", "Bad minute"),
        ("iteration_cron: a b c d e", "Bad minute"),
        ("iteration_cron: 0 6 31 2 *", "Bad day-of-month"),
        ("iteration_cron: 0 0 31 4,6 *", "Bad day-of-month"),
        ("iteration_cron: H * * * *", "Bad minute"),
        ("iteration_cron: 0 0 LW * *", "Prefect"),
        ("iteration_cron: 0 0 * * 5L", "Prefect"),
        ("iteration_cron: ０ 6 * * 1", "Prefect"),
        ("iteration_cron: 0 6 * *", "five fields"),
        ("iteration_cron: '@weekly'", "five fields"),
        ("intake_cron: '*/90 * * * *'", "no step is longer"),
        ("intake_cron: '*/0 * * * *'", "Bad minute"),
    ],
)
def test_clocks_are_checked_when_they_are_read(tmp_path: Path, setting: str, message: str) -> None:
    error = refused(tmp_path, f"orchestration:\n  {setting}")
    assert message in error.message
    assert error.where == f"{tmp_path / 'program.yaml'}:4"


@pytest.mark.parametrize("cron", ["0 0 29 2 *", "0 0 * * mon-fri", "0 6 * * 1#1", "0 0 L * *"])
def test_crons_that_are_right(tmp_path: Path, cron: str) -> None:
    program = read(tmp_path, f"orchestration: {{iteration_cron: '{cron}'}}")
    assert program.orchestration.iteration_cron == cron
