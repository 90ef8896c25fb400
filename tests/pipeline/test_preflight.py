"""What is missing is told before anything is computed, by the key that names it."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from deliveries_of_people import deliver, rows
from model_helpers import CHATML, bytes_tokenizer, tiny_model
from safetensors.torch import load_file

from alignment.config.load import check_program
from alignment.errors import AlignError, ConfigError, DataError
from alignment.pipeline.approval import Decisions
from alignment.pipeline.disk_space import DiskFullError
from alignment.pipeline.plan import build_plan
from alignment.pipeline.preflight import preflight
from alignment.pipeline.work import base_size


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


@pytest.mark.parametrize("key", ["sample", "collect", "evaluate", "ppo"])
def test_answers_longer_than_the_model_can_read(key: str, stories: Path, tmp_path: Path) -> None:
    """stories260k reads 512 tokens; the pretrained base as many as it is told."""
    short = {
        name: {"generation": {"max_new_tokens": 20}}
        for name in ("sample", "collect", "evaluate", "ppo")
    }
    data = {"path": str(tmp_path)}

    def limit(tokens: int) -> Any:
        return {"generation": {"max_new_tokens": tokens}}

    def given(tokens: int, *, ppo: bool, own: int | None = None) -> Any:
        version = {"name": "rlhf-v1", "ppo": ppo}
        if own is not None:
            version["set"] = {f"{key}.generation.max_new_tokens": own}
        more = short | {
            key: {"generation": {"max_new_tokens": tokens}},
            "data": data,
            "versions": [version],
        }
        return program(tmp_path, stories, {"source": "inbox"}, **more)

    preflight(given(511, ppo=True))
    for wrong in (given(512, ppo=True), given(20, ppo=True, own=600)):
        with pytest.raises(ConfigError, match="the model's context is 512") as caught:
            preflight(wrong)
        assert caught.value.where == f"{key}.generation.max_new_tokens"
    if key == "ppo":
        preflight(given(600, ppo=False))
    made = {"name": "x", "workspace": str(tmp_path / "w"), **short}
    made["base"] = {"pretrain": {"context": 64, "length": 64}}
    made["versions"] = [{"name": "rlhf-v1", "ppo": True}]
    preflight(check_program(made))
    with pytest.raises(ConfigError, match="the model's context is 64"):
        preflight(check_program(made | {key: limit(64)}))


def test_the_context_of_any_architecture_is_known(tmp_path: Path) -> None:
    """GPT-2's is called n_positions."""
    made(tmp_path / "base")
    generation = {"generation": {"max_new_tokens": 256}}
    given = program(
        tmp_path, tmp_path / "base", {"source": "inbox"}, data=here(tmp_path), sample=generation
    )
    with pytest.raises(ConfigError, match="the model's context is 256") as caught:
        preflight(given)
    assert caught.value.where == "sample.generation.max_new_tokens"


def test_reward_functions_that_cannot_be_imported(stories: Path, tmp_path: Path) -> None:
    def given(function: str, *, ppo: bool) -> Any:
        return program(
            tmp_path,
            stories,
            {"source": "inbox"},
            data=here(tmp_path),
            ppo={"parts": [{"name": "brief", "function": function}]},
            versions=[{"name": "rlhf-v1", "ppo": ppo}],
        )

    preflight(given("math:sqrt", ppo=True))
    preflight(given("nowhere:brief", ppo=False))
    for wrong in ("nowhere:brief", "math:none", "math:pi"):
        with pytest.raises(ConfigError) as caught:
            preflight(given(wrong, ppo=True))
        assert caught.value.where == "ppo.parts"


def test_every_model_has_a_tokenizer_and_a_template_that_works(
    stories: Path, tmp_path: Path
) -> None:
    for name, template in (("fine", CHATML), ("broken", "{{ raise_exception('no') }}")):
        made(tmp_path / name, template)
    made(tmp_path / "bare")
    (tmp_path / "bare" / "tokenizer.json").unlink()

    def given(base: Path, **more: Any) -> Any:
        return program(tmp_path, base, {"source": "inbox"}, data=here(tmp_path), **more)

    preflight(given(tmp_path / "fine"))
    for name, match in (("broken", "refuses a plain dialogue: no"), ("bare", "no tokenizer")):
        with pytest.raises(ConfigError, match=match) as caught:
            preflight(given(tmp_path / name))
        assert caught.value.where == "base.path"
        path = str(tmp_path / name)
        with pytest.raises(ConfigError, match=match) as caught:
            preflight(given(stories, finetune={"student": {"path": path}}))
        assert caught.value.where == "finetune.student.path"
        with pytest.raises(ConfigError, match=match) as caught:
            preflight(given(stories, rewards={"init": path}))
        assert caught.value.where == "rewards.init"


def test_models_that_do_not_fit(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = program(tmp_path, stories, {"source": "inbox"}, data=here(tmp_path))
    nodes = build_plan(given, Decisions(given))
    preflight(given, nodes)
    monkeypatch.setattr("alignment.pipeline.disk_space.WEIGHTS", 1e9)
    with pytest.raises(DiskFullError, match=f"for the {len(nodes)} stages to do"):
        preflight(given, nodes)
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(total=1000))
    with pytest.raises(AlignError, match="of memory"):
        preflight(given)


@pytest.mark.parametrize("kind", ["gpt2", "mixtral"])
def test_the_parameters_of_a_checkpoint_are_counted(kind: str, tmp_path: Path) -> None:
    """By shape, a GPT-2 would be taken for more, a mixture of experts for a fraction."""
    base = tmp_path / "base"
    tokenizer = bytes_tokenizer(None)
    tokenizer.save_pretrained(base)
    tiny_model(kind, len(tokenizer)).save_pretrained(base)
    given = program(tmp_path, base, {"source": "inbox"}, data=here(tmp_path))
    weights = load_file(base / "model.safetensors")
    assert base_size(given).parameters == sum(part.numel() for part in weights.values())
    whole = (base / "model.safetensors").read_bytes()
    for damaged in (b"not a header", whole[:-1]):
        (base / "model.safetensors").write_bytes(damaged)
        assert base_size(given).parameters > 0
        with pytest.raises(ConfigError, match="cut off or damaged") as caught:
            preflight(given)
        assert caught.value.where == "base.path"


def test_only_what_a_version_does_is_checked(stories: Path, tmp_path: Path) -> None:
    """SFT samples nothing, and a program that splits its data collects nothing."""
    own = {"name": "rlhf-v1", "set": {"sample.generation.max_new_tokens": 20}}
    long = {"generation": {"max_new_tokens": 600}}
    more = {"data": here(tmp_path), "sample": long, "versions": [own]}
    preflight(program(tmp_path, stories, {"source": "inbox"}, **more))
    split = {"source": "split", "path": str(tmp_path)}
    preflight(program(tmp_path, stories, split, **more, collect=long))


def test_texts_of_early_stopping_are_read_before_anything_starts(
    stories: Path, tmp_path: Path
) -> None:
    for climbs in (True, False):
        more = {
            "data": here(tmp_path),
            "versions": [{"name": "rlhf-v1", "ppo": climbs}],
            "ppo": {"stop": {"texts": str(tmp_path / "none.jsonl")}},
        }
        with pytest.raises(DataError, match=r"ppo.stop.texts cannot") if climbs else nullcontext():
            preflight(program(tmp_path, stories, {"source": "inbox"}, **more))


def test_engines_and_judges_that_cannot_do_their_work(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(where: str, match: str, **more: Any) -> None:
        given = program(tmp_path, stories, {"source": "inbox"}, data=here(tmp_path), **more)
        with pytest.raises(ConfigError, match=match) as caught:
            preflight(given)
        assert caught.value.where == where
        assert caught.value.remedy or "address" in match

    monkeypatch.delenv("JUDGE_KEY", raising=False)
    judge = {"base_url": "http://127.0.0.1:9/v1", "model": "x", "api_key_env": "JUDGE_KEY"}
    refused("evaluate.judge.api_key_env", "JUDGE_KEY", evaluate={"judge": judge})
    refused(
        "evaluate.judge.base_url",
        "not an HTTP address",
        evaluate={"judge": judge | {"base_url": "localhost:9"}},
    )
    endpoint = {"engine": "endpoint", "endpoint": {"url": "localhost:8000"}}
    refused("inference.endpoint.url", "not an HTTP address", inference=endpoint)
    ptx = {"ptx": {"coefficient": 1.0, "source": "corpus"}}
    versions = [{"name": "rlhf-v1", "ppo": True}]
    refused("ppo.ptx.source", "needs the corpus", ppo=ptx, versions=versions)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused("compute.device", "no GPU", compute={"device": "cuda"})


def test_adapters_have_layers_to_sit_on(stories: Path, tmp_path: Path) -> None:
    wrong, right = {"target_modules": ["c_attn"]}, {"target_modules": ["q_proj", "mlp.up_proj"]}

    def given(climbs: bool = True, **more: Any) -> Any:
        versions = [{"name": "rlhf-v1", "ppo": climbs}]
        where = {"data": here(tmp_path), "versions": versions}
        return program(tmp_path, stories, {"source": "inbox"}, **where, **more)

    preflight(given(rewards={"lora": right}, ppo={"lora": {}, "critic_init": "policy"}))
    for key, more in (
        ("finetune.sft", {"finetune": {"sft": {"lora": wrong}}}),
        ("rewards", {"rewards": {"lora": wrong}}),
        ("ppo", {"ppo": {"lora": wrong, "critic_init": "policy"}}),
    ):
        with pytest.raises(ConfigError, match=r"no layer of .* is called c_attn") as caught:
            preflight(given(**more))
        assert caught.value.where == f"{key}.lora.target_modules"
    preflight(given(climbs=False, ppo={"lora": wrong, "critic_init": "policy"}))


def test_there_are_comparisons_for_every_version(stories: Path, tmp_path: Path) -> None:
    versions = [{"name": f"rlhf-v{n}"} for n in (1, 2, 3)]
    data = here(tmp_path) | {"arrivals": 2}
    with pytest.raises(ConfigError, match="3 versions need as many arrivals") as caught:
        preflight(program(tmp_path, stories, {"source": "split"}, data=data, versions=versions))
    assert caught.value.where == "data.arrivals"
    preflight(program(tmp_path, stories, {"source": "split"}, data=data, versions=versions[:2]))
    longer = program(tmp_path, stories, {"source": "split"}, data=data, versions=versions)
    deliver(longer, "week", rows("week"))
    preflight(longer)  # the third version lives on what people delivered
    world = {"name": "x", "workspace": str(tmp_path / "world"), "versions": versions}
    for collect, key in (
        ({"pairs": 0}, "collect.pairs"),
        ({"pairs": 8, "safety_share": 0.0}, "collect.safety_share"),
        ({"pairs": 8, "safety_share": 1.0}, "collect.safety_share"),
    ):
        with pytest.raises(ConfigError, match="both reward models need some") as caught:
            preflight(check_program(world | {"collect": collect}))
        assert caught.value.where == key


def test_a_cache_that_cannot_be_repeated_is_found_first(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, MambaConfig

    bytes_tokenizer().save_pretrained(tmp_path / "base")
    config = MambaConfig(vocab_size=400, hidden_size=16, num_hidden_layers=1, state_size=4)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    with pytest.raises(ConfigError) as caught:
        preflight(program(tmp_path, tmp_path / "base", {"source": "inbox"}, data=here(tmp_path)))
    assert caught.value.where == "base.path"


def made(directory: Path, template: str | None = None) -> None:
    """A tiny GPT-2 with a byte-level tokenizer."""
    tokenizer = bytes_tokenizer(template)
    tokenizer.save_pretrained(directory)
    tiny_model("gpt2", len(tokenizer)).save_pretrained(directory)


def here(tmp_path: Path) -> dict[str, str]:
    return {"path": str(tmp_path)}
