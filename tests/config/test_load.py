"""Programs from YAML: what is read, and how mistakes are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from alignment.config.load import all_keys, for_version, load_program
from alignment.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "program.yaml"
    path.write_text(f"name: test\nworkspace: {tmp_path}/w\n{text}")
    return path


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_recipe_loads(path: Path) -> None:
    assert load_program(path).versions[-1].ppo


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "sample:\n  k: 4\n")
    assert load_program(path).sample.k == 4
    assert load_program(path, ["sample.k=9"]).sample.k == 9
    assert load_program(path, ["sample.grid=[0.5, 1.0]"]).sample.grid == (0.5, 1.0)
    assert load_program(path, ["ppo.learning_rate=1e-5"]).ppo.learning_rate == 1e-5


def test_unknown_key_names_line_and_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "sample:\n  temprature: 1.0\n")
    with pytest.raises(ConfigError, match=r"unknown key 'sample\.temprature'") as caught:
        load_program(path)
    assert caught.value.where == f"{path}:4"
    assert caught.value.remedy == "did you mean sample.temperature?"


def test_key_in_the_wrong_section_is_found(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_program(write(tmp_path, "critic_learning_rate: 1.0e-3\n"))
    assert caught.value.remedy == "did you mean ppo.critic_learning_rate?"


def test_misspelt_override_is_told_with_its_origin(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_program(write(tmp_path, ""), ["sampel.k=3"])
    assert caught.value.where == "--set sampel.k=3"
    assert caught.value.remedy == "did you mean sample?"


def test_wrong_type_names_key_and_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sample\.k") as caught:
        load_program(write(tmp_path, "sample:\n  k: many\n"))
    assert "'many'" in (caught.value.remedy or "")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("base: {source: path}\nintake: {source: simulated}\n", "simulated"),
        ("versions: [{name: rlhf-v2}]\n", "in order"),
        ("versions: []\n", "versions"),
        ("intake: {source: split}\n", "split"),
    ],
)
def test_impossible_combinations(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_program(write(tmp_path, text))


def test_bad_yaml_names_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, "sample: [1, 2\nppo: }\n")
    with pytest.raises(ConfigError, match="not valid YAML") as caught:
        load_program(path)
    assert caught.value.where is not None
    assert caught.value.where.startswith(f"{path}:")


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    write(tmp_path, "")
    with pytest.raises(ConfigError) as caught:
        load_program(tmp_path / "progam.yaml")
    assert "program.yaml" in (caught.value.remedy or "")


def test_a_version_sees_its_own_settings(tmp_path: Path) -> None:
    text = "versions:\n  - {name: rlhf-v1}\n  - {name: rlhf-v2, set: {sample.k: 33}}\n"
    program = load_program(write(tmp_path, text))
    assert for_version(program, "rlhf-v1").sample.k == program.sample.k
    assert for_version(program, "rlhf-v2").sample.k == 33


def test_a_version_cannot_set_what_belongs_to_the_program(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot differ"):
        load_program(write(tmp_path, "versions: [{name: rlhf-v1, set: {seed: 3}}]\n"))
    with pytest.raises(ConfigError, match="unknown key"):
        load_program(write(tmp_path, "versions: [{name: rlhf-v1, set: {sample.q: 3}}]\n"))


def test_every_key_is_read_somewhere() -> None:
    """A setting that no line of the library reads would be a lie in the YAML."""
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("alignment", "flows")
        for path in (ROOT / folder).rglob("*.py")
        if path.parent.name != "config" or path.name == "load.py"
    )
    sources += "\n".join(  # properties and validators of the sections read keys too
        line
        for path in (ROOT / "alignment" / "config").glob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "self." in line
    )
    import re

    unread = [
        key
        for key in all_keys()
        if not re.search(rf"\.{key.rpartition('.')[2]}\b|\"{key.rpartition('.')[2]}\"", sources)
    ]
    assert unread == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sample.temperature=hot", "sample.temperature: Input should be a valid number"),
        ("sample.temperature=0", "sample.temperature: temperature must lie in"),
        ("sample.grid=[1.0, 1.0]", "sample.grid: a temperature stands twice"),
        ("collect.temperatures=[]", "collect.temperatures: Tuple should have at least 1 item"),
        ("collect.temperatures=[11]", "collect.temperatures.0: Input should be less than"),
    ],
)
def test_wrong_temperatures(override: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "program.yaml"
    path.write_text("name: x\nworkspace: w\n")
    with pytest.raises(ConfigError) as caught:
        load_program(path, [override])
    assert caught.value.message.startswith(message)
