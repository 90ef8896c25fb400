"""Checkpoints of several families go out and come back; what cannot be used is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from model_helpers import FAMILIES, bytes_tokenizer, tiny_model
from safetensors.torch import load_file

from alignment.config.lora import LoraConfig
from alignment.errors import AlignError, ConfigError
from alignment.models.adapters import adapter_base, add_adapter, save_adapter
from alignment.models.chat_renderer import TRANSCRIPT_TEMPLATE
from alignment.models.export import export_policy
from alignment.models.import_checkpoint import import_checkpoint
from alignment.models.load import (
    backbone,
    check_model_directory,
    load_policy,
    load_scalar,
    load_tokenizer,
    resolve_device,
    save_model,
    scalar_head,
)
from alignment.rewards.initial import initial_model

IDS = torch.tensor([[5, 6, 7, 8, 9]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_out_and_back(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    save_model(model, bytes_tokenizer(), tmp_path / "a")
    loaded = load_policy(tmp_path / "a")
    assert torch.equal(logits(model), logits(loaded))
    save_model(loaded, load_tokenizer(tmp_path / "a"), tmp_path / "b")
    assert (tmp_path / "a/model.safetensors").read_bytes() == (
        tmp_path / "b/model.safetensors"
    ).read_bytes()
    assert not loaded.training
    for file in (tmp_path / "b").iterdir():
        assert str(tmp_path).encode() not in file.read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scalar_head_on_a_chat_checkpoint(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    save_model(model, bytes_tokenizer(), tmp_path / "chat")
    torch.manual_seed(3)
    scalar = load_scalar(tmp_path / "chat")
    torch.manual_seed(3)
    assert torch.equal(
        scalar_head(load_scalar(tmp_path / "chat")).weight, scalar_head(scalar).weight
    )
    # N(0, 1/(d+1)) with d = 32: 32 draws of deviation 0.174.
    assert 0.1 < scalar_head(scalar).weight.std() < 0.25
    for name, value in backbone(model).state_dict().items():
        assert torch.equal(value, backbone(scalar).state_dict()[name]), name
    save_model(scalar, bytes_tokenizer(), tmp_path / "rm")
    again = load_scalar(tmp_path / "rm")
    assert torch.equal(logits(again), logits(scalar))
    assert logits(again).shape == (1, 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_finds_its_base_after_a_move(family: str, tmp_path: Path) -> None:
    home = tmp_path / "workspace" / "versions"
    base, tuned = home / "base/pretrain/1f/model", home / "sft/finetune/2e/model"
    save_model(tiny_model(family), bytes_tokenizer(), base)
    model = add_adapter(load_policy(base), LoraConfig(r=4), seed=1)
    before = logits(load_policy(base))
    assert torch.equal(logits(model.eval()), before)  # a fresh adapter changes nothing
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = logits(model.eval())
    assert not torch.allclose(expected, before, atol=1e-3)
    save_adapter(model, bytes_tokenizer(), tuned, base)
    assert json.loads((tuned / "adapter_config.json").read_text())["base_model_name_or_path"] == (
        "base/pretrain/1f/model"
    )
    assert not list(tuned.glob("model*.safetensors"))
    (tmp_path / "workspace").rename(tmp_path / "moved")
    moved = tmp_path / "moved/versions/sft/finetune/2e/model"
    assert adapter_base(moved) == str(tmp_path / "moved/versions/base/pretrain/1f/model")
    merged, open_ = load_policy(moved), load_policy(moved, merge=False)
    torch.testing.assert_close(logits(merged), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits(open_), expected, atol=1e-6, rtol=1e-5)
    assert {n.split(".")[-2] for n, p in open_.named_parameters() if p.requires_grad} == {"default"}
    scalar = initial_model(moved, tmp_path / "scratch", seed=1)
    for name, value in backbone(merged).state_dict().items():
        assert torch.equal(value, backbone(scalar).state_dict()[name]), name
    out = export_policy(moved.parent, tmp_path / "exported")
    torch.testing.assert_close(logits(load_policy(out)), expected, atol=1e-5, rtol=1e-4)


def test_an_adapter_without_its_base_is_told(tmp_path: Path) -> None:
    save_model(tiny_model("llama"), bytes_tokenizer(), tmp_path / "a/base")
    model = add_adapter(load_policy(tmp_path / "a/base"), LoraConfig(), seed=1)
    save_adapter(model, bytes_tokenizer(), tmp_path / "b/c/adapter", tmp_path / "a/base")
    (tmp_path / "b/c/adapter").rename(tmp_path / "alone")
    (tmp_path / "a").rename(tmp_path / "gone")
    with pytest.raises(ConfigError, match="base model"):
        load_policy(tmp_path / "alone")


def test_no_such_layer(tmp_path: Path) -> None:
    config = LoraConfig(target_modules=("nonsense",))
    with pytest.raises(ConfigError, match="no adapter fits"):
        add_adapter(tiny_model("llama"), config, seed=1)


def test_unusable_directories_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no model directory"):
        check_model_directory(str(tmp_path / "none"))
    check_model_directory("org/name")  # a hub name is the hub's to answer for
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"config\.json"):
        check_model_directory(str(tmp_path / "empty"))
    (tmp_path / "empty/config.json").write_text("{}")
    with pytest.raises(ConfigError, match="safetensors"):
        check_model_directory(str(tmp_path / "empty"))


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    if not torch.cuda.is_available():
        assert resolve_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match="no GPU"):
            resolve_device("cuda:1")


def test_bring_takes_what_is_needed_and_nothing_that_runs(tmp_path: Path) -> None:
    source = tmp_path / "source"
    save_model(tiny_model("qwen2"), bytes_tokenizer(), source)
    for name in ("optimizer.pt", "pytorch_model.bin", "modeling_evil.py", "README.md"):
        (source / name).write_text("x")
    values = json.loads((source / "config.json").read_text())
    values["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (source / "config.json").write_text(json.dumps(values))
    import_checkpoint(str(source), tmp_path / "model", where="base.path")
    names = {file.name for file in (tmp_path / "model").iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "auto_map" not in json.loads((tmp_path / "model/config.json").read_text())
    assert "auto_map" in json.loads((source / "config.json").read_text())
    assert torch.equal(logits(load_policy(source)), logits(load_policy(tmp_path / "model")))


def test_bring_says_why_not(tmp_path: Path) -> None:
    source = tmp_path / "source"
    with pytest.raises(ConfigError, match="no directory") as caught:
        import_checkpoint(str(source), tmp_path / "model", where="finetune.student.path")
    assert caught.value.where == "finetune.student.path"
    source.mkdir()
    with pytest.raises(ConfigError, match=r"config\.json"):
        import_checkpoint(str(source), tmp_path / "model", where="base.path")
    save_model(tiny_model("gpt2"), bytes_tokenizer(), source)
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="only pickled weights"):
        import_checkpoint(str(source), tmp_path / "model", where="base.path")
    (source / "pytorch_model.bin").rename(source / "model.safetensors")
    weights = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(weights[:1000])
    with pytest.raises(ConfigError, match="cut off or damaged"):
        import_checkpoint(str(source), tmp_path / "broken", where="base.path")
    (source / "model.safetensors").write_bytes(weights)
    bytes_tokenizer(vocabulary=500).save_pretrained(source)
    tokenizer = load_tokenizer(source)
    tokenizer.add_tokens([f"new{n}" for n in range(400)])
    tokenizer.save_pretrained(source)
    with pytest.raises(ConfigError, match="tokens, the model only 400"):
        import_checkpoint(str(source), tmp_path / "long", where="base.path")
    (source / "config.json").write_text('{"model_type": "no-such-thing"}')
    with pytest.raises(ConfigError, match="does not load"):
        import_checkpoint(str(source), tmp_path / "strange", where="base.path")


def test_export_never_overwrites(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    save_model(tiny_model("llama"), bytes_tokenizer(), tmp_path / "stage/model")
    (tmp_path / "empty").mkdir()
    out = export_policy(tmp_path / "stage", tmp_path / "empty")
    model = AutoModelForCausalLM.from_pretrained(out)
    assert torch.equal(logits(model), logits(load_policy(tmp_path / "stage/model")))
    assert AutoTokenizer.from_pretrained(out).chat_template == TRANSCRIPT_TEMPLATE
    with pytest.raises(AlignError, match="not an empty directory"):
        export_policy(tmp_path / "stage", tmp_path / "empty")
    with pytest.raises(ConfigError, match="no model directory"):
        export_policy(tmp_path / "nothing", tmp_path / "other")
    (tmp_path / "file").write_text("x")
    with pytest.raises(AlignError):
        export_policy(tmp_path / "stage", tmp_path / "file" / "below")
    assert {path.name for path in tmp_path.iterdir()} == {"stage", "empty", "file"}


def test_export_writes_the_format_that_is_asked_for(tmp_path: Path) -> None:
    save_model(tiny_model("llama"), bytes_tokenizer(), tmp_path / "model")
    out = export_policy(tmp_path / "model", tmp_path / "half", "bfloat16")
    stored = load_file(out / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"


def test_a_scalar_head_is_float32_whatever_the_rest_is(tmp_path: Path) -> None:
    save_model(tiny_model("llama"), bytes_tokenizer(), tmp_path / "chat")
    torch.manual_seed(0)
    whole = load_scalar(tmp_path / "chat")
    save_model(whole, bytes_tokenizer(), tmp_path / "reward")
    half = load_scalar(tmp_path / "reward", dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert torch.equal(scalar_head(half).weight, scalar_head(whole).weight)
