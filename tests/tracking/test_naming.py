"""Names, parameters and times as MLflow wants them."""

from __future__ import annotations

from alignment.config.effective import effective
from alignment.config.load import check_program
from alignment.tracking.naming import (
    CURATED,
    clean,
    flatten,
    milliseconds,
    version_number,
    version_params,
)


def test_names_admitted_by_mlflow() -> None:
    assert clean("intake.domains.*harmless*") == "intake.domains._harmless_"
    assert clean("évaluation/a-b c:d") == "_valuation/a-b c:d"
    assert len(clean("x" * 400)) == 250


def test_settings_become_dotted_names() -> None:
    values = {"a": {"b": 1, "c": [1, "x"]}, "d": None, "e": True, "f": "y" * 600}
    flat = flatten(values)
    assert flat["a.b"] == "1"
    assert flat["a.c"] == '[1, "x"]'
    assert "d" not in flat
    assert flat["e"] == "true"
    assert len(flat["f"]) == 500


def test_numbers_and_times() -> None:
    assert version_number("base") is None
    assert version_number("sft") == 0
    assert version_number("rlhf-v12") == 12
    assert milliseconds("1970-01-01T00:01:00Z") == 60_000
    assert milliseconds(None) is None


def test_curated_parameters_are_real_settings() -> None:
    """A name that no configuration has would silently show nothing."""
    program = effective(check_program({"name": "x", "workspace": "nowhere"}))
    every = flatten(program.model_dump(mode="json"))
    assert [name for name in CURATED if name not in every] == []
    params = version_params(program, program, "rlhf-v5")
    assert {"combine.method", "ppo.kl.coefficient", "sample.k"} <= set(params)
    assert not any(name.startswith("ppo.") for name in version_params(program, program, "rlhf-v1"))
