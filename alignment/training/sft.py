"""Supervised fine-tuning on answers, with TRL's SFTTrainer (Llama 2 §3.1).

These parts are our own:

* Rows arrive as ids from `ChatRenderer`, so that nothing is tokenised a second time.
* Packing: TRL flattens a micro-batch into one row, whose dense mask on the CPU grows with the
  square of the micro-batch. We pass windows with their own positions instead.
* The order of all epochs is drawn from the seed beforehand and read in sequence, so resuming at
  step s means training on the rest of the list.
* Checkpoints are safetensors and JSON, because the trainer's own are pickles.

With several processes each gets its share of every batch, and the first one writes. A batch that is
short, or no multiple of the processes, is filled with rows that count nothing; accelerate would
repeat others.

A model that is sharded (`alignment.models.sharding`) exchanges weights and gradients by itself. So
the trainer must not wrap it: in each process it trains on that process's rows as if it were alone,
and the losses are divided by the answer tokens of all.
"""

from __future__ import annotations

import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PrinterCallback, TrainerCallback

from alignment.config.finetune import FinetuneConfig
from alignment.errors import DataError
from alignment.fastpath import keep_memory
from alignment.models.chat_renderer import ChatRenderer, Message, Tokens
from alignment.models.enough_steps import check_steps
from alignment.models.load import context_length, quiet
from alignment.models.optimizer import make_optimizer, make_schedule, warmup_steps
from alignment.models.sharding import clip_gradients, is_sharded
from alignment.models.update_share import UpdateShare, lost_updates
from alignment.training.packing import IGNORE, Window, collate, isolates, pack, row_of, singles
from alignment.utils import checkpoint, distributed, graceful_stop
from alignment.utils.finite import stop_if_not_finite
from alignment.utils.metrics_log import Series
from alignment.utils.progress import Progress, SilentProgress
from alignment.utils.seeds import derive_seed

CURVES = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "mean_token_accuracy": "accuracy",
    "entropy": "entropy",
}
"""Name in the trainer's log → name in our curves."""


@dataclass(frozen=True)
class Example:
    """A conversation that ends with a user turn, and the answer to learn."""

    messages: list[Message]
    response: str
    finished: bool = True


def tokenize(
    examples: Sequence[Example], renderer: ChatRenderer, length: int
) -> tuple[list[Tokens], int]:
    """Turn examples into ids that fit into `length` tokens.

    A prompt that is too long loses whole turns, then tokens, at the front. Examples are left out if
    the answer is empty or the prompt would be cut to less than a quarter of the window.

    Returns:
        The token rows, and how many examples were left out.
    """
    rows = []
    for example in examples:
        response = renderer.response(example.response, finished=example.finished)
        prompt = renderer.prompt(example.messages, limit=sys.maxsize)
        room = length - len(response)
        if not example.response.strip() or room < min(len(prompt), length // 4):
            continue
        if len(prompt) > room:
            prompt = renderer.prompt(example.messages, limit=room)
        rows.append(Tokens(prompt, response))
    return rows, len(examples) - len(rows)


def training_rows(
    items: Sequence[Tokens], config: FinetuneConfig, length: int, *, packing: bool, seed: int
) -> list[dict[str, list[int]]]:
    """The rows of all epochs in the order of training; every epoch is shuffled and packed again."""
    windows: list[Window] = []
    for epoch in range(config.epochs):
        generator = torch.Generator().manual_seed(derive_seed(seed, "epoch", epoch))
        order = torch.randperm(len(items), generator=generator).tolist()
        windows += pack(items, length, order) if packing else singles(items, order)
    rows = [row_of(window) for window in windows]
    ordered: list[dict[str, list[int]]] = []
    for start in range(0, len(rows), config.batch):
        # Within a batch the order does not matter; sorting by length needs the least padding.
        batch = rows[start : start + config.batch]
        ordered += sorted(batch, key=lambda row: -len(row["input_ids"]))
    return ordered


def finetune(
    model: Any,
    renderer: ChatRenderer,
    examples: Sequence[Example],
    config: FinetuneConfig,
    *,
    seed: int,
    scratch: Path,
    series: Series,
    bf16: bool = False,
    progress: Progress | None = None,
    key: str = "finetune.sft.batch",
) -> dict[str, float]:
    """Train `model` in place, or resume from the checkpoint in `scratch`.

    Args:
        model: causal language model on its device, full or with a trainable adapter.
        seed: of the order of rows and of dropout.
        key: the setting of the batch size, for errors.
        bf16: compute in bfloat16 (autocast); trained weights and optimiser stay float32.

    Returns:
        Figures: `loss` (mean of the last tenth of the steps, nats per answer token), `first_loss`,
        `examples`, `left_out`, `windows` (one epoch), `answer_tokens` (one epoch), `steps`,
        `updated_share` (see `update_share`). Empty in all processes except the first, which has the
        curve.

    Raises:
        ConfigError: the batches are so large that there are too few steps.
        DataError: no example fits the window.
        StageError: loss or gradient is not finite; the last good checkpoint is kept.
    """
    progress = progress or SilentProgress()
    length = min(config.max_length, context_length(model.config) or config.max_length)
    items, left_out = tokenize(examples, renderer, length)
    if not items:
        raise DataError(
            f"none of {len(examples)} examples fits a window of {length} tokens",
            remedy="raise finetune max_length or shorten the answers",
        )
    if left_out:
        progress.say(f"{left_out} of {len(examples)} answers do not fit {length} tokens: left out")
    packing = config.packing
    if packing and not isolates(model, model.config.vocab_size):
        packing = False
        progress.say("this architecture lets packed conversations see one another: packing is off")
    rows = training_rows(items, config, length, packing=packing, seed=seed)
    steps = math.ceil(len(rows) / config.batch)
    check_steps(
        steps,
        len(rows) // config.epochs,
        config.epochs,
        what="fine-tuning",
        key=key,
        say=progress.say,
    )
    optimizer = make_optimizer(model.parameters(), config.learning_rate, config.optimizer)
    scheduler = make_schedule(
        optimizer,
        steps=steps,
        warmup=warmup_steps(steps, config.warmup_ratio),
        min_lr_ratio=config.min_lr_ratio,
    )
    if config.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    checkpoints = _Checkpoints(
        checkpoint.TrainingState(
            {"trained": _trained(model)}, {"adamw": optimizer}, {"cosine": scheduler}
        ),
        scratch / "checkpoints",
        series,
        progress,
        every=config.checkpoint_every,
        total=steps,
        update=UpdateShare(model.parameters()),
        seed=seed,
        sharded=list(model.parameters()) if is_sharded(model) else (),
        max_grad_norm=config.optimizer.max_grad_norm,
    )
    done = checkpoints.restore()
    progress.begin("fine-tune", steps, "step")
    progress.advance(done)
    if done < steps:
        keep_memory(model)
        with _settings_restored(model, renderer):
            trainer = _trainer(
                model,
                renderer,
                rows[done * config.batch :],
                config,
                (optimizer, scheduler),
                scratch=scratch,
                bf16=bf16,
            )
            trainer.add_callback(checkpoints)
            trainer.train()
    if config.gradient_checkpointing:
        model.activation_checkpointing_disable()
    model.eval()
    if not distributed.is_first():
        return {}
    curve = [row["loss"] for row in series.rows() if "loss" in row]
    last = curve[-max(1, steps // 10) :]
    shares = [row["updated_share"] for row in series.rows() if "updated_share" in row]
    share = sum(shares) / len(shares)
    if (lost := lost_updates(share)) is not None:
        progress.say(f"{lost} ({key.removesuffix('batch')}learning_rate)")
    answers = sum(len(item.response) for item in items)
    return {
        "loss": sum(last) / len(last),
        "first_loss": curve[0],
        "examples": float(len(items)),
        "left_out": float(left_out),
        "windows": float(len(rows) // config.epochs),
        "answer_tokens": float(answers),
        "steps": float(steps),
        "updated_share": share,
    }


@contextmanager
def _settings_restored(model: Any, renderer: ChatRenderer) -> Iterator[None]:
    """Restore the settings that the trainer changes, for they are saved with the model.

    Among them is `output_router_logits` of a mixture of experts: with it, every step of decoding
    would compute the balancing loss, and fail.
    """
    tokenizer: Any = renderer.tokenizer
    owners = [owner for owner in (model.config, model.generation_config) if owner is not None]
    described = model.config.get_text_config()
    router_logits = getattr(described, "output_router_logits", None)
    names = ("use_cache", "pad_token_id", "bos_token_id", "eos_token_id")
    before = [{name: getattr(owner, name, None) for name in names} for owner in owners]
    pad = tokenizer.pad_token
    try:
        yield
    finally:
        for owner, values in zip(owners, before, strict=True):
            for name, value in values.items():
                setattr(owner, name, value)
        if router_logits is not None:
            described.output_router_logits = router_logits
        tokenizer.pad_token = pad


def _trainer(
    model: Any,
    renderer: ChatRenderer,
    rows: Sequence[dict[str, list[int]]],
    config: FinetuneConfig,
    optimizers: tuple[torch.optim.Optimizer, Any],
    *,
    scratch: Path,
    bf16: bool,
) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class Trainer(SFTTrainer):
        def get_batch_samples(self, *args: Any, **more: Any) -> tuple[list[Any], Any]:
            """The micro-batches of a step, and their number of answer tokens in all processes."""
            batches, tokens = super().get_batch_samples(*args, **more)
            if sharded and tokens is not None:
                tokens = distributed.sum_over_all(torch.as_tensor(tokens))
            return batches, tokens

    class Arguments(SFTConfig):
        """Of a trainer that takes itself for the only one: it would put every process on the first
        GPU, and wrap the model for all of them."""

        n_gpu = property(lambda _self: 1)
        place_model_on_device = property(lambda _self: False)

        @property
        def device(self) -> torch.device:
            _ = super().device  # sets up the trainer, and takes the first GPU
            if place.type == "cuda":
                torch.cuda.set_device(place)
            return place

    sharded = is_sharded(model)
    place: torch.device = next(model.parameters()).device
    own = -(-config.batch // distributed.size())
    whole = own * distributed.size()
    limit = min(own, config.per_device_train_batch_size)
    micro = max(size for size in range(1, limit + 1) if own % size == 0)
    full = _filled(rows, config.batch, whole) if distributed.size() > 1 else list(rows)
    with warnings.catch_warnings(), quiet(), _alone() if sharded else nullcontext():
        warnings.simplefilter("ignore")
        arguments = (Arguments if sharded else SFTConfig)(
            output_dir=str(scratch / "trainer"),
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=own // micro,
            num_train_epochs=1,  # `rows` holds all epochs
            train_sampling_strategy="sequential",
            # Of a sharded model `_Checkpoints` clips: the trainer sees this process's rows only.
            max_grad_norm=0.0 if sharded else config.optimizer.max_grad_norm,
            gradient_checkpointing=False,  # on by default in TRL; `finetune` switches it itself
            bf16=bf16,
            use_cpu=place.type == "cpu",
            dataloader_pin_memory=place.type == "cuda",
            dataset_kwargs={"skip_prepare_dataset": True},
            remove_unused_columns=False,
            ddp_find_unused_parameters=False,
            max_length=None,
            save_strategy="no",
            logging_strategy="steps",
            logging_steps=1,
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            seed=derive_seed(0, "trainer") % 2**31,  # does not affect the result
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list(_own_rows(full, whole, own) if sharded else full),
            processing_class=cast(Any, renderer.tokenizer),
            data_collator=lambda batch: collate(batch, renderer.pad),
            optimizers=optimizers,
        )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _filled(
    rows: Sequence[dict[str, list[int]]], batch: int, whole: int
) -> list[dict[str, list[int]]]:
    """`rows`, every batch of them filled up to `whole` rows with some that count nothing."""
    nothing = {**rows[0], "labels": [IGNORE] * len(rows[0]["labels"])}
    filled: list[dict[str, list[int]]] = []
    for start in range(0, len(rows), batch):
        own = rows[start : start + batch]
        filled += [*own, *[nothing] * (whole - len(own))]
    return filled


def _own_rows(
    rows: Sequence[dict[str, list[int]]], batch: int, own: int
) -> list[dict[str, list[int]]]:
    """This process's rows of every batch."""
    first = distributed.rank() * own
    return [
        row
        for start in range(0, len(rows), batch)
        for row in rows[start + first : start + first + own]
    ]


@contextmanager
def _alone() -> Iterator[None]:
    """Have accelerate take this process for the only one."""
    from accelerate.state import AcceleratorState

    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        yield
    finally:
        os.environ.update(before)


@dataclass(eq=False)
class _Checkpoints(TrainerCallback):
    """Checkpoints, curves and progress of one fine-tuning.

    It uses `on_log`, which the trainer calls last in every step, so that a checkpoint always comes
    after the curve's line of its step.
    """

    state: checkpoint.TrainingState
    directory: Path
    series: Series
    progress: Progress
    every: int
    total: int
    update: UpdateShare
    seed: int
    sharded: Sequence[torch.nn.Parameter] = ()
    """The parameters of a sharded model, whose gradients are clipped here."""
    max_grad_norm: float = 1.0
    offset: int = 0
    share: float = 1.0
    norm: float = 0.0

    def restore(self) -> int:
        """Load the newest checkpoint if there is one; returns its step."""
        if checkpoint.latest(self.directory) is not None:
            self.offset = checkpoint.load(self.directory, self.state)
        if distributed.is_first():
            self.series.truncate(self.offset)
        return self.offset

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed dropout by step and process: a resumed run, whose trainer drew numbers when it
        started, drops what an uninterrupted one would."""
        step = self.offset + state.global_step
        torch.manual_seed(derive_seed(self.seed, "dropout", step, distributed.rank()))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Clip the gradients of a sharded model, and look at the weights before the step."""
        if self.sharded:
            self.norm = clip_gradients(self.sharded, self.max_grad_norm)
        self.update.before_step()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """And after it."""
        self.share = self.update.after_step()

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Record a finished step."""
        logs = kwargs.get("logs")
        if not logs or "loss" not in logs:
            return
        step = self.offset + state.global_step
        figures = {ours: float(logs[name]) for name, ours in CURVES.items() if name in logs}
        if self.sharded:
            everywhere = distributed.totals(figures)
            mean = {name: everywhere[name] / distributed.size() for name in everywhere}
            # The loss is a part of one mean over all processes' tokens.
            figures = {**mean, "loss": everywhere["loss"], "grad_norm": self.norm}
        for name in ("loss", "grad_norm"):
            stop_if_not_finite(
                figures.get(name, 0.0),
                f"the {name} of fine-tuning step {step}",
                remedy="lower the learning rate of finetune",
            )
        if distributed.is_first():
            self.series.log(step, **figures, updated_share=self.share)
        if step % self.every == 0 or step == self.total or graceful_stop.stop_requested():
            checkpoint.save(self.directory, step, self.state)
            graceful_stop.stop_if_requested()
        self.progress.advance(1, loss=figures["loss"])


def _trained(model: torch.nn.Module) -> torch.nn.Module:
    """The module that a checkpoint must hold: a full model, or only its trained adapter."""
    parameters = list(model.parameters())
    if all(parameter.requires_grad for parameter in parameters):
        return model
    return torch.nn.ParameterList(p for p in parameters if p.requires_grad)
