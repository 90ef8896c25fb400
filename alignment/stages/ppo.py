"""PPO on the combined reward, on top of the version's fine-tuned checkpoint (RLHF-V5).

Inputs: `policy` (this version's fine-tune stage), `prepare`, `reward_helpfulness`,
`reward_safety`, and optionally `guard_helpfulness`, `guard_safety` (reward models that training
never sees; they decide when to stop).
Outputs: `model/` (the policy), `critic/` (the trained critic), `series.jsonl`, `health.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import overload

import numpy as np

from alignment.config.ppo import PPOConfig, StopConfig
from alignment.config.vocabulary import DOMAINS
from alignment.errors import ConfigError, DataError
from alignment.inference.engine_factory import open_live
from alignment.inference.live import LiveEngine
from alignment.models.chat_renderer import ChatRenderer, Tokens
from alignment.models.limits import prompt_limit
from alignment.models.load import context_length, load_tokenizer, resolve_device, save_model
from alignment.preferences.prompts import Prompt, read_prompts
from alignment.preferences.stop_set import STOP_FILE, STOP_TEXTS, read_texts
from alignment.stages.context import StageContext
from alignment.stages.policy_engine import LOGS
from alignment.training.ppo.early_stopping import StopSet
from alignment.training.ppo.memory import beside_server
from alignment.training.ppo.roles import save_critic
from alignment.training.ppo.scoring import PromptItem
from alignment.training.ppo.setup import Builder
from alignment.training.ppo.trainer import Outcome, PPOTrainer
from alignment.utils import distributed
from alignment.utils.files import atomic_write_json, sha256_file
from alignment.utils.json_lines import read_jsonl
from alignment.utils.seeds import derive_seed

# 5: other noise and warm-up rates by the same law; 6: other names of figures; 7: more health
# verdicts. An average over 16-bit weights is kept in 32 since 7; 8: the end of answers that the
# template writes, where that is not EOS; 9: answers are scored with the end that the reward model
# learned, whichever was drawn; 10: the critic's figure by the rewards that came, P(safe) only where
# labels identified it; 11: a stop set of its own, and looks at
# the starting multiplier; 12: no cut answer is worth more than the worst that ended; 13: reward
# models read the prompt as they do elsewhere; 14: looks rate cut answers as training does; 15: and
# take the length penalty off; 16: it stops later, and calls less a fall; 17: float32 masters under
# bfloat16, in which small steps were lost; 18: vLLM draws for several processes and adapters too;
# 19: fitted thresholds keep what they promise; 20: it stops where the policy forgets;
# 21: products by the faster library.
CODE_VERSION = "21"
KEEPS = (
    "4",
    "5",
    "6",
    "7",
    "8",
    "9",
    "10",
    "11",
    "12",
    "13",
    "14",
    "15",
    "16",
    "17",
    "18",
    "19",
    "20",
)
BFLOAT16_KEEPS = ("17", "18", "19", "20")
READS = ("ppo", "combine", "compute", "inference")
PTX_TOKENS = 512  # longer texts of PPO-ptx and early stopping are cut
MOST_TEXTS = 256  # that early stopping looks at


def run(ctx: StageContext) -> None:
    """Train, then write the policy, the critic, the curves and the health verdicts."""
    config: PPOConfig = ctx.config.ppo
    compute = ctx.config.compute
    device = resolve_device(compute.device)
    start = ctx.inputs["policy"] / "model"
    tokenizer = load_tokenizer(start)
    build = Builder(
        start,
        {domain: ctx.inputs[f"reward_{domain}"] for domain in DOMAINS},
        config,
        compute.dtype,
        device,
        ctx.seed,
        ctx.progress.say,
        compute.sharding == "full" and distributed.size() > 1,
        ctx.inputs["reference"] / "model" if "reference" in ctx.inputs else None,
    )
    roles = build.roles()
    context = context_length(roles.policy.model.config)
    limit = prompt_limit(context, config.generation, section="ppo")
    renderer = ChatRenderer(tokenizer, limit)
    reward = build.reward(ctx.config.combine, renderer)
    learn, heldout = _prompts(ctx, config, renderer)
    ptx = min(context or PTX_TOKENS, PTX_TOKENS)
    stop_set = _stop_set(ctx, heldout, build, renderer, ptx)  # its guards take memory too
    longest = max(len(item.ids) for item in learn) + config.generation.max_new_tokens
    beside = beside_server(roles, config, longest)
    with _server(ctx, build, renderer, limit, beside) as live:
        trainer = PPOTrainer(
            roles,
            renderer,
            learn,
            reward,
            config,
            seed=ctx.seed,
            stop_set=stop_set,
            ptx=_texts(ctx, config, renderer, ptx) if config.ptx.coefficient > 0 else None,
            checkpoints=ctx.scratch / "checkpoints",
            series=ctx.series,
            progress=ctx.progress,
            live=live,
        )
        outcome = trainer.train()
    policy, weights = build.final()
    if policy is not None and distributed.is_first():
        save_model(policy, tokenizer, ctx.out / "model", weights)
    if roles.critic is not None and not build.shares:
        save_critic(roles.critic, ctx.out / "critic")
    if not distributed.is_first():
        return
    _report(ctx, outcome, len(heldout))


@contextmanager
def _server(
    ctx: StageContext, build: Builder, renderer: ChatRenderer, limit: int | None, beside: int
) -> Iterator[LiveEngine | None]:
    """The vLLM server that draws the answers, or None: then the policy does, in this process."""
    config: PPOConfig = ctx.config.ppo
    engine = ctx.config.inference.engine
    if engine == "endpoint":
        ctx.progress.say(
            "PPO draws its answers in this process: an endpoint cannot follow a policy that learns"
        )
    if engine != "vllm":
        yield None
        return
    with open_live(
        build.served,
        renderer,
        ctx.config.inference,
        ctx.config.compute,
        context=None if limit is None else limit + config.generation.max_new_tokens,
        home=ctx.scratch / "weights",
        log=ctx.workspace / LOGS / f"{ctx.version}-ppo.log",
        progress=ctx.progress,
        adapter_rank=build.adapter_rank,
        beside=beside,
    ) as live:
        yield live


def _prompts(
    ctx: StageContext, config: PPOConfig, renderer: ChatRenderer
) -> tuple[list[PromptItem], list[PromptItem]]:
    """The prompts to learn on, and those for early stopping, which nothing else draws."""
    path, stop_path = ctx.inputs["prepare"] / "prompts.jsonl", ctx.inputs["prepare"] / STOP_FILE
    pool, wanted = read_prompts(path), config.stop.heldout_prompts
    stop = read_prompts(stop_path) if stop_path.is_file() else []
    if not config.stop.look_every:
        stop = []
    elif not stop:
        ctx.progress.say(
            "this program has no stop set: early stopping looks at prompts of the pool, which "
            "reward models may have learned from"
        )
        # At most a fifth of a small pool.
        pool = _shuffled(ctx, pool)
        wanted = min(wanted, len(pool) // 5)
        stop, pool = pool[:wanted], pool[wanted:]
    if not pool:
        raise DataError("there are too few prompts for PPO", where=str(path))
    ctx.dataset("ppo_prompts", sha256_file(path), len(pool), "prompts")
    learn, looks = (
        [
            PromptItem(tuple(renderer.prompt(p.messages)), tuple(p.messages), p.tag_safety)
            for p in ps
        ]
        for ps in (pool, _shuffled(ctx, stop)[:wanted])
    )
    return learn, looks


def _shuffled(ctx: StageContext, prompts: list[Prompt]) -> list[Prompt]:
    order = np.random.default_rng(derive_seed(ctx.seed, "heldout")).permutation(len(prompts))
    return [prompts[place] for place in order]


def _stop_set(
    ctx: StageContext,
    heldout: list[PromptItem],
    build: Builder,
    renderer: ChatRenderer,
    longest: int,
) -> StopSet | None:
    if not heldout:
        return None
    guards: dict[str, Path] = {
        d: ctx.inputs[f"guard_{d}"] for d in DOMAINS if f"guard_{d}" in ctx.inputs
    }
    judge = build.reward(ctx.config.combine, renderer, guards).unwhitened if guards else None
    return StopSet(heldout, judge, _stop_texts(ctx, renderer, longest))


def _stop_texts(ctx: StageContext, renderer: ChatRenderer, longest: int) -> list[Tokens]:
    """Held-out texts whose loss tells whether the policy forgets: the user's, or the world's."""
    stop: StopConfig = ctx.config.ppo.stop
    own, path = stop.texts is not None, ctx.inputs["prepare"] / STOP_TEXTS
    if stop.forgetting is None:
        return []
    if not own and not path.is_file():
        ctx.progress.say(
            "early stopping has no texts to tell whether the policy forgets: ppo.stop.texts"
        )
        return []
    every = read_texts(Path(stop.texts)) if stop.texts is not None else read_jsonl(path)
    texts = [_corpus_text(row["text"], renderer, longest) for row in every]
    usable = [text for text in texts if text.response][:MOST_TEXTS]
    if own:
        tokens = sum(len(text.response) for text in usable)
        ctx.progress.say(
            f"early stopping looks at {len(usable):,} of {len(every):,} texts, {tokens:,} tokens"
        )
    return usable


def _texts(
    ctx: StageContext, config: PPOConfig, renderer: ChatRenderer, longest: int
) -> Sequence[Tokens]:
    """Texts of PPO-ptx, at most `longest` tokens each."""
    name = config.ptx.source
    path = ctx.inputs["prepare"] / f"{name}.jsonl"
    if not path.is_file():
        raise ConfigError(
            f"PPO-ptx needs the {name}, which this program does not have",
            where="ppo.ptx.source",
            remedy="set ppo.ptx.source to demonstrations, or ppo.ptx.coefficient to 0",
        )
    rows = read_jsonl(path)
    texts: Sequence[Tokens]
    if name == "corpus":
        texts = _CorpusTexts([row["text"] for row in rows], renderer, longest)
    else:
        every = [renderer.tokens(row["messages"], row["response"]) for row in rows]
        texts = [
            Tokens(tokens.prompt, tokens.response[:room])
            for tokens in every
            if (room := longest - len(tokens.prompt)) > 0 and tokens.response
        ]
    ctx.dataset(f"ptx_{name}", sha256_file(path), len(texts), "training")
    return texts


class _CorpusTexts(Sequence[Tokens]):
    """Texts of the world's corpus, tokenised when they are read: a run reads a part of them."""

    def __init__(self, texts: Sequence[str], renderer: ChatRenderer, longest: int):
        self._texts = [text for text in texts if text.strip()]
        self._renderer = renderer
        self._longest = longest

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, place: int) -> Tokens: ...

    @overload
    def __getitem__(self, place: slice) -> list[Tokens]: ...

    def __getitem__(self, place: int | slice) -> Tokens | list[Tokens]:
        if isinstance(place, slice):
            return [self[number] for number in range(len(self))[place]]
        return _corpus_text(self._texts[place], self._renderer, self._longest)


def _corpus_text(text: str, renderer: ChatRenderer, longest: int) -> Tokens:
    """At most `longest` tokens; the first serves as the prompt."""
    ids = renderer.response(text)[:longest]
    return Tokens(ids[:1], ids[1:])


def _report(ctx: StageContext, outcome: Outcome, heldout: int) -> None:
    """Write headline figures and health verdicts; `heldout` is the number of held-out prompts."""
    rows = [row for row in outcome.history if "score/mean" in row]
    first, last = rows[0], rows[-1]
    config: PPOConfig = ctx.config.ppo
    learnt = round(sum(row["answer/tokens"] * config.episodes for row in rows))
    looked = sum(row.get("look/tokens", 0.0) for row in outcome.history) * heldout
    ctx.metric(tokens_generated=learnt + round(looked), tokens_trained=learnt * config.epochs)
    ctx.metric(
        iterations=outcome.iterations,
        kept_iteration=outcome.kept,
        stopped_early=float(outcome.stopped is not None),
        **{"first/score/mean": first["score/mean"]},
        **{f"last/{name}": value for name, value in last.items()},
    )
    looks = [row["look/score"] for row in outcome.history if "look/score" in row]
    if looks:
        ctx.metric(**{"look/first": looks[0], "look/best": max(looks), "look/last": looks[-1]})
    atomic_write_json(
        ctx.out / "health.json",
        {
            "stopped": outcome.stopped,
            "kept_iteration": outcome.kept,
            "verdicts": [asdict(verdict) for verdict in outcome.verdicts],
        },
    )
    if outcome.kept == 0:
        forgot = any(each.name == "forgets" and each.level != "ok" for each in outcome.verdicts)
        why = (
            "it forgot before any look was to be kept"
            if forgot
            else f"no look in {outcome.iterations} iterations was better. "
            "ppo.stop.keep: last would keep what was learned"
        )
        ctx.progress.say(f"PPO kept the policy that it started from: {why}")
    for verdict in outcome.verdicts:
        if verdict.level != "ok":
            ctx.progress.say(f"{verdict.message} {verdict.remedy}")
