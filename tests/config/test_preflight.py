"""What is missing is told before anything is computed, by the key that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from alignment.config.load import check_program
from alignment.errors import ConfigError
from alignment.preflight import preflight


def program(tmp_path: Path, base: Path | None, intake: dict[str, Any], **more: Any) -> Any:
    given = {"path": str(base)} if base is not None else {}
    values = {"name": "x", "workspace": str(tmp_path / "w"), "intake": intake, **more}
    return check_program(values | {"base": {"source": "path", **given}})


@pytest.mark.parametrize("source", ["inbox", "split"])
def test_data_of_a_given_model(source: str, stories: Path, tmp_path: Path) -> None:
    key = {"inbox": "data.path", "split": "intake.path"}[source]
    with pytest.raises(ConfigError, match="no preference data is named") as caught:
        preflight(program(tmp_path, stories, {"source": source}))
    assert caught.value.where == key
    nowhere = {"path": str(tmp_path / "nowhere" / "x")}
    with pytest.raises(ConfigError, match="no file or directory") as caught:
        preflight(program(tmp_path, stories, {"source": source}, data=nowhere))
    assert caught.value.where == "data.path"
    preflight(program(tmp_path, stories, {"source": source}, data={"path": str(tmp_path)}))


def test_a_base_that_is_not_there(tmp_path: Path) -> None:
    data = {"path": str(tmp_path)}
    with pytest.raises(ConfigError) as caught:
        preflight(program(tmp_path, None, {"source": "inbox"}, data=data))
    assert caught.value.where == "base.path"
    with pytest.raises(ConfigError) as caught:
        preflight(program(tmp_path, tmp_path / "none", {"source": "inbox"}, data=data))
    assert caught.value.where == "base.path"
