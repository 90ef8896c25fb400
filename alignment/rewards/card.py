"""The card beside a reward model's weights: domain, scale, threshold and training data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from alignment.errors import DataError
from alignment.models.adapters import adapter_base, is_reward_adapter
from alignment.models.digest import weights_digest
from alignment.utils.files import read_json

CARD = "reward.json"


@dataclass(frozen=True)
class RewardCard:
    """The contents of `reward.json` beside the weights.

    Attributes:
        bias: added to the head's output, so that demonstrations have mean 0.
        mean, std: of raw scores on the reference set.
        threshold: σ(z) below which an answer counts as unsafe (Table 29 uses 0.5).
        max_length: most tokens of prompt and answer in training.
        max_prompt_tokens: most tokens of a prompt, in training and whenever it is asked; None: as
            many as its context leaves.
        versions: the versions whose batches it learned from.
        pairs: number of comparisons that it learned from.
        backbone: digest of the checkpoint that an adapter needs (`models.digest`); None for a
            full model.
        guard: whether it is a guard, which policy training never sees.
        template_end: whether the answers that it learned end as the chat template ends them. The
            cards of older releases do not say so: there, EOS ended every answer.
        labelled: answers labelled safe or unsafe that it learned from; None if nobody counted
            (release 0.1).
        reference: domain → answers of the reference set; empty if nobody counted (release 0.1).
        separation: how well P(safe) tells safe from unsafe held-out answers: AUC with its 95 %
            interval; None without answers of both labels.
    """

    domain: str
    bias: float = 0.0
    mean: float = 0.0
    std: float = 1.0
    threshold: float = 0.5
    max_length: int = 4096
    max_prompt_tokens: int | None = None
    margin: str = "none"
    versions: tuple[str, ...] = ()
    pairs: int = 0
    backbone: str | None = None
    guard: bool = False
    template_end: bool = True
    labelled: int | None = None
    separation: tuple[float, float, float] | None = None
    reference: dict[str, int] = field(default_factory=dict)


def read_card(directory: Path | str) -> RewardCard:
    """The card beside a reward model's weights.

    Raises:
        DataError: there is no card.
    """
    card_file = Path(directory) / CARD
    if not card_file.is_file():
        raise DataError(
            f"{directory} is not a reward model: it has no {CARD}",
            remedy="give the model directory of a reward stage",
        )
    values = read_json(card_file)
    values["versions"] = tuple(values.get("versions", ()))
    if values.get("separation") is not None:
        values["separation"] = tuple(values["separation"])
    return RewardCard(**{"template_end": False, **values})


def check_backbone(directory: Path, card: RewardCard) -> None:
    """Check that an adapter's checkpoint is the one that it was trained over.

    Raises:
        DataError: the checkpoint has changed.
    """
    if card.backbone is None or not is_reward_adapter(directory):
        return
    base = Path(adapter_base(directory))
    if weights_digest(base) != card.backbone:
        raise DataError(
            "the checkpoint under this reward adapter is not the one it was trained over",
            where=f"{directory} over {base}",
            remedy="restore that checkpoint, or train the reward model again",
        )
