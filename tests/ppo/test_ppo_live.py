"""PPO whose answers a server draws: its weights follow the policy, its numbers are corrected."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from live_fake import InThisProcess
from safetensors.torch import load_file
from toys import Letters, renderer, tiny_llama
from transformers import LlamaConfig, LlamaForCausalLM

from alignment.config.ppo import PPOConfig
from alignment.errors import StageError
from alignment.inference.live import LiveEngine
from alignment.inference.live_server import FullWeights
from alignment.inference.served import Asked
from alignment.inference.server_command import ServerPlan
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.recompute import can_recompute, recomputing
from alignment.models.streaming import write_untied
from alignment.training.ppo.collect import Collected
from alignment.training.ppo.experience import compute_advantages, importance
from alignment.training.ppo.losses import policy_loss
from alignment.training.ppo.memory import beside_server, to_come
from alignment.training.ppo.rewards import RunningMoments
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.rollout import Answers
from alignment.training.ppo.scoring import PlainReward, PromptItem, Scores
from alignment.training.ppo.trainer import PPOTrainer
from alignment.utils.progress import SilentProgress

CONFIG: dict[str, Any] = {
    "iterations": 3,
    "episodes": 8,
    "minibatch": 4,
    "generation": {"max_new_tokens": 6},
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "warmup_iterations": 0,
    "critic_warmup_iterations": 0,
    "stop": {"look_every": 0},
}


class SavedLetters(Letters):
    def save_pretrained(self, directory: Path) -> None:
        (directory / "tokenizer.json").touch()


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveEngine]:
    monkeypatch.setattr("alignment.inference.served.ServerProcess", InThisProcess)
    reader = ChatRenderer(SavedLetters())  # type: ignore[arg-type]
    plan = ServerPlan(tmp_path, tmp_path, "policy", "float32", None, cache_gib=1, live=True)
    asked = Asked(tmp_path, "abc", "float32", reader, [0], None, lambda *_: [])
    server = FullWeights(plan, tmp_path / "log", asked, SilentProgress())
    tokenizer: Any = reader.tokenizer
    engine = LiveEngine(server, tmp_path / "weights", tokenizer, "float32", tmp_path / "log")
    yield engine
    engine.close()


def build(live: LiveEngine) -> PPOTrainer:
    return PPOTrainer(
        full_copies(tiny_llama(10), critic=tiny_llama(10, 4)),
        renderer(),
        [PromptItem((1, *range(2, 2 + i))) for i in range(7)],
        PlainReward(lambda es: [sum(t % 2 for t in e.tokens.response) for e in es]),
        PPOConfig.model_validate(CONFIG),
        seed=11,
        ends=(0,),
        live=live,
    )


def test_the_server_answers_by_the_weights_of_the_moment(live: LiveEngine, tmp_path: Path) -> None:
    trainer = build(live)
    policy = trainer.roles.policy.model
    for iteration in range(3):
        figures = trainer.iterate(iteration)
        assert figures["engine/mismatch"] < 1e-5
        assert figures["engine/truncated_share"] == 0
        assert figures["policy/first_ratio_error"] <= 1e-5
        assert [path.name for path in (tmp_path / "weights").iterdir()] == [f"00000{iteration + 1}"]
    handler = InThisProcess.handler
    assert handler.version == "policy#3"
    update = ["/pause?mode=wait", "/collective_rpc", "/reset_prefix_cache"]
    update += ["/update_weight_version", "/resume"]
    assert handler.calls == ["/update_weight_version", *update, *update]
    assert len(handler.seen) == 24
    live.publish(trainer.roles.policy.write)
    for name, value in policy.state_dict().items():
        assert torch.equal(handler.model.state_dict()[name], value)


def test_a_server_with_other_weights_is_refused(live: LiveEngine) -> None:
    trainer = build(live)
    trainer.iterate(0)
    InThisProcess.handler.stale = True
    with pytest.raises(StageError, match="answers by other weights"):
        trainer.iterate(1)
    InThisProcess.handler.empties = False
    with pytest.raises(StageError, match="prefix cache"):
        trainer.iterate(1)


def test_importance_weights_by_hand() -> None:
    gap = torch.tensor([[0.0, math.log(1.5), 1.0], [-math.log(4.0), 0.5, 0.0]])
    expected = torch.tensor([[1.0, 1.5, 2.0], [0.25, math.exp(0.5), 1.0]])
    assert torch.allclose(importance(gap, 2.0), expected)
    assert importance(gap, 1.0)[0].tolist() == [1.0, 1.0, 1.0]
    assert PPOConfig().rollout_weight_cap == 2.0


# A bandit of four arms: the trainer's policy, and a server that draws by another.
POLICY = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
SERVER = torch.tensor([0.4, 0.1, 0.3, 0.2], dtype=torch.float64)  # arm 1: a weight of 2
WORTH = [3.0, -1.0, 0.5, 2.0]


def expected_gradient(cap: float | None, off: bool = True) -> torch.Tensor:
    """Of the loss by the logits: over all four outcomes, by the probability of each."""
    config = PPOConfig.model_validate(
        {"rollout_weight_cap": cap, "whiten_advantages": False, "kl": {"coefficient": 0.0}}
    )
    logits = POLICY.log().requires_grad_(True)
    total = torch.zeros(4, dtype=torch.float64)
    for arm, chance in enumerate(SERVER if off else POLICY):
        now = torch.log_softmax(logits, 0)[arm].reshape(1, 1)
        old, mask, zero = (
            now.detach().float(),
            torch.ones(1, 1, dtype=torch.bool),
            torch.zeros(1, 1),
        )
        drew = chance.log().float().reshape(1, 1)
        answers = Answers([[arm]], drew, mask, torch.tensor([True]))
        worth = np.array([WORTH[arm]])
        batch = Collected(
            answers,
            [Tokens([1], [arm])],
            old,
            zero,
            zero,
            Scores(worth, {"combined": worth}, {}),
            {},
            old - drew if off else None,
        )
        made, _ = compute_advantages(batch, config, coefficient=0.0, moments=RunningMoments())
        loss = policy_loss(now, old, made.advantages, mask, clip=0.2, tokens=1.0).loss
        total += chance * torch.autograd.grad(loss, logits)[0]
    return total


def test_weights_make_the_expected_gradient_that_of_the_policy() -> None:
    # ∂/∂z_j Σ π_i r_i = π_j (r_j − Σ π_i r_i); the loss is the negative.
    worth = torch.tensor(WORTH, dtype=torch.float64)
    true = -POLICY * (worth - (POLICY * worth).sum())
    near = {"atol": 1e-6, "rtol": 0.0}
    torch.testing.assert_close(expected_gradient(2.0), true, **near)
    torch.testing.assert_close(expected_gradient(2.0, off=False), true, **near)
    uncorrected = expected_gradient(None)
    other = torch.tensor(
        [
            [-m * r * (float(i == j) - POLICY[j]) for j in range(4)]
            for i, (m, r) in enumerate(zip(SERVER.tolist(), WORTH, strict=True))
        ],
        dtype=torch.float64,
    ).sum(0)
    torch.testing.assert_close(uncorrected, other, **near)
    assert float((uncorrected - true).abs().max()) > 0.5
    assert float((expected_gradient(1.5) - true).abs().max()) > 1e-3, "a cap that binds is a bias"
    assert torch.equal(expected_gradient(None, off=False), expected_gradient(2.0, off=False))


@pytest.mark.parametrize(("ema", "copies"), [(None, 1), (0.9, 3)])
def test_what_a_server_must_leave_free_by_hand(ema: float | None, copies: int) -> None:
    stop = {"look_every": 1, "keep": "best"}
    more = {"ema": ema, "stop": stop, "max_tokens_per_micro_batch": 100}
    config = PPOConfig.model_validate({**CONFIG, **more})
    roles = full_copies(tiny_llama(10), critic=tiny_llama(10, 4))
    # Width 32, one layer: attention 32·(32 + 16 + 16 + 32), three of 32·64, two norms and the last;
    # embeddings of ten words in and out. The critic has a head of 33 in place of those out.
    body = 32 * 96 + 3 * 32 * 64 + 3 * 32 + 320
    learn = 12 * (2 * body + 320 + 33) + 4 * copies * (body + 320)
    # Four episodes of 20 tokens; one of 120, which is longer than the limit.
    for longest, tokens in ((20, 80), (120, 120)):
        seen = tokens * (34 * 2 * 32 + 8 * 10)
        assert to_come(roles, config, longest) == learn + seen
    assert beside_server(roles, config, 20) == 0, "on a CPU"


def test_blocks_are_computed_again_to_the_same_bits() -> None:
    model = tiny_llama(10, layers=2)
    assert can_recompute(model)
    ids = torch.arange(8)[None]
    seen: list[bool] = []
    for module in model.modules():
        if type(module).__name__ == "LlamaMLP":
            module.register_forward_pre_hook(lambda part, _: seen.append(part.training))

    def gradients() -> list[torch.Tensor]:
        loss = model(input_ids=ids, use_cache=False).logits.logsumexp(-1).sum()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    plain, passes = gradients(), len(seen)
    with recomputing(model):
        again = gradients()
    assert (passes, len(seen)) == (2, 2 + 4)
    assert not any(seen), "dropout would begin"
    assert not any(module.training for module in model.modules())
    assert all(map(torch.equal, plain, again))


def test_a_tied_output_embedding_is_published_apart_and_gathered_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tied = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=8,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=True,
        )
    )
    gathered: list[torch.Tensor] = []
    monkeypatch.setattr(
        "alignment.models.streaming.distributed.whole",
        lambda tensor: gathered.append(tensor) or tensor,
    )
    write_untied(tied, tmp_path / "published")
    assert len(gathered) == len(list(tied.parameters()))
    assert tied.config.tie_word_embeddings
    published = LlamaForCausalLM.from_pretrained(tmp_path / "published")
    assert not published.config.tie_word_embeddings
    ids = torch.tensor([[1, 2, 3]])
    assert torch.equal(published(input_ids=ids).logits, tied(input_ids=ids).logits)
    file = load_file(tmp_path / "published" / "model.safetensors")
    assert file.keys() == tied.state_dict().keys()
    assert all(torch.equal(file[name], value) for name, value in tied.state_dict().items())


def test_weights_are_published_in_the_format_that_the_policy_computes_in(tmp_path: Path) -> None:
    roles = full_copies(tiny_llama(10), critic=None, dtype="bfloat16")
    roles.policy.write(tmp_path / "published")
    file = load_file(tmp_path / "published" / "model.safetensors")
    for name, value in roles.policy.model.state_dict().items():
        assert file[name].dtype == torch.bfloat16
        assert torch.equal(file[name], value)
