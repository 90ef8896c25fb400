"""The loop: first ratio, resume to the same bits, early stopping, both algorithms, all knobs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toys import Problem, renderer, tiny_llama, toy_config

from alignment.config.ppo import PPOConfig
from alignment.config.rewards import CombineConfig
from alignment.errors import ConfigError, StageError
from alignment.models.chat_renderer import Tokens
from alignment.models.load import Dtype
from alignment.training.ppo.collect import Collector
from alignment.training.ppo.early_stopping import StopSet
from alignment.training.ppo.experience import Experience
from alignment.training.ppo.roles import full_copies
from alignment.training.ppo.scoring import CombinedReward, PlainReward, PromptItem
from alignment.training.ppo.trainer import Outcome, PPOTrainer
from alignment.utils import checkpoint
from alignment.utils.metrics_log import Series

PROMPTS = [PromptItem((1, *range(2, 2 + i)), is_safety=i % 3 == 0) for i in range(7)]

EVERYTHING: dict[str, Any] = {
    "iterations": 6,
    "episodes": 16,
    "minibatch": 8,
    "epochs": 2,
    "generation": {"max_new_tokens": 6},
    "learning_rate": 1e-2,
    "critic_learning_rate": 1e-2,
    "warmup_iterations": 2,
    "critic_warmup_iterations": 1,
    "checkpoint_every": 1,
    "ema": 0.9,
    "safety_share": 0.5,
    "entropy_coefficient": 0.01,
    "kl": {"coefficient": 0.05, "target": 0.01, "horizon": 20},
    "reward": {"normalise": "running", "score_clip": 3.0, "whiten": True, "length_penalty": 0.01},
    "ptx": {"coefficient": 0.1},
    "stop": {"look_every": 2, "heldout_prompts": 4, "patience": None},
}


def evens(episodes: Any) -> np.ndarray:
    return np.array([np.mean([t % 2 == 0 for t in e.tokens.response]) for e in episodes])


def small(episodes: Any) -> np.ndarray:
    return np.array([-np.mean(e.tokens.response) / 4 for e in episodes])


def build(directory: Path | None, dtype: Dtype = "float32", **changes: Any) -> PPOTrainer:
    config = PPOConfig.model_validate({**EVERYTHING, **changes})
    policy = tiny_llama(10)
    critic = tiny_llama(10, 4) if config.algorithm == "ppo" else None
    stop_set = StopSet(PROMPTS[:3], small) if config.stop.look_every else None
    return PPOTrainer(
        full_copies(policy, critic=critic, dtype=dtype),
        renderer(),
        PROMPTS,
        CombinedReward(evens, small, CombineConfig(method="constrained")),
        config,
        seed=11,
        stop_set=stop_set,
        ptx=[Tokens([1], [2, 3, 0]), Tokens([4, 5], [6, 0]), Tokens([7], [1, 0])],
        ends=(0,),
        checkpoints=None if directory is None else directory / "checkpoints",
        series=None if directory is None else Series(directory / "series.jsonl"),
    )


def weights(trainer: PPOTrainer) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in trainer.roles.policy.model.named_parameters()}


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, right[name]) for name, value in left.items())


@pytest.mark.parametrize("old", ["auto", "rollout", "forward"])
def test_the_first_ratio_is_one(old: str, way: str) -> None:
    trainer = build(None, old_logprobs=old, critic_warmup_iterations=0)
    for iteration in range(3):
        assert trainer.iterate(iteration)["policy/first_ratio_error"] <= 1e-5


def test_in_bfloat16_small_steps_add_up_and_the_reference_is_the_start(tmp_path: Path) -> None:
    """At 1e-6 a weight in bfloat16 would hardly ever move; its float32 master does."""
    slow = {"learning_rate": 1e-6, "critic_warmup_iterations": 0, "warmup_iterations": 0}
    start = weights(build(None))
    runs = {}
    for dtype in ("float32", "bfloat16"):
        trainer = build(None, dtype, **slow)
        model = trainer.roles.policy.model
        first = trainer.iterate(0)
        if dtype == "bfloat16":
            assert first["kl/k3"] == 0.0, "policy and reference round the same weights"
            assert next(model.parameters()).dtype == torch.bfloat16
        trainer.iterate(1)
        trainer.roles.policy.settle(model)
        runs[dtype] = torch.cat(
            [(p - start[n]).abs().flatten() for n, p in weights(trainer).items()]
        )
    moved = {dtype: float((gaps > 0).float().mean()) for dtype, gaps in runs.items()}
    assert moved["bfloat16"] >= 0.95 * moved["float32"] > 0.5
    assert float(runs["bfloat16"].mean()) == pytest.approx(float(runs["float32"].mean()), rel=0.1)


def test_in_bfloat16_resuming_gives_the_same_bits(tmp_path: Path) -> None:
    ends = {}
    for name, kinds in (("whole", [4]), ("parts", [2, 4])):
        for iterations in kinds:
            trainer = build(tmp_path / name, "bfloat16", iterations=iterations, checkpoint_every=1)
            trainer.train()
        trainer.roles.policy.settle(trainer.roles.policy.model)
        ends[name] = weights(trainer)
    assert same(ends["whole"], ends["parts"])
    assert all(value.dtype == torch.float32 for value in ends["whole"].values())


def note_kept(trainer: PPOTrainer) -> set[str]:
    """Fills with the names of the passes that learning is given."""
    names: set[str] = set()
    learn = trainer._learner.update

    def noting(iteration: int, experience: Experience) -> dict[str, float]:
        names.update(experience.kept)
        return learn(iteration, experience)

    trainer._learner.update = noting  # type: ignore[method-assign]
    return names


def test_passes_kept_for_the_first_step_change_rounding_only(
    monkeypatch: pytest.MonkeyPatch,
    fast: str,
) -> None:
    """Whole-batch steps go on from the passes that gave old log-probabilities and values."""
    found = []
    for keeps in (True, False):
        trainer = build(None, minibatch=16, entropy_coefficient=0.0, critic_warmup_iterations=0)
        if not keeps:
            monkeypatch.setattr(Collector, "_keeps", lambda *_: False)
        taken = note_kept(trainer)
        error = trainer.iterate(0)["policy/first_ratio_error"]
        assert taken == ({"policy", "critic"} if keeps else set())
        assert error == 0.0 if keeps else error <= 1e-5
        found.append(weights(trainer))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=2e-5, rtol=1e-3)


class Broken(RuntimeError):
    """Stands for a killed process."""


def break_after(trainer: PPOTrainer, iteration: int) -> None:
    original = trainer.iterate

    def iterate(number: int) -> dict[str, float]:
        if number == iteration:
            raise Broken
        return original(number)

    trainer.iterate = iterate  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "changes", [{}, {"algorithm": "rloo", "samples_per_prompt": 2, "critic_warmup_iterations": 0}]
)
def test_a_broken_run_goes_on_to_the_same_bits(
    tmp_path: Path, changes: dict[str, Any], way: str
) -> None:
    whole = build(tmp_path / "whole", **changes)
    outcome = whole.train()
    for point, every in ((1, 1), (3, 2), (5, 1)):
        place = tmp_path / f"broken{point}"
        broken = build(place, checkpoint_every=every, **changes)
        break_after(broken, point)
        with pytest.raises(Broken):
            broken.train()
        resumed = build(place, checkpoint_every=every, **changes)
        torch.manual_seed(999)  # a new process starts with other random states
        again = resumed.train()
        assert same(weights(whole), weights(resumed))
        assert again.history == outcome.history
        assert again.kept == outcome.kept
        series = (tmp_path / "whole" / "series.jsonl").read_bytes()
        assert (place / "series.jsonl").read_bytes() == series


def test_curves_lost_with_the_output_are_written_anew(tmp_path: Path) -> None:
    build(tmp_path).train()
    series = (tmp_path / "series.jsonl").read_bytes()
    (tmp_path / "series.jsonl").unlink()
    build(tmp_path).train()
    assert (tmp_path / "series.jsonl").read_bytes() == series


def test_scores_that_are_not_finite_stop_the_run_and_keep_the_checkpoint(tmp_path: Path) -> None:
    calls = []

    def poisoned(episodes: Any) -> np.ndarray:
        calls.append(1)
        return np.full(len(episodes), np.nan) if len(calls) > 2 else evens(episodes)

    trainer = build(tmp_path, stop={"look_every": 0})
    trainer.reward = PlainReward(poisoned)
    with pytest.raises(StageError, match="not finite"):
        trainer.train()
    assert checkpoint.latest(tmp_path / "checkpoints") == 2


def test_a_gradient_that_is_not_finite_stops_before_the_step() -> None:
    trainer = build(None, critic_warmup_iterations=0)
    trainer.iterate(0)
    assert trainer.roles.critic is not None
    with torch.no_grad():
        trainer.roles.critic.head.bias.fill_(float("nan"))
    with pytest.raises(StageError, match="not finite"):
        trainer.iterate(1)
    assert all(torch.isfinite(p).all() for p in trainer.roles.policy.model.parameters())


def test_only_the_critic_learns_while_it_warms_up() -> None:
    trainer = build(None, critic_warmup_iterations=2, ptx={"coefficient": 0.0})
    before = weights(trainer)
    assert trainer.roles.critic is not None
    bias = trainer.roles.critic.head.bias.item()
    trainer.iterate(0)
    assert same(before, weights(trainer))
    assert trainer.roles.critic.head.bias.item() != bias
    trainer.iterate(2)
    assert not same(before, weights(trainer))


def test_the_reference_never_moves() -> None:
    trainer = build(None)
    before = {n: p.clone() for n, p in trainer.roles.reference.model.named_parameters()}
    trainer.train()
    after = dict(trainer.roles.reference.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_kl_is_zero_before_the_first_step() -> None:
    figures = build(None).iterate(0)
    assert figures["kl/reference"] == pytest.approx(0.0, abs=1e-5)
    assert figures["kl/k3"] == pytest.approx(0.0, abs=1e-6)


def test_micro_batches_change_rounding_only() -> None:
    found = []
    for size in (8, 10_000):
        trainer = build(None, max_tokens_per_micro_batch=size, critic_warmup_iterations=0)
        trainer.iterate(0)
        found.append(weights(trainer))
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=2e-5, rtol=1e-3)


def test_threads_change_rounding_only(way: str) -> None:
    threads = torch.get_num_threads()
    found = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            trainer = build(None, critic_warmup_iterations=0)
            trainer.iterate(0)
            found.append(weights(trainer))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], atol=2e-5, rtol=1e-3)


def test_a_kl_budget_ends_the_run() -> None:
    trainer = build(
        None,
        iterations=50,
        learning_rate=5e-2,
        stop={"look_every": 0, "kl_budget": 0.2},
        kl={"coefficient": 0.0},
        ptx={"coefficient": 0.0},
    )
    outcome = trainer.train()
    assert outcome.iterations < 50
    assert "budget" in str(outcome.stopped)
    assert outcome.history[-1]["kl/reference"] > 0.2


def test_an_exploding_kl_ends_in_an_error_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    trainer = build(
        tmp_path,
        iterations=50,
        learning_rate=0.3,
        warmup_iterations=10,
        stop={"look_every": 0, "kl_limit": 2.0},
        kl={"coefficient": 0.0},
        ptx={"coefficient": 0.0},
    )
    with pytest.raises(StageError, match="beyond the limit of 2"):
        trainer.train()
    kept = [row["kl/reference"] for row in Series(tmp_path / "series.jsonl").rows()]
    assert kept
    assert max(kept) <= 2.0
    assert checkpoint.latest(tmp_path / "checkpoints") == len(kept)


def train_against_the_stop_set(keep: str) -> tuple[PPOTrainer, Outcome]:
    """The stop set likes what the reward punishes, so the start is best."""
    policy = tiny_llama(10)
    config = PPOConfig.model_validate(
        {
            **EVERYTHING,
            "ema": None,
            "ptx": {"coefficient": 0.0},
            "iterations": 30,
            "critic_warmup_iterations": 0,
            "episodes": 32,
            "stop": {"look_every": 5, "patience": 3, "keep": keep},
        }
    )
    trainer = PPOTrainer(
        full_copies(policy, critic=tiny_llama(10, 4)),
        renderer(),
        PROMPTS,
        PlainReward(evens),
        config,
        seed=1,
        stop_set=StopSet(PROMPTS * 8, lambda episodes: -evens(episodes)),
        ends=(),
    )
    return trainer, trainer.train()


def test_the_stop_set_ends_early_and_the_best_weights_are_kept() -> None:
    start = {n: p.detach().clone() for n, p in tiny_llama(10).named_parameters()}
    trainer, outcome = train_against_the_stop_set("best")
    assert outcome.iterations == 15
    assert outcome.kept == 0
    assert same(weights(trainer), start)
    assert {v.name: v.level for v in outcome.verdicts}["held_out"] == "bad"
    last, _ = train_against_the_stop_set("last")
    assert not same(weights(last), start)


def test_the_training_reward_of_the_look_must_be_confirmed(tmp_path: Path) -> None:
    stop = {"look_every": 2, "heldout_prompts": 4, "patience": None, "confirm": 0.9}
    trainer = build(tmp_path, iterations=8, stop=stop)
    outcome = trainer.train()
    looks = [row for row in outcome.history if "look/score" in row]
    left = [row["look/score"] - 0.9 * row["look/training_reward"] for row in looks]
    assert len(looks) == 5
    assert outcome.kept == 2 * int(np.argmax(left))
    # A resumed run compares with the same best.
    again = build(tmp_path, iterations=8, stop=stop)
    assert again.train().kept == outcome.kept
    assert again._stopping.best == pytest.approx(max(left))


TEXTS = [Tokens([1], [2, 3, 0]), Tokens([4, 5], [6]), Tokens([7], [1, 0, 3, 3])]


def test_the_loss_on_texts_is_that_of_transformers() -> None:
    trainer = build(None)
    expected = []
    for text in TEXTS:
        logits = tiny_llama(10)(torch.tensor([text.ids])).logits[0, len(text.prompt) - 1 : -1]
        chosen = logits.log_softmax(-1)[range(len(text.response)), text.response]
        expected += (-chosen).tolist()
    assert trainer.text_loss() is None
    trainer.stop_set = StopSet(PROMPTS, None, TEXTS)
    assert trainer.text_loss() == pytest.approx(np.mean(expected), rel=1e-5)


def test_a_loss_on_texts_that_is_not_finite_is_refused() -> None:
    trainer = build(None)
    trainer.stop_set = StopSet(PROMPTS, None, TEXTS)
    with torch.no_grad():
        trainer.roles.policy.model.get_input_embeddings().weight[6] = float("nan")
    with pytest.raises(StageError, match="texts of early stopping is not finite"):
        trainer.text_loss()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_run_that_forgets_stops_and_keeps_the_weights_of_before(
    tmp_path: Path, keep: str
) -> None:
    stop = {"look_every": 2, "heldout_prompts": 4, "patience": None, "keep": keep}

    def run(directory: Path, iterations: int, **more: Any) -> tuple[PPOTrainer, Outcome]:
        changes = {"stop": stop | more, "ema": None, "ptx": {"coefficient": 0.0}}
        trainer = build(directory, iterations=iterations, learning_rate=0.02, **changes)
        rising = iter(range(100))
        trainer.stop_set = StopSet(
            PROMPTS[:3], lambda episodes: np.full(len(episodes), float(next(rising))), TEXTS
        )
        return trainer, trainer.train()

    _, free = run(tmp_path / "free", 8, forgetting=None)
    losses = [row["look/text_loss"] for row in free.history if "look/text_loss" in row]
    over = next(n for n, loss in enumerate(losses) if loss > 1.001 * losses[0])
    assert over >= 1
    trainer, outcome = run(tmp_path / "held", 8, forgetting=0.001)
    assert outcome.iterations == 2 * over
    assert outcome.kept == 2 * (over - 1)
    assert "forgetting" in str(outcome.stopped)
    assert trainer.text_loss() == pytest.approx(losses[over - 1], rel=1e-6)
    again, same_outcome = run(tmp_path / "held", 8, forgetting=0.001)  # from its last checkpoint
    assert (same_outcome.kept, same_outcome.stopped) == (outcome.kept, outcome.stopped)
    assert same(weights(again), weights(trainer))


def test_a_look_rates_no_cut_answer_above_one_that_ended() -> None:
    """Else a policy that never ends would look best to a guard that likes missing ends."""
    cut = {}

    def likes_cut(episodes: Any) -> np.ndarray:
        scores = np.array([0.0 if episode.finished else 9.0 for episode in episodes])
        cut[len(episodes)] = float(scores.mean())
        return scores

    for penalty in (1.0, 0.0):
        trainer = build(None, reward={"missing_eos_penalty": penalty})
        trainer.stop_set = StopSet(PROMPTS, likes_cut)
        trainer.reward = PlainReward(likes_cut)
        figures = trainer._look(0)
        assert 0.0 < cut[len(PROMPTS)] < 9.0  # some were cut, some were not
        expected = 0.0 if penalty else cut[len(PROMPTS)]
        assert figures["look/score"] == figures["look/training_reward"] == expected


def test_a_look_at_the_training_reward_pays_for_tokens_as_training_does() -> None:
    """Else early stopping is against shorter answers, to which training leads."""
    trainer = build(None, reward={"length_penalty": 0.5})
    trainer.reward = PlainReward(lambda episodes: np.full(len(episodes), 3.0))
    trainer.stop_set = StopSet(PROMPTS, None)
    alone = trainer._look(0)
    assert alone["look/tokens"] > 0
    assert alone["look/score"] == pytest.approx(3.0 - 0.5 * alone["look/tokens"])
    assert alone["look/training_reward"] == alone["look/score"]
    trainer.stop_set = StopSet(PROMPTS, lambda episodes: np.full(len(episodes), 2.0))
    judged = trainer._look(0)
    assert (judged["look/score"], judged["look/training_reward"]) == (2.0, alone["look/score"])


def test_a_look_measures_the_average_that_is_kept() -> None:
    trainer = build(None, stop={"look_every": 1, "patience": None}, ema=0.7)
    assert trainer.stop_set is not None
    rising = iter(range(0, 10_000, 100))  # the last look is best
    trainer.stop_set = StopSet(
        trainer.stop_set.prompts, lambda episodes: np.full(len(episodes), float(next(rising)))
    )
    seen: list[dict[str, torch.Tensor]] = []
    raw: list[dict[str, torch.Tensor]] = []
    answer, update = trainer._collector.answer, trainer._learner.update

    def recorded(prompts: Any, seed: int) -> Any:
        assert trainer.stop_set is not None
        if prompts is trainer.stop_set.prompts:
            seen.append(weights(trainer))
        return answer(prompts, seed)

    def updated(iteration: int, experience: Experience) -> dict[str, float]:
        figures = update(iteration, experience)
        raw.append(weights(trainer))
        return figures

    trainer._collector.answer = recorded  # type: ignore[method-assign]
    trainer._learner.update = updated  # type: ignore[method-assign]
    outcome = trainer.train()
    assert outcome.kept == outcome.iterations > 1
    assert same(weights(trainer), seen[outcome.kept])
    assert not same(weights(trainer), raw[-1])
    # By hand: the mean moves 0.3 of the way to the weights at each iteration.
    mean = seen[0]
    for own, average in zip(raw, seen[1:], strict=True):
        mean = {name: value + 0.3 * (own[name] - value) for name, value in mean.items()}
        for name, value in average.items():
            torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-6)


def test_safety_share_and_passes_of_the_prompt_stream() -> None:
    trainer = build(None)
    taken = [trainer._stream.take(i) for i in range(6)]
    assert all(sum(p.is_safety for p in batch) == 8 for batch in taken)
    safe = [p.ids for batch in taken for p in batch if p.is_safety]
    tagged = {p.ids for p in PROMPTS if p.is_safety}
    for start in range(0, len(safe) - len(tagged) + 1, len(tagged)):
        assert set(safe[start : start + len(tagged)]) == tagged


def test_what_is_missing_is_said() -> None:
    policy = tiny_llama(10)
    with pytest.raises(ConfigError, match="critic"):
        PPOTrainer(
            full_copies(policy, critic=None),
            renderer(),
            PROMPTS,
            PlainReward(evens),
            PPOConfig(episodes=8, minibatch=8),
            seed=0,
        )
    with pytest.raises(ConfigError, match="no prompts of the kind"):
        PPOTrainer(
            full_copies(policy, critic=tiny_llama(10)),
            renderer(),
            PROMPTS[1:2],
            PlainReward(evens),
            PPOConfig(safety_share=1.0),
            seed=0,
        )
    with pytest.raises(ValueError, match="samples_per_prompt"):
        PPOConfig(algorithm="rloo")


def test_piecewise_whitening_does_not_hide_the_score() -> None:
    reward = CombinedReward(evens, small, CombineConfig(method="piecewise"))
    problem = Problem(4, 2, np.zeros(16))
    trainer = problem.trainer(toy_config(0.1, 2, iterations=1), reward=reward)
    figures = trainer.iterate(0)
    assert figures["score/mean"] != pytest.approx(0.0, abs=1e-3)
    assert 0 <= figures["reward/safety_routed"] <= 1
