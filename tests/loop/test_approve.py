"""`align approve` and `align reject` on a program that waits for a person."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.loop.conftest import align


@pytest.fixture
def held(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished program's workspace."""
    return Path(shutil.copytree(finished / "workspace", tmp_path / "workspace"))


def test_a_person_decides(finished: Path, held: Path, tmp_path: Path) -> None:
    def go_on() -> str:
        settings = ("--set", f"workspace={held}", "--set", "promote.approval=person")
        words = ("run", str(finished / "small.yaml"), *settings, "--no-prefect")
        return align(*words, cwd=tmp_path).stdout

    def states() -> dict[str, str]:
        found = json.loads(align("status", "--json", "-w", str(held), cwd=tmp_path).stdout)
        return {
            f"{version['name']}/{stage['stage']}": stage["state"]
            for version in found["versions"]
            for stage in version["stages"]
        }

    said = go_on()
    assert "rlhf-v1 waits for a person's decision" in said
    assert "rlhf-v1 waits" in go_on()  # asking again changes nothing
    assert states()["rlhf-v2/promote"] == "stale"
    wrong = align("reject", "rlhf-v1", "--reason", "", "-w", str(held), cwd=tmp_path, check=False)
    assert wrong.returncode == 1
    assert "needs a reason" in wrong.stderr
    told = json.loads(
        align("approve", "rlhf-v1", "--by", "ana", "--json", "-w", str(held), cwd=tmp_path).stdout
    )
    assert (told["by"], told["approved"], told["champion"]) == ("ana", True, "rlhf-v1")
    assert "rlhf-v2 waits" in go_on()
    assert set(states().values()) == {"done"}
    align("reject", "rlhf-v2", "--reason", "worse", "-w", str(held), cwd=tmp_path)
    assert "nothing to do" in go_on()
    again = align("approve", "rlhf-v9", "-w", str(held), cwd=tmp_path, check=False)
    assert "no version 'rlhf-v9'" in again.stderr
