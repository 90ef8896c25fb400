"""Models of named sizes: made once, with a tokenizer, and nothing left half made."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from alignment.bench import sizes
from alignment.errors import ConfigError
from alignment.models.checkpoint_files import stored_parameters
from alignment.models.load import load_policy, load_tokenizer


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGN_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sizes.tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    return tmp_path / "cache" / "bench"


def test_a_size_is_made_once(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_rng_state()
    first = sizes.find("260k")
    assert torch.equal(torch.get_rng_state(), before)
    assert "random model" in capsys.readouterr().err
    assert first.parent == cache
    assert stored_parameters(first) == 260032
    assert [path.name for path in cache.iterdir()] == [first.name]  # nothing half made
    weights = (first / "model.safetensors").stat()
    assert sizes.find("260k") == first
    assert (first / "model.safetensors").stat() == weights
    assert capsys.readouterr().err == ""
    words = load_tokenizer(first)
    assert len(words) == load_policy(first).config.vocab_size == 512
    text = "How do I bake bread?"
    ids = words(text)["input_ids"]
    assert words.decode(ids) == text
    assert len(ids) < len(text)


@pytest.mark.parametrize(
    ("size", "millions"), [("260k", 0.26), ("25m", 25.3), ("135m", 135), ("1b", 1236)]
)
def test_the_sizes_are_what_they_are_called(size: str, millions: float) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes.SHAPES[size], tie_word_embeddings=True))
    assert model.num_parameters() / 1e6 == pytest.approx(millions, rel=0.02)


def test_where_the_cache_takes_nothing_the_temporary_directory_does(
    cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cache.parent.write_text("a file in its place")
    assert sizes.find("260k").is_relative_to(cache.parents[1] / "tmp")
    assert "takes no models" in capsys.readouterr().err


def test_what_was_finished_meanwhile_by_another_stays(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(shape: sizes.Shape, directory: Path) -> None:
        (directory / "mine").touch()
        name = directory.name.removeprefix(".").rpartition("-")[0]
        (cache / name).mkdir()
        (cache / name / "theirs").touch()

    monkeypatch.setattr(sizes, "make", slow)
    assert [path.name for path in sizes.find("260k").iterdir()] == ["theirs"]
    assert len(list(cache.iterdir())) == 1


def test_a_directory_is_itself_and_anything_else_refused(stories: Path) -> None:
    assert sizes.find(str(stories)) == stories
    with pytest.raises(ConfigError, match="no model directory at 30m") as refused:
        sizes.find("30m")
    assert "260k, 25m, 135m, 1b" in str(refused.value)
